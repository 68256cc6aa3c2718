# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A fused policy beside the controller that it replaces: the same observations, the same commands.

Networks are float32 on both sides, but their products are added up in another order, so that the
last bits of a residual differ. Where critics choose, an advantage that is zero within rounding can
be taken for positive on one side alone: such decisions are counted apart, as ties.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from residual_rl_ros.base_policy.inputs import NO_PICTURES, Picture, Pictures
from residual_rl_ros.control.controller import ResidualController, StepFeedback
from residual_rl_ros.deployment.metadata import FusedMetadata
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.residual_policy.candidate_selection import BestOfNActor
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Success, Transition

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-6
"""Largest difference of a command, relative to the largest trained action if that is above 1."""
TIE = 1e-4
"""Advantages below this, relative to 1 + |Q|, are zero within the rounding of float32."""
MOST_TIES = 0.01
"""Share of decisions that may be ties; more are an error."""
EPISODE_DECISIONS = 25
"""Decisions after which a new episode begins, at another place."""
SPREAD = 2.0
"""Standard deviation of the observations, in that of the actor's normaliser."""
NO_FEEDBACK = StepFeedback(0.0, False, False, Success.UNLABELLED)


@dataclass
class Parity:
    """What came of a comparison."""

    decisions: int = 0
    largest: float = 0.0
    """Largest difference of a command [command units]."""
    numbers: int = 0
    """Numbers that were compared."""
    equal: int = 0
    """How many of them are equal in float32, bit for bit."""
    ties: int = 0
    """Decisions in which the critics chose otherwise, of an advantage that is zero within rounding;
    they are not in the other counts."""

    def add(self, expected: Array, commands: Array) -> None:
        """Take in the commands of a decision, shape (k, m) each."""
        self.decisions += 1
        self.largest = max(self.largest, float(np.abs(expected - commands).max()))
        self.numbers += expected.size
        self.equal += int((np.float32(expected) == np.float32(commands)).sum())

    @property
    def equal_share(self) -> float:
        """Share of the numbers that are equal in float32."""
        return self.equal / max(1, self.numbers)


