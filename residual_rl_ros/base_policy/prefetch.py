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
"""A chunk is asked for so many times as early as inference takes."""
RECENT = 16
"""So many chunks tell how long inference takes while the robot runs."""
DIGITS = 19
"""A number of so many may be no integer of ROS."""


class Prefetch:
    """How early the next chunk is asked for: as late as it can be, for a fresh observation.

    While the robot runs, `note` follows the second slowest of the recent inferences, for a learner
    beside the robot makes all of them slower. A single slow one is one late chunk. It never asks
    earlier than half a chunk ahead: inferences follow one another, and the policy that runs is to
    stay the one that was evaluated.

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
        self.most = covered // decision_steps // 2 * decision_steps
        """Half of a chunk, in control steps."""
        self._measured = inference_s / period_s
        self._recent = deque([0.0] * RECENT, maxlen=RECENT)
        self.steps = self._enough_for(self._measured)
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
        if self._measured > self.most:
            self.problem = (
                f'{figures}, and a chunk of {covered} actions leaves {self.most} control steps of '
                f'{period} for it, half of the chunk (decision_steps {decision_steps}): the robot '
                f'will hold at every seam; {self._remedy}'
            )

    def __str__(self) -> str:
        """Say in a line of a log what was chosen before anything moved."""
        return self._words

    def _enough_for(self, inference: float) -> int:
        """Return how early to ask if inference takes so long, both in control steps."""
        return min(self._k * max(math.ceil(MARGIN * inference / self._k), 1), self.most)

    def note(self, waited: int) -> int:
        """Take in how long a chunk took that was asked for ahead, and return `steps`.

        They are never fewer than before anything moved.

        Args:
            waited: control steps that began before it was there.
        """
        self._recent.append(waited + 0.5)  # It came some time in the last of them.
        second_slowest = sorted(self._recent)[-2]
        self.steps = self._enough_for(max(self._measured, second_slowest))
        return self.steps

    @property
    def late_reason(self) -> str:
        """What is said of a hold because a chunk was late."""
        late = f'the base policy is late: inference takes longer than {self.steps} control steps'
        if self.steps < self.most:
            return f'{late} (prefetch_steps auto); if it goes on, chunks are asked for earlier'
        return f'{late}, half of a chunk; {self._remedy}'


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
