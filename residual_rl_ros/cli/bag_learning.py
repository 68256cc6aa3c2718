# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that make a learner, or transitions, from bags.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from residual_rl_ros.cli.bags import (
    WITH_PROBLEMS,
    BagsArgument,
    exit_code,
    open_bags,
    show_problems,
    show_remark,
)
from residual_rl_ros.cli.options import (
    BagOption,
    BlendOption,
    CustomisableOption,
    EnsembleOption,
    EnsembleStepsOption,
    MaybeFloats,
    MaybeInt,
    MaybePath,
    ModelOption,
    NamespaceOption,
    NumbersOption,
    PriorWidthOption,
    ProposalsOption,
    RobotOption,
    SeedOption,
    assignments,
    progress_bars,
)
from residual_rl_ros.config import DEFAULT_PRESET, ROBOT_SCALE, find_preset
from residual_rl_ros.errors import ResidualRLError


def train(
    bags: BagsArgument,
    out: Annotated[
        Path, typer.Option(help='Folder for the checkpoint, as `up`, learner_node and train use.')
    ],
    preset: Annotated[str, typer.Option(help='Learner preset of config/presets/.')] = (
        DEFAULT_PRESET
    ),
    use: Annotated[
        str, typer.Option('--as', help='What they are: base, demonstrations or offline.')
    ] = 'base',
    seed: SeedOption = 0,
    overrides: NumbersOption = None,
) -> None:
    """Make a learner from bags, so that a robot starts with their data.

    Exit code 0: all was used; 1: a part was, and every problem named; 2: nothing could be used.
    """
    find_preset(preset)  # Said before what takes seconds to import.
    from residual_rl_ros.config.preset import load_preset
    from residual_rl_ros.learner.checkpoint import CheckpointFolder
    from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS
    from residual_rl_ros.training.provenance import git_commit
    from residual_rl_ros.training.run_folder import prepare_output
    from residual_rl_ros.training.train_from_bags import TransitionUse, train_from_bags

    if use not in {choice.value for choice in TransitionUse}:
        raise ResidualRLError(f'--as is {use!r}, expected base, demonstrations or offline')
    config = load_preset(preset, assignments(overrides or []))
    opened, stray = open_bags(bags)
    show_problems(stray)
    paths = [bag.path for bag in opened]
    nbytes = sum(bag.nbytes for bag in opened)
    prepare_output(out)
    diverged: list[str] = []
    with progress_bars() as bars:
        reading = bars.add_task('reading', total=nbytes)
        updating = bars.add_task('updates', total=None, visible=False)

        def on_read(read: int) -> None:
            bars.update(reading, advance=read)

        def on_update(total: int) -> None:
            bars.update(reading, completed=nbytes)
            bars.update(updating, advance=1, total=total, visible=True)

        learner, intake = train_from_bags(
            paths, TransitionUse(use), config, seed, on_read, on_update, diverged.append
        )
        bars.update(reading, completed=nbytes)
    with closing(CheckpointFolder(out / CHECKPOINTS)) as checkpoints:
        checkpoints.save(learner)
    described = {
        'bags': [str(path) for path in paths],
        'use': use,
        'preset': preset,
        'seed': seed,
        'transitions': intake.taken,
        'skipped_transitions': intake.skipped,
        'success': intake.success_rate,
        'updates': learner.updates.pretraining,
        'git_commit': git_commit(),
    }
    (out / 'bag_training.json').write_text(json.dumps(described, indent=2) + '\n', encoding='utf-8')
    for problems in intake.problems:
        show_problems(problems)
    for reason in diverged:
        Console(stderr=True).print(f'problem: {reason}', markup=False)
    Console(stderr=True).print(
        f'{intake.taken} transitions taken, {intake.skipped} of other sources skipped, '
        f'{learner.updates.pretraining} updates, phase {learner.phase.value}; go on with '
        f'residual-rl up --out {out}, robot.launch.py checkpoint:={out} or '
        f'residual-rl train --from {out}'
    )
    codes = [exit_code(problems, True) for problems in intake.problems]
    raise typer.Exit(max(*codes, WITH_PROBLEMS if stray or diverged else 0))


