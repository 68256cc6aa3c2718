# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The published environments: seeded, named, with the rewards of their papers."""

from __future__ import annotations

import copy
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.tasks.hosting import check_environment, describe_robot, make_environment
from residual_rl_ros.tasks.published import PUBLISHED
from residual_rl_ros.tasks.success_probe import settle_success
from residual_rl_ros.transitions.transition import Success

DRIVING = ('highway', 'parking')
needs_highway_env = pytest.mark.skipif(
    importlib.util.find_spec('highway_env') is None, reason='needs highway-env'
)
NAMES = [
    pytest.param(name, marks=needs_highway_env if name in DRIVING else ()) for name in PUBLISHED
]
ADD_ONS = {
    'cart_pole': 'cart_pole_centre',
    'mountain_car': 'mountain_car_less_left',
    'highway': 'highway_right',
    'parking': 'parking_boundary',
    'half_cheetah': 'half_cheetah_front_foot',
    'hopper': 'hopper_height',
    'swimmer': 'swimmer_first_joint',
    'ant': 'ant_sideways',
}


def play(env: Any, seed: int, steps: int = 2) -> list[np.ndarray]:
    env.action_space.seed(0)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, *_ = env.step(env.action_space.sample())
        seen.append(np.append(observation, reward))
    return seen


