# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Topics that show what the policy decides, for Foxglove, PlotJuggler, rqt and RViz.

A control step only notes its command; the messages are made after it, at most so often, and only
for topics that somebody subscribes to. One of them is for another node too: the takeover node goes
on from `~/executed_action`, which therefore shows every control step.
"""

from __future__ import annotations

import array
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import JointState

from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.decision import CommandedStep
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.ros.common.encoders import to_time
from residual_rl_ros.ros.common.managed_node import ManagedNode
from residual_rl_ros.ros.nodes.workspace_markers import WorkspaceMarkers

DEPTH = 10
"""Messages that a slow viewer may be behind."""
EXECUTED = 'executed_action'
"""Topic of the command of every control step."""
ACTIONS = ('base_action', 'residual_action', EXECUTED)
"""Topics with one value for each action, in command units."""
DECISION = 'decision'
"""Topic that says why they are what they are, and name of its status."""
DECISION_KEYS = (
    'source',
    'chosen',
    'late',
    'bound_share',
    'bound_scale',
    'advantage',
    'episode',
    'step',
    'epoch',
    'sequence',
)
"""Keys of `~/decision`; one that is not known is left out."""


class DecisionTopics:
    """Publishes the actions of a control step, and why they are what they are.

    Args:
        node: gets the publishers.
        controller: knows what a command was made of.
        robot: name of the robot.
        frame: frame of the workspace's kinematic model.
        rate_hz: how often all but the command is shown, at the most; 0 never.
        clock: monotonic time [s].
    """

    def __init__(
        self,
        node: ManagedNode,
        controller: ResidualController,
        robot: str,
        frame: str,
        rate_hz: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.rate_hz = rate_hz
        """How often all but the command is shown, at the most; 0 never."""
        self._controller = controller
        self._clock = clock
        self._latest = -np.inf
        self._sent: tuple[Array, float, str] | None = None
        self._robot = robot
        safety = controller.limiter.safety
        self._names = list(safety.action.names)
        create = node.create_lifecycle_publisher
        self._publishers = {name: create(JointState, f'~/{name}', DEPTH) for name in ACTIONS}
        self._decision = create(DiagnosticArray, f'~/{DECISION}', DEPTH)
        self._markers: WorkspaceMarkers | None = None
        if safety.workspace is not None:
            try:
                self._markers = WorkspaceMarkers(node, safety.workspace, frame)
            except ConfigError as error:
                node.get_logger().warning(f'no ~/markers: {error}')

    def note(self, command: Array, stamp: float, holding: bool, going_home: bool = False) -> None:
        """Remember a command that was sent, until `publish`.

        Args:
            command: shape (m,).
            stamp: its ROS time [s].
            holding: it is that of a hold.
            going_home: it is one on the way home.
        """
        self._sent = command, stamp, 'hold' if holding else 'home' if going_home else ''

    def publish(self) -> None:
        """Publish the command that was noted, and show how it came about if it is time to."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        command, stamp, source = sent
        self._publish_action(EXECUTED, command, stamp)
        if self._is_time():
            self._show(command, stamp, source)

    def _is_time(self) -> bool:
        """Return, once in a control step, whether to show it."""
        if not self.rate_hz:
            return False
        period_s, now = 1.0 / self.rate_hz, self._clock()
        elapsed_s = now - self._latest
        if elapsed_s < period_s:
            return False
        # On the average the rate, whatever the control rate; a pause is not made up for.
        self._latest = self._latest + period_s if elapsed_s < 2.0 * period_s else now
        return True

    def _publish_action(self, name: str, values: Array, stamp: float) -> None:
        """Publish a value for each action, if somebody subscribes."""
        publisher = self._publishers[name]
        if publisher.get_subscription_count():
            position = array.array('d', np.asarray(values, dtype=np.float64).tobytes())
            message = JointState(name=self._names, position=position)
            message.header.stamp = to_time(stamp)
            publisher.publish(message)

    def _show(self, command: Array, stamp: float, source: str) -> None:
        """Show how a command came about, and who gave it if that was not a decision."""
        commanded = None if source else self._controller.commanded()
        if commanded is not None:
            self._publish_action('base_action', commanded.base, stamp)
            self._publish_action('residual_action', commanded.residual, stamp)
        time_stamp = to_time(stamp)
        if self._decision.get_subscription_count():
            self._decision.publish(self._explained(commanded, command, time_stamp, source))
        if self._markers is not None:
            coming = self._controller.queue.coming
            self._markers.publish(command, commanded, coming, time_stamp)

    def _explained(
        self, commanded: CommandedStep | None, command: Array, stamp: Any, source: str
    ) -> DiagnosticArray:
        values = self._values(commanded, command, source)
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if values['late'] else DiagnosticStatus.OK,
            name=DECISION,
            message=f'{values["source"]}: the base policy is late'
            if values['late']
            else values['source'],
            hardware_id=self._robot,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        return message

    def _values(
        self, commanded: CommandedStep | None, command: Array, source: str
    ) -> dict[str, Any]:
        """Return what is known, by `DECISION_KEYS`."""
        if source:
            return {'source': source, 'late': False}
        if commanded is None:
            overridden = self._controller.limiter.overridden
            return {'source': 'takeover' if overridden else 'hold', 'late': not overridden}
        action = self._controller.limiter.safety.action
        if action.is_discrete:
            chosen = action.names[int(np.argmax(command))]
        else:
            chosen = 'residual' if commanded.share > 0.0 else 'base'
        values = {
            'source': commanded.source.name.lower(),
            'chosen': chosen,
            'late': False,
            'bound_share': round(commanded.share, 4),
            'bound_scale': round(commanded.bound_scale, 4),
            'episode': commanded.episode,
            'step': commanded.step,
        }
        if commanded.advantage is not None:
            values['advantage'] = commanded.advantage
        header = self._controller.mailbox.header
        if header is not None:
            values |= {'epoch': header.epoch, 'sequence': header.sequence}
        return values


def _text(value: Any) -> str:
    """Return a value so that plots take a truth as 0 or 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)
