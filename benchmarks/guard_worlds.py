# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Worlds for `guard_rates.py`: how success and returns of base and residual go on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

BASES = (0.2, 0.4, 0.6, 0.8, 0.95)
WARM_UP = 200
Curve = Callable[[int], float]
"""Success, or what is gained, by the number of the episode; the warm-up has negative numbers."""


def constant(success: float) -> Curve:
    """Return a success that stays."""
    return lambda number: success


def shift(before: float, after: float, at: int = 200, over: int = 1) -> Curve:
    """Return a success that changes, at once or over so many episodes."""
    return lambda number: before + (after - before) * min(max((number - at) / over, 0.0), 1.0)


def batches(easy: float, hard: float, length: int) -> Curve:
    """Return a success that changes from batch to batch."""
    return lambda number: (easy, hard)[number // length % 2]


def lucky(success: float, luck: float) -> Curve:
    """Return a success that was another during the warm-up."""
    return lambda number: luck if number < 0 else success


WORLDS: dict[str, list[tuple[Curve, int]]] = {
    **{f'constant, {base:.0%}': [(constant(base), WARM_UP)] for base in (0.05, *BASES)},
    'both lose 30 points at episode 200': [
        (shift(a, a - 0.3), WARM_UP) for a in (0.95, 0.8, 0.7, 0.5, 0.4)
    ],
    'both lose 30 points at episode 1000': [
        (shift(a, a - 0.3, 1000), WARM_UP) for a in (0.95, 0.7, 0.4)
    ],
    'both gain 30 points at episode 200': [(shift(a, a + 0.3), WARM_UP) for a in (0.3, 0.6)],
    'both drift by 30 points in 500 episodes': [
        (shift(a, a - 0.3, 200, 500), WARM_UP) for a in (0.9, 0.7, 0.4)
    ],
    **{
        f'batches of {length}, easy and hard': [
            (batches(easy, easy - 0.6, length), WARM_UP) for easy in (0.95, 0.8)
        ]
        for length in (10, 20, 50, 100)
    },
    'first 60 base episodes 25 points lucky': [
        (lucky(success, success + 0.25), 60) for success in (0.4, 0.7)
    ],
}
"""Worlds in which the residual is as good as its base: curves of success, and warm-up."""


@dataclass(frozen=True)
class Law:
    """A distribution of returns."""

    quantile: Callable[[float], float]
    """Return by luck from 0 to 1."""
    spread: float
    """Standard deviation; where there is none, 0.74 of the distance between the quartiles, which
    is the standard deviation of a normal distribution."""


NORMAL = NormalDist().inv_cdf


def two_modes(success: float) -> Law:
    """Return the law of a large reward for success and a small cost of its own, 1 and 0.05."""

    def quantile(luck: float) -> float:
        if luck >= 1.0 - success:
            return 1.0 + 0.05 * NORMAL(_within((luck - 1.0 + success) / success))
        return 0.05 * NORMAL(_within(luck / (1.0 - success)))

    return Law(quantile, math.sqrt(success * (1.0 - success) + 0.05**2))


def _within(luck: float) -> float:
    return min(max(luck, 1e-9), 1.0 - 1e-9)


LOG_NORMAL_SPREAD = math.sqrt((math.e - 1.0) * math.e)
LAWS: dict[str, Law] = {
    'normal': Law(lambda luck: NORMAL(_within(luck)), 1.0),
    'Student t, 2 degrees': Law(
        lambda luck: (2.0 * luck - 1.0) / math.sqrt(2.0 * _within(luck) * (1.0 - _within(luck))),
        1.21,
    ),
    'Cauchy': Law(lambda luck: math.tan(math.pi * (_within(luck) - 0.5)), 1.48),
    'log-normal, rare high returns': Law(
        lambda luck: math.exp(NORMAL(_within(luck))), LOG_NORMAL_SPREAD
    ),
    'log-normal, rare low returns': Law(
        lambda luck: -math.exp(NORMAL(_within(luck))), LOG_NORMAL_SPREAD
    ),
    'two modes, 30% high': two_modes(0.3),
    'two modes, 60% high': two_modes(0.6),
    '0 or 1, alike': Law(lambda luck: float(luck >= 0.5), 0.5),
}
"""What the base's returns are like."""
RETURN_WORLDS: dict[str, list[tuple[str, Curve, int]]] = {
    **{law: [(law, constant(0.0), WARM_UP)] for law in LAWS},
    'both fall by 2 at episode 200': [
        (law, shift(0.0, -2.0), WARM_UP) for law in ('normal', 'Cauchy')
    ],
    'both fall by 2 at episode 1000': [
        (law, shift(0.0, -2.0, 1000), WARM_UP) for law in ('normal', 'Cauchy')
    ],
    'both rise by 2 at episode 200': [
        (law, shift(0.0, 2.0), WARM_UP) for law in ('normal', 'Cauchy')
    ],
    'both drift by 4 in 500 episodes': [
        (law, shift(0.0, -4.0, 200, 500), WARM_UP) for law in ('normal', 'Cauchy')
    ],
    **{
        f'batches of {length}, 2 apart': [
            (law, batches(0.0, -2.0, length), WARM_UP) for law in ('normal', 'Cauchy')
        ]
        for length in (10, 20, 50, 100)
    },
    'first 60 base episodes 1 too high': [
        (law, lucky(0.0, 1.0), 60) for law in ('normal', 'Cauchy')
    ],
}
"""Worlds in which the residual is as good as its base: law, what both gain, and warm-up; numbers
are in units of the law's spread."""
