# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an environment is said where it enters: which number, at which step."""

from __future__ import annotations

import sys
from collections import UserDict
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from residual_rl_ros.config.success import SuccessCriterion
from residual_rl_ros.errors import TaskError
from residual_rl_ros.tasks import checked
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.transitions.transition import Success

COMMAND = np.array([0.1, -0.1])


class Answers(gymnasium.Env):
    """Answers as it is told: from step 3 on with what a test wants."""

    def __init__(self, criterion: str = 'auto', dtype: Any = np.float32, **answer: Any) -> None:
        self.observation_space = Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = Box(-0.1, 0.1, (2,), dtype)
        self.success_criterion = SuccessCriterion.parse(criterion)
        self.answer = answer
        self.count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.answer.get('first', (np.zeros(3, np.float32), {}))

    def step(self, action: Any) -> Any:
        self.count += 1
        assert self.action_space.contains(action)
        sound = {
            'observation': np.zeros(3, np.float32),
            'reward': 0.5,
            'terminated': False,
            'truncated': False,
            'info': {},
        }
        answer = {**sound, **self.answer} if self.count >= 3 else sound
        if callable(answer['reward']):
            answer['reward']()
        return tuple(answer[key] for key in sound)


def third_step(env: gymnasium.Env) -> Any:
    task = CheckedEnvironment(env)
    task.reset(seed=5, episode=2)
    for _ in range(2):
        task.step(COMMAND)
    return task.step(COMMAND)


def fail() -> None:
    raise ZeroDivisionError('no\nlicence')


def leave() -> None:
    sys.exit(0)


def stammer() -> None:
    raise SpeechlessError


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Info(UserDict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError('no keys')


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        ({'observation': np.array([0.0, np.nan, 0.0])}, r'observation\[1\] is nan, expected a fin'),
        ({'observation': np.array([0.0, 0.0, -np.inf])}, r'observation\[2\] is -inf, expected a'),
        ({'observation': np.array([0.0, 0.0, 1e300])}, r'observation\[2\] is 1e\+300, expected .*'),
        ({'observation': np.array([2e6, 0.0, 0.0])}, r'observation\[0\] is 2000000.0, expected a'),
        ({'observation': np.array([0, 2**62, 0])}, r'observation\[1\] is 4.6.*, expected a finite'),
        ({'observation': np.zeros(2)}, r'float64 and shape \(2,\), expected .* of shape \(3,\)'),
        ({'observation': np.zeros((1, 3))}, r'shape \(1, 3\), expected numbers of shape \(3,\)'),
        ({'observation': None}, r'array of object and shape \(\), expected numbers'),
        ({'observation': [1.0, 'x', 2.0]}, r'expected numbers of shape \(3,\)'),
        ({'observation': [1.0, [2.0], 2.0]}, r'expected numbers of shape \(3,\)'),
        ({'observation': {'a': 1.0}}, r'expected numbers of shape \(3,\)'),
        ({'reward': np.nan}, r'reward is nan, expected a finite number up to 1e\+'),
        ({'reward': -np.inf}, r'reward is -inf, expected a finite number'),
        ({'reward': 1e200}, r'reward is 1e\+200, expected a finite number'),
        ({'reward': '1.0'}, r"reward is '1.0', expected one number"),
        ({'reward': None}, r'reward is None, expected one number'),
        ({'reward': 1j}, r'reward is 1j, expected one number'),
        ({'reward': np.zeros(2)}, r'reward is array\(\[0., 0.\]\), expected one number'),
        ({'terminated': None}, r'terminated is None, expected true or false'),
        ({'terminated': 'False'}, r"terminated is 'False', expected true or false"),
        ({'terminated': 0.5}, r'terminated is 0.5, expected true or false'),
        ({'truncated': np.nan}, r'truncated is nan, expected true or false'),
        ({'truncated': np.array([True, False])}, r'truncated is array.*expected true or false'),
        ({'info': None}, r'info is None, expected a dictionary'),
        ({'info': {'success': 'False'}}, r"info\['success'\] is 'False', expected true or false"),
        ({'info': {'is_success': np.nan}}, r"info\['is_success'\] is nan, expected true or false"),
        ({'info': {'success': 0.7}}, r"info\['success'\] is 0.7, expected true or false"),
        ({'info': {'success': True, 'is_success': False}}, r'both info.* say which one counts'),
        ({'reward': leave}, r'SystemExit: 0 \('),
        ({'reward': stammer}, r'SpeechlessError: RuntimeError in its text'),
        ({'info': Info()}, r'RuntimeError: no keys'),
        ({'reward': fail}, r'ZeroDivisionError: no licence \(test_checked.py, line \d+\)'),
    ],
)
def test_what_is_wrong_is_named_with_environment_field_step_and_episode(
    answer: dict[str, Any], reason: str
) -> None:
    where = r'Answers, episode 2 \(seed 5\), step 3: .*'
    with pytest.raises(TaskError, match=f'(?s){where}{reason}'):
        third_step(Answers(**answer))


@pytest.mark.parametrize(
    ('first', 'reason'),
    [
        (np.zeros(2), r'reset: the answer is array.*, expected a tuple \(observation, info\)'),
        ((np.array([0.0, 0.0, np.nan]), {}), r'reset: observation\[2\] is nan'),
        ((np.zeros(3), None), r'reset: the answer is .*, expected a tuple \(observation, info\)'),
    ],
)
def test_a_wrong_reset_is_named(first: Any, reason: str) -> None:
    with pytest.raises(TaskError, match=rf'episode 2 \(seed 5\), {reason}'):
        third_step(Answers(first=first))


def test_a_wrapper_is_checked_as_the_environment_is() -> None:
    spoilt = gymnasium.wrappers.TransformReward(Answers(), lambda reward: reward / 0.0 * 0.0)
    with pytest.raises(TaskError, match=r'step 1: ZeroDivisionError'):
        third_step(spoilt)
    spoilt = gymnasium.wrappers.TransformReward(Answers(), lambda reward: reward * np.inf * 0.0)
    with pytest.raises(TaskError, match=r'step 1: reward is nan'):
        third_step(spoilt)


@pytest.mark.parametrize(
    'reward', [1, True, np.float32(1.0), np.array(1.0), np.array([1.0]), np.int64(1)], ids=repr
)
def test_a_number_is_a_number_however_it_is_written(reward: Any) -> None:
    flags = {'terminated': np.bool_(False), 'truncated': np.array(1)}
    observation = [0, 1, 2]
    seen, feedback = third_step(Answers(reward=reward, observation=observation, **flags))
    assert (feedback.reward, feedback.terminated, feedback.truncated) == (1.0, False, True)
    np.testing.assert_array_equal(seen, observation)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_a_command_at_a_bound_stays_inside_in_every_type(dtype: Any) -> None:
    env = Answers(dtype=dtype)
    high = env.action_space.high.astype(np.float64)
    CheckedEnvironment(env).step(high * [1.0, -1.0])
    assert env.count == 1


def test_an_environment_of_four_values_is_named_wherever_they_are_unpacked() -> None:
    class Old(Answers):
        def step(self, action: Any) -> Any:
            return np.zeros(3), 0.0, False, {}

    for env in (Old(), gymnasium.wrappers.TimeLimit(Old(), 10)):
        task = CheckedEnvironment(env)
        task.reset(0, 0)
        with pytest.raises(TaskError, match=r'step 1: .*4.*step returns observation, reward, ter'):
            task.step(COMMAND)


def test_an_environment_that_takes_no_seed_is_named() -> None:
    class Old(Answers):
        def reset(self) -> Any:
            return np.zeros(3), {}

    with pytest.raises(TaskError, match=r'reset: TypeError: .*reset takes seed and options'):
        CheckedEnvironment(Old()).reset(0, 0)


def test_an_episode_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, 'MAX_EPISODE_STEPS', 3)
    with pytest.raises(TaskError, match=r'step 3: the episode has not ended; give .* a time limit'):
        third_step(Answers())


def test_a_time_limit_that_was_reported_as_the_end_is_none() -> None:
    _, feedback = third_step(Answers(terminated=True, info={'TimeLimit.truncated': True}))
    assert (feedback.terminated, feedback.truncated) == (False, True)
    _, feedback = third_step(Answers(terminated=True, info={'TimeLimit.truncated': False}))
    assert (feedback.terminated, feedback.truncated) == (True, False)


def test_a_dictionary_with_an_image_is_checked_key_by_key() -> None:
    class Camera(Answers):
        def __init__(self, state: Any, image: Any) -> None:
            image_space = Box(0, 255, (2, 2, 3), np.uint8)
            super().__init__(first=({'state': state, 'camera': image}, {}))
            self.observation_space = Dict(state=Box(-9, 9, (2,)), camera=image_space)

    image = np.zeros((2, 2, 3), np.uint8)
    seen = CheckedEnvironment(Camera(np.zeros(2), image)).reset(0, 0)
    assert (seen['camera'].dtype, seen['camera'].shape) == (np.uint8, (2, 2, 3))
    for state, shown, reason in (
        (np.array([0.0, np.nan]), image, r"observation\['state'\]\[1\] is nan"),
        (np.zeros(2), image[0], r"observation\['camera'\] is an array of uint8 and shape \(2, 3\)"),
    ):
        with pytest.raises(TaskError, match=reason):
            CheckedEnvironment(Camera(state, shown)).reset(0, 0)


def test_an_observation_is_not_changed_by_the_next_one() -> None:
    env = Answers(first=((buffer := np.zeros(3)), {}))
    seen = CheckedEnvironment(env).reset(0, 0)
    buffer += 1.0
    assert not seen.any()


def told(criterion: str, *steps: Any, terminated: bool = False) -> Success:
    """Return the outcome of an episode that tells `success` so, step by step."""
    env = Answers(criterion)
    task = CheckedEnvironment(env)
    task.reset(0, 0)
    for number, value in enumerate(steps, 1):
        last = number == len(steps)
        info = {} if value is None else {'success': value}
        env.answer = {'info': info, 'truncated': last, 'terminated': last and terminated}
        env.count = 2
        _, feedback = task.step(COMMAND)
        assert last or feedback.success is Success.UNLABELLED
    return feedback.success


@pytest.mark.parametrize(
    ('criterion', 'steps', 'outcome'),
    [
        ('auto', (0.0, 1.0, 0.0), Success.SUCCESS),
        ('auto', (False, False), Success.FAILURE),
        ('auto', (None, None), Success.UNLABELLED),
        ('success:once', (None, True, None), Success.SUCCESS),
        ('success:once', (None, None), Success.FAILURE),
        ('success:end', (True, False), Success.FAILURE),
        ('success:end', (None, np.array([True])), Success.SUCCESS),
        ('terminated', (True, True), Success.FAILURE),
        ('return', (True, True), Success.UNLABELLED),
    ],
)
def test_success_counts_when_the_criterion_says(
    criterion: str, steps: tuple[Any, ...], outcome: Success
) -> None:
    assert told(criterion, *steps) is outcome


def test_a_fall_with_a_reward_is_a_success_only_where_terminations_are() -> None:
    assert told('auto', None, None, terminated=True) is Success.UNLABELLED
    assert told('terminated', None, None, terminated=True) is Success.SUCCESS


def test_an_outcome_that_the_last_step_does_not_tell_is_named() -> None:
    with pytest.raises(TaskError, match=r"info\['success'\] is None, expected the outcome at the"):
        told('success:end', True, None)


def test_a_task_stops_at_its_first_success_where_that_is_wanted() -> None:

    env = Answers('solved:stop', reward=9.0, info={'solved': True})
    _, feedback = third_step(env)
    assert (feedback.reward, feedback.terminated, feedback.success) == (1.0, True, Success.SUCCESS)
    task = CheckedEnvironment(env)
    task.reset(0, 0)
    assert task.step(COMMAND)[1].reward == 0.0
