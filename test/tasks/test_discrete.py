# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An environment with a Discrete space is a robot like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from prior_builders import write_prior_policy
from robot_builders import make_metadata

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ConfigError, TaskError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.tasks.hosting import (
    check_environment,
    describe_robot,
    finetune_for_environment,
    host,
    make_environment,
)
from residual_rl_ros.tasks.success_probe import settle_success

TASK = 'CartPole-v1'


class Named(gymnasium.Env):
    """Counts from 5 and has names."""

    action_names = ('left', 'stay', 'right')
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        del seed, options
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.taken.append(action)
        return np.zeros(2, np.float32), 0.0, False, len(self.taken) == 3, {}


def robot_of(env: gymnasium.Env) -> RobotConfig:
    return RobotConfig.from_mapping(describe_robot('named', env))


def cart_pole_policy(path: Path) -> OnnxBasePolicy:
    """Write a base policy for the task, of one action a chunk."""
    metadata = make_metadata(
        observation_names=tuple(f'state.x{index}' for index in range(4)),
        action_names=('action0', 'action1'),
        action_min=(0.0, 0.0),
        action_max=(1.0, 1.0),
        rate_hz=50.0,
        n_obs_steps=1,
        horizon=1,
        exec_start=0,
        exec_steps=1,
        prior=Prior.CATEGORICAL,
    )
    write_prior_policy(path, Prior.CATEGORICAL, metadata)
    return OnnxBasePolicy(path)


def test_names_are_those_of_the_environment_and_the_index_is_its_own() -> None:
    env = Named()
    robot = robot_of(env)
    assert robot.action.names == ('left', 'stay', 'right')
    assert robot.action.is_discrete
    check_environment(env, robot)
    task = CheckedEnvironment(env)
    task.reset(0, 0)
    for command in np.eye(3):
        task.step(command)
    assert env.taken == [5, 6, 7]
    assert all(type(action) is int for action in env.taken)


def test_a_command_that_chooses_nothing_is_refused_before_the_environment_sees_it() -> None:
    env = Named()
    task = CheckedEnvironment(env)
    task.reset(0, 0)
    with pytest.raises(TaskError, match=r'the command is \[0.5, 0.5, 0.0\], expected a one-hot'):
        task.step(np.array([0.5, 0.5, 0.0]))
    assert env.taken == []


def test_a_robot_of_the_other_kind_of_actions_is_refused() -> None:
    described = describe_robot('named', Named())
    described['action'] = {
        'names': ['left', 'stay', 'right'],
        'lower': [0.0] * 3,
        'upper': [1.0] * 3,
        'max_velocity': [1.0] * 3,
    }
    robot = RobotConfig.from_mapping(described)
    with pytest.raises(ConfigError, match=r'has Discrete\(3, start=5\), robot .* continuous'):
        check_environment(Named(), robot)


def test_a_random_command_chooses_one_action() -> None:
    env = Named()
    env.action_space.seed(0)
    commands = {CheckedEnvironment(env).random_command().tobytes() for _ in range(50)}
    assert commands == {row.tobytes() for row in np.eye(3)}
    told: list[str] = []
    assert settle_success(TASK, 'auto', told.append) == 'return'


def test_an_episode_in_one_process_chooses_an_action_at_every_step(tmp_path: Path) -> None:
    policy = cart_pole_policy(tmp_path / 'base.onnx')
    run = finetune_for_environment(TASK, policy.path, 0.1, tmp_path).resolve()
    env = host(run.config, run.robot)
    controller = run.controller(0, explore=False, scheduled=False)
    made: list[Any] = []
    episode = run_episode(env, controller, 3, 0, made.append)
    controller.queue.close()
    assert episode.steps == len(made) == episode.episode_return > 5
    executed = np.array([transition.executed_action for transition in made])
    assert set(map(tuple, executed)) == {(1.0, 0.0), (0.0, 1.0)}
    logits = np.array([transition.prior for transition in made])
    assert np.isfinite(logits).all()
    assert (logits[1:] == [transition.next_prior for transition in made[:-1]]).all()


def test_a_stochastic_base_has_proposals_that_are_actions(tmp_path: Path) -> None:
    policy = cart_pole_policy(tmp_path / 'base.onnx')
    env = make_environment(TASK)
    robot = RobotConfig.from_mapping(describe_robot(TASK, env))
    config = ControllerConfig(1, (1.0,), proposals=4, customisable=True, scheduled_actor=False)
    controller = config.build(policy, robot.action)
    made: list[Any] = []
    run_episode(env, controller, 3, 0, made.append)
    controller.queue.close()
    others = np.array([transition.proposals for transition in made]).reshape(-1, 3, 2)
    assert set(map(tuple, others.reshape(-1, 2))) == {(1.0, 0.0), (0.0, 1.0)}
    assert all(transition.add_on.tolist() == [0.0, 1.0] for transition in made)
