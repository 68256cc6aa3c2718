# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every node shares: lifecycle, diagnostics and signals."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.robot.stamps import to_seconds
from residual_rl_ros.ros.common.concerns import Concern, Concerns
from residual_rl_ros.ros.common.node_host import admitted, ros_domain
from residual_rl_ros.ros.common.parameters import every_parameter_valued, parser_complaint
from residual_rl_ros.ros.common.process import (
    ACTIVE_LIMIT_S,
    EXIT_LIMIT_S,
    SAVE_LIMIT_S,
    StopRequest,
    end_at_exit,
    end_within,
)

ANSWER_LIMIT_S = 1.0
"""How long a node that has stopped waits for answers before its process ends [s]."""


class Diagnostics:
    """Publishes the status of a node on `/diagnostics` again and again, and one per concern.

    Args:
        node: owner.
        report: returns level, message and values; called once a period.
        period_s: time between two messages [s].
        hardware: what the node is about, the robot say; empty is this computer.
        concerns: its parts, each with a status of its own below the node's.
    """

    def __init__(
        self,
        node: Node,
        report: Callable[[], tuple[bytes, str, Mapping[str, Any]]],
        period_s: float,
        hardware: str = '',
        concerns: Sequence[Concern] = (),
    ) -> None:
        self._node = node
        self._report = report
        self._hardware = hardware or socket.gethostname()
        self._concerns = Concerns(concerns)
        self._publisher = Node.create_publisher(node, DiagnosticArray, '/diagnostics', 10)
        node.create_timer(period_s, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        """Publish now."""
        level, message, values = self._report()
        name = self._node.get_fully_qualified_name()
        statuses = [self._status(level, name, message, values)]
        for part in self._concerns.split(level, message, values):
            full = f'{name}/{part.name}'
            statuses.append(self._status(part.level, full, part.message, part.values))
        array = DiagnosticArray(status=statuses)
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _status(
        self, level: bytes, name: str, message: str, values: Mapping[str, Any]
    ) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level,
            name=name,
            message=message,
            hardware_id=self._hardware,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )


def control_clock(node: Node) -> Clock:
    """Return the clock for a timer at the control rate.

    A wall clock that is set back must not stop the robot. With `use_sim_time` the simulator owns
    the time, and its pause is one.
    """
    if node.get_parameter('use_sim_time').value:
        return node.get_clock()
    return Clock(clock_type=ClockType.STEADY_TIME)


def change_state_service(node: LifecycleNode) -> Any:
    """Return the service `~/change_state`, which rclpy keeps to itself.

    Raises:
        ConfigError: this rclpy keeps it elsewhere.
    """
    service = getattr(node, '_service_change_state', None)
    if service is None or not hasattr(service, 'callback'):
        raise ConfigError(
            f'{node.get_name()} cannot start: LifecycleNode of this rclpy has no '
            '_service_change_state.callback, so that a refused transition would end the node; use '
            'rclpy of ROS 2 Jazzy (7.1) or Kilted'
        )
    return service


