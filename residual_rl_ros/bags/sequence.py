# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with one transition after another: repeats, and clocks that jump."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from residual_rl_ros.transition import HEADER
from residual_rl_ros.transition_table import TransitionTable

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FAR_AHEAD = 10.0
"""A decision that takes so many times the median is one during which the clock jumped."""
FAR_AHEAD_S = 1.0
"""A shorter jump is not told from a late base policy [s]."""
ENOUGH = 5
"""Decisions from which the median is known."""


class Remark(NamedTuple):
    """One kind of thing that is wrong with rows of a table."""

    kind: str
    row: int
    """The first of these rows."""
    rows: int
    """How many there are."""
    reason: str


class SequenceCheck:
    """Looks at a robot's transitions, table by table, in recorded order."""

    def __init__(self) -> None:
        self._last = np.empty(0)
        self._decision_s = np.nan

    def repeats(self, table: TransitionTable) -> Mask:
        """Return which rows say exactly what the row before says, shape (count,)."""
        values, repeats = table.values, np.zeros(len(table), dtype=bool)
        repeats[0] = np.array_equal(values[0], self._last)
        near = np.flatnonzero(np.diff(values[:, 0]) == 0.0) + 1  # Few: so few rows are compared.
        repeats[near] = (values[near] == values[near - 1]).all(axis=1)
        return repeats

    def jumps(self, table: TransitionTable) -> list[Remark]:
        """Return where the clock goes back or far ahead; the table becomes what is before."""
        before = self._last[None, : len(HEADER)] if len(self._last) else np.empty((0, len(HEADER)))
        head = np.concatenate([before, table.values[:, : len(HEADER)]])
        self._last = table.values[-1].copy()
        columns = dict(zip(HEADER, head.T, strict=True))
        elapsed = np.diff(columns['stamp'])
        same = (np.diff(columns['epoch']) == 0.0) & (np.diff(columns['episode']) == 0.0)
        next_to = same & (np.diff(columns['step']) == table.layout.decision_steps)
        if next_to.sum() >= ENOUGH:
            self._decision_s = float(np.median(elapsed[next_to]))
        limit = np.maximum(FAR_AHEAD_S, FAR_AHEAD * self._decision_s)  # NaN: nothing is above it.
        remarks = []
        for kind, found, says in (
            ('back', same & (elapsed < 0.0), 'goes back by {:.3f} s within an episode'),
            (
                'ahead',
                next_to & (elapsed > limit),
                f'jumps ahead by {{:.3f}} s between two decisions of an episode, which take '
                f'{self._decision_s:.3f} s',
            ),
        ):
            rows = np.flatnonzero(found)
            if len(rows):
                reason = f'the clock {says.format(abs(elapsed[rows[0]]))}'
                remarks.append(Remark(kind, int(rows[0]) + 1 - len(before), len(rows), reason))
        return remarks
