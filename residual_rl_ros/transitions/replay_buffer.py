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
from residual_rl_ros.transitions.transition import End, Source, Transition, end_of, ends_of

NONE = -1
UNKNOWN_RANGE = np.array([[np.inf], [-np.inf]])


@dataclass(frozen=True)
class _Chain:
    """A robot's episode in progress."""

    row: int
    """Its newest transition."""
    expected: tuple[int, int, int]
    """(epoch, episode, step) of the one that continues it without a gap."""


def _widths(layout: TransitionLayout) -> dict[str, int]:
    """Return what a row holds, in order, with the number of columns of each."""
    n, km, p = layout.observation_size, layout.decision_size, layout.prior_size
    more = (layout.proposals - 1) * km
    return {
        'observation': n,
        'base_action': km,
        'executed_action': km,
        'reward': 1,
        'goes_on': 1,
        'next_observation': n,
        'next_base_action': km,
        'prior': p,
        'proposals': more,
        'next_prior': p,
        'next_proposals': more,
    }


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
        self._widths = _widths(layout)
        ends = np.cumsum(list(self._widths.values())).tolist()
        begins = [0, *ends[:-1]]
        self._columns = dict(zip(self._widths, map(slice, begins, ends), strict=True))
        self._table = np.zeros((capacity, ends[-1]), dtype=np.float32)
        # The row that continues the episode of this one without a gap, NONE if there is none (yet).
        # It is always younger than this one, so it is never overwritten first.
        self._following = np.full(capacity, NONE, dtype=np.int32)
        self._source = np.zeros(capacity, dtype=np.int8)
        self._end = np.zeros(capacity, dtype=np.int8)
        self._open: dict[str, _Chain] = {}
        self._next = 0
        self._size = 0
        executed = self._widths['executed_action']
        # Smallest and largest executed action, see `executed_range`.
        self._range = np.full((2, executed), UNKNOWN_RANGE, dtype=np.float32)

    @staticmethod
    def row_bytes(layout: TransitionLayout) -> int:
        """Return the memory of a row [byte]."""
        return 4 * sum(_widths(layout).values()) + 6

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
        self._widen_range(row, row + 1)
        self._source[row] = transition.source
        self._end[row] = end_of(transition)
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
        if _widths(table.layout) != self._widths:
            raise ResidualRLError(
                f'transitions of layout {table.layout.label} do not fit a buffer with the columns '
                f'{self._widths}'
            )
        begin = 0
        while begin < len(table):
            piece = table.rows(slice(begin, begin + self.capacity - self._next))
            self._extend_without_wrapping(piece, robot)
            begin += len(piece)

    def _extend_without_wrapping(self, table: TransitionTable, robot: str) -> None:
        """Store at least one transition in rows that follow each other."""
        begin, end = self._next, self._next + len(table)
        stored = self._table[begin:end]
        for name, columns in self._columns.items():
            if name == 'reward':
                stored[:, columns.start] = table.header('reward')
            elif name == 'goes_on':
                stored[:, columns.start] = 1.0 - table.header('terminated')
            else:
                stored[:, columns] = table.block(name)
        self._widen_range(begin, end)
        self._source[begin:end] = table.header('source')
        of_end = (table.header(name) for name in ('terminated', 'truncated', 'success'))
        self._end[begin:end] = ends_of(*of_end)
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

    def _widen_range(self, begin: int, end: int) -> None:
        """Let the range of executed actions hold those of new rows."""
        executed = self._table[begin:end, self._columns['executed_action']]
        low, high = self._range
        np.minimum(low, executed.min(0), out=low)
        np.maximum(high, executed.max(0), out=high)

    @property
    def nbytes(self) -> int:
        """Memory of the whole buffer [byte]."""
        arrays = (self._table, self._following, self._source, self._end)
        return sum(array.nbytes for array in arrays)

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
    def rewards(self) -> npt.NDArray[np.float32]:
        """Reward of each row, shape (size,)."""
        return self._table[: self._size, self._columns['reward'].start]

    @property
    def ends(self) -> npt.NDArray[np.int8]:
        """How each row ends its episode, see `End`, shape (size,)."""
        return self._end[: self._size]

    @property
    def newest_first(self) -> npt.NDArray[np.int64]:
        """Rows in the order in which they were stored, the newest first, shape (size,)."""
        rows: npt.NDArray[np.int64] = (self.newest - np.arange(self._size)) % self.capacity
        return rows

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
        stored = self._table[: self._size]
        return {name: stored[:, columns] for name, columns in self._columns.items()}

    def executed_range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest executed action of each dimension, shape (k * m,).

        They are of all transitions that were stored, those that were overwritten too, and infinite
        and minus infinite before the first.
        """
        low, high = torch.from_numpy(self._range.copy())
        return low, high

    def observations(self) -> Tensor:
        """Return the stored observations, shape (size, n)."""
        return torch.from_numpy(self._table[: self._size, self._columns['observation']])

    def sample(
        self, batch_size: int, rng: np.random.Generator, gamma: float = 1.0, n_step: int = 1
    ) -> Batch:
        """Draw transitions uniformly with replacement.

        Args:
            batch_size: number of transitions.
            rng: source of the draw.
            gamma: discount per decision.
            n_step: decisions whose rewards are summed; fewer where the episode ends, where a
                transition is missing, at the newest one, and where an operator takes over: what he
                earns is no return of the policy.

        Raises:
            ResidualRLError: the buffer is empty.
        """
        if self._size == 0:
            raise ResidualRLError('cannot sample from an empty replay buffer')
        return self.rows(rng.integers(self._size, size=batch_size), gamma, n_step)

    def rows(self, first: npt.NDArray[np.int64], gamma: float = 1.0, n_step: int = 1) -> Batch:
        """Return the transitions of these rows; see `sample` for the rest."""
        batch_size = len(first)
        reward_column = self._columns['reward'].start
        reward = self._table[first, reward_column]
        weight, discount = np.ones_like(reward), np.full_like(reward, gamma)
        last, going = first, np.ones(batch_size, dtype=bool)
        for _ in range(n_step - 1):
            following = self._following[last]
            ours = self._source[last] != Source.TAKEOVER
            taken_over = ours & (self._source[following] == Source.TAKEOVER)
            going = going & (following != NONE) & ~taken_over
            last = np.where(going, following, last)
            step = np.where(going, discount, 0.0)
            reward += step * self._table[last, reward_column]
            weight += step
            discount = np.where(going, gamma * discount, discount)
        if gamma < 1.0:  # What is paid for every decision goes on after a failure, for ever.
            weight += np.where(self._end[last] == End.FAILED, discount / (1.0 - gamma), 0.0)
        now, then = torch.from_numpy(self._table[first]), torch.from_numpy(self._table[last])
        columns = self._columns
        return Batch(
            observation=now[:, columns['observation']],
            base_action=now[:, columns['base_action']],
            executed_action=now[:, columns['executed_action']],
            reward=torch.from_numpy(reward),
            reward_weight=torch.from_numpy(weight),
            bootstrap=torch.from_numpy(discount) * then[:, columns['goes_on'].start],
            next_observation=then[:, columns['next_observation']],
            next_base_action=then[:, columns['next_base_action']],
            prior=now[:, columns['prior']],
            proposals=now[:, columns['proposals']],
            next_prior=then[:, columns['next_prior']],
            next_proposals=then[:, columns['next_proposals']],
            row=first,
            n_step=n_step,
        )

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
        for array in (self._table, self._source, self._end):
            array[:kept] = array[rows]
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
        self._range[:] = UNKNOWN_RANGE

    def export(self) -> dict[str, npt.NDArray[Any]]:
        """Return the contents for a checkpoint."""
        return {
            'table': self._table[: self._size],
            'following': self.following,
            'source': self._source[: self._size].astype(np.int64),
            'end': self._end[: self._size].astype(np.int64),
            'next': np.array([self._next]),
            'range': self._range if self._size else np.zeros_like(self._range),
            'open': np.array(
                [(chain.row, *chain.expected) for chain in self._open.values()], dtype=np.int64
            ).reshape(-1, 4),
            'robots': np.frombuffer('\n'.join(self._open).encode(), dtype=np.uint8),
        }

    def restore(self, contents: dict[str, npt.NDArray[Any]]) -> None:
        """Load what `export` returned.

        Raises:
            ResidualRLError: the rows are of another layout or exceed the capacity, or what is said
                of them is of no row.
        """
        table = contents['table']
        if table.ndim != 2 or table.shape[1] != self._table.shape[1] or len(table) > self.capacity:
            raise ResidualRLError(
                f'stored replay has shape {table.shape}, expected up to {self._table.shape}'
            )
        rows = len(table)
        for name, values, least, largest in (
            ('following', contents['following'], NONE, rows - 1),
            ('source', contents['source'], 0, max(Source)),
            ('end', contents['end'], 0, max(End)),
            ('next', contents['next'], 0, min(rows, self.capacity - 1)),
            ('open', contents['open'][:, 0], 0, rows - 1),
        ):
            if ((values < least) | (values > largest)).any():
                raise ResidualRLError(f'stored replay: {name} is not within {least} to {largest}')
        self._table[: len(table)] = table
        self._following[: len(table)] = contents['following']
        self._source[: len(table)] = contents['source']
        self._end[: len(table)] = contents['end']
        self._range[:] = contents['range'] if len(table) else UNKNOWN_RANGE
        self._size = len(table)
        self._next = int(contents['next'][0])
        names = contents['robots'].astype(np.uint8).tobytes().decode().split('\n')
        for name, (row, *expected) in zip(names, contents['open'].tolist(), strict=False):
            self._open[name] = _Chain(row, (expected[0], expected[1], expected[2]))
