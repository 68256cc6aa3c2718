# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands for bags.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from residual_rl_ros.commands import (
    INTERRUPTED,
    JsonOption,
    MaybeFloats,
    MaybePath,
    MaybeText,
    MaybeTexts,
    SeedOption,
    assignments,
)
from residual_rl_ros.errors import ResidualRLError

if TYPE_CHECKING:
    from residual_rl_ros.bags.problems import Problems
    from residual_rl_ros.bags.summary import RobotSummary

WITH_PROBLEMS = 1
"""Exit code: a part was used, and every problem was named."""
UNUSABLE = 2
"""Exit code: nothing could be used."""

BagsArgument = Annotated[
    list[Path], typer.Argument(help='Bag folders, folders of bags, .mcap or .db3 files.')
]


def info(
    bags: BagsArgument,
    picture: Annotated[
        MaybePath, typer.Option(help='Draw episodes and ranges into this PNG file.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what transition bags hold and what is wrong with them.

    Exit code 0: everything was read; 1: read, with problems; 2: a bag holds nothing usable.
    """
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.bags.summary import summarise

    if picture is not None and len(bags) > 1:
        raise ResidualRLError('--picture draws one bag; give one')
    code = 0
    described = []
    for path in bags:
        bag = Bag(path)
        summaries = summarise(bag)
        if as_json:
            robots = [summary.to_json() for summary in summaries]
            data = bag.custom_data
            described.append({'bag': str(path), 'custom_data': data, 'robots': robots})
        else:
            for summary in summaries:
                _show(Console(), str(path), summary)
        show_problems(bag.problems)
        code = max(code, exit_code(bag.problems, bool(summaries)))
        if picture is not None and summaries:
            from residual_rl_ros.bags.picture import draw_bag

            draw_bag(picture, str(path), summaries[0])
    if as_json:
        print(json.dumps(described, indent=2))
    raise typer.Exit(code)


def exit_code(problems: Problems, usable: bool) -> int:
    """Return the exit code of what was read."""
    return UNUSABLE if not usable else WITH_PROBLEMS if len(problems) else 0


def show_problems(problems: Problems) -> None:
    """Print one line for each problem."""
    console = Console(stderr=True)
    for problem in problems:
        console.print(f'[red]problem:[/] {escape(str(problem))}', soft_wrap=True, highlight=False)


def _show(console: Console, title: str, summary: RobotSummary) -> None:
    """Print one robot's part of a bag."""
    facts = summary.to_json()
    shortest, median, longest = facts['decisions_per_episode']
    table = Table(title=escape(f'{title} {summary.robot}'.rstrip()), show_header=False)
    rate = facts['decision_rate_hz']
    k = summary.layout.decision_steps
    for name, value in (
        ('layout', facts['layout']),
        ('transitions', f'{summary.transitions} of {k} control steps each'),
        ('lost transitions', str(summary.missing)),
        ('episodes', f'{facts["episodes"]}, {shortest} to {longest} decisions, median {median:g}'),
        ('outcomes', _counts(facts['outcomes'])),
        ('endings', _counts(facts['endings'])),
        ('sources', _counts(facts['sources'])),
        ('decisions', 'rate unknown' if rate is None else f'{rate:.3g} Hz'),
    ):
        table.add_row(name, escape(value))
    console.print(table)
    ranges = Table('name', 'recorded', 'base policy trained on', title='ranges')
    layout = summary.layout
    for name, low, high, least, most in zip(
        layout.action_names,
        summary.action_low,
        summary.action_high,
        layout.action_min,
        layout.action_max,
        strict=True,
    ):
        ranges.add_row(escape(name), f'{low:.4g} to {high:.4g}', f'{least:.4g} to {most:.4g}')
    for name, low, high in zip(
        layout.observation_names, summary.observation_low, summary.observation_high, strict=True
    ):
        constant = ' (constant)' if low == high else ''
        ranges.add_row(escape(name), f'{low:.4g} to {high:.4g}{constant}', '')
    console.print(ranges)


def _counts(counts: dict[str, int]) -> str:
    return ', '.join(f'{count} {name}' for name, count in counts.items())


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
    namespace: Annotated[str, typer.Option(help='Namespace of the robot.')] = '',
) -> None:
    """Record a robot's transitions, and with --raw what they are made of, until Ctrl-C."""
    from residual_rl_ros.robot import load_robot
    from residual_rl_ros.ros.topology import NodeSpec

    if raw and robot is None:
        raise ResidualRLError('--raw needs --robot, which lists the topics')
    node = NodeSpec(
        'recorder_node',
        False,
        () if robot is None else (load_robot(robot)[1],),
        {
            'output_dir': str(out),
            'transitions': transitions,
            'raw': raw,
            'base_policy': base or '',
            'storage': storage,
            'max_bytes': max_bytes,
            'max_seconds': max_seconds,
        },
        namespace,
    )
    module = f'residual_rl_ros.ros.{node.executable}'
    os.execv(sys.executable, [sys.executable, '-m', module, *node.ros_arguments()])


def train(
    bags: BagsArgument,
    out: Annotated[
        Path, typer.Option(help='Folder for the checkpoint, as `up`, learner_node and train use.')
    ],
    preset: Annotated[str, typer.Option(help='Learner preset of config/presets/.')] = 'dawn',
    use: Annotated[
        str, typer.Option('--as', help='What they are: base, demonstrations or offline.')
    ] = 'base',
    seed: SeedOption = 0,
    overrides: Annotated[
        MaybeTexts,
        typer.Option('--set', help='Replace a number of the preset: key=value, in YAML.'),
    ] = None,
) -> None:
    """Make a learner from bags, so that a robot starts with what they teach.

    Exit code 0: all was used; 1: a part was, and every problem named; 2: nothing could be used.
    """
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.bags.training import Use, train_from_bags
    from residual_rl_ros.learner.checkpoint import CheckpointFolder
    from residual_rl_ros.learner.config import load_preset
    from residual_rl_ros.provenance import git_commit
    from residual_rl_ros.summary import CHECKPOINTS, prepare_output

    if use not in {choice.value for choice in Use}:
        raise ResidualRLError(f'--as is {use!r}, expected base, demonstrations or offline')
    config = load_preset(preset, assignments(overrides or []))
    nbytes = sum(Bag(path).nbytes for path in bags)
    prepare_output(out)
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as bars:
        reading = bars.add_task('reading', total=nbytes)
        updating = bars.add_task('updates', total=None, visible=False)

        def on_read(read: int) -> None:
            bars.update(reading, advance=read)

        def on_update() -> None:
            bars.update(reading, completed=nbytes)
            bars.update(updating, advance=1, visible=True)

        learner, intake = train_from_bags(bags, Use(use), config, seed, on_read, on_update)
        bars.update(reading, completed=nbytes)
    CheckpointFolder(out / CHECKPOINTS).save(learner)
    described = {
        'bags': [str(path) for path in bags],
        'use': use,
        'preset': preset,
        'seed': seed,
        'transitions': intake.taken,
        'skipped_transitions': intake.skipped,
        'success': intake.success_rate,
        'updates': learner.pretraining_updates,
        'git_commit': git_commit(),
    }
    (out / 'bag_training.json').write_text(json.dumps(described, indent=2) + '\n', encoding='utf-8')
    for problems in intake.problems:
        show_problems(problems)
    console.print(
        f'{intake.taken} transitions taken, {intake.skipped} of other sources skipped, '
        f'{learner.pretraining_updates} updates, phase {learner.phase.value}; go on with '
        f'residual-rl up --out {out}, learner_node resume:=true or residual-rl train --from {out}'
    )
    raise typer.Exit(max(exit_code(problems, True) for problems in intake.problems))


def rebuild(
    raw: Annotated[Path, typer.Argument(help='Raw bag: observations, commands, feedback.')],
    out: Annotated[Path, typer.Option(help='Folder of the transition bag; it must not exist.')],
    robot: Annotated[str, typer.Option(help='Robot YAML, or the name of a shipped one.')],
    base: Annotated[str, typer.Option(help='ONNX base policy, or the name of a shipped one.')],
    decision_steps: Annotated[
        int, typer.Option(min=1, help='Control steps per residual decision (k).')
    ] = 1,
    scale: Annotated[
        MaybeFloats,
        typer.Option(help='Residual scale lambda: once, or once per action. Default: 0.05.'),
    ] = None,
    seed: SeedOption = 0,
    lockstep: Annotated[
        bool, typer.Option(help='The recording is of a lockstep simulator.')
    ] = False,
    namespace: Annotated[str, typer.Option(help='Namespace of the robot.')] = '',
    end_is_success: Annotated[
        bool, typer.Option(help='Where the commands pause, an episode has succeeded.')
    ] = False,
    pause: Annotated[
        float, typer.Option(min=0.0, help='Commands further apart end an episode [s].')
    ] = 1.0,
    marks: Annotated[
        MaybePath, typer.Option(help='YAML list of {stamp: s, outcome: success|failure|end}.')
    ] = None,
) -> None:
    """Make a transition bag of recorded observations and commands.

    The base policy is run over the observations, and the live node's own loop accounts for the
    recorded commands. Exit codes as of `bag info`.
    """
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.bags.marks import read_marks
    from residual_rl_ros.bags.rebuild import Rebuilder, RebuildOptions
    from residual_rl_ros.bags.transition_writer import TransitionWriter
    from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
    from residual_rl_ros.finetune import find_base_policy
    from residual_rl_ros.provenance import file_sha256
    from residual_rl_ros.residual.controller import ControllerConfig
    from residual_rl_ros.robot import load_robot

    config, _ = load_robot(robot)
    policy = OnnxBasePolicy(find_base_policy(base))
    policy.metadata.check_robot(config.observation_names, config.action, config.control_rate_hz)
    if marks is not None and lockstep:
        raise ResidualRLError('--marks judges real time; a lockstep simulator sends feedback')
    options = RebuildOptions(
        ControllerConfig(decision_steps, tuple(scale or (0.05,)), seed=seed, scheduled_actor=False),
        lockstep,
        namespace,
        end_is_success,
        pause,
        () if marks is None else read_marks(marks),
    )
    bag = Bag(raw)
    rebuilder = Rebuilder(bag, config, policy, options)
    origin = {
        'rebuilt_from': str(raw),
        'base_policy_sha256': file_sha256(policy.path),
        'robot_name': config.name,
    }
    layout = rebuilder.controller.layout
    with TransitionWriter(out, layout, namespace, origin) as writer:
        for transition in rebuilder.transitions():
            writer.write(transition)
    console = Console(stderr=True)
    for report in rebuilder.channels.values():
        console.print(escape(f'{report.topic}: {report.describe()}'), soft_wrap=True)
    console.print(f'{writer.transitions} transitions in {out}')
    show_problems(bag.problems)
    raise typer.Exit(exit_code(bag.problems, bool(writer.transitions)))


def play(
    bags: BagsArgument,
    rate: Annotated[
        float, typer.Option(min=0.0, help='Transitions per second; default: as recorded.')
    ] = 0.0,
    namespace: Annotated[
        MaybeText, typer.Option(help='Namespace to publish in; default: the recorded one.')
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0.0, help='How long to wait for a learner [s].')
    ] = 30.0,
) -> None:
    """Play transition bags into a running learner, as their robot would send them."""
    from residual_rl_ros.bags.bag import Bag
    from residual_rl_ros.ros.bag_player import PlayOptions, play

    opened = [Bag(path) for path in bags]
    console = Console(stderr=True)
    columns = (TextColumn('{task.completed} transitions'), TimeElapsedColumn())
    try:
        with Progress(SpinnerColumn(), *columns, console=console) as bars:
            task = bars.add_task('', total=None)
            options = PlayOptions(rate, namespace, wait)
            sent = play(opened, options, lambda: bars.update(task, advance=1))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    for bag in opened:
        show_problems(bag.problems)
    raise typer.Exit(max(exit_code(bag.problems, bool(sent)) for bag in opened))
