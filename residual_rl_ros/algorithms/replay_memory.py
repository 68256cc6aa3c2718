# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of off-policy rules: a replay buffer and, for some presets, demonstrations."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.algorithms.config import MemoryConfig, ReplayConfig
from residual_rl_ros.algorithms.rule import Arrays
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.replay_buffer import ReplayBuffer
from residual_rl_ros.transitions.returns import failure_value, lowest_value, returns
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Transition

REPLAY, DEMONSTRATIONS, FITTED = 'replay', 'demonstrations', 'normalizer_transitions'


def _check_memory(config: ReplayConfig, layout: TransitionLayout) -> None:
    """Refuse a memory that this computer does not have, before it is taken.

    Raises:
        ConfigError: it would be larger than the physical memory; layouts come from outside.
    """
    buffers = 1 if config.demonstration_share == 0.0 else 2
    row = buffers * ReplayBuffer.row_bytes(layout)
    physical = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    if config.replay_capacity * row > physical:
        raise ConfigError(
            f'replay_capacity is {config.replay_capacity}: transitions of {layout.size} numbers '
            f'would take {config.replay_capacity * row / 1e9:.1f} GB of the {physical / 1e9:.1f} '
            f'GB of this computer, expected at most {physical // row}'
        )


class ReplayMemory:
    """Uniform draws from what robots did and, by share, from demonstrations.

    Args:
        config: numbers.
        layout: transition layout.
        rng: source of the draws.
    """

    def __init__(
        self, config: MemoryConfig, layout: TransitionLayout, rng: np.random.Generator
    ) -> None:
        _check_memory(config, layout)
        self.config = config
        """Numbers; those that the warm-up decides are set after it."""
        self._rng = rng
        self.replay = ReplayBuffer(layout, config.replay_capacity)
        """What robots did."""
        self.normalizer_transitions = 0
        """How many of these the observation normaliser was last fitted on."""
        self._demonstrations: ReplayBuffer | None = None
        if config.demonstration_share > 0.0:
            self._demonstrations = ReplayBuffer(layout, config.replay_capacity)

    def __len__(self) -> int:
        """Return how many transitions of robots there are."""
        return len(self.replay)

    @property
    def nbytes(self) -> int:
        """Memory when it is full [byte]."""
        return self.replay.nbytes * (1 if self._demonstrations is None else 2)

    @property
    def demonstrations(self) -> int:
        """Number of demonstrations, takeovers included."""
        return 0 if self._demonstrations is None else len(self._demonstrations)

    def add(self, transition: Transition, robot: str) -> None:
        """Store a transition; that of a takeover is a demonstration too."""
        self.replay.add(transition, robot)
        if self._demonstrations is not None and transition.source is Source.TAKEOVER:
            self._demonstrations.add(transition, robot)

    def add_demonstration(self, transition: Transition, robot: str = '') -> None:
        """Store a recorded demonstration.

        Raises:
            ConfigError: the preset samples none.
        """
        self._demonstration_buffer().add(transition, robot)

    def extend(self, table: TransitionTable, robot: str = '', demonstrations: bool = False) -> None:
        """Store many transitions of one robot, in order.

        Raises:
            ConfigError: they are demonstrations, and the preset samples none.
        """
        buffer = self._demonstration_buffer() if demonstrations else self.replay
        buffer.extend(table, robot)

    def _demonstration_buffer(self) -> ReplayBuffer:
        if self._demonstrations is None:
            raise ConfigError('demonstration_share is 0; set it above 0 to sample demonstrations')
        return self._demonstrations

    def keep_newest(self, count: int) -> None:
        """Forget all but the newest transitions of robots."""
        self.replay.keep_newest(count)

    def composition(self) -> dict[Source, float]:
        """Return the share of each source among the transitions of robots."""
        return self.replay.composition()

    @property
    def episode_decisions(self) -> float:
        """Mean number of decisions of a robot's episode; 0 before the first."""
        return self.replay.episode_decisions

    def observations(self) -> Tensor:
        """Return the stored observations, shape (size, n)."""
        return self.replay.observations()

    def sample(self, size: int = 0) -> Batch:
        """Draw a batch, part of it from the demonstrations if there are any.

        Args:
            size: number of transitions; 0 is `batch_size`.
        """
        size, share = size or self.config.batch_size, self.config.demonstration_share
        if self.config.demonstration_weight:
            weighted = self.config.demonstration_weight * self.demonstrations
            share = min(share, weighted / max(weighted + len(self.replay), 1.0))
        shared = round(share * size) if self._demonstrations else 0
        if not (shared and self._demonstrations):
            return self.sample_replay(size)
        own = self.sample_replay(size - shared)
        return Batch.with_demonstrations(own, self._draw(self._demonstrations, shared))

    def sample_replay(self, size: int) -> Batch:
        """Draw transitions of robots alone."""
        return self._draw(self.replay, size)

    def sample_rows(self, rows: npt.NDArray[np.int64], size: int) -> Batch:
        """Draw transitions of robots from these rows alone."""
        drawn = rows[self._rng.integers(len(rows), size=size)]
        return self.replay.rows(drawn, self.config.gamma, self.config.n_step)

    def sample_demonstrations(self, size: int) -> Batch:
        """Draw demonstrations alone.

        Raises:
            ConfigError: the preset samples none.
        """
        return self._draw(self._demonstration_buffer(), size)

    def _draw(self, buffer: ReplayBuffer, size: int) -> Batch:
        return buffer.sample(size, self._rng, self.config.gamma, self.config.n_step)

    def lower_bounds(self, offset: float) -> Tensor:
        """Return the return of each row, or a lower bound of it, shape (size,).

        Minus infinity where there is none; see `returns.lowest_value`.
        """
        gamma = self.config.gamma
        rest = lowest_value(self.replay, gamma, offset)
        return torch.from_numpy(returns(self.replay, gamma, offset, rest, rest))

    def known_returns(self, offset: float) -> Tensor:
        """Return what each row would have returned without an operator, shape (size,).

        NaN where that is not known. Where an episode that was cut off, or in which he took over, is
        worth what never succeeding is, it is known: see `returns.failure_value`.
        """
        gamma = self.config.gamma
        rest = failure_value(self.replay, gamma, offset)
        return torch.from_numpy(returns(self.replay, gamma, offset, rest, np.nan, unaided=True))

    def export(self) -> dict[str, Arrays]:
        """Return the contents for a checkpoint, by file."""
        fitted = np.array([self.normalizer_transitions])
        files: dict[str, Arrays] = {REPLAY: {**self.replay.export(), FITTED: fitted}}
        if self._demonstrations is not None:
            files[DEMONSTRATIONS] = self._demonstrations.export()
        return files

    def restore(self, contents: Mapping[str, Arrays]) -> None:
        """Load what `export` returned.

        Raises:
            ResidualRLError: the rows are of another layout or exceed the capacity.
            KeyError: a buffer is missing.
        """
        self.replay.restore(contents[REPLAY])
        self.normalizer_transitions = int(contents[REPLAY][FITTED][0])
        if self._demonstrations is not None:
            self._demonstrations.restore(contents[DEMONSTRATIONS])
