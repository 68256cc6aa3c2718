# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands between bags and datasets of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from residual_rl_ros.cli.bags import (
    WITH_PROBLEMS,
    BagsArgument,
    exit_code,
    open_bags,
    show_problems,
    show_remark,
)
from residual_rl_ros.cli.options import (
    MaybeFloats,
    MaybeText,
    SeedOption,
    progress_bars,
    reading_bar,
)
from residual_rl_ros.errors import ResidualRLError


def export(
    bags: BagsArgument,
    out: Annotated[Path, typer.Option(help='Folder of the dataset; it must not exist.')],
    robot: Annotated[
        MaybeText, typer.Option(help='Namespace of the robot; needed where there are several.')
    ] = None,
    task: Annotated[str, typer.Option(help='What the robot does, in words.')] = '',
    fps: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help='Decisions per second; default: measured by the stamps.'),
    ] = None,
) -> None:
    """Write transition bags as a LeRobot dataset (v3.0, Parquet); needs the extra `lerobot`.

    Exit codes as of `bag info`.
    """
    from residual_rl_ros.bags.lerobot.export import export_bags

    opened, stray = open_bags(bags)
    show_problems(stray)
    paths = [bag.path for bag in opened]
    with reading_bar(2 * sum(bag.nbytes for bag in opened)) as on_read:
        made = export_bags(paths, out, robot, task, fps, on_read)
    for problems in made.problems:
        show_problems(problems)
    Console(stderr=True).print(
        f'{made.transitions} transitions in {made.episodes} episodes, {made.unfinished} of them '
        f'without an end; {made.fps:g} decisions per second'
        f'{" by their stamps" if fps is None else ""}; {out}',
        soft_wrap=True,
        markup=False,
    )
    codes = [exit_code(problems, True) for problems in made.problems]
    raise typer.Exit(max(*codes, WITH_PROBLEMS if stray else 0))


def import_dataset(
    dataset: Annotated[Path, typer.Argument(help='Folder of a LeRobot dataset, v3.0.')],
    out: Annotated[Path, typer.Option(help='Folder of the transition bag; it must not exist.')],
    base: Annotated[
        MaybeText,
        typer.Option(help="ONNX base policy or shipped name, for another tool's dataset."),
    ] = None,
    robot: Annotated[
        MaybeText, typer.Option(help='Namespace of the robot; default: the exported one.')
    ] = None,
    decision_steps: Annotated[
        int, typer.Option(min=1, help='With --base: control steps per residual decision (k).')
    ] = 1,
    scale: Annotated[
        MaybeFloats,
        typer.Option(help='With --base: residual scale lambda, once or per action; default 0.05.'),
    ] = None,
    seed: SeedOption = 0,
    by_position: Annotated[
        bool,
        typer.Option('--by-position', help='With --base: names differ, the order is the same.'),
    ] = False,
) -> None:
    """Make a transition bag of a LeRobot dataset (v3.0, Parquet); needs the extra `lerobot`.

    One that `bag export` wrote gives its transitions back. Another tool's needs --base, which is
    run over its observations. Exit codes as of `bag info`.
    """
    from residual_rl_ros.bags.lerobot.format import (
        ACTION,
        COLUMNS,
        REWARD,
        STATE,
        SUCCESS,
        LeRobotDataset,
    )
    from residual_rl_ros.bags.lerobot.reader import ForeignDataset, exported_transitions
    from residual_rl_ros.bags.transitions.writer import write_bag
    from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
    from residual_rl_ros.control.config import ControllerConfig
    from residual_rl_ros.findings import Findings
    from residual_rl_ros.resources import find_base_policy

    opened = LeRobotDataset.open(dataset)
    problems = Findings()
    origin = {'imported_from': str(dataset)}
    if opened.layout is not None:
        if base is not None:
            raise ResidualRLError(
                f'{str(dataset)!r} was exported from bags and holds its base actions; leave out '
                '--base'
            )
        layout, transitions = opened.layout, exported_transitions(opened, problems)
        unread = opened.unread(COLUMNS)
    else:
        if base is None and opened.edited:
            raise ResidualRLError(
                f'{str(dataset)!r} was exported from bags and edited since: the layout is gone '
                'from meta/info.json; put the key residual_rl of the original there, or take it '
                "for another tool's with --base"
            )
        if base is None:
            raise ResidualRLError(
                f"{str(dataset)!r} is another tool's dataset: it has no base actions; give the "
                'base policy with --base'
            )
        policy = OnnxBasePolicy(find_base_policy(base))
        config = ControllerConfig(
            decision_steps, tuple(scale or (0.05,)), seed=seed, scheduled_actor=False
        )
        foreign = ForeignDataset(opened, policy, config, by_position)
        layout, transitions = foreign.layout, foreign.transitions(problems)
        unread = opened.unread((STATE, ACTION, REWARD, SUCCESS))
        origin['base_policy_sha256'] = policy.sha256
    if unread:
        show_remark(f'{dataset}: not imported: {", ".join(unread)}')
    namespace = opened.robot if robot is None else robot
    total = opened.total_frames // (decision_steps if opened.layout is None else 1)
    with progress_bars() as bars:
        counted = bars.track(transitions, total, description='transitions')
        written = write_bag(out, layout, iter(counted), namespace, origin)
    show_problems(problems)
    if not written:
        raise ResidualRLError(f'{str(dataset)!r} holds no usable frame')
    Console(stderr=True).print(f'{written} transitions in {out}', soft_wrap=True)
    raise typer.Exit(exit_code(problems, True))
