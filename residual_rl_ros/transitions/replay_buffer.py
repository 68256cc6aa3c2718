# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Replay memory: one contiguous float32 table, one row a transition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Transition

NONE = -1
BLOCKS = (
    *('observation', 'base_action', 'executed_action', 'reward', 'goes_on'),
    *('next_observation', 'next_base_action'),
    *('prior', 'proposals', 'next_prior', 'next_proposals'),
)
"""What a row holds, in order."""


@dataclass(frozen=True)
class _Chain:
    """A robot's episode in progress."""

    row: int
    """Its newest transition."""
    expected: tuple[int, int, int]
    """(epoch, episode, step) of the one that continues it without a gap."""


def _splits(layout: TransitionLayout) -> list[int]:
    """Return the widths of a row: s, b, a, reward, goes on, s', b', and what the base policy tells.

    That is its density and its proposals, first those of b, then those of b'.
    """
    n, km = layout.observation_size, layout.decision_size
    told = [layout.prior_size, (layout.proposals - 1) * km]
    return [n, km, km, 1, 1, n, km, *told, *told]


class ReplayBuffer:
    """Ring buffer with uniform sampling.

    Args:
        layout: transition layout; fixes the row width.
        capacity: number of rows; the oldest is overwritten.
    """

    def __init__(self, layout: TransitionLayout, capacity: int) -> None:
        if capacity < 1:
            raise ResidualRLError(f'replay capacity is {capacity}, expected >= 1')
        self._decision_steps = layout.decision_steps
        self._splits = _splits(layout)
        self._table = np.zeros((capacity, sum(self._splits)), dtype=np.float32)
        # The row that continues the episode of this one without a gap, NONE if there is none (yet).
        # It is always younger than this one, so it is never overwritten first.
        self._following = np.full(capacity, NONE, dtype=np.int32)
        self._source = np.zeros(capacity, dtype=np.int8)
        self._open: dict[str, _Chain] = {}
        self._next = 0
        self._size = 0

    @staticmethod
    def row_bytes(layout: TransitionLayout) -> int:
        """Return the memory of a row [byte]."""
        return 4 * sum(_splits(layout)) + 5

    def __len__(self) -> int:
        """Return the number of stored transitions."""
        return self._size

    @property
    def capacity(self) -> int:
        """Number of rows."""
        return len(self._table)

    def add(self, transition: Transition, robot: str = '') -> None:
        """Store a transition, over the oldest one when full.

        Args:
            transition: the transition.
            robot: whose it is; an n-step sum never runs from one robot to another.
        """
        row = self._next
        np.concatenate(
            [
                transition.observation,
                transition.base_action,
                transition.executed_action,
                [transition.reward, 0.0 if transition.terminated else 1.0],
                transition.next_observation,
                transition.next_base_action,
                transition.prior,
                transition.proposals,
                transition.next_prior,
                transition.next_proposals,
            ],
            out=self._table[row],
            casting='same_kind',
        )
        self._source[row] = transition.source
        self._following[row] = NONE
        epoch, episode, step = transition.epoch, transition.episode, transition.step
        chain = self._open.pop(robot, None)
        if chain is not None and chain.expected == (epoch, episode, step) and chain.row != row:
            self._following[chain.row] = row
        for other in [name for name, chain in self._open.items() if chain.row == row]:
            del self._open[other]  # Overwritten before it went on.
        if not (transition.terminated or transition.truncated):
            self._open[robot] = _Chain(row, (epoch, episode, step + self._decision_steps))
        self._next = (self._next + 1) % self.capacity
        self._size = min(self._size + 1, self.capacity)

    def extend(self, table: TransitionTable, robot: str = '') -> None:
        """Store many transitions, with the same result as adding them one by one.

        Args:
            table: valid transitions of one robot, in order.
            robot: whose they are.

        Raises:
            ResidualRLError: the rows are of another layout.
        """
        if _splits(table.layout) != self._splits:
            raise ResidualRLError(
                f'transitions of layout {table.layout.label} do not fit {sum(self._splits)} columns'
            )
        begin = 0
        while begin < len(table):
            piece = table.rows(slice(begin, begin + self.capacity - self._next))
            self._extend_without_wrapping(piece, robot)
            begin += len(piece)

    def _extend_without_wrapping(self, table: TransitionTable, robot: str) -> None:
        """Store at least one transition in rows that follow each other."""
        begin, end = self._next, self._next + len(table)
        columns = table.layout.columns
        n, km = self._splits[:2]
        stored = self._table[begin:end]
        stored[:, : n + km] = table.values[
            :, columns['observation'].start : columns['base_action'].stop
        ]
        stored[:, n + km : n + 2 * km] = table.block('executed_action')
        stored[:, n + 2 * km] = table.header('reward')
        stored[:, n + 2 * km + 1] = 1.0 - table.header('terminated')
        told = 2 * n + 3 * km + 2
        stored[:, n + 2 * km + 2 : told] = table.values[
            :, columns['next_observation'].start : columns['next_base_action'].stop
        ]
        if stored.shape[1] > told:
            names = ('prior', 'proposals', 'next_prior', 'next_proposals')
            stored[:, told:] = np.hstack([table.block(name) for name in names])
        self._source[begin:end] = table.header('source')
        keys = [table.header(name) for name in ('epoch', 'episode', 'step')]
        chain = self._open.pop(robot, None)
        first = tuple(int(key[0]) for key in keys)
        if chain is not None and chain.expected == first and chain.row != begin:
            self._following[chain.row] = begin
        self._following[begin:end] = NONE
        self._following[begin : end - 1] = np.where(
            table.follows(), np.arange(begin + 1, end, dtype=np.int32), NONE
        )
        overwritten = [name for name, open_ in self._open.items() if begin <= open_.row < end]
        for name in overwritten:
            del self._open[name]
        if not table.done[-1]:
            epoch, episode, step = (int(key[-1]) for key in keys)
            self._open[robot] = _Chain(end - 1, (epoch, episode, step + self._decision_steps))
        self._next = end % self.capacity
        self._size = max(self._size, end)

    @property
    def nbytes(self) -> int:
        """Memory of the whole buffer [byte]."""
        return self._table.nbytes + self._following.nbytes + self._source.nbytes

    @property
    def newest(self) -> int:
        """Row of the transition that was stored last."""
        return (self._next - 1) % self.capacity

    @property
    def following(self) -> npt.NDArray[np.int64]:
        """Row that continues the episode of each row without a gap, or `NONE`, shape (size,)."""
        return self._following[: self._size].astype(np.int64)

    @property
    def source(self) -> npt.NDArray[np.int8]:
        """Source of each row, shape (size,)."""
        return self._source[: self._size]

    @property
    def episode_decisions(self) -> float:
        """Mean number of transitions that follow each other without a gap; 0 without any."""
        ends = int((self._following[: self._size] == NONE).sum())
        return self._size / ends if ends else 0.0

    def composition(self) -> dict[Source, float]:
        """Return the share of each source among the stored transitions."""
        counts = np.bincount(self._source[: self._size], minlength=len(Source))
        return {source: float(counts[source]) / max(1, self._size) for source in Source}

    def blocks(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return what the rows hold by name, shape (size, width) each; they share memory."""
        parts = np.split(self._table[: self._size], np.cumsum(self._splits)[:-1], axis=1)
        return dict(zip(BLOCKS, parts, strict=True))

    def observations(self) -> Tensor:
        """Return the stored observations, shape (size, n)."""
        return torch.from_numpy(self._table[: self._size, : self._splits[0]])

    def sample(
        self, batch_size: int, rng: np.random.Generator, gamma: float = 1.0, n_step: int = 1
    ) -> Batch:
        """Draw transitions uniformly with replacement.

        Args:
            batch_size: number of transitions.
            rng: source of the draw.
            gamma: discount per decision.
            n_step: decisions whose rewards are summed; fewer where the episode ends, where a
                transition is missing and at the newest one.

        Raises:
            ResidualRLError: the buffer is empty.
        """
        if self._size == 0:
            raise ResidualRLError('cannot sample from an empty replay buffer')
        return self.rows(rng.integers(self._size, size=batch_size), gamma, n_step)

    def rows(self, first: npt.NDArray[np.int64], gamma: float = 1.0, n_step: int = 1) -> Batch:
        """Return the transitions of these rows; see `sample` for the rest."""
        batch_size = len(first)
        n, km = self._splits[:2]
        reward_column, bootstrap_column = n + 2 * km, n + 2 * km + 1
        reward = self._table[first, reward_column]
        weight, discount = np.ones_like(reward), np.full_like(reward, gamma)
        last, going = first, np.ones(batch_size, dtype=bool)
        for _ in range(n_step - 1):
            following = self._following[last]
            going = going & (following != NONE)
            last = np.where(going, following, last)
            step = np.where(going, discount, 0.0)
            reward += step * self._table[last, reward_column]
            weight += step
            discount = np.where(going, gamma * discount, discount)
        told = 2 * n + 3 * km + 2
        of_base = self._splits[-2:]
        next_told = told + sum(of_base)
        head = torch.from_numpy(self._table[first, : n + 2 * km])
        tail = torch.from_numpy(self._table[last, n + 2 * km + 2 : told])
        observation, base, executed = torch.split(head, [n, km, km], dim=1)
        next_observation, next_base = torch.split(tail, [n, km], dim=1)
        now = torch.from_numpy(self._table[first, told:next_told])
        then = torch.from_numpy(self._table[last, next_told:])
        prior, proposals = torch.split(now, of_base, dim=1)
        next_prior, next_proposals = torch.split(then, of_base, dim=1)
        return Batch(
            observation,
            base,
            executed,
            torch.from_numpy(reward),
            torch.from_numpy(weight),
            torch.from_numpy(discount * self._table[last, bootstrap_column]),
            next_observation,
            next_base,
            prior,
            proposals,
            next_prior,
            next_proposals,
            first,
        )

    def lowest_value(self, gamma: float, offset: float) -> float:
        """Return what no state is worth less than: the lowest reward of all, for ever.

        So an episode that is negative throughout is worth r / (1 - gamma), as in WSRL (arXiv
        2412.07762). Minus infinity where no reward is negative, or nothing is discounted: there
        nothing bounds it.

        Args:
            gamma: discount per decision.
            offset: added to a reward.
        """
        lowest = float((self._rewards + offset).min(initial=0.0))
        return lowest / (1.0 - gamma) if lowest < 0.0 and gamma < 1.0 else -np.inf

    def failure_value(self, gamma: float, offset: float) -> float:
        """Return what never succeeding is worth, offset / (1 - gamma).

        NaN where it is not known: with rewards other than 0 and 1, of which none says what comes
        after the last, and without a discount.

        Args:
            gamma: discount per decision.
            offset: added to a reward.
        """
        sparse = bool(np.isin(self._rewards, (0.0, 1.0)).all())
        return float(np.float32(offset)) / (1.0 - gamma) if sparse and gamma < 1.0 else np.nan

    @property
    def _rewards(self) -> npt.NDArray[np.float32]:
        n, km = self._splits[:2]
        return self._table[: self._size, n + 2 * km]

    def returns(self, gamma: float, offset: float, rest: float) -> npt.NDArray[np.float32]:
        """Return the discounted sum of rewards to the end of each row's episode, shape (size,).

        Args:
            gamma: discount per decision.
            offset: added to a reward.
            rest: what is worth what comes after a row whose episode goes on unseen (a truncation, a
                gap, the newest rows): `lowest_value`, `failure_value`, or NaN.
        """
        n, km = self._splits[:2]
        rewards = self._rewards + offset
        goes_on = self._table[:, n + 2 * km + 1]
        result = np.full(self._size, -np.inf, dtype=np.float32)
        newest = self.newest
        for age in range(self._size):
            row = (newest - age) % self.capacity
            following = self._following[row]
            if not goes_on[row]:
                result[row] = rewards[row]
            else:
                after = rest if following == NONE else result[following]
                result[row] = rewards[row] + gamma * after
        return result

    def keep_newest(self, count: int) -> None:
        """Forget all but the newest transitions.

        Args:
            count: how many stay, at least 1.
        """
        kept = min(count, self._size)
        rows = (self._next - kept + np.arange(kept)) % self.capacity
        moved = np.full(self.capacity, NONE, dtype=np.int32)
        moved[rows] = np.arange(kept, dtype=np.int32)
        following = self._following[rows]
        self._table[:kept], self._source[:kept] = self._table[rows], self._source[rows]
        self._following[:] = NONE
        self._following[:kept] = np.where(following == NONE, NONE, moved[following])
        self._open = {
            robot: _Chain(int(moved[chain.row]), chain.expected)
            for robot, chain in self._open.items()
            if moved[chain.row] != NONE
        }
        self._size, self._next = kept, kept % self.capacity

    def clear(self) -> None:
        """Forget every transition."""
        self._next = self._size = 0
        self._open.clear()
        self._following[:] = NONE

    def export(self) -> dict[str, npt.NDArray[Any]]:
        """Return the contents for a checkpoint."""
        return {
            'table': self._table[: self._size],
            'following': self.following,
            'source': self._source[: self._size].astype(np.int64),
            'next': np.array([self._next]),
            'open': np.array(
                [(chain.row, *chain.expected) for chain in self._open.values()], dtype=np.int64
            ).reshape(-1, 4),
            'robots': np.frombuffer('\n'.join(self._open).encode(), dtype=np.uint8),
        }

    def restore(self, contents: dict[str, npt.NDArray[Any]]) -> None:
        """Load what `export` returned.

        Raises:
            ResidualRLError: the rows are of another layout or exceed the capacity.
        """
        table = contents['table']
        if table.ndim != 2 or table.shape[1] != self._table.shape[1] or len(table) > self.capacity:
            raise ResidualRLError(
                f'stored replay has shape {table.shape}, expected up to {self._table.shape}'
            )
        if 'following' not in contents:
            raise ResidualRLError(
                'stored replay is of an earlier version of this package; start anew'
            )
        self._table[: len(table)] = table
        self._following[: len(table)] = contents['following']
        self._source[: len(table)] = contents['source']
        self._size = len(table)
        self._next = int(contents['next'][0])
        names = contents['robots'].astype(np.uint8).tobytes().decode().split('\n')
        for name, (row, *expected) in zip(names, contents['open'].tolist(), strict=False):
            self._open[name] = _Chain(row, (expected[0], expected[1], expected[2]))
