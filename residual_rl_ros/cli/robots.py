# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands for robots and what they run: check, describe, bring up, operate.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from residual_rl_ros.cli.options import (
    INTERRUPTED,
    MAX_SEED,
    BlendOption,
    CustomisableOption,
    EnsembleOption,
    EnsembleStepsOption,
    FleetOption,
    MaybeFloat,
    MaybeFloats,
    MaybeInt,
    MaybePath,
    MaybeText,
    MaybeTexts,
    NamespaceOption,
    NumbersOption,
    ObservationMapOption,
    PriorWidthOption,
    ProposalsOption,
    RobotArgument,
    TakeoverOption,
    assignments,
    check_namespaces,
)
from residual_rl_ros.config import DEFAULT_PRESET, ROBOT_SCALE
from residual_rl_ros.errors import ResidualRLError


def describe_robot(
    env: Annotated[str, typer.Argument(help='Task of this package or gymnasium id.')],
) -> None:
    """Print the robot YAML of any gymnasium environment that observes a Box."""
    from residual_rl_ros.robot.description import robot_yaml
    from residual_rl_ros.tasks.hosting import describe_robot as describe
    from residual_rl_ros.tasks.hosting import flattened, make_environment

    made, first = make_environment(env), 0
    described = describe(env, made)
    for key, count in flattened(made).items():
        print(f'# {key}: ' + (f'x{first} to x{first + count - 1}' if count > 1 else f'x{first}'))
        first += count
    print(robot_yaml(described), end='')


def check_robot(
    robot: RobotArgument,
    base: Annotated[
        MaybeText,
        typer.Option(help='Also compare it with a base policy: a shipped name or an .onnx file.'),
    ] = None,
    live: Annotated[
        bool, typer.Option(help='Also listen: are topics, types, rates, names and ages right?')
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help='How long to listen.')] = 5.0,
    namespace: NamespaceOption = '',
    takeover: TakeoverOption = '',
) -> None:
    """Print what a robot description says and what is wrong with it; exit code 1 if unusable."""
    from residual_rl_ros.checks.robot import check_robot as check
    from residual_rl_ros.control.takeover_controls import load_takeover
    from residual_rl_ros.robot.description import find_robot, load_robot, read_description

    if live:
        from residual_rl_ros.ros.tools.file_check import check_limits

        check_limits(find_robot(robot), namespace)
    config, path = load_robot(robot)
    operator_keys = load_takeover(takeover, config)[0] if takeover else None
    report = check(config, str(path), base, operator_keys)
    if find_spec('rclpy') is None:
        report.remarks.append('ROS 2 is not here: its parser, which nodes use, was not asked')
    else:
        from residual_rl_ros.ros.tools.file_check import check_file

        check_file(path, report, namespace, None if report.problems else base)
    if live:
        from residual_rl_ros.ros.tools.live_check import check_live

        described = read_description(path)
        check_live(config, report, seconds, namespace, described=described, takeover=operator_keys)
    report.show(Console())
    if report.problems:
        raise typer.Exit(1)


def security_policy(
    robot: RobotArgument,
    namespace: Annotated[
        MaybeTexts,
        typer.Option(
            callback=check_namespaces, help='Namespace of the robot; again for each of a fleet.'
        ),
    ] = None,
    takeover: TakeoverOption = '',
) -> None:
    """Print the SROS 2 policy of a robot or a fleet: what its nodes need, and no more."""
    from residual_rl_ros.control.takeover_controls import load_takeover
    from residual_rl_ros.robot.description import load_robot
    from residual_rl_ros.ros.bringup.sros2_policy import policy_xml, required_access

    config, _ = load_robot(robot)
    operator_keys = load_takeover(takeover)[0] if takeover else None
    print(policy_xml(required_access(config, namespace or [''], operator_keys)), end='')


def layouts(
    robot: RobotArgument,
    out: Annotated[Path, typer.Option(help='Folder for the files.')] = Path('layouts'),
    namespace: NamespaceOption = '',
) -> None:
    """Write layouts of Foxglove, PlotJuggler and rqt that show what the policy decides."""
    from residual_rl_ros.robot.description import load_robot
    from residual_rl_ros.ros.bringup.layouts import write_layouts

    config, _ = load_robot(robot)
    for path in write_layouts(config, out, namespace):
        print(path)


