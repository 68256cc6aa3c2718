# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an environment answers, checked where it enters.

Environments and their wrappers are other people's code. A wrong number in an answer is named at
once, with environment, field, index, step and episode; later it would be a NaN in some network.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.inputs import NO_IMAGES, Images
from residual_rl_ros.config.success import (
    AUTO,
    END,
    IS_SUCCESS,
    RETURN,
    STOP,
    SUCCESS,
    TERMINATED,
    SuccessCriterion,
)
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import ResidualRLError, TaskError, shown
from residual_rl_ros.numerics import flag, is_one_hot, scalar, within
from residual_rl_ros.transitions.layout import MAX_OBSERVATION
from residual_rl_ros.transitions.transition import MAX_REWARD, Success

Env = gymnasium.Env[Any, Any]
Answer = TypeVar('Answer')
MAX_EPISODE_STEPS = 100_000
"""An episode that has not ended by then never will."""
TIME_LIMIT = 'TimeLimit.truncated'
"""Key of `info` by which environments of older versions tell a time limit from the end."""
CRITERION = 'success_criterion'
"""Attribute by which an environment, or a wrapper of it, names its criterion."""
ROBOT_IMAGES = 'robot_images'
"""Attribute with the newest image of each camera, of an environment that has cameras."""


def environment_name(env: Env) -> str:
    """Return the id of an environment, or its class."""
    spec = env.unwrapped.spec
    own = getattr(env.unwrapped, 'task_name', None)
    return str(own or (spec.id if spec else type(env.unwrapped).__name__))


def criterion_of(env: Env) -> SuccessCriterion:
    """Return the criterion that an environment names; `auto` if it names none."""
    named = env.get_wrapper_attr(CRITERION) if env.has_wrapper_attr(CRITERION) else None
    return named if isinstance(named, SuccessCriterion) else SuccessCriterion()


def foreign(what: str, function: Callable[[], Answer]) -> Answer:
    """Call code that is not of this package.

    Args:
        what: environment and method, for the error.
        function: the call.

    Raises:
        TaskError: it raised anything, or ended the program; the error names the exception and its
            place.
    """
    try:
        return function()
    except ResidualRLError:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise TaskError(
            f'{what}: {type(error).__name__}: {_reason(error)} '
            f'({Path(place.filename).name}, line {place.lineno})'
        ) from error


def _reason(error: BaseException) -> str:
    """Return an exception's text, and what is meant where an old environment is the cause."""
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - it is told already that something failed.
        return f'{type(failure).__name__} in its text'
    if isinstance(error, ValueError) and 'expected 5, got 4' in text:
        return f'{text}; {FIVE_VALUES}'
    if isinstance(error, TypeError) and "unexpected keyword argument 'seed'" in text:
        return f'{text}; reset takes seed and options since gym 0.26'
    return text


FIVE_VALUES = (
    'step returns observation, reward, terminated, truncated and info since gym 0.26, an older '
    'environment must be converted'
)


