# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that run methods against each other: compare, benchmark.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from residual_rl_ros.cli.options import (
    MAX_EPISODES,
    AddOnOption,
    BaseOption,
    DemonstrationsOption,
    EnvOption,
    MaybeText,
    MaybeTexts,
    ObservationMapOption,
    RayOption,
    RunsOption,
    ScaleOption,
    StepsOption,
    SuccessOption,
    WorkersOption,
    environment_run,
    scale_of,
)
from residual_rl_ros.config import DEFAULT_PRESET, find_preset


def compare(
    presets: Annotated[
        MaybeTexts,
        typer.Option(
            help='Preset, or preset:key=value:… with changed numbers; give it again for more; '
            f'default: {DEFAULT_PRESET}.'
        ),
    ] = None,
    task: Annotated[
        MaybeTexts,
        typer.Option(help='Task of config/finetune/ or such a file; give it again for more.'),
    ] = None,
    seeds: Annotated[str, typer.Option(help='Learner seeds: 0,1,2 or a range 0-4.')] = '0-2',
    steps: StepsOption = None,
    env: EnvOption = None,
    base: BaseOption = None,
    scale: ScaleOption = None,
    out: RunsOption = Path('runs/compare'),
    workers: WorkersOption = 2,
    ray: RayOption = None,
    evaluate: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_EPISODES, help='Paired evaluation episodes at the end of each run.'
        ),
    ] = 100,
    demonstrations: DemonstrationsOption = None,
    observation_map: ObservationMapOption = None,
    success: SuccessOption = None,
    add_on: AddOnOption = None,
) -> None:
    """Run presets against each other over tasks and seeds, and write a table and curves.

    A run that fails is named at the end and costs no other; the same command begins where it ended.
    """
    compared = presets or [DEFAULT_PRESET]
    for text in compared:  # Said before what takes seconds to import.
        find_preset(text.split(':')[0])
    from residual_rl_ros.comparison.compare import CompareOptions, Variant, run_comparison
    from residual_rl_ros.comparison.protocol import parse_seeds
    from residual_rl_ros.config.run import load_run
    from residual_rl_ros.demonstrations.source import read_demonstrations

    console = Console(stderr=True)
    own = environment_run(env, base, scale_of(env, scale), out, task)
    configs = [own] if own else [load_run(name) for name in task or ['peg_insert', 'push_to_goal']]
    configs = [config.with_success(success).with_add_ons(add_on) for config in configs]
    if steps is not None:
        configs = [replace(config, control_steps=steps) for config in configs]
    episodes, recordings = read_demonstrations(demonstrations or [], observation_map or [])
    options = CompareOptions(
        configs,
        [Variant.parse(text) for text in compared],
        parse_seeds(seeds),
        out,
        workers,
        ray,
        paired_seeds=evaluate,
        demonstrations=episodes,
        recordings=recordings,
    )
    run_comparison(options, console)
    print((out / 'compare.md').read_text(encoding='utf-8'), end='')


def benchmark(
    protocol: Annotated[Path, typer.Argument(help='File of the protocol.')] = Path(
        'benchmarks/protocol.yaml'
    ),
    out: RunsOption = Path('runs/benchmark'),
    tasks: Annotated[
        MaybeTexts,
        typer.Option(help='Task of the protocol; give it again for more; default: all.'),
    ] = None,
    methods: Annotated[
        MaybeTexts,
        typer.Option(help='Method of the protocol; give it again for more; default: all.'),
    ] = None,
    seeds: Annotated[
        MaybeText,
        typer.Option(help='Learner seeds of the protocol: 0,1,2 or a range 0-4; default: all.'),
    ] = None,
    workers: WorkersOption = 2,
    ray: RayOption = None,
    report: Annotated[
        bool, typer.Option('--report', help='Run nothing; put together what is finished.')
    ] = False,
) -> None:
    """Run a frozen protocol of tasks, methods and seeds, and report curves with intervals.

    It says how many hours are left before it begins. The same command goes on where it was
    interrupted. A run that fails is named at the end and costs no other; a run of another protocol
    is refused.
    """
    from residual_rl_ros.comparison.benchmark import BenchmarkOptions, run_benchmark
    from residual_rl_ros.comparison.protocol import parse_seeds, read_protocol
    from residual_rl_ros.comparison.report import show

    options = BenchmarkOptions(
        read_protocol(protocol),
        out,
        0 if report else workers,
        ray,
        tuple(tasks or ()),
        tuple(methods or ()),
        tuple(parse_seeds(seeds) if seeds is not None else ()),
    )
    found = run_benchmark(options, Console(stderr=True))
    console = Console()
    if console.is_terminal:
        show(found, console)
    else:
        print((out / 'benchmark.md').read_text(encoding='utf-8'), end='')
