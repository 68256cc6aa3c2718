# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Add-ons by name: for robots, and those of two papers for the environments of `tasks`.

Those of cart-pole, mountain car, highway and parking are of Residual Q-Learning (arXiv 2306.09526),
those of MuJoCo of Residual-MPPI (arXiv 2407.00898). Each reads the observation after the step; its
name is a key, so that another environment can use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.rewards.add_on import BoundAddOn, Columns, Names, StepReward, register
from residual_rl_ros.schema import parameter


@dataclass(frozen=True)
class _OfOne:
    """An add-on of one number of the next observation."""

    reads: str = ''

    def bind(self, names: Names) -> BoundAddOn:
        """Look the number up."""
        (column,) = names.of_observation((self.reads,))
        return StepReward(lambda before, action, after: self.reward(after[..., column]))

    def reward(self, value: Array) -> Array:
        """Return the reward of the number."""
        raise NotImplementedError


@register('cart_pole_centre')
@dataclass(frozen=True)
class CartPoleCentre(_OfOne):
    """-|x| / 2.4: the cart stays in the middle of its track."""

    reads: str = parameter('state.cart_position', 'name of the position of the cart [m]')

    def reward(self, value: Array) -> Array:
        """Return the reward of a position."""
        return -np.abs(value) / 2.4


@register('mountain_car_less_left')
@dataclass(frozen=True)
class MountainCarLessLeft:
    """-0.1 for an action to the left, else 0."""

    action: str = parameter('force', 'name of the action, which is negative to the left')

    def bind(self, names: Names) -> BoundAddOn:
        """Look the action up."""
        (column,) = names.of_action((self.action,))

        def reward(observation: Array, action: Array, next_observation: Array) -> Array:
            force = action[..., column]
            # NaN is neither to the left nor to the right; it must not become 0.
            return np.where(force < 0.0, -0.1, np.where(force >= 0.0, 0.0, np.nan))

        return StepReward(reward)


@register('highway_right')
@dataclass(frozen=True)
class HighwayRight(_OfOne):
    """0.5 x lane / (lanes - 1) of the target lane: the car keeps to the right."""

    reads: str = parameter(
        'state.lane', 'name of the target lane, 0 the leftmost and 1 the rightmost, 0 off the road'
    )

    def reward(self, value: Array) -> Array:
        """Return the reward of a lane."""
        return 0.5 * value


@register('parking_boundary')
@dataclass(frozen=True)
class ParkingBoundary(_OfOne):
    """-1 while the car touches a side line of its slot, else 0."""

    reads: str = parameter('state.on_line', 'name of what is 1 on a side line, and else 0')

    def reward(self, value: Array) -> Array:
        """Return the reward of a touch."""
        return -value


@register('half_cheetah_front_foot')
@dataclass(frozen=True)
class HalfCheetahFrontFoot(_OfOne):
    """-10 |angle| of the joint of the front foot."""

    reads: str = parameter('state.ffoot_position', 'name of the angle of the front foot [rad]')

    def reward(self, value: Array) -> Array:
        """Return the reward of an angle."""
        return -10.0 * np.abs(value)


@register('swimmer_first_joint')
@dataclass(frozen=True)
class SwimmerFirstJoint(_OfOne):
    """-|angle| of the first joint."""

    reads: str = parameter(
        'state.motor1_rot_position', 'name of the angle of the first joint [rad]'
    )

    def reward(self, value: Array) -> Array:
        """Return the reward of an angle."""
        return -np.abs(value)


@register('hopper_height')
@dataclass(frozen=True)
class HopperHeight(_OfOne):
    """10 (z - 1): the torso is high."""

    reads: str = parameter('state.rootz_position', 'name of the height of the torso [m]')

    def reward(self, value: Array) -> Array:
        """Return the reward of a height."""
        return 10.0 * (value - 1.0)


@register('ant_sideways')
@dataclass(frozen=True)
class AntSideways(_OfOne):
    """-v_y: the torso also moves in direction -y."""

    reads: str = parameter('state.root_velocity_y', 'name of the speed of the torso in y [m/s]')

    def reward(self, value: Array) -> Array:
        """Return the reward of a speed."""
        return -value


