# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make the messages of commands, of every type that `robot/command.py` reads."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectoryPoint

from residual_rl_ros.control.rotation import SMALLEST_QUATERNION
from residual_rl_ros.control.trajectory import Trajectory
from residual_rl_ros.errors import CommandError, ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.codecs import find_codec
from residual_rl_ros.robot.command import (
    COMMAND_TYPES,
    GRIPPER,
    INDEX_TYPES,
    PARALLEL_GRIPPER,
    ROOTS,
    TRAJECTORY,
    TWIST_TYPES,
    WRENCH,
    Command,
)
from residual_rl_ros.robot.stamps import stamped_label
from residual_rl_ros.robot.topics import FLOAT, FLOAT_ARRAY, JOINT_STATE, POSE
from residual_rl_ros.ros.common.encoders import to_time
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.transitions.cdr import labelled_array


def from_seconds(seconds: float) -> Duration:
    """Return a duration message of seconds."""
    nanoseconds = round(seconds * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


class CommandWriter:
    """Makes messages of a command; of a ROS action, goals.

    Args:
        command: topic description.
        period_s: time in which a trajectory point is to be reached: between two messages or, with
            several points, a control period [s].
        lockstep: stamp trajectories too, so that the simulator knows what they answer. On a robot
            they carry no stamp: its controller then starts them at once.

    Raises:
        ConfigError: the package of its type is not installed, or no codec makes it.
    """

    def __init__(self, command: Command, period_s: float, lockstep: bool) -> None:
        self.command = command
        kind = message_class(command.type)
        self.message_type = kind
        """Class of the messages, or of the action."""
        self._new = kind.Goal if command.is_action else kind
        self._stamped = command.answers_stamps and (lockstep or command.type != TRAJECTORY)
        self._fill = PoseFiller(command) if command.type == POSE else FILLERS.get(command.type)
        points = max(command.horizon_steps, 1)
        self._in = [from_seconds(period_s * (1 + point)) for point in range(points)]
        if command.type not in COMMAND_TYPES:
            self._fill = _fill_coded
            self._stamped = 'header' in kind.get_fields_and_field_types()
            self._try()

    def _try(self) -> None:
        """Fill a message of another package's type before anything moves.

        Raises:
            ConfigError: its codec cannot, or it has no header for a frame.
        """
        command = self.command
        where = f'robot.command: {command.name!r}'
        if command.frame_id and not self._stamped:
            raise ConfigError(
                f'{where} has frame_id {command.frame_id!r}, but {command.type} has no header; '
                'remove it'
            )
        try:
            self.message(np.zeros(len(command.fields)), 0.0)
        except CommandError as error:
            raise ConfigError(f'{where}: {error}') from error

    def message(self, values: Array, stamp: float) -> Any:
        """Return the message, or its bytes: a publisher takes either.

        Args:
            values: its part of the action vector.
            stamp: the observation that it answers in lockstep, otherwise now [s].
        """
        command = self.command
        if command.type == FLOAT_ARRAY:
            return labelled_array(values, stamped_label(stamp))
        message = self._new()
        if self._stamped:
            message.header.stamp = to_time(stamp)
            if command.frame_id:
                message.header.frame_id = command.frame_id
        assert self._fill is not None, f'{command.type} has an entry in FILLERS'
        self._fill(message, values, command)
        if command.type == TRAJECTORY:
            message.points[0].time_from_start = self._in[0]
        return message

    def trajectory(self, trajectory: Trajectory, stamp: float) -> Any:
        """Return a trajectory of several points.

        Args:
            trajectory: of all actions.
            stamp: as in `message`.
        """
        part = self.command.part_of
        message = self.message(part(trajectory.points[0]), stamp)
        message.points += [
            JointTrajectoryPoint(positions=_numbers(part(point)), time_from_start=at)
            for point, at in zip(trajectory.points[1:], self._in[1:], strict=False)
        ]
        if trajectory.velocities is not None:
            for point, velocity in zip(message.points, trajectory.velocities, strict=True):
                point.velocities = _numbers(part(velocity))
        return message


def _fill_fields(message: Any, values: Array, command: Command) -> None:
    """Fill fields such as `linear.x`."""
    root = ROOTS[command.type].rstrip('.')
    target = getattr(message, root) if root else message
    for field, value in zip(command.fields, values.tolist(), strict=True):
        part, axis = field.split('.')
        setattr(getattr(target, part), axis, value)


class PoseFiller:
    """Fills position and orientation of poses; the orientation has length 1.

    A quaternion and its negative are the same orientation: the one nearer to that before is sent.
    One that is too short to have a direction is that before.

    Args:
        command: its own orientation stands where no field says one.
    """

    def __init__(self, command: Command) -> None:
        self._latest = np.array(command.orientation)
        self._vector = any(field.startswith('rotation_vector') for field in command.fields)
        if self._vector:
            # It takes most of a second to import, which no control step has.
            from scipy.spatial.transform import Rotation

            self._turned = Rotation.from_rotvec

    def __call__(self, message: Any, values: Array, command: Command) -> None:
        """Fill a message."""
        given = dict(zip(command.fields, values.tolist(), strict=True))
        for axis in 'xyz':
            setattr(message.pose.position, axis, given.get(f'position.{axis}', 0.0))
        for axis, value in zip('xyzw', self._orientation(given).tolist(), strict=True):
            setattr(message.pose.orientation, axis, value)

    def _orientation(self, given: dict[str, float]) -> Array:
        """Return a quaternion x, y, z, w of the values by field."""
        if self._vector:
            vector = [given.get(f'rotation_vector.{axis}', 0.0) for axis in 'xyz']
            quaternion = self._turned(vector).as_quat()
        else:
            quaternion = np.array([given.get(f'orientation.{axis}', 0.0) for axis in 'xyzw'])
        length = float(np.linalg.norm(quaternion))
        if length > SMALLEST_QUATERNION:
            sign = -1.0 if quaternion @ self._latest < 0.0 else 1.0
            self._latest = sign * quaternion / length
        return self._latest


def _numbers(values: Array) -> array.array[float]:
    return array.array('d', values.tobytes())


def _fill_coded(message: Any, values: Array, command: Command) -> None:
    """Fill a message of another package's type.

    Raises:
        CommandError: its codec failed.
    """
    encode = find_codec(command.type).encode
    try:
        assert encode is not None, f'the codec of {command.type} makes no commands'
        encode(message, values, command.fields)
    except Exception as error:
        raise CommandError(
            f'the codec of {command.type} failed: {type(error).__name__}: {error}'
        ) from error


def _fill_joints(message: Any, values: Array, command: Command) -> None:
    message.name = list(command.joints)
    message.position = _numbers(values)


def _fill_trajectory(message: Any, values: Array, command: Command) -> None:
    message.joint_names = list(command.joints)
    message.points = [JointTrajectoryPoint(positions=_numbers(values))]


def _fill_index(message: Any, values: Array, command: Command) -> None:
    message.data = int(values.argmax())


def _fill_number(message: Any, values: Array, command: Command) -> None:
    message.data = float(values[0])


def _fill_gripper(goal: Any, values: Array, command: Command) -> None:
    goal.command.position = float(values[0])
    goal.command.max_effort = command.max_effort


def _fill_parallel_gripper(goal: Any, values: Array, command: Command) -> None:
    _fill_joints(goal.command, values, command)
    if command.max_effort:
        goal.command.effort = array.array('d', [command.max_effort])


FILLERS: dict[str, Callable[[Any, Array, Command], None]] = {
    FLOAT: _fill_number,
    JOINT_STATE: _fill_joints,
    TRAJECTORY: _fill_trajectory,
    **dict.fromkeys((*TWIST_TYPES, WRENCH), _fill_fields),
    **dict.fromkeys(INDEX_TYPES, _fill_index),
    GRIPPER: _fill_gripper,
    PARALLEL_GRIPPER: _fill_parallel_gripper,
}
"""What fills a message of every command type but an array of numbers and a pose."""
