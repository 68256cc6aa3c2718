# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated tasks keep the contract that policies and the simulator node rely on."""

from __future__ import annotations

import warnings
from typing import cast

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.arm_env import ArmEnv
from residual_rl_ros.tasks.kinematics import REST_JOINTS, Pose
from residual_rl_ros.tasks.parameters import NOISELESS, Range, SensorNoise
from residual_rl_ros.tasks.peg_insert import PegInsert
from residual_rl_ros.tasks.push_to_goal import PushToGoal
from residual_rl_ros.tasks.registry import TASK_NAMES, make_task

every_task = pytest.mark.parametrize('name', TASK_NAMES)


def hold(env: ArmEnv) -> np.ndarray:
    return env.joint_positions().astype(np.float32)


def named(env: ArmEnv, observation: np.ndarray, prefix: str) -> np.ndarray:
    return np.array(
        [
            value
            for name, value in zip(env.observation_names, observation, strict=True)
            if name.startswith(prefix)
        ]
    )


@every_task
def test_gymnasium_accepts_the_environment(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', message='.*(spec|symmetric).*')
        check_env(make_task(name), skip_render_check=True)


@every_task
def test_the_same_seed_and_actions_give_the_same_episode(name: str) -> None:
    def episode(seed: int) -> np.ndarray:
        env = make_task(name)
        observations = [env.reset(seed=seed)[0]]
        target = hold(env)
        for step in range(20):
            observations.append(env.step(target + np.float32(0.01 * step))[0])
        return np.array(observations)

    np.testing.assert_array_equal(episode(7), episode(7))
    assert not np.array_equal(episode(7), episode(8))


@every_task
def test_a_reset_leaves_nothing_of_the_episode_before(name: str) -> None:
    used, fresh = make_task(name), make_task(name)
    used.reset(seed=1)
    for _ in range(10):
        used.step(used.action_space.low)
    np.testing.assert_array_equal(used.reset(seed=2)[0], fresh.reset(seed=2)[0])


@every_task
def test_names_and_bounds_match_the_observation(name: str) -> None:
    env = make_task(name)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert observation.shape == (len(env.observation_names),) == env.observation_space.shape
    assert len(set(env.observation_names)) == len(env.observation_names)
    assert env.observation_space.contains(observation)
    assert env.observation_names[:2] == ('arm.position.joint1', 'arm.position.joint2')
    assert env.action_names == tuple(f'joint{number}.position' for number in range(1, 8))
    assert env.action_space.shape == (7,)
    assert env.max_episode_steps % 4 == 0


@every_task
def test_sensors_saturate_at_the_bounds(name: str) -> None:
    env = make_task(name, noise=SensorNoise(100.0, 100.0, 100.0, 100.0))
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


@every_task
def test_an_idle_episode_is_truncated_without_success(name: str) -> None:
    env = make_task(name, max_episode_steps=8)
    env.reset(seed=0)
    steps = [env.step(hold(env)) for _ in range(8)]
    assert [truncated for _, _, _, truncated, _ in steps] == [False] * 7 + [True]
    assert not any(terminated for _, _, terminated, _, _ in steps)
    assert all(reward == 0.0 and info == {'success': False} for _, reward, _, _, info in steps)


@pytest.mark.parametrize('delay', [0, 1, 3])
def test_a_command_reaches_the_arm_after_the_delay(delay: int) -> None:
    env = make_task('peg_insert', action_delay_steps=delay)
    env.reset(seed=0)
    start = env.joint_positions()
    moved = []
    for _ in range(5):
        env.step((start + 0.05).astype(np.float32))
        moved.append(bool(np.abs(env.joint_positions() - start).max() > 1e-3))
    assert moved == [step >= delay for step in range(5)]


@every_task
def test_noiseless_sensors_report_the_true_state(name: str) -> None:
    env = make_task(name, noise=NOISELESS)
    env.reset(seed=3)
    observation = env.step(hold(env) + np.float32(0.02))[0]
    tool = env.tool_pose()
    np.testing.assert_allclose(
        named(env, observation, 'arm.position'), env.joint_positions(), atol=1e-6
    )
    np.testing.assert_allclose(named(env, observation, 'tool.position'), tool.position, atol=1e-6)
    if isinstance(env, PegInsert):
        seen, exact, axes = 'hole', env.hole_pose().relative_to(tool), 3
    else:
        seen, exact, axes = 'block', cast(PushToGoal, env).block_pose().relative_to(tool), 2
    np.testing.assert_allclose(
        named(env, observation, f'{seen}.position'), exact.position[:axes], atol=1e-6
    )
    np.testing.assert_allclose(
        named(env, observation, f'{seen}.orientation'),
        [np.sin(exact.yaw / 2.0), np.cos(exact.yaw / 2.0)],
        atol=1e-6,
    )


def test_object_noise_has_the_deviation_that_was_asked_for() -> None:
    env = make_task('peg_insert', max_episode_steps=400)
    env.reset(seed=0)
    target = hold(env)
    errors = []
    for _ in range(400):
        observation = env.step(target)[0]
        exact = cast(PegInsert, env).hole_pose().relative_to(env.tool_pose()).position
        errors.append(named(env, observation, 'hole.position') - exact)
    assert np.std(errors) == pytest.approx(env.parameters.noise.object_position_std_m, rel=0.1)


def press(env: PegInsert, lateral_m: float) -> float:
    """Lower the peg straight down beside the axis of the hole; return the largest depth, [m]."""
    hole = env.hole_pose()
    depth = -np.inf
    joints = env.joint_positions()
    for height in np.r_[np.full(15, 0.006), np.linspace(0.006, -0.02, 20), np.full(10, -0.02)]:
        target = hole.locate(np.array([lateral_m, 0.0, height]))
        joints = env.kinematics.inverse(Pose(target, hole.yaw), joints)
        terminated = env.step(joints.astype(np.float32))[2]
        depth = max(depth, -float(env.tool_pose().relative_to(hole).position[2]))
        if terminated:
            break
    return depth


@pytest.mark.parametrize('seed', range(3))
def test_a_centred_peg_goes_in_and_a_peg_four_millimetres_off_rests_on_the_rim(seed: int) -> None:
    env = cast(PegInsert, make_task('peg_insert'))
    env.reset(seed=seed)
    assert press(env, 0.0) >= env.parameters.success_depth_m
    env.reset(seed=seed)
    assert press(env, 0.004) < 0.001


def test_a_peg_that_fits_a_loose_hole_does_not_fit_a_tight_one() -> None:
    loose = cast(PegInsert, make_task('peg_insert', clearance_m=0.004))
    tight = cast(PegInsert, make_task('peg_insert', clearance_m=0.0005))
    loose.reset(seed=0)
    tight.reset(seed=0)
    assert press(loose, 0.003) >= loose.parameters.success_depth_m
    assert press(tight, 0.003) < 0.001


def test_a_peg_beside_the_block_is_not_inserted_however_low_it_is() -> None:
    env = cast(PegInsert, make_task('peg_insert'))
    env.reset(seed=0)
    hole = env.hole_pose()
    beside = hole.locate(np.array([0.0, 0.09, -0.03]))
    env.data.qpos[:7] = env.kinematics.inverse(Pose(beside, 0.0), REST_JOINTS)
    assert not env.step(hold(env))[4]['success']
    assert env.insertion_depth() < 0.0


def test_a_pushed_block_stops_when_the_pusher_leaves_it() -> None:
    env = cast(PushToGoal, make_task('push_to_goal', max_episode_steps=100))
    env.reset(seed=0)
    start = env.block_pose().position
    behind = start - np.array([0.05, 0.0, -0.012])
    for advance in np.r_[np.zeros(20), np.linspace(0.0, 0.06, 14)]:
        target = Pose(behind + np.array([advance, 0.0, 0.0]), 0.0)
        env.step(env.kinematics.inverse(target, env.joint_positions()).astype(np.float32))
    pushed = env.block_pose().position
    target = Pose(behind, 0.0)
    for _ in range(15):
        env.step(env.kinematics.inverse(target, env.joint_positions()).astype(np.float32))
    assert np.linalg.norm(pushed - start) > 0.02
    assert np.linalg.norm(env.block_pose().position - pushed) < 0.02
    assert np.abs(env.data.qvel[7:10]).max() < 1e-3


def test_reaching_the_goal_ends_the_episode_with_reward_one() -> None:
    env = make_task('push_to_goal', goal_tolerance_m=0.5)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(hold(env))
    assert (reward, terminated, truncated, info) == (1.0, True, False, {'success': True})


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(0.45, 0.65),
    y=st.floats(-0.12, 0.12),
    z=st.floats(0.01, 0.15),
    yaw=st.floats(-0.5, 0.5),
)
def test_inverse_kinematics_puts_the_tool_where_it_was_asked_to(
    x: float, y: float, z: float, yaw: float
) -> None:
    arm = _ENV.kinematics
    reached = arm.forward(arm.inverse(Pose(np.array([x, y, z]), yaw), REST_JOINTS))
    np.testing.assert_allclose(reached.position, [x, y, z], atol=1e-4)
    assert reached.yaw == pytest.approx(yaw, abs=1e-3)


