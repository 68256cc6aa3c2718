# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A fused policy as its runner runs it, beside the controller that it replaces.

Networks are float32 on both sides, but their products are added up in another order, so that the
last bits of a residual differ. Where critics choose, an advantage that is zero within rounding can
be taken for positive on one side alone. Such decisions are counted apart, as ties, if the commands
are those of the other choice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from residual_rl_ros.base_policy.inputs import NO_IMAGES, Images
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.deployment.fused_policy import FusedMetadata
from residual_rl_ros.errors import BasePolicyError, UnsafeCommandError
from residual_rl_ros.latency import Latency
from residual_rl_ros.numerics import Array
from residual_rl_ros.residual_policy.candidate_selection import BestOfNActor
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.onnx_session import run_session
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Success, Transition


class FusedRunner:
    """Runs a fused policy for one robot as a runner without this package does.

    In a larger batch that is fixed all rows are this robot's.

    Args:
        content: the ONNX model.
        metadata: its metadata.
    """

    def __init__(self, content: bytes, metadata: FusedMetadata) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        self._meta = metadata
        self._shapes = {item.name: (1, *item.shape[1:]) for item in self._session.get_inputs()}
        self._outputs = ['command', *(f'next_{name}' for name in metadata.state)]
        self._state: dict[str, npt.NDArray[Any]] = {}
        self._window: deque[Array] = deque(maxlen=metadata.n_obs_steps)
        self.images = [name for name in metadata.given if name not in ('observation', 'noise')]
        """Names of the cameras."""
        self._images: dict[str, deque[RgbImage]] = {
            name: deque(maxlen=metadata.n_obs_steps) for name in self.images
        }
        self.previous: Array = np.full(len(metadata.action_names), np.nan)
        """Last command, or where the robot is."""
        self.blend_ratio = 1.0

    def image_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (height, width, 3) of what a camera sees."""
        return self._shapes[name][2:]

    def begin_episode(
        self, observation: Array, rng: np.random.Generator, images: Images = NO_IMAGES
    ) -> None:
        """Start an episode; see `ResidualController.begin_episode`."""
        self._rng = rng
        self._state = {
            name: np.zeros(self._shapes[name], np.int64 if name == 'taken' else np.float32)
            for name in self._meta.state
        }
        self._state['taken'] += self._meta.exec_steps
        for _ in range(self._meta.n_obs_steps):
            self.observe(observation, images)
        if self._meta.measured_by:
            names = self._meta.observation_names
            self.previous = observation[[names.index(each) for each in self._meta.measured_by]]

    def observe(self, observation: Array, images: Images = NO_IMAGES) -> None:
        """Take in what was seen in a control step: shape (n,), and an image of each camera."""
        self._window.append(observation)
        for name, window in self._images.items():
            window.append(images[name])

    def decide(self) -> Array:
        """Return the commands of the next decision, shape (k, m)."""
        kind, meta = self._meta.precision, self._meta
        inputs = {
            'observation': np.array([self._window], dtype=np.float32),
            'previous_command': self.previous[None].astype(kind),
            'blend_ratio': np.full(1, self.blend_ratio, kind),
            **{name: np.array([window]) for name, window in self._images.items()},
            **self._state,
        }
        if 'noise' in meta.given:
            shape = self._shapes['noise']
            fresh = self._state['taken'][0] > meta.exec_steps - meta.decision_steps
            noise = np.zeros(shape, np.float32)
            if fresh and meta.noise_default == 'normal':
                noise = self._rng.standard_normal(shape, dtype=np.float32)
            inputs['noise'] = noise
        batch = {name: np.repeat(each, meta.batch or 1, axis=0) for name, each in inputs.items()}
        commands, *state = run_session(
            self._session, self._outputs, batch, 'the fused graph', BasePolicyError
        )
        self._state = {name: each[:1] for name, each in zip(meta.state, state, strict=True)}
        self.previous = commands[0, -1].astype(np.float64)
        return np.asarray(commands[0], dtype=np.float64)


TOLERANCE = 1e-6
"""Largest difference of a command, relative to the largest trained action if that is above 1."""
TIE = 1e-4
"""Advantages below this, relative to 1 + |Q|, are zero within the rounding of float32."""
MOST_TIES = 0.1
"""Share of decisions that may be ties; more are an error. Critics that have hardly learned, as in a
demo of a minute, have some percent."""
EPISODE_STEPS = 100
"""Control steps of an episode in a `RandomWorld`."""
SPREAD = 2.0
"""Standard deviation of its observations, in that of the actor's normaliser."""


class World(Protocol):
    """What both sides see."""

    def begin(self, episode: int) -> tuple[Array, Images]:
        """Begin an episode; return its first observation, shape (n,), and images."""

    def step(self, command: Array) -> tuple[Array, Images, StepFeedback]:
        """Execute a command of the controller; return what is seen then."""