def up(
    robot: RobotArgument,
    base: Annotated[str, typer.Option(help='ONNX base policy, or the name of a shipped one.')],
    out: Annotated[
        Path, typer.Option(help='Folder of the learner; one that holds a checkpoint is resumed.')
    ] = Path('runs/robot'),
    learner: Annotated[
        bool, typer.Option(help='Learn; without it, only run the residual of --out.')
    ] = True,
    preset: Annotated[
        str,
        typer.Option(
            help=f'Learner preset; default: that of the checkpoint in --out, or {DEFAULT_PRESET}.'
        ),
    ] = '',
    overrides: NumbersOption = None,
    decision_steps: Annotated[
        MaybeInt,
        typer.Option(
            min=1,
            help='Control steps per residual decision (k); default: as learned in --out, or what '
            'comes nearest to 20 decisions/s.',
        ),
    ] = None,
    scale: Annotated[
        MaybeFloats,
        typer.Option(
            help='Residual scale lambda: once, or once per action; default: as learned in --out, '
            f'or {ROBOT_SCALE:g}.'
        ),
    ] = None,
    prefetch_steps: Annotated[
        str,
        typer.Option(
            help='Steps before its first use at which a chunk is requested; auto measures '
            'inference.'
        ),
    ] = 'auto',
    chunk_blend_steps: BlendOption = 0,
    temporal_ensemble: EnsembleOption = 0.0,
    ensemble_steps: EnsembleStepsOption = 0,
    proposals: ProposalsOption = 1,
    customisable: CustomisableOption = False,
    prior_width: PriorWidthOption = None,
    auto_start: Annotated[bool, typer.Option(help='Start episodes without being asked.')] = False,
    classifier: Annotated[
        MaybePath, typer.Option(help='ONNX success classifier that judges the episodes.')
    ] = None,
    reward: Annotated[
        str, typer.Option(help='Instead: package.module:factory of a reward function.')
    ] = '',
    takeover: TakeoverOption = '',
    record: Annotated[
        MaybePath,
        typer.Option(help='Record observations, commands and transitions in this new bag.'),
    ] = None,
    demonstrations: Annotated[
        MaybeTexts,
        typer.Option(
            help='Bag, LeRobot dataset, robomimic file or file of train-base that a new learner '
            'begins with; give it again for more.'
        ),
    ] = None,
    observation_map: ObservationMapOption = None,
    namespace: Annotated[
        MaybeTexts,
        typer.Option(
            callback=check_namespaces,
            help='Namespace of the robot; again for each of a fleet with one learner.',
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help='Seed of policy noise and learner.')
    ] = 0,
) -> None:
    """Run what the launch files run beside a robot or a fleet, and show its state.

    Nothing moves before `residual-rl operator` or `~/start_episode` says so.
    """
    from residual_rl_ros.base_policy.prefetch import parse_prefetch
    from residual_rl_ros.base_policy.splicing import Splicing
    from residual_rl_ros.resources import find_base_policy
    from residual_rl_ros.robot.description import load_robot
    from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
    from residual_rl_ros.ros.bringup.up import check_before, run_up

    if overrides and not learner:
        raise ResidualRLError('--set is a number of the learner, and --no-learner runs none')
    run = RobotRun(
        load_robot(robot)[1],
        find_base_policy(base),
        out if learner else None,
        actor=None if learner else out,
        preset=preset,
        overrides=assignments(overrides or []),
        decision_steps=decision_steps,
        residual_scale=tuple(scale) if scale else None,
        splicing=Splicing(
            parse_prefetch(prefetch_steps), chunk_blend_steps, temporal_ensemble, ensemble_steps
        ),
        proposals=proposals,
        customisable=customisable,
        prior_width=tuple(prior_width or (0.0,)),
        auto_start=auto_start,
        classifier=classifier,
        reward=reward,
        namespaces=tuple(namespace or ('',)),
        seed=seed,
        takeover=takeover,
        record=record,
        demonstrations=tuple(demonstrations or ()),
        observation_map=tuple(observation_map or ()),
    )
    nodes, console = robot_topology(run), Console(stderr=True)
    check_before(run, nodes, console)
    page = ['residual-rl dashboard', *(f'--namespace {name}' for name in run.namespaces if name)]
    fleet = ['--fleet'] if len(run.namespaces) > 1 else []
    console.print(f'a page in the browser: {" ".join([*page, *fleet])}', soft_wrap=True)
    try:
        run_up(nodes, out / 'logs', console)
    except KeyboardInterrupt:
        console.print('every process has ended')
        raise typer.Exit(INTERRUPTED) from None


