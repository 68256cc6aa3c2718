# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The takeover node: a gamepad, a 6-D mouse or a keyboard in, an operator's commands out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.control.takeover import Takeover, TakeoverState
from residual_rl_ros.control.takeover_controls import (
    BUTTON_SERVICES,
    JOY,
    KEYBOARD,
    TakeoverConfig,
    load_takeover,
)
from residual_rl_ros.errors import CommandError, ConfigError, ObservationError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.consistency import TAKEOVER_ACTIVE
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.command_writers import CommandWriter
from residual_rl_ros.ros.common.encoders import ChannelReader
from residual_rl_ros.ros.common.managed_node import (
    Diagnostics,
    ManagedNode,
    control_clock,
    run,
)
from residual_rl_ros.ros.common.node_parameters import TakeoverParameters
from residual_rl_ros.ros.common.parameters import follow_parameters, read_parameters, read_tree
from residual_rl_ros.ros.common.terminal_keys import single_keys

TOLD_S, TOLD_PERIODS = 0.25, 3.0
"""What the policy node told the robot longer ago than both counts no more [s, control periods]."""
HOLD_LIMIT_S = 0.5
"""A hold that is not acknowledged for this long is sent again, and warned of [s]."""


class TakeoverNode(ManagedNode):
    """Commands a robot while an operator holds on to it."""

    def __init__(self) -> None:
        super().__init__('takeover_node')
        self._refused = self._takeovers = 0
        self._terminal = ExitStack()

    def configure(self) -> None:
        """Load robot and controls, check them against each other, open the topics."""
        parameters = read_parameters(self, TakeoverParameters, ('robot',))
        if not parameters.config:
            raise ConfigError('takeover_node needs config: a file such as config/takeover/*.yaml')
        self._robot = robot = RobotConfig.from_mapping(read_tree(self, 'robot'))
        self._config, path = load_takeover(parameters.config, robot)
        self._period = 1.0 / robot.control_rate_hz
        self._takeover = Takeover(self._config, robot.action, self._period)
        self._measure()
        self._open_input()
        self._writer = CommandWriter(robot.takeover, self._period, lockstep=False)
        publisher = self.create_lifecycle_publisher
        self._commands = publisher(self._writer.message_type, robot.takeover.topic, qos.COMMAND)
        self._active = publisher(Bool, TAKEOVER_ACTIVE, qos.COMMAND)
        self._buttons = Buttons(self, tuple(self._config.keys.buttons.by_name()), self.warn)
        Diagnostics(self, self._report, parameters.diagnostics_period_s, robot.name)
        self.made.callback(follow_parameters(self, parameters, lambda parameters: None))
        self.get_logger().info(f'{robot.name} is taken over with {path}')

    def activate(self) -> None:
        """Begin to listen to the operator."""
        # Who held on before must take hold again.
        self._takeover = Takeover(self._config, self._robot.action, self._period)
        if self._config.keys.input == KEYBOARD:
            hold = self._config.keys.buttons.hold
            self._keyboard = self._terminal.enter_context(single_keys(sys.stdin, hold))
        self._timer = self.create_timer(self._period, self._tick, clock=control_clock(self))

    def deactivate(self) -> None:
        """Leave the robot at rest, and in the operator's hands: nobody has given it back."""
        self.destroy_timer(self._timer)
        if self._takeover.state is not TakeoverState.OFF:
            self._publish(self._takeover.at_rest())
        self._terminal.close()

    # --- the robot

    def _measure(self) -> None:
        """Listen to the channels in which the actions are measured."""
        wanted = self._robot.action.measured_by
        channels = tuple(
            channel
            for channel in self._robot.channels
            if set(wanted) & set(channel.observation_names)
        )
        self._assembler = ObservationAssembler(channels)
        names = [name for channel in channels for name in channel.observation_names]
        self._indices = np.array([names.index(name) for name in wanted], dtype=np.intp)
        for channel in channels:
            ChannelReader(channel).feed(self, self._assembler, self._now, self._refuse)
        self._executed, self._executed_at = np.zeros(0), -math.inf
        self.create_subscription(JointState, 'policy_node/executed_action', self._on_action, 1)

    def _on_action(self, message: JointState) -> None:
        known = tuple(message.name) == self._robot.action.names
        if known and len(message.position) == len(message.name):
            self._executed, self._executed_at = np.array(message.position), time.monotonic()

    def _refuse(self, error: ObservationError) -> None:
        self.warn(str(error))

    def _measured(self) -> Array | None:
        """Return where the robot is, shape (m,), None if nobody knows."""
        if not self._indices.size:
            return None
        try:
            return self._assembler.assemble(self._now())[self._indices]
        except ObservationError as error:
            self.warn(str(error))
            return None

    # --- the operator

    def _open_input(self) -> None:
        """Listen to the operator.

        Raises:
            ConfigError: a keyboard is wanted, and there is no terminal.
        """
        kind, topic = self._config.keys.input, self._config.topic
        if kind == KEYBOARD:
            if not sys.stdin.isatty():
                raise ConfigError(
                    f'{self._config.source}: input keyboard needs a terminal: run takeover_node '
                    'in one of its own'
                )
            self._struck: dict[str, float] = {}
            return
        message, values = (Joy, joy_values) if kind == JOY else (Twist, twist_values)
        read = partial(values, config=self._config)
        self.create_subscription(message, topic, partial(self._hear, read), qos.SENSOR)

    def _hear(self, read: Callable[[Any], Mapping[str, float]], message: Any) -> None:
        try:
            self._receive(read(message))
        except CommandError as error:
            self._refused += 1
            self.warn(str(error))

    def _read_keyboard(self) -> None:
        """Take in the keys that were struck; a key counts as pressed for `max_age_s`.

        Release lets go of hold, so that hold can be pressed anew at once. Beside hold it is none.
        """
        keys, now = self._keyboard.read(0.0), time.monotonic()
        if keys is None:
            self.warn('the terminal has closed: nothing is heard of its keys')
            return
        buttons = self._config.keys.buttons
        if buttons.hold in keys:
            keys = [key for key in keys if key != buttons.release]
        elif buttons.release in keys:
            self._struck.pop(buttons.hold, None)
        self._struck |= dict.fromkeys(keys, now)
        controls, limit_s = self._config.keys.controls, self._config.keys.max_age_s
        since = {name: now - self._struck.get(name, -math.inf) for name in controls}
        self._receive({name: float(age <= limit_s) for name, age in since.items()})

    def _receive(self, values: Mapping[str, float]) -> None:
        for name in self._takeover.receive(values, time.monotonic()):
            if self.active:
                self._buttons.press(name)
        if self.active and (ignored := self._takeover.presses.ignored):
            self.warn(
                f'{", ".join(ignored)} of {self._config.source} is down and does not count: the '
                f'input was silent for {self._config.keys.max_age_s:g} s; let go and press again'
            )

    def _tick(self) -> None:
        if self._config.keys.input == KEYBOARD:
            self._read_keyboard()
        before, now = self._takeover.state, time.monotonic()
        recent_s = max(TOLD_S, TOLD_PERIODS * self._period)
        executed = self._executed if now - self._executed_at <= recent_s else None
        command = self._takeover.command(self._measured(), now, executed)
        if command is not None:
            self._takeovers += before is TakeoverState.OFF
            self._publish(command)
        elif before is not TakeoverState.OFF:
            self._active.publish(Bool(data=False))
        if self._takeover.problem:
            self.warn(self._takeover.problem)
        if self._takeover.state is TakeoverState.LOST:
            self.warn(
                f'nothing is heard of the operator ({self._config.topic}): the robot stands still '
                'until the deadman is held again, and let go'
            )
        self._buttons.look()

    def _publish(self, command: Array) -> None:
        """Publish a command, then that it counts."""
        self._commands.publish(self._writer.message(command, self._now()))
        self._active.publish(Bool(data=True))

    def _report(self) -> tuple[bytes, str, Mapping[str, Any]]:
        values = {
            'active': self.active,
            'takeover_state': self._takeover.state.value,
            'takeovers': self._takeovers,
            'refused_inputs': self._refused,
        }
        return *self._health(), values