def rebuild(
    raw: Annotated[Path, typer.Argument(help='Raw bag: observations, commands, feedback.')],
    out: BagOption,
    robot: RobotOption,
    base: ModelOption,
    decision_steps: Annotated[
        MaybeInt,
        typer.Option(
            min=1,
            help='Control steps per residual decision (k); default: near 20 decisions/s, as up.',
        ),
    ] = None,
    scale: Annotated[
        MaybeFloats,
        typer.Option(
            help=f'Residual scale lambda: once, or once per action. Default: {ROBOT_SCALE:g}.'
        ),
    ] = None,
    prefetch_steps: Annotated[
        int, typer.Option(min=0, help='Steps before its first use at which a chunk was requested.')
    ] = 0,
    chunk_blend_steps: BlendOption = 0,
    temporal_ensemble: EnsembleOption = 0.0,
    ensemble_steps: EnsembleStepsOption = 0,
    proposals: ProposalsOption = 1,
    customisable: CustomisableOption = False,
    prior_width: PriorWidthOption = None,
    seed: SeedOption = 0,
    lockstep: Annotated[
        bool, typer.Option(help='The recording is of a lockstep simulator.')
    ] = False,
    namespace: NamespaceOption = '',
    end_is_success: Annotated[
        bool, typer.Option(help='Where the commands pause, an episode has succeeded.')
    ] = False,
    pause: Annotated[
        float, typer.Option(min=0.0, help='Commands further apart end an episode [s].')
    ] = 1.0,
    episode_limit: Annotated[
        float, typer.Option(min=0.0, help='Longer episodes were truncated [s]; 0 never.')
    ] = 0.0,
    marks: Annotated[
        MaybePath, typer.Option(help='YAML list of {stamp: s, outcome: success|failure|end}.')
    ] = None,
) -> None:
    """Make a transition bag of recorded observations and commands.

    The base policy is run over the observations, and the live node's own loop accounts for the
    recorded commands. Exit codes as of `bag info`.
    """
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.bags.rebuild.real_time import read_marks
    from residual_rl_ros.bags.rebuild.rebuild import Rebuilder, RebuildOptions
    from residual_rl_ros.bags.transitions.writer import write_bag
    from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
    from residual_rl_ros.base_policy.splicing import Splicing
    from residual_rl_ros.control.config import ControllerConfig
    from residual_rl_ros.robot.description import load_robot

    config, _ = load_robot(robot)
    policy = OnnxBasePolicy.find(base, config)
    for remark in policy.remarks:
        show_remark(remark)
    if lockstep and (marks is not None or episode_limit):
        raise ResidualRLError(
            '--marks and --episode-limit are for real time; a lockstep simulator sends feedback'
        )
    options = RebuildOptions(
        ControllerConfig(
            decision_steps or policy.metadata.decision_steps,
            tuple(scale or (ROBOT_SCALE,)),
            Splicing(prefetch_steps, chunk_blend_steps, temporal_ensemble, ensemble_steps),
            seed,
            scheduled_actor=False,
            proposals=proposals,
            customisable=customisable,
            prior_width=tuple(prior_width or ()),
        ),
        lockstep,
        namespace,
        end_is_success,
        pause,
        () if marks is None else read_marks(marks),
        episode_limit,
    )
    bag = Bag(raw)
    for remark in bag.remarks:
        show_remark(remark)
    bars = progress_bars()
    replaying = bars.add_task('messages', total=None)

    def on_message(count: int, total: int | None) -> None:
        bars.update(replaying, completed=count, total=total)

    rebuilder = Rebuilder(bag, config, policy, options, on_message)
    origin = {
        'rebuilt_from': str(raw),
        'base_policy_sha256': policy.sha256,
        'robot_name': config.name,
    }
    layout = rebuilder.controller.layout
    try:
        with bars:
            written = write_bag(out, layout, rebuilder.transitions(), namespace, origin)
    finally:
        show_problems(bag.problems)
    for remark in rebuilder.remarks:
        show_remark(remark)
    console = Console(stderr=True)
    for report in rebuilder.channels.values():
        console.print(escape(f'{report.topic}: {report.describe()}'), soft_wrap=True)
    where = f'in {out}' if written else f'and no {out}'
    console.print(f'{written} transitions {where}', soft_wrap=True, markup=False)
    raise typer.Exit(exit_code(bag.problems, bool(written)))
