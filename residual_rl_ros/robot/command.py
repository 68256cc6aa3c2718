# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What moves a robot: topics and actions, each with a part of the action vector.

Reading is here, as that of all messages; `ros/common/command_writers.py` makes the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from residual_rl_ros.errors import CommandError, ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.codecs import find_codec
from residual_rl_ros.robot.stamps import label_of, stamped_label, to_nanoseconds
from residual_rl_ros.robot.topics import FLOAT, FLOAT_ARRAY, JOINT_STATE, POSE

TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
TWIST_STAMPED, TWIST = TWIST_TYPES = (
    'geometry_msgs/msg/TwistStamped',
    'geometry_msgs/msg/Twist',
)
WRENCH = 'geometry_msgs/msg/WrenchStamped'
INT32, INT64 = INDEX_TYPES = ('std_msgs/msg/Int32', 'std_msgs/msg/Int64')
"""Types of the index of a discrete action."""
GRIPPER, PARALLEL_GRIPPER = ACTION_TYPES = (
    'control_msgs/action/GripperCommand',
    'control_msgs/action/ParallelGripperCommand',
)
"""Types of ROS actions."""
COMMAND_TYPES = (
    *(FLOAT_ARRAY, FLOAT, TRAJECTORY, JOINT_STATE, TWIST_STAMPED, TWIST, POSE, WRENCH),
    *(*INDEX_TYPES, *ACTION_TYPES),
)
DISCRETE_TYPES = (FLOAT_ARRAY, *INDEX_TYPES)
"""Command types that can name a discrete action: a one-hot vector, or an index."""
UNSTAMPED_TYPES = (FLOAT, TWIST, *INDEX_TYPES, *ACTION_TYPES)
"""Command types that cannot say which observation they answer."""
JOINT_TYPES = (TRAJECTORY, JOINT_STATE, PARALLEL_GRIPPER)
"""Command types that name joints."""
STEPPED_TYPES = (*INDEX_TYPES, *ACTION_TYPES)
"""Types between whose commands there is nothing."""
INTERPOLATIONS = ('linear', 'cubic', 'limited')
"""What is sent between two control steps; see `control/interpolation.py`."""
SINGLE_TYPES = (FLOAT, GRIPPER, PARALLEL_GRIPPER)
"""Command types that carry one number."""
FIELDS: dict[str, dict[str, str]] = {
    **{
        each: {
            **{f'linear.{axis}': 'm/s' for axis in 'xyz'},
            **{f'angular.{axis}': 'rad/s' for axis in 'xyz'},
        }
        for each in TWIST_TYPES
    },
    WRENCH: {
        **{f'force.{axis}': 'N' for axis in 'xyz'},
        **{f'torque.{axis}': 'N m' for axis in 'xyz'},
    },
    POSE: {
        **{f'position.{axis}': 'm' for axis in 'xyz'},
        **{f'orientation.{axis}': '1' for axis in 'xyzw'},
        **{f'rotation_vector.{axis}': 'rad' for axis in 'xyz'},
    },
}
"""Fields that an action can command, and their units, by command type."""
ROOTS = {TWIST_STAMPED: 'twist.', TWIST: '', WRENCH: 'wrench.', POSE: 'pose.'}
"""Attribute path that every field of a type starts with."""