@pytest.mark.parametrize('name', NAMES)
def test_the_seed_decides_the_episode_and_every_number_has_a_name(name: str) -> None:
    env = PUBLISHED[name](None)
    first = play(env, 3)
    again, other = play(PUBLISHED[name](None), 3), play(env, 4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert (len(env.observation_names),) == env.observation_space.shape == first[0].shape
    size = env.action_space.n if name in ('cart_pole', 'highway') else env.action_space.shape[0]
    assert len(set(env.action_names)) == size
    assert env.observation_space.contains(first[0].astype(env.observation_space.dtype))


@pytest.mark.parametrize('name', NAMES)
def test_the_add_on_of_its_paper_finds_what_it_reads(name: str) -> None:
    env = PUBLISHED[name](None)
    reward = AddOns.of({'name': ADD_ONS[name]}).bind(env.observation_names, env.action_names)
    before, _ = env.reset(seed=0)
    action = np.zeros(len(env.action_names))
    assert reward(before, action, before).shape == ()


@pytest.mark.parametrize(
    ('name', 'joint', 'index', 'state'),
    [
        ('half_cheetah', 'ffoot', 7, 'qpos'),
        ('hopper', 'rootz', 0, 'qpos'),
        ('swimmer', 'motor1_rot', 1, 'qpos'),
        ('ant', 'root', 14, 'qvel'),
    ],
)
def test_names_of_mujoco_are_those_of_the_joints_that_the_papers_mean(
    name: str, joint: str, index: int, state: str
) -> None:
    env = PUBLISHED[name](None)
    observation, _ = env.reset(seed=1)
    for _ in range(3):
        observation, *_ = env.step(env.action_space.sample())
    value = getattr(env.unwrapped.data.joint(joint), state)
    assert observation[index] == value[1 if joint == 'root' else 0]
    label = 'root_velocity_y' if joint == 'root' else f'{joint}_position'
    assert env.observation_names[index] == f'state.{label}'


def balance(observation: np.ndarray) -> int:
    return int(observation @ [0.1, 0.5, 10.0, 2.0] > 0.0)


def outcome(name: str, policy: Any) -> tuple[Success, int, float]:
    """Return outcome, steps and return of an episode."""
    env = PUBLISHED[name](None)
    observation, _ = env.reset(seed=0)
    steps, total, done = 0, 0.0, False
    while not done:
        observation, reward, terminated, truncated, info = env.step(policy(observation))
        steps, total, done = steps + 1, total + reward, terminated or truncated
    if name == 'cart_pole':
        return Success(int(info['upright'])), steps, total
    return Success(int(terminated)), steps, total


def test_cart_pole_pays_for_an_upright_pole_and_succeeds_by_standing() -> None:
    success, steps, total = outcome('cart_pole', balance)
    assert (success, steps) == (Success.SUCCESS, 500)
    assert 300.0 < total < 500.0
    success, steps, _ = outcome('cart_pole', lambda observation: 1)
    assert (success, steps < 20) == (Success.FAILURE, True)
    env = PUBLISHED['cart_pole'](None)
    env.reset(seed=0)
    observation, reward, *_ = env.step(0)
    assert reward == pytest.approx(1 - 10 * abs(observation[2]) / 0.2095)


def test_mountain_car_succeeds_at_its_goal() -> None:
    swing = outcome('mountain_car', lambda seen: np.sign(seen[1:] + 1e-9).astype(np.float32))
    assert swing[0] is Success.SUCCESS
    assert 80.0 < swing[2] < 100.0
    assert outcome('mountain_car', lambda seen: np.zeros(1, np.float32))[:2] == (
        Success.FAILURE,
        999,
    )


@needs_highway_env
def test_highway_pays_for_speed_and_shows_its_target_lane() -> None:
    env = PUBLISHED['highway'](None)
    env.reset(seed=2)
    for action in ('lane_right', 'lane_right', 'slower'):
        observation, reward, terminated, truncated, info = env.step(env.action_names.index(action))
    assert (terminated, truncated, info['survived']) == (False, False, True)
    assert observation[-1] == 1.0
    car = env.unwrapped.vehicle
    speed = car.speed * np.cos(car.heading)
    assert reward == pytest.approx(1.0 + 0.4 * np.clip((speed - 20.0) / 10.0, 0.0, 1.0))
    # A planner needs a copy, which goes on as the original does.
    twin = copy.deepcopy(env)
    assert np.array_equal(twin.step(0)[0], env.step(0)[0])
    car.crashed = True
    _, reward, terminated, _, info = env.step(1)
    assert (terminated, info['survived']) == (True, False)
    assert reward < 1.0
    car.position = np.array([car.position[0], 40.0])
    observation, reward, *_ = env.step(1)
    assert (observation[-1], reward) == (0.0, 0.0)


@needs_highway_env
def test_parking_shows_the_side_lines_and_ends_in_its_slot() -> None:
    env = PUBLISHED['parking'](None)
    env.reset(seed=0)
    car = env.unwrapped.vehicle
    x, y = car.goal.position
    rest = np.zeros(2, np.float32)
    for offset, touches in (
        (0.0, 0.0),
        (0.9, 0.0),
        (1.5, 1.0),
        (2.0, 1.0),
        (4.0, 0.0),
        (-1.5, 1.0),
    ):
        car.position, car.heading, car.speed = np.array([x + offset, y]), car.goal.heading, 0.0
        observation, reward, terminated, _, info = env.step(rest)
        assert observation[-1] == touches
        assert (terminated, info['is_success']) == (abs(offset) < 1.44,) * 2
        assert reward == pytest.approx(-np.sqrt(abs(offset) / 100.0), abs=1e-3)
    assert len(env.unwrapped.road.network.lanes_dict()) == 30


@pytest.mark.parametrize('name', ['mountain_car', 'half_cheetah'])
def test_a_short_name_is_a_task_with_its_own_criterion_and_robot(name: str) -> None:
    env = make_environment(name)
    assert settle_success(name, 'auto', pytest.fail) == str(env.success_criterion)
    assert settle_success(name, 'return', pytest.fail) == 'return'
    robot = RobotConfig.from_mapping(describe_robot(name, env), name)
    assert robot.observation_names == env.get_wrapper_attr('observation_names')
    check_environment(env, robot)
    checked = CheckedEnvironment(env)
    checked.reset(0, 0)
    _, feedback = checked.step(np.zeros(len(robot.action.names)))
    assert not feedback.done
    env.close()


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'highway_env', None)
    with pytest.raises(ConfigError, match=r'residual_rl_ros\[customisation\]'):
        PUBLISHED['highway'](None)


def test_an_unknown_task_lists_the_short_names() -> None:
    with pytest.raises(ConfigError, match='cart_pole, mountain_car, highway'):
        make_environment('NoSuch-v0')
