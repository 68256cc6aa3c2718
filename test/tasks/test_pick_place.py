# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A cube is picked and placed by a gripper that grasps; cameras see what the state hides."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.pretraining.experts import make_expert
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.tasks.hosting import check_environment, make_environment
from residual_rl_ros.tasks.pick_place import CUBE_HALF_WIDTH_M, OPEN_M, PickPlace
from residual_rl_ros.tasks.registry import TASK_NAMES, make_camera_task, make_task
from residual_rl_ros.tasks.robot_view import RobotView

TASK = 'pick_place_camera'


@pytest.mark.filterwarnings('ignore:.*(spec|symmetric|unwrapped).*')
def test_gymnasium_accepts_the_environment() -> None:
    check_env(make_camera_task(TASK), skip_render_check=True)


def test_the_expert_grasps_and_places_in_at_least_95_of_100_scenes() -> None:
    env = make_task('pick_place')
    assert isinstance(env, PickPlace)
    expert = make_expert('pick_place')
    solved, highest = 0, []
    for seed in range(40):
        env.reset(seed=seed)
        expert.reset(env)
        done, height = False, 0.0
        while not done:
            action = expert.act(env).astype(np.float32)
            _, _, terminated, truncated, info = env.step(action)
            height = max(height, float(env.cube_position()[2]))
            done = terminated or truncated
        solved += info['success']
        highest.append(height)
    assert solved >= 38
    assert np.median(highest) > 0.04  # It is carried, not pushed.


def test_a_gripper_that_stays_open_lifts_nothing() -> None:
    env = make_task('pick_place')
    assert isinstance(env, PickPlace)
    env.reset(seed=1)
    x, y, _ = env.cube_position()
    for z in (0.1, 0.06, 0.012, 0.012, 0.06, 0.1):
        for _ in range(5):
            env.step(np.array([x, y, z, OPEN_M], dtype=np.float32))
    assert env.cube_position()[2] == pytest.approx(CUBE_HALF_WIDTH_M, abs=1e-3)


def test_success_needs_the_cube_on_the_disc_and_the_gripper_open() -> None:
    env = make_task('pick_place')
    assert isinstance(env, PickPlace)
    env.reset(seed=0)
    assert not env._succeeded()
    cube = env.model.joint('cube').qposadr[0]
    env.data.qpos[cube : cube + 2] = env.goal_position()[:2] + np.array([0.005, 0.0])
    assert env._succeeded()
    env.data.qpos[env._fingers] = 0.018
    assert not env._succeeded()


def test_both_cameras_show_the_cube_and_the_state_does_not() -> None:
    seen = []
    for y in (-0.10, -0.06):
        env = make_camera_task(TASK, randomisation={'cube.y': (y, y)})
        seen.append(env.reset(seed=5)[0])
        env.close()
    first, second = seen
    np.testing.assert_array_equal(first['state'], second['state'])
    for camera in ('front', 'wrist'):
        assert first[camera].shape == (64, 64, 3)
        blue = [image[..., 2] > 1.5 * image[..., 0] for image in (first[camera], second[camera])]
        assert all(each.sum() > 10 for each in blue), camera
        assert np.nonzero(blue[0])[1].mean() < np.nonzero(blue[1])[1].mean() - 2.0


def test_the_robot_fits_and_its_images_are_beside_the_vector() -> None:
    robot = load_robot(TASK)[0].without_encoders()
    raw = make_environment(TASK)
    check_environment(raw, robot)
    env = RobotView(make_environment(TASK), robot)
    observation, _ = env.reset(seed=2)
    parts = raw.reset(seed=2)[0]
    np.testing.assert_array_equal(observation, parts['state'])
    assert set(env.robot_images) == {'front', 'wrist'}
    for camera, image in env.robot_images.items():
        np.testing.assert_array_equal(image, parts[camera])


def test_it_is_no_task_without_cameras() -> None:
    assert 'pick_place' not in TASK_NAMES
    with pytest.raises(ConfigError, match=r"unknown task 'pick_place'"):
        make_environment('pick_place')


def test_a_tolerance_that_nothing_meets_is_refused() -> None:
    with pytest.raises(ConfigError, match='goal_tolerance_m is 0'):
        make_task('pick_place', goal_tolerance_m=0.0)
