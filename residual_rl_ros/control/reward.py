# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rewards where no simulator gives them: an ONNX success classifier, or a function of yours.

A reward source is asked once a control step and answers with what it has to say of that step.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from residual_rl_ros.control.feedback import MARK_SUCCESS, StepFeedback
from residual_rl_ros.errors import FormatError, RewardError
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.numerics import Array, flag, scalar
from residual_rl_ros.resources import current_folder
from residual_rl_ros.robot.onnx_session import open_session, run_session
from residual_rl_ros.transitions.transition import MAX_REWARD, Success

RewardSource = Callable[[Array], 'StepFeedback | None']
"""Takes an observation, shape (n,); None says nothing."""

CLASSIFIER_METADATA_KEY = 'residual_rl_classifier'


class SuccessClassifier:
    """Runs `observation` float32 [1, n] -> `probability` float32 [1, 1] and marks successes.

    `metadata_props` hold, under `residual_rl_classifier`, JSON with `observation_names`. One
    success is reported once: the probability must fall below the threshold before the next.

    Args:
        path: the `.onnx` file.
        observation_names: names of the robot's observation (n).
        threshold: probability from which an observation counts as success.
        consecutive: observations in a row that must count; one alone may be a flicker.
        sha256: digest that the file must have, in hexadecimal digits; empty accepts any.

    Raises:
        RewardError: missing, another or unreadable file, or made for another observation.
    """

    def __init__(
        self,
        path: Path,
        observation_names: Sequence[str],
        threshold: float = 0.5,
        consecutive: int = 1,
        sha256: str = '',
    ) -> None:
        self._session = open_session(path, 'success classifier', RewardError, sha256=sha256)
        self._path = path
        self._threshold = threshold
        self._consecutive = consecutive
        self._seen = 0
        text = self._session.get_modelmeta().custom_metadata_map.get(CLASSIFIER_METADATA_KEY, '')
        try:
            names = list(parse_json(text, 'metadata')['observation_names'])
        except (FormatError, KeyError, TypeError) as error:
            raise RewardError(
                f'{path.name}: {CLASSIFIER_METADATA_KEY!r} metadata is {text[:80]!r}, expected '
                'JSON with observation_names'
            ) from error
        if names != list(observation_names):
            raise RewardError(
                f'{path.name} was made for the observation {names}, the robot has '
                f'{list(observation_names)}'
            )
        inputs = [item.name for item in self._session.get_inputs()]
        outputs = [item.name for item in self._session.get_outputs()]
        if inputs != ['observation'] or outputs != ['probability']:
            raise RewardError(
                f'{path.name} has inputs {inputs} and outputs {outputs}, expected observation and '
                'probability'
            )

    def __call__(self, observation: Array) -> StepFeedback | None:
        """Return a success when it is reached.

        Raises:
            RewardError: the network failed or answered with no probability.
        """
        inputs = {'observation': observation.astype(np.float32)[None]}
        name = self._path.name
        output = np.ravel(run_session(self._session, ['probability'], inputs, name, RewardError)[0])
        if output.size != 1 or not 0.0 <= output[0] <= 1.0:
            raise RewardError(f'{self._path.name} returned {output.tolist()}, expected one of 0..1')
        self._seen = self._seen + 1 if output[0] >= self._threshold else 0
        return MARK_SUCCESS if self._seen == self._consecutive else None


def load_function(target: str, observation_names: Sequence[str]) -> RewardSource:
    """Return a reward source that a Python package, or a module of the current folder, provides.

    An end of the episode is reported once: the function must not report one before the next.

    Args:
        target: `package.module:factory`; the factory takes the observation names and returns the
            source. It is code, and is run: name only what you trust.
        observation_names: names of the robot's observation (n).

    Raises:
        RewardError: there is no such factory, or it returned nothing to call.
    """
    module, _, name = target.partition(':')
    try:
        with current_folder():
            factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RewardError(
            f'reward function {target!r}: {error}; expected package.module:factory'
        ) from error
    try:
        source = factory(tuple(observation_names))
    except Exception as error:
        raise RewardError(
            f'reward function {target!r} failed with {type(error).__name__}: {error}; expected a '
            'factory that takes the observation names'
        ) from error
    if not callable(source):
        raise RewardError(f'reward function {target!r} returned {source!r}, nothing to call')

    ended = False

    def checked(observation: Array) -> StepFeedback | None:
        nonlocal ended
        answer = source(observation)
        if answer is not None and not isinstance(answer, StepFeedback):
            raise RewardError(f'{target} returned {answer!r}, expected a StepFeedback or None')
        sound = None if answer is None else _sound(target, answer)
        again, ended = ended, sound is not None and sound.done
        return None if again and ended else sound

    return checked


def _sound(target: str, answer: StepFeedback) -> StepFeedback:
    """Return an answer whose reward is a number and whose flags are truth values.

    Raises:
        RewardError: they are not.
    """
    try:
        sound = StepFeedback(
            scalar(answer.reward),
            flag(answer.terminated),
            flag(answer.truncated),
            Success(answer.success),
        )
    except (TypeError, ValueError) as error:
        raise RewardError(
            f'{target} returned {answer!r}, expected a number, two truth values and a Success'
        ) from error
    if not abs(sound.reward) <= MAX_REWARD:
        raise RewardError(
            f'{target} returned the reward {sound.reward}, expected up to {MAX_REWARD:g}'
        )
    return sound
