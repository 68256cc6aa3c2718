# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Temporal ensembling: the base action is a mean over all chunks that plan for its control step.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (ACT), arXiv
2304.13705.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.chunk_queue import NUMBERS, Chunk, ChunkQueue, Mixing
from residual_rl_ros.base_policy.distribution import BaseDecision, BasePolicy, base_decision
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, ChunkLateError
from residual_rl_ros.robot.prior import Prior

ENSEMBLE = (
    'temporal ensembling: the base action is the mean of all chunks that plan for its control '
    'step, of which the i-th oldest has weight exp(-m i), for this m; 0 takes one chunk at a time'
)
ENSEMBLE_STEPS = (
    'with temporal_ensemble: control steps between two chunks; 0 computes one at every decision'
)
MAX_COEFFICIENT = 10.0
"""Beyond it one chunk is all of the mean."""


class EnsembleQueue(ChunkQueue):
    """Hands out means over the chunks that plan for a control step, whole chunks long.

    A chunk enters `prefetch_steps` after it was requested, rounded up to decisions. If it is late
    then, those that are there go on without it, and it enters when it comes. One is computed at a
    time.

    Args:
        policy: the base policy.
        decision_steps: control steps per residual decision (k).
        prefetch_steps: see `ChunkQueue`; also the least distance of two chunks.
        coefficient: m of the weights exp(-m i), i = 0 for the oldest chunk.
        every: control steps between two chunks; 0: one at every decision.
        mixing: what the mean needs to know of the actions.
        clock: monotonic time, for the durations of inference [s].

    Raises:
        BasePolicyError: there are too few actions in a chunk, or the policy tells a density, of
            which there is no mean.
    """

    def __init__(
        self,
        policy: BasePolicy,
        decision_steps: int,
        prefetch_steps: int,
        coefficient: float,
        every: int = 0,
        mixing: Mixing = NUMBERS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        prior = policy.metadata.prior
        if prior is not Prior.NONE:
            reason = (
                'discrete actions have no mean'
                if prior is Prior.CATEGORICAL
                else f'the mean of actions has no density of prior {prior} that a policy has told'
            )
            raise BasePolicyError(
                f'temporal_ensemble is {coefficient:g}, but {reason}: set it to 0, or run without '
                'prior (prior_width 0)'
            )
        super().__init__(policy, decision_steps, prefetch_steps, mixing=mixing, clock=clock)
        self._coefficient = coefficient
        self._every = max(every, 1)
        self._chunks: list[Chunk] = []
        self._requested = -math.inf

    def forget(self) -> None:
        """Drop every chunk and observation."""
        super().forget()
        self._chunks, self._requested = [], -math.inf

    def take(self, timeout_s: float | None = None) -> BaseDecision:
        """Return the mean base actions of the next k control steps; see `ChunkQueue.take`."""
        self._chunks = [each for each in self._chunks if self._left(each) > 0]
        self._admit(timeout_s)
        due = self._taken - self._requested >= self._every or self._ends_within(self._lead)
        if self._pending is None and due:
            self._pending, self._requested = self._request(bool(self._chunks)), self._taken
            self._admit(timeout_s)
        rows = self._mean(self._k)
        self._taken += self._k
        return base_decision(rows, self._meta.prior, len(self._meta.action_names))

    def _admit(self, timeout_s: float | None) -> None:
        """Take in the chunk on order, if it is due: waiting for it where nothing else is there."""
        order = self._pending
        needed = self._ends_within(0)
        if order is None or not (needed or self._taken - order.origin >= self._lead):
            return
        if timeout_s is None:
            rows = self._result(order.future)
        elif needed or order.future.done():
            try:
                rows = order.future.result(timeout_s)
            except FutureTimeoutError as error:
                raise ChunkLateError from error
        else:
            return
        self._chunks.append(self._arrived(order, rows))

    @property
    def _lead(self) -> int:
        """Age of a chunk when it enters, in control steps: whole decisions."""
        return self._k * -(-self.prefetch_steps // self._k)

    def _ends_within(self, steps: int) -> bool:
        """Return whether, so many control steps from now, no chunk plans for a whole decision."""
        return not self._chunks or self._left(self._chunks[-1]) - steps < self._k

    def _left(self, chunk: Chunk) -> int:
        """Return how many of its actions are still to come."""
        return chunk.origin + self._covered(self._meta) - self._taken

    def _covered(self, meta: BasePolicyMetadata) -> int:
        """Return how many actions of a chunk may be taken: also those that else run never."""
        return meta.horizon - meta.exec_start

    @property
    def foreseen(self) -> npt.NDArray[np.float32]:
        """Means of what is planned after the actions taken; see `ChunkQueue.foreseen`."""
        return self._mean(self._left(self._chunks[-1])) if self._chunks else self.coming

    def _mean(self, steps: int) -> npt.NDArray[np.float32]:
        """Return the mean rows of the next control steps, shape (steps, c)."""
        newest = self._chunks[-1]  # It plans for all of them.
        reference = newest.rows[self._index(newest) :][:steps]
        total = np.zeros((steps, newest.rows.shape[1]))
        weights = np.zeros((steps, 1))
        # Among those that still cover a step the first is the oldest: a common factor cancels.
        logits = -self._coefficient * np.arange(len(self._chunks))
        for weight, chunk in zip(np.exp(logits - logits.max()), self._chunks, strict=True):
            start = self._index(chunk)
            rows = chunk.rows[start : start + steps]
            total[: len(rows)] += weight * self._mixing.alike(rows, reference[: len(rows)])
            weights[: len(rows)] += weight
        return self._mixing.whole((total / weights).astype(np.float32))
