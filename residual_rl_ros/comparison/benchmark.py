# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl benchmark`: the grid of a protocol, its hours told before, its report after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from residual_rl_ros.comparison.compare import finish_grid, settled
from residual_rl_ros.comparison.grid import Cell, check_grid, finished
from residual_rl_ros.comparison.hours import estimate_hours
from residual_rl_ros.comparison.protocol import (
    RESIDUAL,
    BenchmarkTask,
    Method,
    Protocol,
    parse_seeds,
)
from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.progress import say
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.resources import demonstrations_of, find_base_policy
from residual_rl_ros.training.options import TrainOptions

DEMONSTRATIONS = 20
"""Expert episodes of a method with demonstrations, for a base that came without its own."""


@dataclass(frozen=True)
class BenchmarkOptions:
    """What the command line chooses of a protocol."""

    protocol: Protocol
    output_dir: Path
    workers: int
    """Runs at the same time; 0 only puts together what is there."""
    ray: str | None = None
    """Address of a Ray cluster to run on instead of this machine."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; none are all."""
    methods: tuple[str, ...] = ()
    """Names of methods; none are all."""
    seeds: tuple[int, ...] = ()
    """Learner seeds, of those that the protocol has for a method; none are all."""


def run_benchmark(options: BenchmarkOptions, console: Console) -> dict[str, Any]:
    """Run what is missing of a protocol, and write `benchmark.md`, `.json` and `.png`.

    Finished runs are kept, interrupted ones go on from their checkpoint.

    Raises:
        ResidualRLError: bad input, runs failed, or a folder holds a run of another protocol.
    """
    protocol = options.protocol
    tasks = _chosen('task', protocol.tasks, options.tasks)
    methods = _chosen('method', protocol.methods, options.methods)
    configs = [
        replace(task.config(protocol.folder), control_steps=protocol.numbers.control_steps)
        for task in tasks
    ]
    for line in method_lines(methods, configs[0], protocol.numbers.shared):
        say(console, line)
    cells = [
        _cell(options, task, config, method, seed)
        for task, config in zip(tasks, settled(configs, console), strict=True)
        for method in methods
        for seed in parse_seeds(method.seeds)
        if not options.seeds or seed in options.seeds
    ]
    if not cells:
        raise ConfigError(f'--seeds is {options.seeds}, of which the protocol has none')
    # The methods that are compared come first, seed by seed: what is interrupted has whole rows.
    cells.sort(key=lambda cell: cell.options.seed)
    check_grid(cells)
    done = finished(cells)
    if options.workers:
        estimate_hours(cells, done, options.workers, console)
    return finish_grid(
        cells,
        done,
        protocol.numbers,
        options.output_dir / 'benchmark',
        options,
        console,
        [task.name for task in tasks if task.development],
        notes(protocol, methods),
    )


def _chosen(what: str, known: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return the tasks or methods of a protocol that are asked for, in its order.

    Raises:
        ConfigError: there is none of a name.
    """
    unknown = set(names) - {each.name for each in known}
    if unknown:
        raise ConfigError(
            f'no {what} of the protocol is named {", ".join(map(repr, sorted(unknown)))}, expected '
            f'some of {", ".join(repr(each.name) for each in known)}'
        )
    return [each for each in known if not names or each.name in names]


def _cell(
    options: BenchmarkOptions, task: BenchmarkTask, config: RunConfig, method: Method, seed: int
) -> Cell:
    """Return a run of the protocol; its demonstrations are those that its base was trained on.

    Where a base came without them, the task's expert gives others.
    """
    protocol, numbers = options.protocol, options.protocol.numbers
    folder = options.output_dir / task.name / method.folder / f'seed{seed}'
    expert, recorded = 0, Recordings()
    if method.demonstrations:
        data = demonstrations_of(find_base_policy(config.base_policy))
        if data.is_file():
            recorded = Recordings((data,))
        else:
            expert = DEMONSTRATIONS
    run = TrainOptions(
        method.configured(config, numbers.shared),
        seed,
        folder,
        resume=checkpoint_exists(folder / CHECKPOINTS / 'latest'),
        demonstrations=expert,
        recordings=recorded,
        curve_steps=numbers.curve_steps,
        curve_seeds=numbers.curve_scenes,
        paired_seeds=numbers.final_scenes,
        first_scene=numbers.scene(seed),
        protocol=protocol.sha256,
    )
    return Cell(task.name, method.name, run, method.kind, task.recipe_path(protocol.folder))


def method_lines(
    methods: Sequence[Method], config: RunConfig, shared: Mapping[str, Any]
) -> list[str]:
    """Return for each method the numbers that differ from those of the first residual."""
    lines = [f'all methods: {_numbers(shared)}'] if shared else []
    first: dict[str, Any] | None = None
    for method in methods:
        if method.kind != RESIDUAL:
            lines.append(f'{method.name}: no residual; the recipe of the base, followed again')
            continue
        own = method.configured(config, shared).learner_config().to_mapping()
        first = own if first is None else first
        differing = {key: value for key, value in own.items() if first.get(key) != value}
        missing = [key for key in first if key not in own]
        parts = [f'preset {method.preset}']
        parts += ['demonstrations'] if method.demonstrations else []
        parts += ['operator'] if method.operator else []
        parts += [_numbers(differing)] if differing else []
        parts += [f'without {", ".join(missing)}'] if missing else []
        lines.append(f'{method.name}: {"; ".join(parts)}')
    return lines


def _numbers(values: Mapping[str, Any]) -> str:
    return ', '.join(
        f'{key} {list(value) if isinstance(value, tuple) else value}'
        for key, value in values.items()
    )


def notes(protocol: Protocol, methods: Sequence[Method]) -> list[str]:
    """Return what the report says of its protocol."""
    numbers = protocol.numbers
    table = ['| method | what | demonstrations | operator | tuning |', '| -- | -- | -- | -- | -- |']
    for method in methods:
        what = f'preset `{method.preset}`' if method.kind == RESIDUAL else method.kind
        has = ['yes' if each else 'no' for each in (method.demonstrations, method.operator)]
        table.append(f'| {method.name} | {what} | {" | ".join(has)} | {method.tuning} |')
    return [
        f'Protocol of SHA-256 `{protocol.sha256}`: {numbers.control_steps:,} control steps, an '
        f'evaluation of the deterministic policy every {numbers.curve_steps:,} on '
        f'{numbers.curve_scenes} scenes, {numbers.final_scenes} at the end, each learner seed on '
        f'scenes of its own. All methods share {_numbers(numbers.shared) or "no numbers"}.',
        '\n'.join(table),
    ]