@dataclass(frozen=True)
class Command:
    """A topic, or a ROS action, that moves the robot."""

    topic: str
    """Name of the topic or action; relative names follow the node's namespace."""
    type: str
    """ROS type: one of `COMMAND_TYPES`, or one with a codec."""
    joints: tuple[str, ...] = ()
    """`JOINT_TYPES`: the joint of each action, whose position is commanded."""
    fields: tuple[str, ...] = ()
    """Types of `FIELDS` and of codecs: the field of each action; the others are zero."""
    frame_id: str = ''
    """Types of `FIELDS` and of codecs with a header: frame of the command."""
    name: str = 'command'
    """What the robot YAML calls it."""
    indices: tuple[int, ...] = ()
    """Which actions it carries, by their place in the action vector; empty: all of them."""
    every: int = 1
    """It is sent with every n-th control step."""
    samples: int = 1
    """It is sent so many times in a control period, on the way to the command."""
    interpolation: str = ''
    """One of `INTERPOLATIONS`, with more than one sample."""
    max_acceleration: tuple[float, ...] = ()
    """Of its commands on the way [1/s^2]."""
    max_jerk: tuple[float, ...] = ()
    """Likewise [1/s^3]."""
    horizon_steps: int = 0
    """Trajectories: number of points, with velocities, at most; 0: one without."""
    orientation: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    """PoseStamped without a field of orientation: the orientation, quaternion x, y, z, w."""
    max_effort: float = 0.0
    """Gripper actions: largest effort [N]; 0: the driver's own."""
    threshold: float = 0.0
    """Gripper actions: smaller changes are not sent."""
    min_interval_s: float = 0.0
    """Gripper actions: shortest time between two goals [s]."""

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the actions, as far as the message type implies them."""
        known = FIELDS.get(self.type, {})
        return tuple(known[field] for field in self.fields if field in known)

    @property
    def is_action(self) -> bool:
        """Whether it is a ROS action and no topic."""
        return self.type in ACTION_TYPES

    @property
    def answers_stamps(self) -> bool:
        """Whether its messages can say which observation they answer."""
        return self.type in COMMAND_TYPES and self.type not in UNSTAMPED_TYPES

    def part_of(self, vector: Array) -> Array:
        """Return its part of an action vector, shape (m,)."""
        return vector[list(self.indices)] if self.indices else vector


class CommandDecoder:
    """Turns command messages into values in the order of the actions that they carry.

    Args:
        command: topic description.
        size: number of actions that it carries.
    """

    def __init__(self, command: Command, size: int) -> None:
        self._is_index = command.type in INDEX_TYPES
        self._get = self._one_hot if self._is_index else COMMAND_VALUES.get(command.type, _coded)
        self._command = command
        self._size = size

    def values(self, message: Any) -> Array:
        """Return the command, shape (size,).

        Raises:
            CommandError: a wrong size, a missing joint, a value that is not finite, the index of no
                action, or another frame.
        """
        self._check_frame(message)
        try:
            values = np.array(self._get(message, self._command), dtype=np.float64)
        except (IndexError, ValueError) as error:
            raise CommandError(f'command on {self._command.topic}: {error}') from error
        if values.shape != (self._size,) or not np.isfinite(values).all():
            raise CommandError(
                f'command on {self._command.topic} is {values[:8].tolist()} ({values.size} '
                f'values), expected {self._size} finite numbers'
            )
        return values

    def _check_frame(self, message: Any) -> None:
        """Refuse a command in another frame; one that names none is in that of the robot."""
        expected, header = self._command.frame_id, getattr(message, 'header', None)
        said = expected if header is None else header.frame_id
        if expected and said not in ('', expected):
            raise CommandError(
                f'command on {self._command.topic}: frame_id is {said!r:.80}, expected '
                f'{expected!r}, as robot.command says; correct what publishes it'
            )

    def answers(self, message: Any, stamp: float) -> bool:
        """Return whether the command answers the observation of a stamp [s]; some have none."""
        if not self._command.answers_stamps:
            return False
        if self._command.type == FLOAT_ARRAY:
            return label_of(message) == stamped_label(stamp)
        header = message.header.stamp
        return int(header.sec) * 10**9 + int(header.nanosec) == to_nanoseconds(stamp)

    def _one_hot(self, message: Any, command: Command) -> Array:
        """Return the command that chooses the discrete action of an index, shape (m,)."""
        del command
        index = int(message.data)
        if not 0 <= index < self._size:
            raise ValueError(f'{index} is no index of an action, expected 0 to {self._size - 1}')
        values = np.zeros(self._size)
        values[index] = 1.0
        return values


class CommandVector:
    """Puts the messages of a robot's commands together to action vectors.

    Args:
        commands: of the robot.
        size: number of actions (m).
    """

    def __init__(self, commands: Sequence[Command], size: int) -> None:
        self._indices = [list(each.indices or range(size)) for each in commands]
        self.readers = [
            CommandDecoder(each, len(indices))
            for each, indices in zip(commands, self._indices, strict=True)
        ]
        """Reads the messages of each command."""
        self._vector = np.full(size, np.nan)
        self._missing = set(range(len(commands)))

    def put(self, index: int, values: Array, complete: bool = True) -> Array | None:
        """Take in what one command says.

        Args:
            index: which command.
            values: see `CommandDecoder.values`.
            complete: a vector is of new values alone; else each keeps what it said last.

        Returns:
            The action vector, shape (m,), None before every command has said its part.
        """
        self._vector[self._indices[index]] = values
        self._missing.discard(index)
        if self._missing:
            return None
        if complete:
            self.forget()
        return self._vector.copy()

    def forget(self) -> None:
        """Wait for every command again."""
        self._missing = set(range(len(self.readers)))


def check_lockstep(commands: Sequence[Command]) -> None:
    """Refuse commands that cannot say which observation they answer.

    Raises:
        ConfigError: one of them cannot.
    """
    for command in commands:
        if not command.answers_stamps:
            raise ConfigError(
                f'robot.command.type is {command.type!r}, whose messages carry no stamp, but in '
                f'lockstep a command answers one: use {FLOAT_ARRAY} (of discrete actions one-hot), '
                'or set lockstep to false'
            )


def _trajectory_positions(message: Any, command: Command) -> list[float]:
    names, positions = list(message.joint_names), message.points[0].positions
    return [positions[names.index(joint)] for joint in command.joints]


def _joint_positions(message: Any, command: Command) -> list[float]:
    names = list(message.name)
    return [message.position[names.index(joint)] for joint in command.joints]


def _fields(message: Any, command: Command) -> list[float]:
    root = ROOTS[command.type]
    return [attrgetter(root + field)(message) for field in command.fields]


def _pose(message: Any, command: Command) -> list[float]:
    """Return the fields of a pose; rotation vectors of its orientation."""
    values = []
    orientation = message.pose.orientation
    quaternion = np.array([getattr(orientation, axis) for axis in 'xyzw'])
    for field in command.fields:
        if field.startswith('rotation_vector'):
            values.append(float(rotation_vector(quaternion)['xyz'.index(field[-1])]))
        else:
            values.append(attrgetter(f'pose.{field}')(message))
    return values


def _coded(message: Any, command: Command) -> Array:
    """Return the fields of a type that another package reads."""
    return find_codec(command.type).numbers(message, command.fields)


def rotation_vector(quaternion: Array) -> Array:
    """Return axis times angle [rad] of a quaternion x, y, z, w, shape (3,).

    Raises:
        ValueError: its length is zero.
    """
    from scipy.spatial.transform import Rotation  # Most robots need no scipy to start.

    vector: Array = Rotation.from_quat(quaternion).as_rotvec()
    return vector


COMMAND_VALUES: dict[str, Callable[[Any, Command], Any]] = {
    FLOAT_ARRAY: lambda message, command: message.data,
    FLOAT: lambda message, command: [message.data],
    TRAJECTORY: _trajectory_positions,
    JOINT_STATE: _joint_positions,
    **dict.fromkeys((*TWIST_TYPES, WRENCH), _fields),
    POSE: _pose,
    GRIPPER: lambda message, command: [message.command.position],
    PARALLEL_GRIPPER: lambda message, command: _joint_positions(message.command, command),
}
"""How to read the values of every type but an index; of actions, those of a goal."""
