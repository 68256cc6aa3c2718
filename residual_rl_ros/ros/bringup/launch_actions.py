# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A topology as launch actions, for the files in `launch/`; needs a ROS installation."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited, ShutdownProcess, SignalProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from residual_rl_ros.base_policy.prefetch import WORD, parse_prefetch
from residual_rl_ros.errors import ConfigError, FormatError
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.monitor import DISCOVERY_RANGE, reserve_domain
from residual_rl_ros.ros.bringup.processes import Restarts
from residual_rl_ros.ros.bringup.topology import (
    ENVIRONMENT,
    NodeSpec,
    RobotRun,
    dependants,
    resumed,
)
from residual_rl_ros.ros.common.managed_node import domain_number
from residual_rl_ros.ros.common.process import PARENT

SAVING_S = '15'
"""Time from SIGTERM to SIGKILL [s]: a learner needs some to save; launch's own is 5."""
ROBOT_ARGUMENTS = (
    ('config', 'ur_forward_position', 'robot YAML, or the name of a shipped one'),
    ('model', '', 'ONNX base policy, or the name of a shipped one'),
    ('checkpoint', 'runs/robot', 'folder of the learner; one that holds a checkpoint is resumed'),
    ('learner', 'true', 'false: run the residual of the checkpoint and learn nothing'),
    ('preset', '', 'learner preset; empty is that of the checkpoint, or dawn'),
    ('decision_steps', '', "control steps per residual decision; empty: the checkpoint's, or 4"),
    (
        'residual_scale',
        '',
        "lambda: a number, or a list of one for each action; empty: the checkpoint's, or 0.05",
    ),
    (
        'prefetch_steps',
        WORD,
        'control steps before its first use at which a chunk is requested; auto measures inference',
    ),
    ('chunk_blend_steps', '0', 'control steps over which a new chunk takes over'),
    ('temporal_ensemble', '0.0', 'mean of all chunks; see the node parameter'),
    ('ensemble_steps', '0', 'control steps between two chunks of that mean'),
    ('proposals', '1', "draws of the base policy's noise that a decision is given"),
    ('customisable', 'false', 'transitions tell the add-on reward and its weight'),
    ('prior_width', '0.0', 'density of a base policy that tells none; see the node parameter'),
    ('auto_start', 'false', 'start episodes without ~/start_episode'),
    ('seed', '0', 'seed of policy noise and learner'),
    ('classifier', '', 'ONNX success classifier that judges the episodes'),
    ('reward', '', 'instead: package.module:factory of a reward function'),
    (
        'demonstrations',
        '',
        'list of bags, LeRobot datasets, robomimic files or files of train-base that a new learner '
        'begins with',
    ),
    ('observation_map', '', 'list of NAME=KEY[INDEX] where their names differ, or of YAML files'),
    ('record', '', 'folder of a new bag of observations, commands and transitions'),
)
"""Launch arguments of `robot.launch.py` and `fleet.launch.py`: name, default, description."""


def robot_run(value: Mapping[str, str], namespaces: tuple[str, ...]) -> RobotRun:
    """Return the run that the values of `ROBOT_ARGUMENTS` describe."""
    _, robot_file = load_robot(value['config'])
    learning = truth(value, 'learner')
    checkpoint = Path(value['checkpoint'])
    return RobotRun(
        robot_file,
        find_base_policy(value['model']),
        checkpoint if learning else None,
        actor=None if learning else checkpoint,
        preset=value['preset'],
        decision_steps=count(value, 'decision_steps') if value['decision_steps'] else None,
        residual_scale=numbers(value, 'residual_scale') if value['residual_scale'] else None,
        prefetch_steps=parse_prefetch(value['prefetch_steps']),
        chunk_blend_steps=count(value, 'chunk_blend_steps'),
        temporal_ensemble=numbers(value, 'temporal_ensemble')[0],
        ensemble_steps=count(value, 'ensemble_steps'),
        proposals=count(value, 'proposals'),
        customisable=truth(value, 'customisable'),
        prior_width=numbers(value, 'prior_width'),
        seed=count(value, 'seed'),
        auto_start=truth(value, 'auto_start'),
        namespaces=namespaces,
        classifier=Path(value['classifier']) if value['classifier'] else None,
        reward=value['reward'],
        record=Path(value['record']) if value['record'] else None,
        demonstrations=names(value, 'demonstrations') if value['demonstrations'] else (),
        observation_map=names(value, 'observation_map') if value['observation_map'] else (),
    )


