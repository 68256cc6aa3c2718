# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that record, read, play and convert bags.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from residual_rl_ros.cli.options import (
    INTERRUPTED,
    BagOption,
    JsonOption,
    MaybeFloats,
    MaybeInt,
    MaybePath,
    MaybeText,
    NamespaceOption,
    SeedOption,
    check_namespaces,
    progress_bars,
    reading_bar,
)
from residual_rl_ros.config import ROBOT_SCALE
from residual_rl_ros.errors import ResidualRLError, one_line

if TYPE_CHECKING:
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.errors import BagError
    from residual_rl_ros.findings import Findings

WITH_PROBLEMS = 1
"""Exit code: a part was used, and every problem was named."""
UNUSABLE = 2
"""Exit code: nothing could be used."""

BagsArgument = Annotated[
    list[Path], typer.Argument(help='Bag folders, folders of bags, .mcap or .db3 files.')
]


def info(
    bags: BagsArgument,
    figure: Annotated[
        MaybePath, typer.Option(help='Draw episodes, gaps and ranges into this PNG file.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what bags hold and what is wrong with them: episodes, gaps, ranges and topics.

    Exit code 0: everything was read; 1: read, with problems; 2: a bag holds nothing usable.
    """
    from residual_rl_ros.bags.transitions.report import tables
    from residual_rl_ros.bags.transitions.summary import summarise

    if figure is not None and len(bags) > 1:
        raise ResidualRLError(f'--figure draws one bag, {len(bags)} are given; give one')
    opened, stray = open_bags(bags)
    show_problems(stray)
    code = UNUSABLE if stray else 0
    described, console = [], Console()
    for bag in opened:
        with reading_bar(bag.nbytes) as on_read:
            summary = summarise(bag, on_read)
        if as_json:
            known = {'bag': str(bag.path), 'custom_data': bag.custom_data}
            described.append({**known, **summary.to_json()})
        else:
            for table in tables(str(bag.path), summary):
                console.print(table)
        show_problems(bag.problems)
        if summary.at_zero:
            show_remark(
                f'{bag.path}: {summary.at_zero} messages were recorded at time 0, before the first '
                '/clock; rates and silences are without them'
            )
        code = max(code, exit_code(bag.problems, bool(summary.robots)))
        if figure is not None and summary.robots:
            from residual_rl_ros.bags.transitions.report import draw_bag

            draw_bag(figure, str(bag.path), summary.robots)
    if as_json:
        print(json.dumps(described, indent=2))
    raise typer.Exit(code)


def open_bags(paths: list[Path]) -> tuple[list[Bag], list[BagError]]:
    """Return the bags among paths, and an error for every other path.

    Raises:
        BagError: none is a bag.
    """
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.errors import BagError

    opened, stray = [], []
    for index, path in enumerate(paths):
        try:
            if path.resolve() in [each.resolve() for each in paths[:index]]:
                raise BagError(f'{str(path)!r} is given twice; it is read once')
            opened.append(Bag(path))
            for remark in opened[-1].remarks:
                show_remark(remark)
        except BagError as error:
            stray.append(error)
    if not opened:
        raise BagError('; '.join(map(str, stray)))
    return opened, stray


def exit_code(problems: Findings, usable: bool) -> int:
    """Return the exit code of what was read."""
    return UNUSABLE if not usable else WITH_PROBLEMS if len(problems) else 0


def show_problems(problems: Iterable[object]) -> None:
    """Print one line for each problem."""
    console = Console(stderr=True)
    for problem in problems:
        console.print(f'[red]problem:[/] {escape(str(problem))}', soft_wrap=True, highlight=False)


def show_remark(remark: str) -> None:
    """Print one line of which no exit code tells."""
    line = escape(one_line(remark))
    Console(stderr=True).print(f'[yellow]remark:[/] {line}', soft_wrap=True, highlight=False)


def bench(
    transitions: Annotated[int, typer.Option(min=1000, help='Transitions in the bag.')] = 50_000,
    repetitions: Annotated[int, typer.Option(min=1, help='Rounds through all readers.')] = 3,
) -> None:
    """Print transitions/s from a bag into the replay: here, with plain rosbags, and the limit."""
    from residual_rl_ros.bench.bags import measure, to_markdown

    print(to_markdown(measure(transitions, repetitions)), end='')


def record(
    out: Annotated[Path, typer.Option(help='Folder of the bag; it must not exist yet.')],
    robot: Annotated[
        MaybeText,
        typer.Option(help='Robot YAML or shipped name: noted in the bag, and needed for --raw.'),
    ] = None,
    raw: Annotated[
        bool, typer.Option(help='Also record observations, commands, feedback and takeovers.')
    ] = False,
    transitions: Annotated[bool, typer.Option(help='Record the transitions.')] = True,
    base: Annotated[
        MaybeText,
        typer.Option(help='ONNX base policy or shipped name, whose SHA-256 is noted in the bag.'),
    ] = None,
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
    max_bytes: Annotated[
        int, typer.Option(min=0, help='Begin a new bag after this many bytes; 0 never does.')
    ] = 0,
    max_seconds: Annotated[
        float, typer.Option(min=0.0, help='Begin a new bag after this time; 0 never does.')
    ] = 0.0,
    namespace: NamespaceOption = '',
) -> None:
    """Record a robot's transitions, and with --raw what they are made of, until Ctrl-C."""
    from residual_rl_ros.robot.description import load_robot
    from residual_rl_ros.ros.bringup.topology import recorder_spec

    if raw and robot is None:
        raise ResidualRLError('--raw needs --robot, which lists the topics')
    node = recorder_spec(
        None if robot is None else load_robot(robot)[1],
        namespace,
        out,
        base or '',
        transitions=transitions,
        raw=raw,
        storage=storage,
        max_bytes=max_bytes,
        max_seconds=max_seconds,
    )
    module = f'residual_rl_ros.ros.nodes.{node.executable}'
    os.execv(sys.executable, [sys.executable, '-m', module, *node.ros_arguments()])


def play(
    bags: BagsArgument,
    rate: Annotated[
        float, typer.Option(min=0.0, help='Transitions per second; default: as recorded.')
    ] = 0.0,
    namespace: Annotated[
        MaybeText,
        typer.Option(
            callback=check_namespaces,
            help='Namespace to publish in; default: the recorded one.',
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0.0, max=86400.0, help='How long to wait for a learner [s].')
    ] = 30.0,
) -> None:
    """Play transition bags into a running learner, as their robot would send them."""
    from residual_rl_ros.ros.tools.bag_player import PlayOptions, play

    opened, stray = open_bags(bags)
    show_problems(stray)
    console = Console(stderr=True)
    columns = (TextColumn('{task.completed} transitions'), TimeElapsedColumn())
    try:
        with Progress(
            SpinnerColumn(), *columns, console=console, disable=not console.is_terminal
        ) as bars:
            task = bars.add_task('', total=None)
            options = PlayOptions(rate, namespace, wait)
            console.print(f'waiting up to {wait:g} s for a learner that listens')
            sent = play(opened, options, lambda: bars.update(task, advance=1))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    for bag in opened:
        show_problems(bag.problems)
    console.print(f'{sent} transitions sent')
    codes = [exit_code(bag.problems, bool(sent)) for bag in opened]
    raise typer.Exit(max(*codes, WITH_PROBLEMS if stray else 0))


def export(
    bags: BagsArgument,
    out: Annotated[Path, typer.Option(help='Folder of the dataset; it must not exist.')],
    robot: Annotated[
        MaybeText, typer.Option(help='Namespace of the robot; needed where there are several.')
    ] = None,
    task: Annotated[str, typer.Option(help='What the robot does, in words.')] = '',
    fps: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0.01, max=1e4, help='Decisions per second; default: measured by the stamps.'
        ),
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
    out: BagOption,
    base: Annotated[
        MaybeText,
        typer.Option(help="ONNX base policy or shipped name, for another tool's dataset."),
    ] = None,
    robot: Annotated[
        MaybeText, typer.Option(help='Namespace of the robot; default: the exported one.')
    ] = None,
    decision_steps: Annotated[
        MaybeInt,
        typer.Option(
            min=1,
            help='With --base: control steps per residual decision (k); default: near 20 '
            'decisions/s, as up.',
        ),
    ] = None,
    scale: Annotated[
        MaybeFloats,
        typer.Option(
            help=f'With --base: residual scale lambda, once or per action; default {ROBOT_SCALE:g}.'
        ),
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
        REWARD,
        STATE,
        SUCCESS,
        LeRobotDataset,
        columns_of,
    )
    from residual_rl_ros.bags.lerobot.reader import ForeignDataset, exported_transitions
    from residual_rl_ros.bags.transitions.writer import write_bag
    from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
    from residual_rl_ros.control.config import ControllerConfig
    from residual_rl_ros.findings import Findings

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
        unread = opened.unread(columns_of(opened.layout))
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
        policy = OnnxBasePolicy.find(base)
        config = ControllerConfig(
            decision_steps or policy.metadata.decision_steps,
            tuple(scale or (ROBOT_SCALE,)),
            seed=seed,
            scheduled_actor=False,
        )
        foreign = ForeignDataset(opened, policy, config, by_position)
        layout, transitions = foreign.layout, foreign.transitions(problems)
        unread = opened.unread((STATE, ACTION, REWARD, SUCCESS))
        origin['base_policy_sha256'] = policy.sha256
    if unread:
        show_remark(f'{dataset}: not imported: {", ".join(unread)}')
    namespace = opened.robot if robot is None else robot
    total = opened.total_frames // (layout.decision_steps if opened.layout is None else 1)
    with progress_bars() as bars:
        counted = bars.track(transitions, total, description='transitions')
        written = write_bag(out, layout, iter(counted), namespace, origin)
    show_problems(problems)
    if not written:
        raise ResidualRLError(f'{str(dataset)!r} holds no usable frame')
    Console(stderr=True).print(f'{written} transitions in {out}', soft_wrap=True)
    raise typer.Exit(exit_code(problems, True))