def _per_name(label: str, values: tuple[float, ...], names: tuple[str, ...]) -> Iterator[str]:
    """Yield that there are not as many numbers as names."""
    if len(values) != len(names):
        yield f'{label} has {len(values)} numbers, expected {len(names)}, one for each name'


@register('keep_out_box')
@dataclass(frozen=True)
class KeepOutBox:
    """-1 in the box, 0 from `margin` outside of it on, linear in the distance between."""

    point: tuple[str, ...] = parameter(
        MISSING, 'names of the coordinates of the point, of as many axes as the box', filled=True
    )
    lower: tuple[float, ...] = parameter(MISSING, 'smallest coordinates of the box [as the point]')
    upper: tuple[float, ...] = parameter(MISSING, 'largest coordinates of the box [as the point]')
    margin: float = parameter(
        0.0, 'distance from the box at which the price begins [as the point]', 0.0
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        wrong = [
            *_per_name('lower', self.lower, self.point),
            *_per_name('upper', self.upper, self.point),
        ]
        yield from wrong
        if not wrong and not np.less(self.lower, self.upper).all():
            yield f'lower {list(self.lower)} is not below upper {list(self.upper)}'

    def bind(self, names: Names) -> BoundAddOn:
        """Look the coordinates up."""
        columns = names.of_observation(self.point)
        lower, upper = np.array(self.lower), np.array(self.upper)

        def reward(observation: Array, action: Array, next_observation: Array) -> Array:
            point = next_observation[..., columns]
            outside = np.maximum(np.maximum(lower - point, point - upper), 0.0)
            distance = _length(outside)
            if not self.margin:
                # NaN is neither inside nor outside; it must not become 0.
                return np.where(distance > 0.0, 0.0, np.where(distance == 0.0, -1.0, np.nan))
            return -np.clip(1.0 - distance / self.margin, 0.0, 1.0)

        return StepReward(reward)


def _length(vectors: Array) -> Array:
    """Return the Euclidean length of every row, added up in the order of the axes."""
    squares = np.zeros(vectors.shape[:-1])
    for axis in range(vectors.shape[-1]):
        squares = squares + vectors[..., axis] ** 2
    return np.asarray(np.sqrt(squares))


@register('speed_limit')
@dataclass(frozen=True)
class SpeedLimit:
    """-(v - limit) / limit above the limit, else 0; v is the length of the velocity."""

    limit: float = parameter(MISSING, 'speed from which on it costs [as the velocities]', above=0.0)
    velocities: tuple[str, ...] = parameter((), 'names of the velocities that make the speed')
    positions: tuple[str, ...] = parameter(
        (), 'or names of positions, whose change over a decision is the velocity'
    )
    rate_hz: float = parameter(0.0, 'control rate, for positions [Hz]', 0.0)

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if bool(self.velocities) == bool(self.positions):
            yield 'velocities and positions: expected names of one of them'
        if bool(self.positions) != bool(self.rate_hz):
            yield f'rate_hz is {self.rate_hz}, expected the control rate with positions alone'

    def bind(self, names: Names) -> BoundAddOn:
        """Look velocities or positions up."""
        columns = names.of_observation(self.velocities or self.positions)
        # From an observation to the next there are k control steps.
        rate_hz = self.rate_hz / names.decision_steps

        def reward(observation: Array, action: Array, next_observation: Array) -> Array:
            velocity = next_observation[..., columns]
            if self.positions:
                velocity = (velocity - observation[..., columns]) * rate_hz
            return -np.maximum(_length(velocity) - self.limit, 0.0) / self.limit

        return StepReward(reward)


@register('joint_comfort')
@dataclass(frozen=True)
class JointComfort:
    """-d^2, where d is the distance from a comfortable pose in half ranges (root mean square)."""

    joints: tuple[str, ...] = parameter(MISSING, 'names of the joint positions', filled=True)
    pose: tuple[float, ...] = parameter(MISSING, 'the comfortable position of each [as measured]')
    half_range: tuple[float, ...] = parameter(
        MISSING, 'distance from it that counts as 1, of each joint [as measured]', above=0.0
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from _per_name('pose', self.pose, self.joints)
        yield from _per_name('half_range', self.half_range, self.joints)

    def bind(self, names: Names) -> BoundAddOn:
        """Look the joints up."""
        columns = names.of_observation(self.joints)
        pose, half_range = np.array(self.pose), np.array(self.half_range)

        def reward(observation: Array, action: Array, next_observation: Array) -> Array:
            distance = _length((next_observation[..., columns] - pose) / half_range)
            return -(distance**2) / len(columns)

        return StepReward(reward)


@register('smoothness')
@dataclass(frozen=True)
class Smoothness:
    """-c^2 for each change c of the action from one control step of a decision to the next.

    With `measured_by` the change from what is measured to the first step counts too. Without, there
    is no change to see in a decision of one step, and a layout of such decisions is refused.
    """

    actions: tuple[str, ...] = parameter((), 'names of actions; none are all')
    measured_by: tuple[str, ...] = parameter(
        (), 'names of the observations that measure these actions'
    )
    scale: tuple[float, ...] = parameter(
        (1.0,), 'change that counts as 1: one number, or one for each [command units]', above=0.0
    )

    def bind(self, names: Names) -> BoundAddOn:
        """Look actions and measurements up.

        Raises:
            ConfigError: numbers and names do not fit, or no change can be seen.
        """
        chosen = self.actions or names.action
        problems = list(_per_name('measured_by', (0.0,) * len(self.measured_by), chosen))
        if self.measured_by and problems:
            raise ConfigError(problems[0])
        if len(self.scale) not in (1, len(chosen)):
            raise ConfigError(next(_per_name('scale', self.scale, chosen)))
        if not self.measured_by and names.decision_steps == 1:
            raise ConfigError(
                'decisions have one control step, in which an action does not change; name with '
                'measured_by what measures the actions, or set decision_steps to more than 1'
            )
        return _BoundSmoothness(
            names.of_action(chosen),
            names.of_observation(self.measured_by),
            np.array(self.scale),
        )


@dataclass(frozen=True)
class _BoundSmoothness:
    actions: Columns
    measured: Columns
    scale: Array

    def __call__(self, observation: Array, action: Array, next_observation: Array) -> Array:
        """Return the reward of a control step, of which only the measured change is known."""
        return self.of_decision(observation, action[..., None, :], next_observation)

    def of_decision(self, observation: Array, actions: Array, next_observation: Array) -> Array:
        """Return the reward of all changes of a decision."""
        steps = actions[..., self.actions]
        if len(self.measured):
            before = np.broadcast_to(
                observation[..., None, self.measured], (*steps.shape[:-2], 1, steps.shape[-1])
            )
        else:
            before = steps[..., :1, :]
        changes = np.diff(np.concatenate([before, steps], axis=-2), axis=-2) / self.scale
        total: Array = np.zeros(changes.shape[:-2])
        for step in range(changes.shape[-2]):
            total = total - _length(changes[..., step, :]) ** 2 / len(self.actions)
        return total


@register('side_preference')
@dataclass(frozen=True)
class SidePreference:
    """From -1 to 1 across a lane or a table: 1 at the preferred edge and beyond."""

    position: str = parameter(MISSING, 'name of the coordinate across', filled=True)
    side: str = parameter(MISSING, 'the preferred side', choices=('low', 'high'))
    centre: float = parameter(0.0, 'coordinate of the middle, which is worth 0')
    half_width: float = parameter(1.0, 'distance from the middle to an edge', above=0.0)

    def bind(self, names: Names) -> BoundAddOn:
        """Look the coordinate up."""
        (column,) = names.of_observation((self.position,))
        gain = (1.0 if self.side == 'high' else -1.0) / self.half_width

        def reward(observation: Array, action: Array, next_observation: Array) -> Array:
            return np.clip((next_observation[..., column] - self.centre) * gain, -1.0, 1.0)

        return StepReward(reward)
