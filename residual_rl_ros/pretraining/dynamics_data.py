# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the model of a planner is trained on: decisions of bags, of runs and of an environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from residual_rl_ros.algorithms.replay_memory import ReplayMemory
from residual_rl_ros.algorithms.residual_mppi import Sequences
from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.config.run import RunConfig, training_seed
from residual_rl_ros.control.streams import Stream, episode_rng
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.residual_policy.actor_file import ACTOR, CHECKPOINTS, readable_checkpoint
from residual_rl_ros.residual_policy.architecture import trained_range
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import Decider
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.replay_buffer import NONE, ReplayBuffer
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Transition

Rows = npt.NDArray[np.intp]
FEWEST = 200
"""Fewest decisions that a model is trained on."""
MOST = 2_000_000
"""Most decisions that are taken into memory."""
PIECE = 100
"""Decisions that follow each other are held out together, so many at a time."""
HELD_OUT = 0.1
"""Share of the pieces that is held out."""


def read_sources(paths: Sequence[Path]) -> tuple[ReplayBuffer, TransitionLayout]:
    """Return the decisions of bags, or of the replay of a run or checkpoint, and their layout.

    Raises:
        ResidualRLError: one cannot be read, or they are of several layouts.
    """
    places = [_checkpoint(path) for path in paths]
    if len(paths) == 1 and places[0] is not None:
        learner = load_checkpoint(places[0])
        memory = learner.rule.memory
        if not isinstance(memory, ReplayMemory):
            raise ConfigError(f'{paths[0]} keeps no replay of decisions; give a bag of the run')
        return memory.replay, learner.layout
    if any(place is not None for place in places):
        raise ConfigError('give the folder of one run, or bags, not both')
    tables = []
    for path in paths:
        bag = Bag(path)
        blocks = [(block.table, block.robot) for block in TransitionReader(bag).blocks()]
        if not blocks:
            raise ConfigError(f'{path} holds no transitions; residual-rl bag info says why')
        tables += blocks
    return buffer_of(tables), tables[0][0].layout


def _checkpoint(path: Path) -> Path | None:
    """Return the latest checkpoint of a run, or the checkpoint; None if it is something else."""
    latest = readable_checkpoint(path / CHECKPOINTS / 'latest')
    return next((each for each in (latest, path) if (each / ACTOR).is_file()), None)


def buffer_of(tables: Sequence[tuple[TransitionTable, str]]) -> ReplayBuffer:
    """Return the transitions of tables, each with the name of its robot.

    Raises:
        ConfigError: they are of several layouts, or too many.
    """
    layout = tables[0][0].layout
    count = sum(len(table) for table, _ in tables)
    if count > MOST:
        raise ConfigError(f'there are {count} transitions, expected <= {MOST}')
    buffer = ReplayBuffer(layout, count)
    for table, robot in tables:
        if table.layout != layout:
            raise ConfigError(
                'the bags are of several robots, base policies or residual scales: '
                f'{layout.differences(table.layout)[0]}; train their models apart'
            )
        buffer.extend(table, robot)
    return buffer