class RandomWorld:
    """Observations around what an actor has seen, and noise for images.

    Args:
        policy: the actor.
        runner: says which cameras there are.
        seed: of the numbers.
    """

    def __init__(self, policy: RobotPolicy, runner: FusedRunner, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._mean, self._std = (policy.tensors[f'normalizer.{name}'] for name in ('mean', 'std'))
        self._runner = runner
        self._steps = 0

    def begin(self, episode: int) -> tuple[Array, Images]:
        """See `World.begin`."""
        self._steps = 0
        return self._draw()

    def step(self, command: Array) -> tuple[Array, Images, StepFeedback]:
        """See `World.step`."""
        self._steps += 1
        over = self._steps == EPISODE_STEPS
        return *self._draw(), StepFeedback(0.0, False, over, Success.UNLABELLED)

    def _draw(self) -> tuple[Array, Images]:
        drawn = self._rng.standard_normal(len(self._mean), dtype=np.float32)
        return (
            (self._mean + SPREAD * self._std * drawn).astype(np.float64),  # As float32 holds it.
            {
                name: self._rng.integers(256, size=self._runner.image_shape(name), dtype=np.uint8)
                for name in self._runner.images
            },
        )


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
    """Decisions in which the critics chose otherwise, of an advantage that is zero within rounding,
    and the commands are those of that choice; they are not in the other counts."""
    controller: Latency = field(default_factory=Latency)
    """How long the controller takes for a decision, a new chunk included."""
    fused: Latency = field(default_factory=Latency)
    """How long the fused policy takes for one."""

    def add(self, expected: Array, commands: Array) -> None:
        """Take in the commands of a decision, shape (up to k, m) each."""
        self.decisions += 1
        self.largest = max(self.largest, _difference(expected, commands))
        self.numbers += expected.size
        self.equal += int((np.float32(expected) == np.float32(commands)).sum())

    @property
    def equal_share(self) -> float:
        """Share of the numbers that are equal in float32."""
        return self.equal / max(1, self.numbers)


def compare(
    controller: ResidualController,
    policy: RobotPolicy,
    runner: FusedRunner,
    world: World,
    decisions: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Parity:
    """Return how much a fused policy differs from the controller, which commands the world.

    Args:
        controller: in lockstep, without prefetching and exploration, with seed 0, and with the
            actor in its mailbox.
        policy: the actor.
        runner: runs the fused policy.
        world: what both see.
        decisions: how many to compare.
        clock: monotonic time [s].

    Raises:
        BasePolicyError: one of the two failed.
    """
    allowed, found = tolerance(policy.architecture.layout), Parity()
    episode, over, took = 0, True, 0.0
    for _ in range(decisions):
        if over:
            observation, images = world.begin(episode)
            controller.begin_episode(episode, observation, 0.0, images)
            runner.begin_episode(observation, np.random.default_rng([0, episode, 0]), images)
            episode, took = episode + 1, 0.0
        start, started = controller.limiter.reference, clock()
        commands = runner.decide()
        found.fused.add(clock() - started)
        sent: list[Array] = []
        transition = None
        while transition is None:
            started = clock()
            command = controller.command()
            if not sent:
                found.controller.add(took + clock() - started)
            if command is None:
                raise UnsafeCommandError('the controller holds, expected one in lockstep')
            sent.append(command)
            observation, images, feedback = world.step(command)
            started = clock()
            transition = controller.step(observation, 0.0, feedback, images)
            took, over = clock() - started, feedback.done
            runner.observe(observation, images)
        expected = np.array(sent)
        commands, other = commands[: len(sent)], None
        if _difference(expected, commands) > allowed:
            other = _other_choice(policy, transition, controller, start)
        if other is not None and _difference(other[: len(sent)], commands) <= allowed:
            found.ties += 1
            runner.previous = expected[-1]
        else:
            found.add(expected, commands)
    return found


def tolerance(layout: TransitionLayout) -> float:
    """Return by how much commands may differ [command units]."""
    return TOLERANCE * max(1.0, *map(abs, (*layout.action_min, *layout.action_max)))


def _difference(expected: Array, commands: Array) -> float:
    """Return the largest difference; infinite if a number is not finite, which `max` would skip."""
    difference = float(np.abs(expected - commands).max())
    return difference if np.isfinite(difference) else float('inf')


def _other_choice(
    policy: RobotPolicy,
    transition: Transition,
    controller: ResidualController,
    start: Array | None,
) -> Array | None:
    """Return the commands of a tie had the critics chosen otherwise, shape (k, m).

    None where it is no tie: where they found the proposal better or worse than the base action.

    Args:
        policy: the actor.
        transition: its decision.
        controller: what composes and limits it.
        start: where its first step began, shape (m,); None: nobody knew.
    """
    header = controller.mailbox.header
    if not isinstance(policy, BestOfNActor) or header is None:
        return None
    sizes, given = policy.architecture.actor, (transition.observation, transition.base_action)
    proposal = GaussianActor(sizes, policy.tensors).decide(*given, None)
    value, exploration = policy.base_value(*given), header.exploration
    if exploration.full_bound_cost > 0.0:
        proposal *= min(max(-value / exploration.full_bound_cost, 0.0), 1.0)
    scaled = exploration.bound_scale * proposal[None, : sizes.outputs]
    if abs(policy.advantages(*given, scaled)[0]) > TIE * (1.0 + abs(value)):
        return None
    other = np.zeros_like(proposal) if transition.residual_action.any() else proposal
    base, residual = (each.reshape(-1, controller.bound.values.size) for each in (given[1], other))
    commands = []
    for planned in controller.bound.compose(base, residual, exploration.bound_scale):
        start = controller.limiter.safety.apply(planned, start)
        commands.append(start)
    return np.array(commands)