def describe(
    arguments: Sequence[tuple[str, str, str]], start: Callable[[Mapping[str, str]], Sequence[Any]]
) -> LaunchDescription:
    """Return the description of a launch file.

    Args:
        arguments: name, default and description of each launch argument.
        start: returns the actions for the arguments' values.
    """

    def perform(context: LaunchContext) -> list[Any]:
        _end_at_hangup(context)
        return list(
            start({name: LaunchConfiguration(name).perform(context) for name, _, _ in arguments})
        )

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=perform)])


def _end_at_hangup(context: LaunchContext) -> None:
    """End the launch in order when its terminal closes; launch itself knows no SIGHUP."""
    loop = context.asyncio_loop
    in_main_thread = threading.current_thread() is threading.main_thread()
    if loop is None or not in_main_thread or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return

    def end() -> None:
        if not context.is_shutdown:
            context.emit_event_sync(Shutdown(reason='the terminal has closed (SIGHUP)'))

    def hangup(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(end)

    signal.signal(signal.SIGHUP, hangup)


def node_action(node: NodeSpec, environment: Mapping[str, str] | None = None) -> Any:
    """Return the action of one process; a lifecycle node configures and activates itself.

    Args:
        node: the process.
        environment: environment variables of its own.
    """
    return (LifecycleNode if node.lifecycle else Node)(
        package='residual_rl_ros',
        executable=node.executable,
        name=node.executable,
        namespace=node.namespace,
        remappings=list(node.remappings.items()),
        parameters=[*map(str, node.parameter_files), dict(node.flat_parameters())],
        ros_arguments=['--enclave', node.enclave],
        # However launch ends (SIGTERM makes it leave its processes behind), its nodes stop.
        additional_env={**ENVIRONMENT, **(environment or {}), PARENT: str(os.getpid())},
        sigkill_timeout=LaunchConfiguration('sigkill_timeout', default=SAVING_S),
        output='screen',
    )


def robot_actions(nodes: Sequence[NodeSpec]) -> list[Any]:
    """Return the actions of what runs beside one robot or several, as `residual-rl up` does it.

    A learner that dies is started again. A policy that ends takes its judge and its recorder along,
    and the last policy the launch.
    """
    actions = [node_action(node) for node in nodes]
    of = {node.name: action for node, action in zip(nodes, actions, strict=True)}
    policies = [node for node in nodes if node.executable == 'policy_node']
    handlers = end_with([of[policy.name] for policy in policies])
    for policy in policies:
        followers = [of[node.name] for node in dependants(policy, nodes)]
        handlers += [_when_ended(of[policy.name], _stop_all(followers))] if followers else []
    for node in nodes:
        if node.executable == 'learner_node':
            handlers.append(_restarted(node, of[node.name], Restarts(), actions))
    return [*handlers, _all_stop_at_once(actions), *actions]


def simulation_actions(nodes: Sequence[NodeSpec], domain: str) -> list[Any]:
    """Return the actions of a simulation in a ROS domain of its own; the first end is that of all.

    Args:
        nodes: its processes.
        domain: number of the domain; empty takes a free one.

    Raises:
        ResidualRLError: the domain is no number, is in use, or none is free.
    """
    claim = ExitStack()
    number = claim.enter_context(
        reserve_domain(domain_number('domain', domain) if domain else None)
    )
    environment = {'ROS_DOMAIN_ID': str(number), DISCOVERY_RANGE: 'LOCALHOST'}
    actions = [node_action(node, environment) for node in nodes]
    return [
        LogInfo(
            msg=f'simulation in namespace {nodes[0].full_namespace} of ROS domain {number}, on '
            f'this computer only: export ROS_DOMAIN_ID={number} to look at it'
        ),
        RegisterEventHandler(OnShutdown(on_shutdown=lambda event, context: claim.close())),
        *(handler for action in actions for handler in end_with([action])),
        _all_stop_at_once(actions),
        *actions,
    ]


def end_with(nodes: Sequence[Any]) -> list[Any]:
    """Return actions that end the launch when the last of these nodes has ended."""
    running = len(nodes)

    def ended(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
        nonlocal running
        del event
        running -= 1
        # A second shutdown is an error.
        return EmitEvent(event=Shutdown()) if running == 0 and not context.is_shutdown else None

    return [_when_ended(node, ended) for node in nodes]


def _when_ended(node: Any, react: Callable[[ProcessExited, LaunchContext], Any]) -> Any:
    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=react))


def _all_stop_at_once(actions: Sequence[Any]) -> Any:
    """Return what stops every process as soon as the launch ends.

    After a SIGINT launch believes that they have had one too, which is so only in a terminal.
    """

    def stop(event: Shutdown, context: LaunchContext) -> list[Any]:
        del event, context
        running = [action for action in actions if 'pid' in (action.process_details or {})]
        return [
            EmitEvent(
                event=SignalProcess(
                    signal_number=signal.SIGINT, process_matcher=matches_action(action)
                )
            )
            for action in running
        ]

    return RegisterEventHandler(OnShutdown(on_shutdown=stop))


def _stop_all(nodes: Sequence[Any]) -> Callable[[ProcessExited, LaunchContext], Any]:
    def react(event: ProcessExited, context: LaunchContext) -> Any:
        del event
        if context.is_shutdown:
            return None
        return [
            EmitEvent(event=ShutdownProcess(process_matcher=matches_action(node))) for node in nodes
        ]

    return react


def _restarted(node: NodeSpec, action: Any, restarts: Restarts, actions: list[Any]) -> Any:
    """Return what starts a learner again when it has died, and adds that to the actions."""

    def react(event: ProcessExited, context: LaunchContext) -> Any:
        said = '' if context.is_shutdown else restarts.take(event.returncode)
        if not said:
            return None
        again = node_action(resumed(node))
        actions.append(again)
        message = LogInfo(msg=f'{node.name} ended with code {event.returncode}: {said}')
        return [message, _restarted(node, again, restarts, actions), again]

    return _when_ended(action, react)


def truth(value: Mapping[str, str], name: str) -> bool:
    """Return whether a launch argument says yes.

    Raises:
        ConfigError: it says neither yes nor no.
    """
    text = value[name].lower()
    if text not in TRUTHS:
        raise ConfigError(f'{name} is {value[name]!r}, expected true or false')
    return TRUTHS[text]


def count(value: Mapping[str, str], name: str) -> int:
    """Return a launch argument that is a whole number, not negative.

    Raises:
        ConfigError: it is none.
    """
    if not (value[name].isascii() and value[name].isdecimal() and len(value[name]) < 19):
        raise ConfigError(f'{name} is {value[name]!r}, expected a whole number from 0 on')
    return int(value[name])


def numbers(value: Mapping[str, str], name: str) -> tuple[float, ...]:
    """Return a launch argument that is a number, or a list of numbers.

    Raises:
        ConfigError: it is none.
    """
    texts = value[name].strip().removeprefix('[').removesuffix(']').split(',')
    try:
        return tuple(map(float, texts))
    except ValueError:
        raise ConfigError(
            f'{name} is {value[name]!r}, expected a number such as 0.05, or a list of one for each '
            'action such as [0.05, 0.1]'
        ) from None


def names(value: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return a launch argument that is a list of names.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = parse_yaml(value[name], name)
    except FormatError:
        found = None
    if not isinstance(found, list) or not found:
        raise ConfigError(f'{name} is {value[name]!r}, expected a list such as [left, right]')
    return tuple(map(str, found))


TRUTHS = {
    **dict.fromkeys(('true', '1', 'yes', 'on'), True),
    **dict.fromkeys(('false', '0', 'no', 'off'), False),
}