class _Noise(Decider):
    """Explores: Gaussian noise around the base, at every decision."""

    def __init__(self, layout: TransitionLayout, std: float, rng: np.random.Generator) -> None:
        bound = np.tile(np.array(layout.residual_bound), layout.decision_steps)
        low, high = (
            np.tile(np.array(values), layout.decision_steps)
            for values in (layout.action_min, layout.action_max)
        )
        half_range = (high - low) / 2.0
        self._std = np.divide(std * half_range, bound, out=np.zeros_like(bound), where=bound > 0.0)
        self._rng = rng

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return noise in [-1, 1], shape (k * m,)."""
        noise: Array = self._std * self._rng.standard_normal(len(self._std))
        return noise.clip(-1.0, 1.0)

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        return rng.uniform(-half_width, half_width, len(self._std))


def collect(
    config: RunConfig, steps: int, noise: float, seed: int, progress: Callable[[int], None]
) -> tuple[ReplayBuffer, TransitionLayout]:
    """Return decisions of the base policy with exploration noise, and their layout.

    Args:
        config: the run; its residual scale bounds the noise.
        steps: control steps; the episode that crosses it is played to its end.
        noise: standard deviation, in half ranges of the trained actions.
        seed: seeds environment and noise.
        progress: called with the number of control steps done.

    Raises:
        ResidualRLError: base policy, robot or environment do not fit.
    """
    run = config.resolve()
    controller = run.controller(seed, explore=True, scheduled=False)
    layout, transitions = controller.layout, list[Transition]()
    env = host(config, run.robot)
    controller.mailbox.install(_Noise(layout, noise, episode_rng(seed, 0, Stream.DYNAMICS)))
    done = episode = 0
    try:
        while done < steps:
            first = training_seed(seed) + episode
            done += run_episode(env, controller, first, episode, transitions.append).steps
            episode += 1
            progress(done)
    finally:
        controller.close()
        env.close()
    buffer = ReplayBuffer(layout, len(transitions))
    for transition in transitions:
        buffer.add(transition)
    return buffer, layout


@dataclass(frozen=True)
class Decisions:
    """What a model is trained on."""

    layout: TransitionLayout
    observation: Float32
    """Shape (count, n)."""
    action: Float32
    """Executed, shape (count, k * m)."""
    next_observation: Float32
    """Shape (count, n)."""
    prior: Float32
    """Mean and log_std of the base in units of the network, shape (count, 2 k * m)."""
    following: Rows
    """Row that follows each in its piece, -1 for none, shape (count,)."""
    held_out: npt.NDArray[np.bool_]
    """Which rows are not trained on, shape (count,)."""

    @classmethod
    def of(
        cls,
        buffer: ReplayBuffer,
        layout: TransitionLayout,
        prior_width: float,
        rng: np.random.Generator,
    ) -> Decisions:
        """Return the decisions of a buffer.

        Args:
            buffer: transitions.
            layout: their layout.
            prior_width: see `DynamicsRecipe`.
            rng: draws what is held out.

        Raises:
            ConfigError: they are too few, discrete, or not finite.
        """
        if layout.discrete:
            raise ConfigError('a planner by dynamics needs continuous actions; use planner mcts')
        if len(buffer) < FEWEST:
            raise ConfigError(
                f'there are {len(buffer)} decisions, expected at least {FEWEST} to learn from'
            )
        blocks = buffer.blocks()
        for name in ('observation', 'next_observation', 'executed_action'):
            _check_finite(name, blocks[name], layout)
        pieces = _pieces(buffer.following.astype(np.intp))
        following = np.where(pieces[buffer.following] == pieces, buffer.following, NONE).astype(
            np.intp
        )
        following[buffer.following == NONE] = NONE
        count = int(pieces.max()) + 1
        chosen = rng.permutation(count)[: max(1, round(HELD_OUT * count))]
        return cls(
            layout,
            blocks['observation'],
            blocks['executed_action'],
            blocks['next_observation'],
            _prior(blocks, layout, prior_width),
            following,
            np.isin(pieces, chosen),
        )

    def sequences(self, first: Rows, steps: int) -> Sequences:
        """Return the decisions that follow each of some, and which of them are there."""
        rows, follows = [first], [np.ones(len(first), dtype=np.float32)]
        for _ in range(steps - 1):
            after = self.following[rows[-1]]
            follows.append(follows[-1] * (after != NONE))
            rows.append(np.where(after == NONE, rows[-1], after))
        observations = [self.observation[first], *(self.next_observation[row] for row in rows)]
        return Sequences(
            torch.from_numpy(np.stack(observations, axis=1)),
            torch.from_numpy(np.stack([self.action[row] for row in rows], axis=1)),
            torch.from_numpy(np.stack(follows, axis=1)),
            torch.from_numpy(self.prior[first]),
        )


def _check_finite(name: str, values: Float32, layout: TransitionLayout) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0].tolist()
        names = layout.action_names if name == 'executed_action' else layout.observation_names
        raise ConfigError(
            f'{name}[{column}] ({names[column % len(names)]}) of decision {row} is '
            f'{float(values[row, column])}, expected a finite number'
        )


def _pieces(following: Rows) -> Rows:
    """Number runs of up to `PIECE` decisions that follow each other, shape (count,)."""
    count = len(following)
    first, age = np.arange(count), np.zeros(count, dtype=np.intp)
    linked = np.flatnonzero(following != NONE)
    first[following[linked]], age[following[linked]] = linked, 1
    while True:
        # Each goes back twice as far as the time before, up to the beginning of its episode.
        age, before = age + age[first], first[first]
        if (before == first).all():
            break
        first = before
    _, numbers = np.unique(np.stack([first, age // PIECE], axis=1), axis=0, return_inverse=True)
    return np.asarray(numbers.ravel(), dtype=np.intp)


def _prior(blocks: dict[str, Float32], layout: TransitionLayout, prior_width: float) -> Float32:
    """Return mean and log_std of the base, in units of the network, shape (count, 2 k * m)."""
    center, half_range = trained_range(layout)
    if layout.prior is Prior.NONE:
        mean = (blocks['base_action'] - center) / half_range
        # Without a stated width there is no density, and only the mean is used.
        log_std = np.full_like(mean, np.log(prior_width or 1.0))
    else:
        mean, log_std = np.split(blocks['prior'], 2, axis=1)
        if layout.prior is Prior.GAUSSIAN:
            mean, log_std = (mean - center) / half_range, log_std - np.log(half_range)
    return np.concatenate([mean, log_std], axis=1, dtype=np.float32)
