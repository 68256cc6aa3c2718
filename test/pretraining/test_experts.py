# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The scripted experts solve their tasks well enough to be cloned."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.pretraining.demonstrations import collect, collect_operators
from residual_rl_ros.pretraining.experts import FETCH_PICK_AND_PLACE, FETCH_PUSH, make_expert
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.tasks.hosting import make_environment
from residual_rl_ros.tasks.metaworld import TIME_LIMIT
from residual_rl_ros.tasks.parameters import NOISELESS
from residual_rl_ros.tasks.registry import TASK_NAMES, make_task
from residual_rl_ros.transitions.transition import Success

METAWORLD = ('peg-insert-side', 'push', 'pick-place', 'door-lock', 'drawer-open', 'stick-push')
every_task = pytest.mark.parametrize('name', TASK_NAMES)


def run_episodes(
    name: str, seeds: range, waypoint_noise: float = 0.0
) -> tuple[list[bool], list[np.ndarray]]:
    """Return the success and the actions, shape (steps, 7), of an episode per seed."""
    env = make_task(name)
    expert = make_expert(name, rng=np.random.default_rng(0), waypoint_noise=waypoint_noise)
    successes, episodes = [], []
    for seed in seeds:
        env.reset(seed=seed)
        expert.reset(env)
        actions, terminated, truncated = [], False, False
        while not (terminated or truncated):
            actions.append(expert.act(env))
            _, _, terminated, truncated, info = env.step(actions[-1].astype(np.float32))
        successes.append(info['success'])
        episodes.append(np.array(actions))
    return successes, episodes


@every_task
def test_the_expert_solves_the_task_in_time_with_smooth_commands(name: str) -> None:
    successes, episodes = run_episodes(name, range(20))
    assert np.mean(successes) >= 0.95
    assert 20 <= np.mean([len(actions) for actions in episodes]) <= 48
    assert max(np.abs(np.diff(actions, axis=0)).max() for actions in episodes) < 0.12


@every_task
def test_waypoint_noise_varies_the_motion_and_not_the_outcome(name: str) -> None:
    _, plain = run_episodes(name, range(6))
    successes, varied = run_episodes(name, range(6), waypoint_noise=0.01)
    assert all(successes)
    changes = [np.abs(a[:8] - b[:8]).max() for a, b in zip(plain, varied, strict=True)]
    assert np.mean(changes) > 1e-3


@every_task
def test_commands_stay_within_the_action_space(name: str) -> None:
    _, episodes = run_episodes(name, range(3))
    space = make_task(name).action_space
    assert all(space.contains(action.astype(np.float32)) for action in np.concatenate(episodes))


def test_an_expert_that_does_not_exist_or_lacks_its_generator_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no expert for task 'stack', expected .*'peg_insert'"):
        make_expert('stack')
    with pytest.raises(ConfigError, match='rng is None, expected a numpy Generator'):
        make_expert('peg_insert', waypoint_noise=0.01)


@pytest.mark.parametrize('name', [FETCH_PICK_AND_PLACE, FETCH_PUSH])
def test_the_fetch_experts_pick_and_place_and_push(name: str) -> None:
    env = make_environment(name)
    expert = make_expert(name, rng=np.random.default_rng(0), waypoint_noise=0.01)
    successes = []
    task = CheckedEnvironment(env)
    for seed in range(10):
        assert task.reset(seed, 0).shape == (31,)
        expert.reset(env)
        done = False
        while not done:
            _, feedback = task.step(expert.act(env))
            done = feedback.done
            assert feedback.terminated == (feedback.reward == 1.0)
        assert feedback.terminated == (feedback.success is Success.SUCCESS)
        successes.append(feedback.terminated)
    assert np.mean(successes) >= 0.9


@pytest.mark.skipif(find_spec('metaworld') is None, reason='Meta-World is not installed')
@pytest.mark.parametrize('task', METAWORLD)
def test_the_experts_of_meta_world_solve_scenes_in_time(task: str) -> None:
    name = f'metaworld:{task}-v3'
    found = collect(make_environment(name), name, 2, 0, waypoint_noise=0.01, action_noise=0.1)
    assert all(40 <= len(actions) <= TIME_LIMIT for _, actions in found.episodes)
    assert all(np.abs(actions).max() <= 1.0 for _, actions in found.episodes)


def test_action_noise_varies_what_is_executed_and_recorded_and_comes_from_the_seed() -> None:
    env = make_environment(FETCH_PUSH)
    plain, noisy, again = (collect(env, FETCH_PUSH, 1, 5, action_noise=n) for n in (0.0, 0.2, 0.2))
    first, second = (found.episodes[0][1][0] for found in (plain, noisy))
    assert 0.02 < np.abs(first - second).max() < 1.0
    assert noisy.sha256 == again.sha256


def test_operators_have_styles_of_their_own_and_their_failures_are_kept() -> None:
    groups = [
        {'demonstrations': 1},
        {'demonstrations': 1, 'lift': 0.07},
        {'demonstrations': 1, 'aim': 0.02, 'lever': 0.0},
    ]
    env = make_task('push_to_goal', noise=NOISELESS)
    shown = collect_operators(env, 'push_to_goal', groups, seed=1_000_000)
    plain, above, beside = (observations for observations, _ in shown.episodes)
    height = env.observation_names.index('tool.position.z')
    assert plain[:, height].max() < 0.03 < 0.04 < above[:, height].max()
    assert [rewards[-1] for rewards, _ in shown.ends] == [1.0, 1.0, 0.0]
    assert len(beside) == env.max_episode_steps
    with pytest.raises(ConfigError, match='takes no lifft of 1, expected a number for one of aim'):
        collect_operators(env, 'push_to_goal', [{'demonstrations': 1, 'lifft': 1}], seed=0)
