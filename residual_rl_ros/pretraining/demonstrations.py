# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scripted demonstrations as arrays, cut into windows and chunks for imitation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.inputs import Images
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.demonstrations.frames import DemonstratedEpisode
from residual_rl_ros.demonstrations.tensor_file import write_demonstrations
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.numerics import Float32
from residual_rl_ros.pretraining.expert import Expert
from residual_rl_ros.pretraining.experts import make_expert
from residual_rl_ros.tasks.checked import CheckedEnvironment, Env
from residual_rl_ros.transitions.transition import Success, Transition


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of an expert, or of several operators."""

    episodes: tuple[tuple[Float32, Float32], ...]
    """Per episode: observations (steps, n) and actions (steps, m)."""
    ends: tuple[tuple[Float32, Float32], ...] = ()
    """Per episode: rewards (steps,) and the observation after the last action (n,); empty where
    they are not known."""
    images: tuple[Images, ...] = ()
    """Per episode: what each camera saw, shape (steps, height, width, 3); empty without cameras."""

    @property
    def sha256(self) -> str:
        """Digest of all numbers that are imitated, in order."""
        sha = hashlib.sha256()
        for observations, actions in self.episodes:
            sha.update(observations.tobytes())
            sha.update(actions.tobytes())
        for images in self.images:
            for name in sorted(images):
                sha.update(images[name].tobytes())
        return sha.hexdigest()

    def save(
        self,
        path: Path,
        observation_names: Sequence[str],
        action_names: Sequence[str],
        rate_hz: float,
    ) -> None:
        """Write them as a file that `--demonstrations` takes.

        Raises:
            DemonstrationError: it cannot be written.
        """
        episodes = []
        for index, (observations, actions) in enumerate(self.episodes):
            rewards: npt.NDArray[np.float64] | None = None
            if self.ends:
                rewards = self.ends[index][0].astype(np.float64)
                observations = np.concatenate([observations, self.ends[index][1][None]])
            episodes.append(
                DemonstratedEpisode(
                    f'demonstration {index}',
                    index,
                    observations.astype(np.float64),
                    actions.astype(np.float64),
                    rewards,
                )
            )
        write_demonstrations(path, episodes, observation_names, action_names, rate_hz)

    def flat(self) -> tuple[Float32, Float32]:
        """Return all observations (samples, n) and actions (samples, m)."""
        observations, actions = zip(*self.episodes, strict=True)
        return np.concatenate(observations), np.concatenate(actions)

    def flat_images(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return all images of each camera, shape (samples, height, width, 3)."""
        names = self.images[0] if self.images else {}
        return {name: np.concatenate([each[name] for each in self.images]) for name in names}

    def windows(self, n_obs_steps: int, horizon: int, exec_start: int) -> tuple[Float32, Float32]:
        """Return inputs (samples, n_obs_steps, n) and chunks (samples, horizon, m).

        The chunk of step t begins `exec_start` steps before t. Before the first and after the
        last step of an episode the edge value is repeated.
        """
        inputs, chunks = [], []
        for observations, actions in self.episodes:
            steps = np.arange(len(actions))
            past = steps[:, None] + np.arange(1 - n_obs_steps, 1)
            future = steps[:, None] + np.arange(-exec_start, horizon - exec_start)
            inputs.append(observations[past.clip(0)])
            chunks.append(actions[future.clip(0, len(actions) - 1)])
        return np.concatenate(inputs), np.concatenate(chunks)


def demonstrate(
    env: Env, name: str, controller: ResidualController, count: int, seed: int
) -> list[Transition]:
    """Return the transitions of `count` successful expert episodes, as an operator would give them.

    The expert takes over at every step, so that base action and executed action are both known.

    Args:
        env: the task.
        name: name of the task, for the expert.
        controller: controller in lockstep, without an actor.
        count: number of episodes.
        seed: seed of the first episode; the following count up.
    """
    expert = make_expert(name)
    transitions: list[Transition] = []
    done = 0
    for number in range(2 * count + 10):
        if done == count:
            break
        episode: list[Transition] = []
        outcome = run_episode(
            env, controller, seed + number, number, episode.append, takeover=_Takeover(expert, env)
        )
        if outcome.success:
            transitions += episode
            done += 1
    return transitions


class _Takeover:
    """An expert as the operator of an episode."""

    def __init__(self, expert: Expert[Any], env: Env) -> None:
        self._expert = expert
        self._env = env.unwrapped
        self._started = False

    def __call__(self) -> npt.NDArray[np.float64]:
        if not self._started:
            self._expert.reset(self._env)
            self._started = True
        return self._expert.act(self._env)


