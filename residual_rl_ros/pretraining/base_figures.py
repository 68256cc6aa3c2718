# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the card of a base policy says about how well it does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.evaluation.intervals import Rate, wilson
from residual_rl_ros.evaluation.noises import DIAGNOSIS_SEED, play_noises
from residual_rl_ros.evaluation.paired import evaluate
from residual_rl_ros.evaluation.pass_at_k import study_noise

CARD_SEED = 20_000
"""First held-out seed of the card's success."""
NOISES = 8
"""Noises with which each start of the card's pass@k is played."""


def success_of(config: RunConfig, seeds: Sequence[int]) -> tuple[Rate, float]:
    """Return how often a base policy succeeds on its own, and in how many control steps.

    Args:
        config: names the base policy and its environment.
        seeds: of the environment.
    """
    episodes = list(evaluate(config, seeds))
    steps = [episode.steps for episode in episodes if episode.success]
    rate = wilson([bool(episode.success) for episode in episodes])
    return rate, float(np.mean(steps)) if steps else math.nan


def noise_row(config: RunConfig, starts: int) -> str:
    """Return the row of the card that says what the noise decides; empty without noise.

    Args:
        config: names the base policy and its environment.
        starts: number of starts, as many seeds of the environment; none are played for fewer than
            two.
    """
    if starts < 2 or not config.resolve().policy.stochastic:
        return ''
    seeds = range(DIAGNOSIS_SEED, DIAGNOSIS_SEED + starts)
    played = [attempt.success for attempt in play_noises(config, seeds, NOISES)]
    outcomes = np.array(played).reshape(starts, NOISES)
    study = study_noise(outcomes, np.random.default_rng(0))
    rates = ', '.join(f'pass@{k} {value.shown(".0%")}' for k, value in study.pass_at.items())
    share = study.start_share
    explained = '' if share is None else f'; the start explains {share.shown(".0%")} of the outcome'
    return (
        f'| over its noise | {rates}{explained}; {starts} starts, seeds {seeds.start} to '
        f'{seeds.stop - 1}, with {NOISES} noises each |\n'
    )