_ENV = make_task('peg_insert')


@given(st.lists(st.floats(-3.0, 3.0), min_size=8, max_size=8))
def test_a_point_survives_the_way_into_a_frame_and_back(values: list[float]) -> None:
    frame = Pose(np.array(values[:3]), values[3])
    point = Pose(np.array(values[4:7]), values[7])
    np.testing.assert_allclose(
        frame.locate(point.relative_to(frame).position), point.position, atol=1e-9
    )


def test_a_range_can_be_pinned_by_name() -> None:
    env = cast(PegInsert, make_task('peg_insert', randomisation={'hole.x': (0.56, 0.56)}))
    env.reset(seed=0)
    assert env.hole_pose().position[0] == pytest.approx(0.56)


def test_actions_beyond_the_limits_are_clipped_and_not_refused() -> None:
    env = make_task('push_to_goal', action_delay_steps=0)
    env.reset(seed=0)
    env.step(np.full(7, 50.0, dtype=np.float32))
    assert env.data.qpos[:7].max() < env.action_space.high.max() + 0.05


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_non_finite_action_is_refused_by_name(value: float) -> None:
    env = make_task('peg_insert')
    env.reset(seed=0)
    action = hold(env)
    action[2] = value
    with pytest.raises(ConfigError, match=r'joint3\.position is (nan|inf), expected a finite'):
        env.step(action)