class Buttons:
    """Calls the services of the policy node; a hold is repeated until it is acknowledged.

    Args:
        node: gets the clients.
        names: of the buttons that there are.
        warn: is told what the operator should know.
    """

    def __init__(
        self, node: ManagedNode, names: tuple[str, ...], warn: Callable[[str], object]
    ) -> None:
        self._log = node.get_logger()
        self._warn = warn
        self._clients: dict[str, Any] = {}
        for service in (BUTTON_SERVICES[name] for name in names):
            if service not in self._clients:
                kind = SetBool if service == 'hold' else Trigger
                client = node.create_client(kind, f'policy_node/{service}')
                node.made.callback(node.destroy_client, client)
                self._clients[service] = client
        self._holding: float | None = None
        """When the hold was sent last that is not acknowledged yet, monotonic [s]."""

    def press(self, name: str) -> None:
        """Call the service of a button, without waiting."""
        client, request = self._clients[BUTTON_SERVICES[name]], Trigger.Request()
        if name in ('hold', 'release'):
            request = SetBool.Request(data=name == 'hold')
            self._holding = time.monotonic() if name == 'hold' else None
        if not client.service_is_ready():
            self._warn(f'{name}: {client.srv_name} is not there')
            return
        client.call_async(request).add_done_callback(partial(self._answer, name))

    def _answer(self, name: str, future: Any) -> None:
        if (error := future.exception()) is not None:
            self._warn(f'{name}: {error}')
            return
        answer = future.result()
        if name == 'hold' and answer.success:
            self._holding = None
        say = self._log.info if answer.success else self._warn
        say(f'{name}: {answer.message}')

    def look(self) -> None:
        """Send a hold again that is not acknowledged."""
        if self._holding is not None and time.monotonic() - self._holding > HOLD_LIMIT_S:
            self._warn('HOLD NOT ACKNOWLEDGED: use the emergency stop')
            self.press('hold')


def joy_values(message: Joy, config: TakeoverConfig) -> dict[str, float]:
    """Return the value of every control of a Joy message.

    Raises:
        CommandError: it has not all of them, or a value that is no number.
    """
    said = {
        f'{part}.{index}': float(value)
        for part in ('axes', 'buttons')
        for index, value in enumerate(getattr(message, part))
    }
    controls = config.keys.controls
    if missing := [name for name in controls if name not in said]:
        raise CommandError(
            f'{config.topic} has {len(message.axes)} axes and {len(message.buttons)} buttons, '
            f'{config.source} names {", ".join(missing)}: correct it'
        )
    return _finite({name: said[name] for name in controls}, config)


def twist_values(message: Twist, config: TakeoverConfig) -> dict[str, float]:
    """Return the value of every control of a Twist message.

    Raises:
        CommandError: one is no number.
    """
    return _finite({name: attrgetter(name)(message) for name in config.keys.controls}, config)


def _finite(values: dict[str, float], config: TakeoverConfig) -> dict[str, float]:
    for name, value in values.items():
        if not math.isfinite(value):
            raise CommandError(f'{name} of {config.topic} is {value}, expected a number')
    return values


def main() -> int:
    """Run the takeover node."""
    return run(TakeoverNode)


if __name__ == '__main__':
    raise SystemExit(main())