class ManagedNode(LifecycleNode, ABC):
    """A lifecycle node whose failed transitions say why.

    rclpy swallows exceptions of transition callbacks; here they are logged, and kept in
    `failure` for the exit code until the next attempt.

    Args:
        name: node name.
    """

    def __init__(self, name: str) -> None:
        with every_parameter_valued(name):
            super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self.failure: Exception | None = None
        self.active = False
        """Whether it works; no longer, once it has begun to stop."""
        self._problem = ''
        self.made = ExitStack()
        """Takes back what `configure` makes; what is not a ROS entity adds itself."""
        service = change_state_service(self)
        self._change_state, service.callback = service.callback, self._on_change_state

    def _on_change_state(self, request: Any, response: Any) -> Any:
        """Refuse a transition that the state does not allow; in rclpy it would end the node."""
        try:
            return self._change_state(request, response)
        except RCLError as error:
            self.get_logger().error(f'change_state refused: {error}')
            response.success = False
            return response

    @abstractmethod
    def configure(self) -> None:
        """Read parameters and build everything; raise on bad input."""

    def activate(self) -> None:
        """Start working."""

    def deactivate(self) -> None:
        """Stop working; the publishers are still open."""

    def unanswered(self) -> list[str]:
        """Return who has not answered yet what this node has asked for as it stopped."""
        return []

    def warn(self, reason: str) -> None:
        """Log a problem and put it into the next diagnostics."""
        self._problem = reason
        self.get_logger().warning(reason, throttle_duration_sec=2.0)

    def _now(self) -> float:
        """Return the ROS time [s]."""
        # `Clock.now` makes a Time of this, which takes four times as long.
        return to_seconds(*divmod(self.get_clock().handle.get_now().nanoseconds, 10**9))

    def _health(self) -> tuple[bytes, str]:
        """Return level and message for the diagnostics; a problem is told once."""
        problem, self._problem = self._problem, ''
        return (WARN, problem) if problem else (OK, 'running')

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `configure`; what it made is taken back if it fails, so that it can run again."""
        del state
        self.failure = None
        lasting = list(self._entities())
        self.made.callback(self._destroy_all_but, lasting)
        result = self._guarded(self._configure_admitted)
        if result is not TransitionCallbackReturn.SUCCESS:
            self.made.close()
        return result

    def _configure_admitted(self) -> None:
        with admitted(self.context.get_domain_id()):
            self.configure()

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take back what `configure` made."""
        del state
        return self._guarded(self.made.close)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Recover to unconfigured: nothing of what failed is left."""
        del state
        self.active = False
        return self._guarded(self.made.close)

    def _entities(self) -> Iterator[tuple[Any, Callable[[Any], bool]]]:
        """Yield the ROS entities of this node, each with what destroys it."""
        for entities, destroy in (
            (self.publishers, self.destroy_lifecycle_publisher),
            (self.subscriptions, self.destroy_subscription),
            (self.services, self.destroy_service),
            (self.timers, self.destroy_timer),
        ):
            for entity in entities:
                yield entity, destroy

    def _destroy_all_but(self, lasting: Sequence[tuple[Any, Any]]) -> None:
        kept = {id(entity) for entity, _ in lasting}
        for entity, destroy in list(self._entities()):
            if id(entity) not in kept:
                destroy(entity)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the publishers, then run `activate`."""
        self.failure = None
        result = super().on_activate(state)
        if result is TransitionCallbackReturn.SUCCESS:
            self.active = True
            result = self._guarded(self.activate)
        if result is not TransitionCallbackReturn.SUCCESS:
            self.active = False
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `deactivate`, so that a hold goes out, before the publishers close.

        If it fails the node is cleaned up: it is not active again.
        """
        self.active = False
        result = self._guarded(self.deactivate)
        super().on_deactivate(state)
        if result is TransitionCallbackReturn.FAILURE:
            return TransitionCallbackReturn.ERROR
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate if active."""
        if self.active:
            return self.on_deactivate(state)
        return TransitionCallbackReturn.SUCCESS

    def _guarded(self, callback: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            callback()
        except ResidualRLError as error:
            self.failure = error
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it without a word.
            self.failure = error
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS


def run(create: Callable[[], Any], spin: Callable[[Any], None] | None = None) -> int:
    """Run a node until it is told to stop; return the exit code, with which the process then ends.

    Parameter `autostart` (default true) configures and activates a lifecycle node at once. It is
    told to stop by SIGINT, SIGTERM or SIGHUP, and by the death of the program that started it if
    that asks for it (`PARENT`).

    Args:
        create: makes the node.
        spin: works until the node's `request_stop` is called; default: spins one thread.

    Returns:
        0 after a requested end, 2 after bad input (said in one line), 1 after anything else.
    """
    code = _run(create, spin)
    end_at_exit(code)
    return code


def _run(create: Callable[[], Any], spin: Callable[[Any], None] | None) -> int:
    """Run a node until it has stopped; see `run`."""
    node: Any = None
    stopping = StopRequest(ACTIVE_LIMIT_S if spin is None else SAVE_LIMIT_S)
    code = 0
    try:
        domain_id = ros_domain()
        stopping.listen()
        with admitted(domain_id):
            _init(domain_id)
            if stopping.is_set():
                return 0
            node = create()
        if isinstance(node, ManagedNode):
            _start(node, stopping)
            if node.failure is not None:
                return 2 if isinstance(node.failure, ResidualRLError) else 1
        if spin is not None:
            stopping.call(node.request_stop)
            spin(node)
        else:
            _spin_until(node, stopping)
    except SystemExit as error:
        code = int(error.code or 0)
    except ResidualRLError as error:
        print('error:', ' '.join(str(error).split()), file=sys.stderr)
        return 2
    finally:
        stopping.close()
        if isinstance(node, ManagedNode) and node.active:
            node.trigger_shutdown()
            _await_answers(node)
        # A thread that hangs, in an inference say, must not keep a node that has stopped alive.
        end_within(EXIT_LIMIT_S)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    failure = getattr(node, 'failure', None)
    return code if failure is None else 2 if isinstance(failure, ResidualRLError) else 1


def _init(domain_id: int) -> None:
    """Begin with ROS 2, and the arguments of this process.

    Raises:
        ConfigError: a parameter file cannot be read.
    """
    try:
        rclpy.init(
            args=sys.argv, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO
        )
    except RCLError as error:
        complaint = parser_complaint(error)
        if complaint is None:
            raise
        raise ConfigError(f'a parameter file cannot be read: {complaint}') from error


def _start(node: ManagedNode, stopping: StopRequest) -> None:
    """Configure and activate a node if it is to start by itself, unless it was told to stop."""
    if not node.has_parameter('autostart'):
        node.declare_parameter('autostart', True)
    if node.get_parameter('autostart').value:
        node.trigger_configure()
        if node.failure is None and not stopping.is_set():
            node.trigger_activate()


def _spin_until(node: Node, stopping: StopRequest) -> None:
    """Work in this thread until told to stop."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stopping.call(executor.wake)
    while not stopping.is_set():
        executor.spin_once(timeout_sec=1.0)


def _await_answers(node: ManagedNode) -> None:
    """Let a node that has stopped hear the answers to its last requests, within reason."""
    if not node.unanswered():
        return
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while (late := node.unanswered()) and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    executor.remove_node(node)
    for name in late:
        node.get_logger().warning(f'{name} has not answered within {ANSWER_LIMIT_S:g} s')


OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR
