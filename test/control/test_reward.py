# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A success is said once, when it is sure; what cannot judge is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from base_policy_builders import write_classifier, write_onnx_policy
from robot_builders import OBSERVATIONS

from residual_rl_ros.control.feedback import MARK_SUCCESS, StepFeedback
from residual_rl_ros.control.reward import SuccessClassifier, load_function
from residual_rl_ros.errors import RewardError
from residual_rl_ros.transitions.transition import Success


def judge(classifier: SuccessClassifier, values: list[float]) -> list[bool]:
    answers = [classifier(np.array([value, 0.0, 0.0])) for value in values]
    assert set(answers) <= {None, MARK_SUCCESS}
    return [answer is not None for answer in answers]


def test_a_success_is_said_once_and_only_when_it_lasts(tmp_path: Path) -> None:
    write_classifier(tmp_path / 'c.onnx', OBSERVATIONS, gain=10.0)
    classifier = SuccessClassifier(tmp_path / 'c.onnx', OBSERVATIONS, 0.9, consecutive=2)
    assert judge(classifier, [1, -1, 1, 1, 1, 1]) == [False, False, False, True, False, False]
    assert judge(classifier, [-1, 1, 1]) == [False, False, True]


def test_a_classifier_for_another_observation_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path / 'c.onnx', OBSERVATIONS)
    with pytest.raises(RewardError, match='was made for the observation'):
        SuccessClassifier(tmp_path / 'c.onnx', ('x', 'y', 'z'), 0.9, 1)


def test_a_model_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    write_onnx_policy(tmp_path / 'p.onnx')
    with pytest.raises(RewardError, match='expected JSON with observation_names'):
        SuccessClassifier(tmp_path / 'p.onnx', OBSERVATIONS, 0.9, 1)
    with pytest.raises(RewardError, match='does not exist'):
        SuccessClassifier(tmp_path / 'none.onnx', OBSERVATIONS, 0.9, 1)


def test_a_probability_that_is_none_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path / 'c.onnx', OBSERVATIONS)
    classifier = SuccessClassifier(tmp_path / 'c.onnx', OBSERVATIONS, 0.9, 1)
    with pytest.raises(RewardError, match='returned'):
        classifier(np.array([np.nan, 0.0, 0.0]))


def test_an_end_that_a_function_repeats_is_said_once(module: Any) -> None:
    answers = [None, MARK_SUCCESS, MARK_SUCCESS, None, MARK_SUCCESS]
    said = iter(answers)
    module.make = lambda names: lambda observation: next(said)
    source = load_function('my_rewards:make', OBSERVATIONS)
    found = [source(np.zeros(3)) for _ in answers]
    assert found == [None, MARK_SUCCESS, None, None, MARK_SUCCESS]


def test_a_function_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'def make(names):\n    return lambda observation: None\n'
    (tmp_path / 'rewards_of_this_folder.py').write_text(text)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert load_function('rewards_of_this_folder:make', OBSERVATIONS)(np.zeros(3)) is None
    assert sys.path == path


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType('my_rewards')
    monkeypatch.setitem(sys.modules, 'my_rewards', made)
    return made


def test_a_function_gets_the_names_and_gives_feedback(module: Any) -> None:
    def make(names: tuple[str, ...]) -> Any:
        assert names == OBSERVATIONS
        return lambda observation: StepFeedback(
            float(-observation[0]), False, False, Success.UNLABELLED
        )

    module.make = make
    source = load_function('my_rewards:make', OBSERVATIONS)
    answer = source(np.array([0.5, 0.0, 0.0]))
    assert answer is not None
    assert answer.reward == -0.5


def answered(**changes: Any) -> StepFeedback:
    return replace(StepFeedback(0.0, False, False, Success.UNLABELLED), **changes)


@pytest.mark.parametrize(
    'answer',
    [
        1.0,
        *(answered(reward=reward) for reward in (np.nan, -np.inf, 1e200, '1.0', None)),
        answered(reward=np.zeros(2)),
        *(answered(terminated=flag) for flag in ('no', None, np.nan, 0.5)),
        *(answered(success=outcome) for outcome in (2, 'yes', None, np.nan)),
    ],
    ids=str,
)
def test_an_answer_that_is_no_feedback_is_refused(module: Any, answer: Any) -> None:
    module.make = lambda names: lambda observation: answer
    source = load_function('my_rewards:make', OBSERVATIONS)
    with pytest.raises(RewardError, match='returned'):
        source(np.zeros(3))


@pytest.mark.parametrize('target', ['none_such:make', 'my_rewards:absent', 'my_rewards', ''])
def test_a_function_that_is_not_there_is_refused(module: Any, target: str) -> None:
    del module
    with pytest.raises(RewardError, match=r'expected package.module:factory'):
        load_function(target, OBSERVATIONS)


def test_a_failure_of_the_runtime_is_one_of_the_classifier(tmp_path: Path) -> None:
    write_classifier(tmp_path / 'success.onnx', OBSERVATIONS)
    source = SuccessClassifier(tmp_path / 'success.onnx', OBSERVATIONS, 0.9, 1)
    with pytest.raises(RewardError, match=r'success.onnx failed: '):
        source(np.zeros(7))


def test_only_the_pinned_classifier_is_accepted(tmp_path: Path) -> None:
    write_classifier(tmp_path / 'success.onnx', OBSERVATIONS)
    with pytest.raises(RewardError, match='classifier_sha256'):
        SuccessClassifier(tmp_path / 'success.onnx', OBSERVATIONS, 0.9, 1, '0' * 64)
