# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl benchmark`: the grid of a protocol, its hours told before, its report after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.console import Console

from residual_rl_ros.comparison.compare import finish_grid
from residual_rl_ros.comparison.grid import Cell, check_grid, finished
from residual_rl_ros.comparison.protocol import (
    RESIDUAL,
    RETRAIN,
    BenchmarkTask,
    Method,
    Protocol,
    parse_seeds,
)
from residual_rl_ros.comparison.results import read_result
from residual_rl_ros.config.run import ResolvedRun, RunConfig
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.evaluation.progress import say
from residual_rl_ros.pretraining.demonstrations import Demonstrations
from residual_rl_ros.pretraining.train_base import load_recipe, train
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.resources import demonstrations_of, find_base_policy
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.tasks.success_probe import settled
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.retrain import ROUNDS
from residual_rl_ros.training.run_folder import prepare_output
from residual_rl_ros.transitions.transition import Source, Transition

MEASURE_S = 1.0
"""Time of each measurement [s]."""
Clock = Callable[[], float]


class _EnoughError(Exception):
    """A measurement has taken its time."""


@dataclass(frozen=True)
class Pace:
    """How fast the control steps of a task are."""

    steps_per_s: float
    episode_steps: float
    """Mean length of an episode of the base [control steps]."""
    transitions: tuple[Transition, ...]
    """What the base did meanwhile."""


def measure_pace(run: ResolvedRun, clock: Clock = time.perf_counter) -> Pace:
    """Let the base play for a moment.

    Raises:
        ResidualRLError: the environment failed.
    """
    env = host(run.config, run.robot)
    transitions: list[Transition] = []
    lengths: list[int] = []
    with contextlib.closing(env), run.evaluation_controller(None) as controller:
        started = clock()
        while not lengths or clock() - started < MEASURE_S:
            number = len(lengths)
            lengths.append(run_episode(env, controller, number, number, transitions.append).steps)
        elapsed = max(clock() - started, 1e-9)
    return Pace(sum(lengths) / elapsed, mean(lengths), tuple(transitions))


def measure_update(run: ResolvedRun, pace: Pace, clock: Clock = time.perf_counter) -> float:
    """Return how long an update of a run takes [s].

    Args:
        run: says the preset.
        pace: has transitions to learn from.
        clock: time [s].
    """
    config = run.learner
    layout = run.controller(0, explore=True, scheduled=True).layout
    rule = config.make_rule(layout, torch.Generator().manual_seed(0), np.random.default_rng(0))

    def feed() -> None:
        for transition in pace.transitions:
            if config.rule.on_policy:
                rule.published((transition.epoch, transition.policy_sequence))
                transition = replace(transition, source=Source.RESIDUAL)
            rule.observe(transition)

    def update() -> None:
        if not rule.update():  # An on-policy rule has used up what it had.
            feed()
            rule.update()

    feed()
    if config.rule.samples_demonstrations:
        for transition in pace.transitions:
            rule.memory.add_demonstration(transition)  # As good as others to take time.
    started = clock()

    def pulse() -> None:
        if clock() - started > MEASURE_S:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        rule.prepare(pulse)
    for _ in range(5):  # The first ones allocate.
        update()
    started, updates = clock(), 0
    while clock() - started < MEASURE_S:
        update()
        updates += 1
    return (clock() - started) / max(updates, 1)


def measure_gradient_step(
    recipe: str, run: ResolvedRun, clock: Clock = time.perf_counter
) -> tuple[float, int]:
    """Return how long a gradient step of a base policy takes [s], and how many it has."""
    found = load_recipe(recipe or run.policy.metadata.task)
    names = run.policy.metadata
    rng, steps = np.random.default_rng(0), 50
    episode = tuple(
        rng.standard_normal((200, len(each))).astype(np.float32)
        for each in (names.observation_names, names.action_names)
    )
    started = clock()
    train(
        replace(found, gradient_steps=steps),
        Demonstrations(((episode[0], episode[1]),)),
        0,
        lambda step, loss: None,
    )
    return (clock() - started) / steps, found.gradient_steps


def expected_steps(options: TrainOptions, episode_steps: float) -> float:
    """Return the control steps of a run, those of its evaluations included."""
    budget = options.config.control_steps
    curve = budget / options.curve_steps + 1 if options.curve_steps else 0.0
    episodes = curve * options.curve_seeds + 2 * options.paired_seeds
    return budget + episodes * episode_steps


def expected_updates(run: ResolvedRun) -> float:
    """Return the updates of a run."""
    config = run.learner
    transitions = run.config.control_steps / run.config.decision_steps
    online = max(0.0, transitions - config.warmup_transitions - config.policy_warmup_transitions)
    return getattr(config.rule, 'utd', 1.0) * online + config.rule.preparation_updates


def estimate_hours(cells: Sequence[Cell], done: set[Path], workers: int, console: Console) -> float:
    """Say how long the unfinished cells of a grid take, and return it [h].

    A method that has finished a run on a task takes as long again; for the others control steps/s
    of the task and updates/s of the method are measured, for about a second each.

    Args:
        cells: of the whole grid.
        done: folders of those that are finished.
        workers: runs at the same time.
        console: where it is said.
    """
    missing = [cell for cell in cells if cell.folder not in done]
    if not missing:
        return 0.0
    walls: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        if cell.folder in done:
            walls.setdefault((cell.task, cell.method), []).append(read_result(cell.folder).wall_s)
    torch.set_num_threads(1)
    paces: dict[str, Pace] = {}
    updates: dict[str, float] = {}

    @cache
    def seconds(task: str, method: str) -> float:
        if (task, method) in walls:
            return mean(walls[task, method])
        cell = next(cell for cell in cells if (cell.task, cell.method) == (task, method))
        run = cell.options.config.resolve()
        if task not in paces:
            paces[task] = measure_pace(run)
        steps = expected_steps(cell.options, paces[task].episode_steps) / paces[task].steps_per_s
        if cell.kind == RETRAIN:
            each, count = measure_gradient_step(cell.recipe, run)
            return steps + ROUNDS * each * count
        if method not in updates:
            updates[method] = measure_update(run, paces[task])
        return steps + updates[method] * expected_updates(run)

    total = sum(seconds(cell.task, cell.method) for cell in missing) / 3600.0
    hours = total / min(workers, len(missing))
    measured = 'finished runs' if not paces else 'a measurement of control steps/s and updates/s'
    say(
        console,
        f'{len(missing)} runs to do: about {hours:.1f} hours with {workers} at the same time, '
        f'{total:.1f} hours of a core (from {measured})',
    )
    return hours


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
    prepare_output(options.output_dir, resume=True)
    protocol = options.protocol
    tasks = _chosen('task', protocol.tasks, options.tasks)
    methods = _chosen('method', protocol.methods, options.methods)
    configs = [
        replace(task.config(protocol.folder), control_steps=protocol.numbers.control_steps)
        for task in tasks
    ]
    for line in method_lines(methods, configs[0], protocol.numbers.shared):
        say(console, line)
    configs = [settled(config, partial(say, console)) for config in configs]
    cells = [
        _cell(options, task, config, method, seed)
        for task, config in zip(tasks, configs, strict=True)
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
