# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How many control steps before its first use a chunk is requested, by how long inference takes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from residual_rl_ros.errors import ConfigError

AUTO = -1
"""As a number of control steps: measure inference. In lockstep, which waits, this is 0."""
WORD = 'auto'
"""The same in files and on command lines."""
WORDS = {WORD: AUTO}
DESCRIPTION = (
    'control steps before its first use at which a chunk is requested; auto (-1) follows '
    'inference and, in lockstep, is 0'
)
MEASURED_S, FEWEST, MOST = 1.0, 5, 50
"""Inference is repeated for so long, but at least and at most so often."""
QUANTILE = 0.95
MARGIN = 1.5
"""An inference may take so many times as long as the slowest of those before."""
RECENT = 64
"""So many chunks tell how long inference takes while the robot runs."""
JITTER = 0.25
"""A control step may come so much of a period early."""
DIGITS = 19
"""A number of so many may be no integer of ROS."""


class Prefetch:
    """How early the next chunk is asked for: as late as it can be, for a fresh observation.

    While the robot runs, `note` follows the slowest of the recent inferences: a learner beside the
    robot makes them slower than they were before anything moved. As one follows another, inference
    may take half of a chunk for long. A single one has more time where chunks are asked for earlier
    than that, and take over at the age `turn` from those that are not used up.

    Args:
        inference_s: how long inference takes before anything moves [s].
        period_s: control period [s].
        decision_steps: control steps per decision (k); chunks are asked for, and used, between two.
        covered: actions of a chunk that may be executed.
    """

    def __init__(
        self, inference_s: float, period_s: float, decision_steps: int, covered: int
    ) -> None:
        self._k = decision_steps
        self._covered = covered // decision_steps * decision_steps
        self.half = covered // decision_steps // 2 * decision_steps
        """Control steps that inference may take for long."""
        self._first = self._fitting(MARGIN * inference_s / period_s + JITTER)
        self._recent: deque[int] = deque(maxlen=RECENT)
        self.steps = self._first
        """Control steps before its first use at which a chunk is asked for."""
        figures = f'inference takes {1e3 * inference_s:.3g} ms'
        period = f'{1e3 * period_s:.3g} ms'
        self._words = f'prefetch_steps {self.steps} (auto: {figures}, a control period is {period})'
        self._remedy = (
            'execute more actions of a chunk (exec_steps), lower decision_steps or the control '
            'rate, or make inference faster (robot.base_policy)'
        )
        self.problem = ''
        """Why the robot will hold at seams nevertheless; empty if it will not."""
        if inference_s / period_s + JITTER > self.half:
            self.problem = (
                f'{figures}, and a chunk of {covered} actions leaves {self.half} control steps of '
                f'{period} for it, half of the chunk (decision_steps {decision_steps}): the robot '
                f'will hold at every seam; {self._remedy}'
            )

    def __str__(self) -> str:
        """Say in a line of a log what was chosen before anything moved."""
        return self._words

    def _fitting(self, steps: float) -> int:
        """Return the fewest whole decisions that have so many control steps, in control steps."""
        return min(self._k * max(math.ceil(steps / self._k), 1), self._covered - self._k)

    @property
    def turn(self) -> int:
        """Age in control steps, since its observation, at which the next chunk is used early."""
        return self._covered - self.steps

    def note(self, waited: int) -> int:
        """Take in how long a chunk took that was asked for ahead, and return `steps`.

        They are never fewer than before anything moved.

        Args:
            waited: control steps that began before it was there.
        """
        self._recent.append(waited)
        self.steps = max(self._first, self._fitting(MARGIN * max(self._recent) + 1.0))
        return self.steps

    @property
    def late_reason(self) -> str:
        """What is said of a hold because a chunk was late."""
        late = f'the base policy is late: inference takes longer than {self.steps} control steps'
        if self.steps < self.half:
            return f'{late} (prefetch_steps auto); the next chunks are asked for earlier'
        return f'{late}, and half of a chunk is {self.half}; {self._remedy}'


def parse_prefetch(text: str) -> int:
    """Return a number of control steps, or `AUTO`.

    Raises:
        ConfigError: the text is neither.
    """
    if text in (WORD, str(AUTO)):
        return AUTO
    if text.isascii() and text.isdecimal() and len(text) < DIGITS:
        return int(text)
    raise ConfigError(f'prefetch_steps is {text!r}, expected {WORD} or a whole number from 0 on')


def measure(inference: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return how long an inference takes, a high quantile of some [s].

    Args:
        inference: runs one.
        clock: monotonic time [s].
    """
    durations: list[float] = []
    while len(durations) < FEWEST or (sum(durations) < MEASURED_S and len(durations) < MOST):
        started = clock()
        inference()
        durations.append(clock() - started)
    return float(np.quantile(durations, QUANTILE))