class FusedRunner:
    """Runs a fused policy for one robot as a runner without this package does.

    Args:
        content: the ONNX model.
        metadata: its metadata.
    """

    def __init__(self, content: bytes, metadata: FusedMetadata) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        self._meta = metadata
        self._shapes = {
            item.name: tuple(size if isinstance(size, int) else 1 for size in item.shape)
            for item in self._session.get_inputs()
        }
        self._outputs = ['command', *(f'next_{name}' for name in metadata.state)]
        self._state: dict[str, npt.NDArray[Any]] = {}
        self._window: deque[Array] = deque(maxlen=metadata.n_obs_steps)
        self.pictures = [name for name in metadata.given if name not in ('observation', 'noise')]
        """Names of the cameras."""
        self._pictures: dict[str, deque[Picture]] = {
            name: deque(maxlen=metadata.n_obs_steps) for name in self.pictures
        }
        self.previous: Array = np.full(len(metadata.action_names), np.nan)
        """Last command, or where the robot is."""
        self.blend_ratio = 1.0

    def picture_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (height, width, 3) of what a camera sees."""
        return self._shapes[name][2:]

    def begin_episode(
        self, observation: Array, rng: np.random.Generator, pictures: Pictures = NO_PICTURES
    ) -> None:
        """Start an episode; see `ResidualController.begin_episode`."""
        self._rng = rng
        self._state = {
            name: np.zeros(self._shapes[name], np.int64 if name == 'taken' else np.float32)
            for name in self._meta.state
        }
        self._state['taken'] += self._meta.exec_steps
        for _ in range(self._meta.n_obs_steps):
            self.observe(observation, pictures)
        if self._meta.measured_by:
            names = self._meta.observation_names
            self.previous = observation[[names.index(each) for each in self._meta.measured_by]]

    def observe(self, observation: Array, pictures: Pictures = NO_PICTURES) -> None:
        """Take in what was seen in a control step: shape (n,), and a picture of each camera."""
        self._window.append(observation)
        for name, window in self._pictures.items():
            window.append(pictures[name])

    def decide(self) -> Array:
        """Return the commands of the next decision, shape (k, m)."""
        kind, meta = self._meta.precision, self._meta
        inputs = {
            'observation': np.array([self._window], dtype=np.float32),
            'previous_command': self.previous[None].astype(kind),
            'blend_ratio': np.full(1, self.blend_ratio, kind),
            **{name: np.array([window]) for name, window in self._pictures.items()},
            **self._state,
        }
        if 'noise' in meta.given:
            shape = self._shapes['noise']
            fresh = self._state['taken'][0] > meta.exec_steps - meta.decision_steps
            noise = np.zeros(shape, np.float32)
            if fresh and meta.noise_default == 'normal':
                noise = self._rng.standard_normal(shape, dtype=np.float32)
            inputs['noise'] = noise
        try:
            commands, *state = self._session.run(self._outputs, inputs)
        except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
            reason = ' '.join(str(error).split())[:300]
            raise BasePolicyError(f'the fused graph failed: {reason}') from error
        self._state = dict(zip(meta.state, state, strict=True))
        self.previous = commands[0, -1].astype(np.float64)
        return np.asarray(commands[0], dtype=np.float64)


def compare(
    controller: ResidualController,
    policy: RobotPolicy,
    runner: FusedRunner,
    decisions: int,
    seed: int = 0,
) -> Parity:
    """Return how much a fused policy differs from the controller on random observations.

    Args:
        controller: in lockstep, without exploration, with the actor in its mailbox.
        policy: the actor.
        runner: runs the fused policy.
        decisions: how many to compare.
        seed: of the observations.

    Raises:
        BasePolicyError: one of the two failed.
    """
    observations = _observations(policy, runner, seed)
    allowed = tolerance(policy.architecture.layout)
    found = Parity()
    for number in range(decisions):
        episode, place = divmod(number, EPISODE_DECISIONS)
        if place == 0:
            start, pictures = next(observations)
            controller.begin_episode(episode, start, 0.0, pictures)
            runner.begin_episode(start, np.random.default_rng([0, episode, 0]), pictures)
        commands, transition = runner.decide(), None
        while transition is None:
            controller.command()
            observation, pictures = next(observations)
            runner.observe(observation, pictures)
            transition = controller.step(observation, 0.0, NO_FEEDBACK, pictures)
        expected = transition.executed_action.reshape(commands.shape)
        close = np.abs(expected - commands).max() <= allowed
        if close or not _is_tie(policy, transition, controller):
            found.add(expected, commands)
        else:
            found.ties += 1
            runner.previous = expected[-1]
    return found


def tolerance(layout: TransitionLayout) -> float:
    """Return by how much commands may differ [command units]."""
    return TOLERANCE * max(1.0, *map(abs, (*layout.action_min, *layout.action_max)))


def _is_tie(policy: RobotPolicy, transition: Transition, controller: ResidualController) -> bool:
    """Return whether critics found a decision neither better nor worse than the base action."""
    header = controller.mailbox.header
    if not isinstance(policy, BestOfNActor) or header is None:
        return False
    sizes, given = policy.architecture.actor, (transition.observation, transition.base_action)
    proposal = GaussianActor(sizes, policy.tensors).decide(*given, None)[: sizes.outputs]
    value, exploration = policy.base_value(*given), header.exploration
    if exploration.full_bound_cost > 0.0:
        proposal *= min(max(-value / exploration.full_bound_cost, 0.0), 1.0)
    advantage = policy.advantages(*given, exploration.bound_scale * proposal[None])[0]
    return bool(abs(advantage) <= TIE * (1.0 + abs(value)))


def _observations(
    policy: RobotPolicy, runner: FusedRunner, seed: int
) -> Iterator[tuple[Array, Pictures]]:
    """Yield observations around what an actor has seen, shape (n,), with noise for pictures."""
    rng = np.random.default_rng(seed)
    mean, std = (policy.tensors[f'normalizer.{name}'] for name in ('mean', 'std'))
    while True:
        drawn = mean + SPREAD * std * rng.standard_normal(len(mean), dtype=np.float32)
        yield (
            drawn.astype(np.float64),  # Of numbers that float32 holds.
            {
                name: rng.integers(256, size=runner.picture_shape(name), dtype=np.uint8)
                for name in runner.pictures
            },
        )
