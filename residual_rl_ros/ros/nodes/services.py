# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The services and stop inputs of the policy node, and the service that resets a scene for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.control.feedback import END_EPISODE, MARK_FAILURE, MARK_SUCCESS, StepFeedback
from residual_rl_ros.control.policy_loop import Answer, PolicyLoop
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.preparation_spec import ResetSpec
from residual_rl_ros.robot.stop_inputs import (
    StopInput,
    StopOrder,
    check_stop_input,
    stop_reason,
)
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.managed_node import ManagedNode
from residual_rl_ros.ros.common.message_types import message_class


class PolicyServices:
    """Opens the services of a policy node.

    Args:
        node: the node.
        loop: what is asked.
        now: returns the ROS time [s].
    """

    def __init__(self, node: Node, loop: PolicyLoop, now: Callable[[], float]) -> None:
        def ending(feedback: StepFeedback) -> Callable[[Any], Answer]:
            return lambda request: loop.end_episode(feedback, now())

        services: dict[str, tuple[Any, Callable[[Any], Answer]]] = {
            'set_residual': (SetBool, lambda request: loop.enable_residual(request.data)),
            'hold': (SetBool, lambda request: loop.set_held(request.data)),
            'start_episode': (Trigger, lambda request: loop.request_start()),
            'go_home': (Trigger, lambda request: loop.request_home()),
            'mark_success': (Trigger, ending(MARK_SUCCESS)),
            'mark_failure': (Trigger, ending(MARK_FAILURE)),
            'end_episode': (Trigger, ending(END_EPISODE)),
        }
        for name, (kind, ask) in services.items():
            node.create_service(kind, f'~/{name}', partial(self._answer, ask))

    @staticmethod
    def _answer(ask: Callable[[Any], Answer], request: Any, response: Any) -> Any:
        answer = ask(request)
        response.success, response.message = answer.accepted, answer.message
        return response


class ServiceHook:
    """Resets a scene by a service; see `control/preparation.py`.

    Args:
        node: gets the client.
        spec: names the service.

    Raises:
        ConfigError: its type is not installed.
    """

    def __init__(self, node: ManagedNode, spec: ResetSpec) -> None:
        self._kind = message_class(spec.service_type)
        self._client = node.create_client(self._kind, spec.service)
        node.made.callback(node.destroy_client, self._client)
        self.name = f'robot.reset.service {node.resolve_service_name(spec.service)}'
        self._future: Any = None

    def begin(self) -> None:
        """Call the service, if it is there."""
        ready = self._client.service_is_ready()
        self._future = self._client.call_async(self._kind.Request()) if ready else None

    def outcome(self) -> str | None:
        """Return what it has answered; see `ResetHook`."""
        if self._future is None:
            return 'it is not there'
        if not self._future.done():
            return None
        if (error := self._future.exception()) is not None:
            return str(error)
        answer = self._future.result()
        if self._kind is not Trigger or answer.success:
            return ''
        return answer.message or 'it says no, and gives no reason'

    def cancel(self) -> str:
        """Expect no answer any more; see `ResetHook`."""
        if self._future is not None:
            self._client.remove_pending_request(self._future)
        return ''


def stop_class(stop: StopInput) -> Any:
    """Return the message class of a stop input.

    Raises:
        ConfigError: no installed package has it.
    """
    try:
        return message_class(stop.type)
    except ConfigError as error:
        raise ConfigError(f'robot.stop_inputs.{stop.name}.type: {error}') from error


def listen_to_stop(node: Node, stop: StopInput, hear: Callable[[str], object]) -> None:
    """Listen to a stop input.

    Args:
        node: gets the subscriptions.
        stop: the stop input.
        hear: told of each message why it forbids to move; empty if it does not.

    Raises:
        ConfigError: its message type is not installed, or has no such field.
    """
    kind, order = stop_class(stop), StopOrder(time.monotonic)
    check_stop_input(stop, kind())

    def callback(message: Any, information: Mapping[str, Any]) -> None:
        reason = stop_reason(stop, message)
        if order.counts(information['source_timestamp'], bool(reason)):
            hear(reason)

    # Of subscriptions to one topic, some may not fit its publisher: that is no news.
    quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
    for profile in (qos.LATCHED, qos.ON_CHANGE, qos.SENSOR):
        node.create_subscription(kind, stop.topic, callback, profile, event_callbacks=quiet)


class StopInputs:
    """Tells a loop what the stop inputs of a robot say.

    Args:
        node: the policy node.
        inputs: of the robot.
        loop: what holds.
        now: returns the ROS time [s].

    Raises:
        ConfigError: an input's message type is not installed, or has no such field.
    """

    def __init__(
        self,
        node: Node,
        inputs: tuple[StopInput, ...],
        loop: RealTimeLoop,
        now: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._now = now
        self._watched = [stop for stop in inputs if stop.max_age_s or stop.required]
        self._heard: dict[str, float] = {}
        for stop in inputs:
            listen_to_stop(node, stop, partial(self._hear, stop))

    def _hear(self, stop: StopInput, reason: str) -> None:
        self._heard[stop.name] = self._now()
        self._loop.obstacles.set_stop(stop.name, reason)

    def watch(self) -> None:
        """Hold where an input has fallen silent; to be called before each control step."""
        for stop in self._watched:
            age = self._now() - self._heard.get(stop.name, -float('inf'))
            if stop.name not in self._heard or (
                stop.max_age_s and not 0.0 <= age <= stop.max_age_s
            ):
                silent = f'{age:.2f} s old' if stop.name in self._heard else 'not heard yet'
                self._loop.obstacles.set_stop(stop.name, f'stop input {stop.name!r} is {silent}')
