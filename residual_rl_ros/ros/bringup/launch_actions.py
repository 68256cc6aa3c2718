# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A topology as launch actions, for the files in `launch/`; needs a ROS installation."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit, OnProcessIO, OnShutdown
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited, ProcessIO, ShutdownProcess, SignalProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from residual_rl_ros.ros.bringup.domains import DISCOVERY_RANGE, reserve_domain
from residual_rl_ros.ros.bringup.launch_arguments import Argument, parsed
from residual_rl_ros.ros.bringup.node_spec import ENVIRONMENT, NodeSpec, dependants
from residual_rl_ros.ros.bringup.processes import (
    KILL_S,
    LISTENERS,
    SAVING_S,
    STOPPING_S,
    Restarts,
)
from residual_rl_ros.ros.bringup.topology import resumed
from residual_rl_ros.ros.common.node_host import domain_number
from residual_rl_ros.ros.common.process import PARENT


def describe(
    arguments: Sequence[Argument], start: Callable[[Mapping[str, Any]], Sequence[Any]]
) -> LaunchDescription:
    """Return the description of a launch file.

    Args:
        arguments: the launch arguments.
        start: returns the actions for the arguments' values.
    """

    def perform(context: LaunchContext) -> list[Any]:
        _end_at_hangup(context)
        texts = {each.name: LaunchConfiguration(each.name).perform(context) for each in arguments}
        # The one that is raised launch says in such a line itself.
        return list(start(parsed(arguments, texts, get_logger('launch').error)))

    declared = [
        DeclareLaunchArgument(each.name, default_value=each.default, description=each.description)
        for each in arguments
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
        ros_arguments=['--enclave', node.enclave, *node.level_arguments()],
        # However launch ends (SIGTERM makes it leave its processes behind), its nodes stop.
        additional_env={**ENVIRONMENT, **(environment or {}), PARENT: str(os.getpid())},
        # Launch's own 5 s would cut a save short.
        sigterm_timeout=LaunchConfiguration(
            'sigterm_timeout',
            default=str(SAVING_S if node.executable in LISTENERS else STOPPING_S),
        ),
        sigkill_timeout=LaunchConfiguration('sigkill_timeout', default=str(KILL_S)),
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
    handlers += _reasons_last([of[policy.name] for policy in policies], actions)
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
        *_reasons_last(actions, actions),
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


def _reasons_last(nodes: Sequence[Any], actions: Sequence[Any]) -> list[Any]:
    """Return what says in the end why nodes have failed, below what the others print as they stop.

    Only ends before the launch was stopped count.

    Args:
        nodes: whose reasons matter.
        actions: every process, those of later restarts too.
    """
    said: dict[Any, str] = {}
    reasons: list[str] = []
    ended: set[Any] = set()

    def listen(event: ProcessIO) -> None:
        lines = event.text.decode(errors='replace').splitlines()
        said[event.action] = next((line for line in reversed(lines) if line.strip()), '') or (
            said.get(event.action, '')
        )

    def react(event: ProcessExited, context: LaunchContext) -> Any:
        ended.add(event.action)
        if event.returncode and event.action in nodes and not context.is_shutdown:
            last = said.get(event.action, 'it printed nothing')
            reasons.append(f'{event.process_name} ended with code {event.returncode}: {last}')
        if reasons and ended.issuperset(actions):
            return [LogInfo(msg=reason) for reason in reasons]
        return None

    listening = [
        RegisterEventHandler(OnProcessIO(target_action=node, on_stdout=listen, on_stderr=listen))
        for node in nodes
    ]
    return [*listening, RegisterEventHandler(OnProcessExit(on_exit=react))]


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