class CheckedEnvironment:
    """An environment as the control loop takes it: numbers checked, outcomes told.

    Args:
        env: the environment. Its attribute `success_criterion`, or that of a wrapper, says how it
            tells success.
    """

    def __init__(self, env: Env) -> None:
        self._env = env
        self.name = environment_name(env)
        self._criterion = criterion_of(env)
        self._discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
        self._first = int(getattr(env.action_space, 'start', 0))
        self._dtype = env.action_space.dtype or np.dtype(np.float32)
        self._episode, self._seed, self._steps = 0, 0, 0
        self.info: Mapping[str, Any] = {}
        """What the latest step told."""
        self._told: dict[str, bool] = {}
        """Whether each key of `info` that tells success was true at any step so far."""

    def reset(self, seed: int, episode: int) -> Any:
        """Begin an episode.

        Args:
            seed: of the environment.
            episode: number of the episode, for errors.

        Returns:
            The first observation: a vector, or a dictionary of arrays.

        Raises:
            TaskError: it failed, or returned no (observation, info).
        """
        self._episode, self._seed, self._steps = episode, seed, 0
        self._told = {}
        answer = foreign(self._where, lambda: self._env.reset(seed=seed))
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
            raise self._wrong('the answer', answer, 'a tuple (observation, info)')
        return self._checked(answer[0])

    def step(self, command: npt.NDArray[Any]) -> tuple[Any, StepFeedback]:
        """Execute a command, shape (m,), in the number type of the action space.

        Of discrete actions it is a one-hot vector, and the environment gets the index.

        Returns:
            The observation after it; reward and flags, and the outcome if the episode is over.

        Raises:
            TaskError: it failed, or its answer is not what gymnasium and the loop expect.
        """
        self._steps += 1
        action: Any = command.astype(self._dtype)
        if self._discrete:
            if not is_one_hot(command):
                raise TaskError(
                    f'{self._where}: the command is {command[:8].tolist()}, expected a one-hot '
                    'vector; correct the base policy or the residual'
                )
            action = self._first + int(command.argmax())
        answer = foreign(self._where, lambda: self._env.step(action))
        if not isinstance(answer, tuple) or len(answer) != 5:
            count = len(answer) if isinstance(answer, tuple) else 1
            raise TaskError(f'{self._where}: {count} values were returned; {FIVE_VALUES}')
        observation, reward, terminated, truncated, info = answer
        if not isinstance(info, Mapping):
            raise self._wrong('info', info, 'a dictionary')
        self.info = info = foreign(self._where, lambda: dict(info))
        ended, cut = self._flag('terminated', terminated), self._flag('truncated', truncated)
        if ended and self._flag(TIME_LIMIT, info.get(TIME_LIMIT, False)):
            ended, cut = False, True  # The end was a time limit all the same.
        if not (ended or cut) and self._steps >= MAX_EPISODE_STEPS:
            raise TaskError(
                f'{self._where}: the episode has not ended; give the environment a time limit '
                '(max_episode_steps)'
            )
        reward = self._reward(reward)
        succeeded = self._succeeded(info)
        if succeeded is not None:
            reward, ended = float(succeeded), ended or succeeded
        feedback = StepFeedback(reward, ended, cut, self._outcome(ended, cut))
        return self._checked(observation), feedback

    def random_command(self) -> npt.NDArray[Any]:
        """Return a random command, shape (m,), by the generator of the action space."""
        action = foreign(f'{self.name}: its action space', self._env.action_space.sample)
        if not self._discrete:
            return np.asarray(action)
        command = np.zeros(self._env.action_space.n)  # type: ignore[attr-defined]
        command[action - self._first] = 1.0
        return command

    @property
    def images(self) -> Images:
        """The newest image of each camera, by its name; none of an environment without."""
        has = self._env.has_wrapper_attr(ROBOT_IMAGES)
        images: Images = self._env.get_wrapper_attr(ROBOT_IMAGES) if has else NO_IMAGES
        return images

    @property
    def _where(self) -> str:
        now = f'step {self._steps}' if self._steps else 'reset'
        return f'{self.name}, episode {self._episode} (seed {self._seed}), {now}'

    def _wrong(self, field: str, value: Any, expected: str) -> TaskError:
        return TaskError(
            f'{self._where}: {field} is {shown(value)}, expected {expected}; correct the '
            'environment or its wrappers'
        )

    def _flag(self, field: str, value: Any) -> bool:
        try:
            return flag(value)
        except Exception as error:
            raise self._wrong(field, value, 'true or false') from error

    def _reward(self, value: Any) -> float:
        try:
            reward = scalar(value)
        except Exception as error:
            raise self._wrong('reward', value, 'one number') from error
        if not abs(reward) <= MAX_REWARD:
            raise self._wrong('reward', reward, f'a finite number up to {MAX_REWARD:g}')
        return reward

    def _succeeded(self, info: Mapping[str, Any]) -> bool | None:
        """Note what a step tells; return whether it succeeded, where that is to end the episode."""
        source, when = self._criterion.source, self._criterion.when
        keys = (IS_SUCCESS, SUCCESS) if source == AUTO else (source,) if when else ()
        told = {
            key: self._flag(f'info[{key!r}]', info[key])
            for key in keys
            if info.get(key) is not None
        }
        if when == END:
            self._told = told
        else:
            self._told |= {key: now or self._told.get(key, False) for key, now in told.items()}
        if len(self._told) > 1:
            raise TaskError(ambiguous(self._where))
        if when == STOP:
            return told.get(source, False)
        return told.get(IS_SUCCESS) if source == AUTO else None

    def _outcome(self, ended: bool, cut: bool) -> Success:
        """Return the outcome of the episode, unlabelled before its end."""
        source, when = self._criterion.source, self._criterion.when
        if not (ended or cut) or source == RETURN:
            return Success.UNLABELLED
        if source == TERMINATED:
            return Success(int(ended))
        if when == END and not self._told:
            raise self._wrong(f'info[{source!r}]', None, 'the outcome at the last step')
        if source == AUTO and not self._told:
            return Success.UNLABELLED
        return Success(int(any(self._told.values())))

    def _checked(self, observation: Any) -> Any:
        """Return an observation as arrays.

        Raises:
            TaskError: it is not of the space's shape, not numeric, not finite or too large.
        """
        space = self._env.observation_space
        if isinstance(space, gymnasium.spaces.Dict):
            if not isinstance(observation, Mapping) or set(observation) != set(space):
                raise self._wrong('observation', observation, f'the keys {sorted(space)}')
            return {key: self._array(observation[key], space[key].shape, key) for key in space}
        return self._array(observation, space.shape, '')

    def _array(self, value: Any, shape: tuple[int, ...] | None, key: str) -> npt.NDArray[Any]:
        field = f'observation[{key!r}]' if key else 'observation'
        try:
            array = np.array(value)  # A copy: some environments go on writing into theirs.
        except Exception as error:
            raise self._wrong(field, value, f'numbers of shape {shape}') from error
        if array.dtype.kind not in 'biuf' or array.shape != shape:
            found = f'an array of {array.dtype} and shape {array.shape}'
            raise TaskError(
                f'{self._where}: {field} is {found}, expected numbers of shape {shape}; correct '
                'the environment or its wrappers'
            )
        if array.dtype.kind != 'f':
            if array.ndim > 1:
                return array  # An image stays as it is.
            array = array.astype(np.float64)
        # As on topics: what is larger is no observation, and its square spoils a network.
        flat = array.astype(np.float64).ravel()
        if not within(flat, MAX_OBSERVATION):
            bad = int(np.flatnonzero(~(np.abs(flat) <= MAX_OBSERVATION))[0])
            name = '' if key or array.ndim > 1 else self._element(bad)
            limit = f'a finite number up to {MAX_OBSERVATION:g}; scale larger ones'
            raise self._wrong(f'{field}[{bad}]{name}', float(flat[bad]), limit)
        return array

    def _element(self, index: int) -> str:
        """Return the name of one number of the observation, in brackets, if it has one."""
        attribute = 'observation_names'
        if not self._env.has_wrapper_attr(attribute):
            return ''
        names = self._env.get_wrapper_attr(attribute)
        return f' ({names[index]})' if index < len(names) else ''


def ambiguous(where: str) -> str:
    """Return what is wrong with a task that tells success twice."""
    return (
        f'{where}: both info[{IS_SUCCESS!r}] and info[{SUCCESS!r}] are told; say which one counts '
        f'with success: {IS_SUCCESS}:stop or {SUCCESS}:once (--success)'
    )