def test_an_action_of_the_wrong_size_is_refused() -> None:
    env = make_task('peg_insert')
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r'shape \(6,\), expected \(7,\)'):
        env.step(np.zeros(6, dtype=np.float32))


def test_what_a_task_does_not_know_is_refused_with_what_it_knows() -> None:
    with pytest.raises(ConfigError, match=r"unknown task 'peg', expected .*'peg_insert', 'push_to"):
        make_task('peg')
    with pytest.raises(ConfigError, match=r"no parameter 'clearance', expected .*'clearance_m'"):
        make_task('peg_insert', clearance=0.001)
    with pytest.raises(ConfigError, match=r"unknown randomisation 'hole\.w', expected .*'hole\.x'"):
        make_task('peg_insert', randomisation={'hole.w': (0.0, 1.0)})
    with pytest.raises(ConfigError, match=r"render mode 'human' is unknown"):
        make_task('peg_insert', render_mode='human')


def test_values_that_make_no_task_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'clearance_m is 0\.02'):
        make_task('peg_insert', clearance_m=0.02)
    with pytest.raises(ConfigError, match='goal_tolerance_m is 0'):
        make_task('push_to_goal', goal_tolerance_m=0.0)
    with pytest.raises(ConfigError, match='multiple of 4'):
        make_task('push_to_goal', max_episode_steps=10)
    with pytest.raises(ConfigError, match='action_delay_steps is -1'):
        make_task('push_to_goal', action_delay_steps=-1)
    with pytest.raises(ConfigError, match='joint_position_std_rad is -1'):
        SensorNoise(joint_position_std_rad=-1.0)
    with pytest.raises(ConfigError, match=r"range 'a' is \[1\.0, 0\.0\]"):
        Range('a', 1.0, 0.0)
