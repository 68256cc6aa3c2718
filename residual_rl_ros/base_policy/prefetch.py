# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How many control steps before its first use a chunk is requested, by how long inference takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from residual_rl_ros.errors import ConfigError

AUTO = -1
"""As a number of control steps: measure inference. In lockstep, which waits, this is 0."""
WORD = 'auto'
"""The same in files and on command lines."""
WORDS = {WORD: AUTO}
DESCRIPTION = (
    'control steps before its first use at which a chunk is requested; auto (-1) measures '
    'inference and, in lockstep, is 0'
)
MEASURED_S, FEWEST, MOST = 1.0, 5, 50
"""Inference is repeated for so long, but at least and at most so often."""
QUANTILE = 0.95
MARGIN = 1.5
"""Beside a learner inference takes longer than before anything moves."""
JITTER = 0.25
"""A control step may come so much of a period early."""
DIGITS = 19
"""A number of so many may be no integer of ROS."""


@dataclass(frozen=True)
class Prefetch:
    """What was chosen."""

    steps: int
    inference_s: float
    """High quantile of the durations of inference [s]."""
    period_s: float
    """Control period [s]."""
    problem: str = ''
    """Why the robot will hold at seams nevertheless; empty if it will not."""

    def __str__(self) -> str:
        """Say it in a line of a log."""
        return (
            f'prefetch_steps {self.steps} (auto: inference takes {1e3 * self.inference_s:.3g} ms, '
            f'a control period is {1e3 * self.period_s:.3g} ms)'
        )


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


def choose(inference_s: float, period_s: float, decision_steps: int, covered: int) -> Prefetch:
    """Return the fewest steps with which the next chunk is there when it is needed.

    A chunk is requested and used on decision boundaries, and what it was computed from is the
    older, the more steps there are.

    Args:
        inference_s: how long inference takes [s].
        period_s: control period [s].
        decision_steps: control steps per decision (k).
        covered: actions of a chunk that may be executed.
    """
    k = decision_steps
    needed = (MARGIN * inference_s / period_s + JITTER) / k
    most = covered // k - 1
    steps = k * min(max(math.ceil(needed), 1), most)
    chosen = Prefetch(steps, inference_s, period_s)
    if steps and inference_s + JITTER * period_s <= steps * period_s:
        return chosen
    problem = (
        f'inference takes {1e3 * inference_s:.3g} ms, and a chunk of {covered} actions leaves '
        f'{steps} control steps of {1e3 * period_s:.3g} ms for it (decision_steps {k}): the robot '
        'will hold at every seam. Execute more actions of a chunk (exec_steps), lower '
        'decision_steps or the control rate, or make inference faster (robot.base_policy)'
    )
    return Prefetch(steps, inference_s, period_s, problem)
