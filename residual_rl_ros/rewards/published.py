# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The eight add-ons of two papers, for the environments of `tasks`.

Those of cart-pole, mountain car, highway and parking are of Residual Q-Learning (arXiv 2306.09526),
those of MuJoCo of Residual-MPPI (arXiv 2407.00898). Each reads the observation after the step; its
name is a key, so that another environment can use it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from residual_rl_ros.rewards.add_on import Array, BoundAddOn, Names, StepReward, register
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
