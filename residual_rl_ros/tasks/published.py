# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Environments on which policy customisation was published, by short names.

They are those of Residual Q-Learning (arXiv 2306.09526) and Residual-MPPI (arXiv 2407.00898), with
their basic rewards; `rewards.shipped` has the add-ons. Observations and actions have names, what
an add-on reads is part of the observation, and the seed of `reset` decides an episode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np

from residual_rl_ros.config.success import (
    END,
    IS_SUCCESS,
    RETURN,
    TERMINATED,
    SuccessCriterion,
)
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Float32
from residual_rl_ros.tasks.checked import Env


@dataclass(frozen=True)
class Names:
    """The names of an environment's numbers."""

    observation: tuple[str, ...]
    action: tuple[str, ...]
    """Of each dimension, or of each choice where actions are discrete."""


class NamedEnvironment(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that names its numbers, and how it tells success.

    Args:
        env: the environment.
        names: of observation and action.
        criterion: how it tells success.
    """

    def __init__(self, env: Env, names: Names, criterion: SuccessCriterion) -> None:
        super().__init__(env)
        self.observation_names = tuple(f'state.{name}' for name in names.observation)
        self.action_names = names.action
        self.success_criterion = criterion


CART_POLE_ANGLE = 0.2095
"""Angle of the pole at which an episode ends [rad]."""
UPRIGHT = 'upright'
"""Key of `info`: whether the pole still stands and the cart is on its track."""


class CartPole(NamedEnvironment):
    """CartPole-v1 with basic reward 1 - 10 |angle| / 0.2095; success is to stand for 500 steps.

    Actions are `left` and `right`. The angle is that after the step.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(
            _made('CartPole-v1', render_mode),
            Names(
                ('cart_position', 'cart_velocity', 'pole_angle', 'pole_velocity'),
                ('left', 'right'),
            ),
            SuccessCriterion(UPRIGHT, END),
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute an action."""
        observation, _, terminated, truncated, info = self.env.step(action)
        reward = 1.0 - 10.0 * abs(float(observation[2])) / CART_POLE_ANGLE
        return observation, reward, terminated, truncated, {**info, UPRIGHT: not terminated}


def mountain_car(render_mode: str | None = None) -> Env:
    """Return MountainCarContinuous-v0 with its own reward and 999 steps; success is the goal."""
    return NamedEnvironment(
        _made('MountainCarContinuous-v0', render_mode),
        Names(('position', 'velocity'), ('force',)),
        SuccessCriterion(TERMINATED),
    )


def _mujoco(name: str, skipped: int, **options: Any) -> Callable[[str | None], Env]:
    """Return what makes a MuJoCo task of gymnasium.

    Args:
        name: its id.
        skipped: positions that it does not observe, the first ones.
        **options: of its constructor.
    """

    def make(render_mode: str | None = None) -> Env:
        env = _made(name, render_mode, **options)
        model = env.unwrapped.model  # type: ignore[attr-defined]
        return NamedEnvironment(env, joint_names(model, skipped), SuccessCriterion(RETURN))

    return make


FREE = mujoco.mjtJoint.mjJNT_FREE
AXES = ('x', 'y', 'z')
OF_FREE_JOINT = (
    (*AXES, *(f'quaternion_{axis}' for axis in ('w', *AXES))),
    (*(f'velocity_{axis}' for axis in AXES), *(f'angular_velocity_{axis}' for axis in AXES)),
)
"""Names of the positions and velocities of a joint that is free."""


def joint_names(model: Any, skipped: int) -> Names:
    """Return the names of positions, velocities and actuators of a model, in its order.

    Args:
        model: of MuJoCo.
        skipped: positions that are not observed, the first ones.
    """
    joints = [model.joint(index) for index in range(model.njnt)]
    numbers = []
    for of_free, of_hinge in zip(OF_FREE_JOINT, ('position', 'velocity'), strict=True):
        numbers.append(
            [
                f'{joint.name}_{quantity}'
                for joint in joints
                for quantity in (of_free if joint.type[0] == FREE else (of_hinge,))
            ]
        )
    positions, velocities = numbers
    moved = (model.joint(int(index)).name for index in model.actuator_trnid[:, 0])
    return Names((*positions[skipped:], *velocities), tuple(f'{name}_torque' for name in moved))


def _made(name: str, render_mode: str | None, **options: Any) -> Env:
    """Return an environment of gymnasium with its time limit."""
    # Its checker only warns of what is refused here, and asserts in other words.
    env: Env = gymnasium.make(name, disable_env_checker=True, render_mode=render_mode, **options)
    return env


SURVIVED = 'survived'
"""Key of `info`: whether there was no collision."""


def import_highway_env() -> Any:
    """Return the package.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault('PYGAME_HIDE_SUPPORT_PROMPT', '1')
    try:
        import highway_env.envs
        import highway_env.utils
    except ImportError as error:
        raise ConfigError(
            f'tasks highway and parking need highway-env ({error}); install it with '
            "pip install 'residual_rl_ros[customisation]'"
        ) from error
    return highway_env


class _Widened(NamedEnvironment):
    """An environment of highway-env as a vector, with what its add-on reads.

    Args:
        env: the environment.
        names: of observation and action.
        criterion: how it tells success.
        control_rate_hz: decisions a second [Hz].
    """

    def __init__(
        self, env: Env, names: Names, criterion: SuccessCriterion, control_rate_hz: float
    ) -> None:
        super().__init__(env, names, criterion)
        self.control_rate_hz = control_rate_hz
        size = len(names.observation)
        # It makes a new one at every reset, which would lose the seed.
        self.action_space = env.action_space
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Begin an episode; the seed alone decides it."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._widened(observation), info

    def _widened(self, observation: Any) -> Float32:
        """Return the observation as a vector."""
        raise NotImplementedError


VEHICLES = ('ego', 'car1', 'car2', 'car3', 'car4')
"""The vehicles that are observed: the ego vehicle, and the nearest in front of it or beside."""
OF_VEHICLE = ('presence', 'x', 'y', 'velocity_x', 'velocity_y')
"""What is observed of each: present or not, position and velocity relative to the ego vehicle
(its own: absolute), all divided by their ranges."""


META_ACTIONS = ('lane_left', 'idle', 'lane_right', 'faster', 'slower')


class Highway(_Widened):
    """Three lanes with 30 vehicles; a decision a second for 40 s; success is to have no collision.

    The basic reward is 1 - 0.5 collision + 0.4 clip((v - 20 m/s) / 10 m/s, 0, 1), and 0 off the
    road. Actions are the meta-actions. Collisions of others with each other are not looked for.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        env = import_highway_env().envs.HighwayEnvFast(
            {'vehicles_count': 30, 'duration': 40}, render_mode
        )
        seen = (f'{vehicle}_{each}' for vehicle in VEHICLES for each in OF_VEHICLE)
        names = Names((*seen, 'lane'), META_ACTIONS)
        super().__init__(env, names, SuccessCriterion(SURVIVED, END), 1.0)

    def step(self, action: Any) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Execute a meta-action for a second."""
        observation, _, terminated, truncated, info = self.env.step(int(action))
        parts = info['rewards']
        reward = 1.0 - 0.5 * parts['collision_reward'] + 0.4 * parts['high_speed_reward']
        outcome = {**info, SURVIVED: not info['crashed']}
        reward *= parts['on_road_reward']
        return self._widened(observation), float(reward), terminated, truncated, outcome

    def _widened(self, observation: Any) -> Float32:
        vehicle = self.env.unwrapped.vehicle  # type: ignore[attr-defined]
        lanes = self.env.unwrapped.config['lanes_count']  # type: ignore[attr-defined]
        lane = vehicle.target_lane_index[2] / (lanes - 1) if vehicle.on_road else 0.0
        return np.append(np.ravel(observation), lane).astype(np.float32)


OF_POSE = ('x', 'y', 'velocity_x', 'velocity_y', 'cos', 'sin')
"""What is observed of goal and car, in units of 100 m, 5 m/s and 1."""
SLOTS = 15
"""Slots in each row."""
SLOT_WIDTH_M, LINE_LENGTH_M, LINE_WIDTH_M = 4.0, 8.0, 0.1


class Parking(_Widened):
    """A car that is to stand in a slot within 20 s, at 5 decisions a second.

    The basic reward is -(w . |car - goal|)^0.5 with w = (1, 0.3, 0, 0, 0.02, 0.02). An episode
    ends with success where it is above -0.12. There are no walls and no other cars.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        package = import_highway_env()
        self._intersecting = package.utils.are_polygons_intersecting
        config = {'duration': 20, 'add_walls': False, 'collision_reward': 0}
        env = _parking_class(package.envs.ParkingEnv)(config, render_mode)
        seen = (f'{which}_{each}' for which in ('goal', 'car') for each in OF_POSE)
        names = Names((*seen, 'on_line'), ('acceleration', 'steering'))
        super().__init__(env, names, SuccessCriterion(IS_SUCCESS, END), 5.0)

    def step(self, action: Any) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Execute acceleration and steering, each in [-1, 1]."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        outcome = {**info, IS_SUCCESS: bool(info[IS_SUCCESS])}
        return self._widened(observation), float(reward), terminated, truncated, outcome

    def _widened(self, observation: Any) -> Float32:
        rows = (observation['desired_goal'], observation['observation'])
        return np.array([*np.concatenate(rows), self._on_line()], dtype=np.float32)

    def _on_line(self) -> bool:
        """Return whether the car touches a side line of its slot."""
        vehicle = self.env.unwrapped.vehicle  # type: ignore[attr-defined]
        car = vehicle.polygon()
        x, y = vehicle.goal.position
        half_width, half_length = LINE_WIDTH_M / 2, LINE_LENGTH_M / 2
        still = np.zeros(2)
        for side in (x - SLOT_WIDTH_M / 2, x + SLOT_WIDTH_M / 2):
            left, right = side - half_width, side + half_width
            low, high = y - half_length, y + half_length
            corners = [[left, low], [left, high], [right, high], [right, low], [left, low]]
            if self._intersecting(car, np.array(corners), still, still)[0]:
                return True
        return False


def _parking_class(kind: Any) -> Callable[..., Env]:
    """Return highway-env's parking with as many slots as published."""

    class Slots(kind):  # type: ignore[misc]
        def _create_road(self, spots: int = SLOTS) -> None:
            super()._create_road(spots)

    return Slots


PUBLISHED: dict[str, Callable[[str | None], Env]] = {
    'cart_pole': CartPole,
    'mountain_car': mountain_car,
    'highway': Highway,
    'parking': Parking,
    'half_cheetah': _mujoco('HalfCheetah-v5', 1),
    'hopper': _mujoco('Hopper-v5', 1),
    'swimmer': _mujoco('Swimmer-v5', 2),
    # Of the 105 numbers, 78 are contact forces, which the papers left out of their models. An ant
    # may be as high as it likes: the published one was.
    'ant': _mujoco('Ant-v5', 2, include_cfrc_ext_in_observation=False, healthy_z_range=(0.2, 10.0)),
}
"""What makes each environment, for a render mode; its name is that of `task` and `--env`."""
