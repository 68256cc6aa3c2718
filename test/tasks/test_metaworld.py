# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Meta-World's tasks: scenes by seed, goals in sight, reward at success alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.pretraining.experts import make_expert
from residual_rl_ros.tasks.checked import CheckedEnvironment, Env
from residual_rl_ros.tasks.hosting import control_rate_hz, make_environment
from residual_rl_ros.tasks.metaworld import TIME_LIMIT, MetaWorld
from residual_rl_ros.transitions.transition import Success

TASKS = ('peg-insert-side', 'push', 'pick-place', 'door-lock', 'drawer-open', 'stick-push')
needs_metaworld = pytest.mark.skipif(
    find_spec('metaworld') is None,
    reason='Meta-World is not installed (make test installs it)',
)
LOCK = Path(__file__).resolve().parents[2] / 'requirements' / 'metaworld.txt'
DOOR_LOCK = 'metaworld:door-lock-v3'


@pytest.fixture
def door_lock() -> Iterator[Env]:
    env = make_environment(DOOR_LOCK)
    yield env
    env.close()


def beginning(env: Env, seed: int) -> np.ndarray:
    """Return an episode's first observations, shape (4, 39)."""
    seen = [env.reset(seed=seed)[0]]
    seen += [env.step(np.full(4, 0.5, np.float32))[0] for _ in range(3)]
    return np.stack(seen)


@needs_metaworld
@pytest.mark.parametrize('task', TASKS)
def test_the_seed_alone_decides_the_scene_whatever_came_before(task: str) -> None:
    name = f'metaworld:{task}-v3'
    env, other = make_environment(name), make_environment(name)
    first, second, again = (beginning(env, seed) for seed in (1, 2, 1))
    np.random.seed(7)  # noqa: NPY002  Meta-World would draw from it if it were let.
    assert np.array_equal(beginning(other, 2), second)
    assert np.array_equal(beginning(other, 1), first)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:, 4:7], second[:, 4:7])


@needs_metaworld
@pytest.mark.parametrize('task', TASKS)
def test_the_goal_is_observed_at_reset_and_at_every_step(task: str) -> None:
    env = MetaWorld(f'metaworld:{task}-v3')
    goals = beginning(env, 3)[:, -3:]
    assert np.allclose(goals, env._task._target_pos)
    assert np.abs(goals).max() > 0.05


@needs_metaworld
def test_the_reward_is_one_at_success_which_ends_the_episode(door_lock: Env) -> None:
    task, expert = CheckedEnvironment(door_lock), make_expert(DOOR_LOCK)
    task.reset(0, 0)
    expert.reset(door_lock)
    rewards, done = [], False
    while not done:
        _, feedback = task.step(expert.act(door_lock))
        rewards.append(feedback.reward)
        done = feedback.done
    assert feedback.terminated
    assert feedback.success is Success.SUCCESS
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
    assert 40 < len(rewards) < TIME_LIMIT
    assert control_rate_hz(door_lock) == 80.0


@needs_metaworld
def test_an_episode_without_success_ends_at_the_time_limit_as_a_failure(door_lock: Env) -> None:
    task = CheckedEnvironment(door_lock)
    task.reset(0, 0)
    answers = [task.step(np.zeros(4))[1] for _ in range(TIME_LIMIT)]
    assert [feedback.done for feedback in answers] == [False] * (TIME_LIMIT - 1) + [True]
    assert answers[-1].truncated
    assert answers[-1].success is Success.FAILURE
    assert not any(feedback.reward for feedback in answers)


@needs_metaworld
def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no task 'fly-v3', expected one of .*drawer-open-v3"):
        make_environment('metaworld:fly-v3')


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'metaworld.env_dict', None)
    monkeypatch.setitem(sys.modules, 'metaworld', None)
    pinned = LOCK.read_text(encoding='utf-8').splitlines()[-1]
    with pytest.raises(ConfigError, match=f'pip install --no-deps {re.escape(pinned)}') as caught:
        make_environment(DOOR_LOCK)
    assert '\n' not in str(caught.value)
