# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a comparison takes from one finished run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.evaluation.grid import CompareError
from residual_rl_ros.learner.episodes import RECENT_EPISODES, EpisodeRecord
from residual_rl_ros.summary import SUMMARY, read_history, steps_to

Array = npt.NDArray[np.float64]
LEVEL = 0.9
BIN_STEPS = 2000
ROUNDING = 1e-9
FAR_BELOW = 0.1
"""How far below the base is far, as a share of episodes."""


@dataclass(frozen=True)
class RunResult:
    """What a comparison needs of one run."""

    base: float
    """Success of the base policy on the paired seeds."""
    base_in_training: float
    """Success of the base-only training episodes; of the base on the paired seeds without any."""
    final: float
    """Success with the residual on the same seeds."""
    curve: Array
    """Control steps and success of the evaluations during training, shape (points, 2)."""
    steps_to_level: float
    """Control steps until success over 50 training episodes first was 90 %; inf if never."""
    excess: Array
    """Success of the training episodes with a residual, exploration included, minus
    `base_in_training`, for every `BIN_STEPS` control steps since the first; NaN where there were
    none."""
    worst: float | None
    """Lowest success over 50 training episodes with residual, exploration included; None before
    there were as many."""
    far_below: int
    """Longest row of training episodes with a residual after each of which success over 50 of them
    was more than 10 points below `base_in_training`."""
    rollbacks: int
    """How often the guard rolled back."""


def read_result(folder: Path) -> RunResult:
    """Read a finished run.

    Raises:
        CompareError: its summary is missing or lacks the evaluations.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding='utf-8'))
        base, final = (float(summary[key]['success']) for key in ('base', 'final'))
        rollbacks, episodes = int(summary['rollbacks']), int(summary['episodes'])
        curve = np.array(summary['evaluations'], dtype=np.float64).reshape(-1, 2)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CompareError(f'{str(folder)!r} holds no finished run: {error}') from error
    history = read_history(folder)
    if len(history) != episodes:
        raise CompareError(
            f'{str(folder)!r} says that it has {episodes} episodes and its checkpoint holds '
            f'{len(history)}: without checkpoints/latest of the run nothing is known of its '
            'learning; remove the folder to have it run again'
        )
    reached = steps_to(LEVEL, history)
    alone = [bool(record.success) for record in history if record.rates_base]
    in_training = float(np.mean(alone)) if alone else base
    return RunResult(
        base,
        in_training,
        final,
        curve,
        float('inf') if reached is None else reached,
        excess_over_base(history, in_training),
        worst_success(history),
        episodes_far_below(history, in_training),
        rollbacks,
    )


def excess_over_base(history: Sequence[EpisodeRecord], base: float) -> Array:
    """Return success of episodes with a residual minus the base's, per `BIN_STEPS` control steps.

    Args:
        history: episodes of a run.
        base: success of the base.
    """
    residual = [record for record in history if record.rates_residual]
    if not residual:
        return np.zeros(0)
    steps = np.array([record.control_steps for record in residual])
    outcomes = np.array([record.success for record in residual], dtype=np.float64)
    bins = (steps - steps[0]) // BIN_STEPS
    count, successes = np.bincount(bins), np.bincount(bins, weights=outcomes)
    return np.where(count, successes / np.maximum(count, 1), np.nan) - base


def worst_success(history: Sequence[EpisodeRecord]) -> float | None:
    """Return the lowest success over 50 consecutive training episodes with a residual, if any."""
    recent = _recent_success(history)
    return float(recent.min()) if len(recent) else None


def episodes_far_below(history: Sequence[EpisodeRecord], base: float) -> int:
    """Return for how many episodes in a row success over 50 was 10 points below the base's."""
    longest = row = 0
    for success in _recent_success(history):
        row = row + 1 if success < base - FAR_BELOW - ROUNDING else 0
        longest = max(longest, row)
    return longest


def _recent_success(history: Sequence[EpisodeRecord]) -> Array:
    """Return the success over each 50 consecutive episodes with a residual."""
    outcomes = [float(bool(record.success)) for record in history if record.rates_residual]
    if len(outcomes) < RECENT_EPISODES:
        return np.zeros(0)
    return np.convolve(outcomes, np.full(RECENT_EPISODES, 1.0 / RECENT_EPISODES), 'valid')