def operator(
    namespace: NamespaceOption = '',
    fleet: FleetOption = False,
) -> None:
    """Watch and command a robot from a terminal: mark success or failure, hold, roll back."""
    from residual_rl_ros.ros.tools.operator import run_operator

    try:
        run_operator(namespace, fleet, Console())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def dashboard(
    namespace: Annotated[
        MaybeTexts,
        typer.Option(
            callback=check_namespaces, help='Namespace of the robot; again for each of several.'
        ),
    ] = None,
    fleet: FleetOption = False,
    robot: Annotated[
        MaybeText, typer.Option(help='Robot YAML, or a shipped name: shows its cameras.')
    ] = None,
    host: Annotated[
        str, typer.Option(help='Address to listen on; one that others reach needs --token.')
    ] = '127.0.0.1',
    port: Annotated[int, typer.Option(min=0, max=65535, help='Port; 0 takes a free one.')] = 8080,
    token: Annotated[
        str,
        typer.Option(
            envvar='RESIDUAL_RL_TOKEN', help='Secret of 16 or more characters that opens the page.'
        ),
    ] = '',
) -> None:
    """Serve a page in the browser: hold, states, success, motion, cameras (extra `dashboard`)."""
    from residual_rl_ros.ros.dashboard.server import DashboardOptions, run_dashboard

    options = DashboardOptions(tuple(namespace or ('',)), fleet, robot, host, port, token)
    try:
        run_dashboard(options, Console(stderr=True))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def customise(
    add_on: Annotated[
        MaybeTexts,
        typer.Option(help='Add-on reward: name, or name:key=value,...; give it again for more.'),
    ] = None,
    weight: Annotated[
        MaybeFloat, typer.Option(min=0.0, help='Factor on the add-ons; 0 is the base alone.')
    ] = None,
    off: Annotated[bool, typer.Option('--off', help='The base alone: weight 0.')] = False,
    robot: NamespaceOption = '',
    fleet: FleetOption = False,
    policy_only: Annotated[
        bool, typer.Option('--policy-only', help='There is no learner: tell the policy node.')
    ] = False,
) -> None:
    """Ask a running robot for something beside its task, or change how much it counts.

    A new weight counts from the next decision on; what has to be learned, when its weights come.
    Without options it prints what the robot is asked for.
    """
    from residual_rl_ros.rewards.composition import AddOns
    from residual_rl_ros.ros.tools.customise import customise as ask

    if off and weight is not None:
        raise ResidualRLError('--off is --weight 0; give one of them')
    add_ons = None if add_on is None else AddOns.from_options(add_on)
    ask(robot, fleet, policy_only, add_ons, 0.0 if off else weight, Console())


def bench_control(
    rate: Annotated[float, typer.Option(min=1.0, help='Control rate [Hz].')] = 200.0,
    seconds: Annotated[float, typer.Option(min=5.0, help='How long the robot runs [s].')] = 60.0,
    inference: Annotated[
        float, typer.Option(min=0.0, help='How long an inference of the base policy computes [s].')
    ] = 0.0,
) -> None:
    """Print latencies, overruns and losses of a policy node beside a busy learner."""
    from residual_rl_ros.ros.tools.control_bench import measure, to_markdown

    print(to_markdown(measure(rate, seconds, Console(stderr=True), inference)), end='')