def collect(
    env: Env,
    name: str,
    count: int,
    seed: int,
    waypoint_noise: float = 0.0,
    action_noise: float = 0.0,
) -> Demonstrations:
    """Record the first `count` successful episodes of the task's expert.

    Args:
        env: the task, with the sensor noise and delay of the demonstrations.
        name: name of the task, for the expert.
        count: number of demonstrations.
        seed: first episode seed; the following episodes count up.
        waypoint_noise: standard deviation of the expert's waypoints [m].
        action_noise: standard deviation of what is added to each of its commands, as a share of
            half their range; what is executed is what is recorded.

    Raises:
        ConfigError: the expert failed more often than it succeeded.
    """
    task, space = CheckedEnvironment(env), env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    spread = action_noise * (space.high - space.low) / 2.0
    rng = np.random.default_rng(seed)
    expert = make_expert(name, rng=rng, waypoint_noise=waypoint_noise)
    kept: list[_Recording] = []
    tried = 0
    while len(kept) < count:
        if tried > 2 * count + 10:
            raise ConfigError(
                f'the {name} expert solved {len(kept)} of {tried} seeds; the task '
                'parameters make it unsolvable'
            )
        recording = _record(task, env, expert, seed + tried, tried, rng, spread)
        tried += 1
        if recording.outcome is Success.SUCCESS:
            kept.append(recording)
    return _demonstrations(kept)


def collect_operators(
    env: Env, name: str, groups: Sequence[Mapping[str, Any]], seed: int, waypoint_noise: float = 0.0
) -> Demonstrations:
    """Record episodes of several operators: all of them, whatever became of them.

    Args:
        env: the task, with the sensor noise and delay of the demonstrations.
        name: name of the task, for the expert.
        groups: of each operator its number of `demonstrations`, and the numbers of the expert in
            which he differs.
        seed: first episode seed; the following episodes count up.
        waypoint_noise: standard deviation of their waypoints [m].

    Raises:
        ConfigError: the expert has no such number.
    """
    task, rng = CheckedEnvironment(env), np.random.default_rng(seed)
    kept: list[_Recording] = []
    for group in groups:
        style = {key: value for key, value in group.items() if key != 'demonstrations'}
        expert = make_expert(name, rng=rng, waypoint_noise=waypoint_noise, style=style)
        for _ in range(int(group['demonstrations'])):
            number = len(kept)
            kept.append(_record(task, env, expert, seed + number, number, rng, np.zeros(1)))
    return _demonstrations(kept)


@dataclass(frozen=True)
class _Recording:
    """One episode."""

    outcome: Success
    observations: Float32
    """Shape (steps, n)."""
    actions: Float32
    """Shape (steps, m)."""
    rewards: Float32
    """Shape (steps,)."""
    last: Float32
    """The observation after the last action, shape (n,)."""
    images: Images
    """What each camera saw, shape (steps, height, width, 3)."""


def _record(
    task: CheckedEnvironment,
    env: Env,
    expert: Expert[Any],
    seed: int,
    number: int,
    rng: np.random.Generator,
    spread: npt.NDArray[np.floating[Any]],
) -> _Recording:
    """Play an episode of an expert, whose commands have noise of this standard deviation."""
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    observation = task.reset(seed, number)
    expert.reset(env.unwrapped)
    observations, actions, rewards = [], [], []
    images: dict[str, list[npt.NDArray[np.uint8]]] = {name: [] for name in task.images}
    outcome, done = Success.UNLABELLED, False
    while not done:
        action = expert.act(env.unwrapped)
        if spread.any():
            noisy = action + spread * rng.standard_normal(len(action))
            action = noisy.clip(space.low, space.high)
        action = action.astype(np.float32)
        observations.append(np.asarray(observation, dtype=np.float32))
        actions.append(action)
        for name, seen in images.items():
            seen.append(task.images[name])
        observation, feedback = task.step(action)
        rewards.append(feedback.reward)
        outcome, done = feedback.success, feedback.done
    return _Recording(
        outcome,
        np.stack(observations),
        np.stack(actions),
        np.array(rewards, np.float32),
        np.asarray(observation, np.float32),
        {name: np.stack(seen) for name, seen in images.items()},
    )


def _demonstrations(recordings: Sequence[_Recording]) -> Demonstrations:
    return Demonstrations(
        tuple((each.observations, each.actions) for each in recordings),
        tuple((each.rewards, each.last) for each in recordings),
        tuple(each.images for each in recordings if each.images),
    )
