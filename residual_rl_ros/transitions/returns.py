# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the episodes of a replay have returned, as far as it is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residual_rl_ros.transitions.replay_buffer import NONE, ReplayBuffer
from residual_rl_ros.transitions.transition import End, Source


def lowest_value(replay: ReplayBuffer, gamma: float, offset: float) -> float:
    """Return what no state is worth less than: the lowest reward of all, for ever.

    So an episode that is negative throughout is worth r / (1 - gamma), as in WSRL (arXiv
    2412.07762). Minus infinity where no reward is negative, or nothing is discounted: there
    nothing bounds it.

    Args:
        replay: the transitions.
        gamma: discount per decision.
        offset: added to a reward.
    """
    lowest = float((replay.rewards + offset).min(initial=0.0))
    return lowest / (1.0 - gamma) if lowest < 0.0 and gamma < 1.0 else -np.inf


def failure_value(replay: ReplayBuffer, gamma: float, offset: float) -> float:
    """Return what never succeeding is worth, offset / (1 - gamma).

    NaN where it is not known: with rewards other than 0 and 1, of which none says what comes
    after the last, and without a discount.

    Args:
        replay: the transitions.
        gamma: discount per decision.
        offset: added to a reward.
    """
    sparse = bool(np.isin(replay.rewards, (0.0, 1.0)).all())
    return float(np.float32(offset)) / (1.0 - gamma) if sparse and gamma < 1.0 else np.nan


def returns(
    replay: ReplayBuffer,
    gamma: float,
    offset: float,
    rest: float,
    gap: float,
    unaided: bool = False,
) -> npt.NDArray[np.float32]:
    """Return the discounted sum of rewards to the end of each row's episode, shape (size,).

    An episode that terminated as a failure goes on with the offset for ever.

    Args:
        replay: the transitions.
        gamma: discount per decision.
        offset: added to a reward.
        rest: what is worth what comes after a truncation: `lowest_value`, `failure_value`, or NaN.
        gap: likewise after a row whose episode goes on and is not stored: a transition was lost, or
            has yet to come.
        unaided: end episodes, unseen, where an operator takes over: what he earns is no return of
            the policy. NaN in rows that are his.
    """
    ends, next_rows = replay.ends, replay.following
    operated = unaided & (replay.source == Source.TAKEOVER)
    rewards = replay.rewards + offset
    result = np.full(len(replay), -np.inf, dtype=np.float32)
    failed = gamma * np.float32(offset) / (1.0 - gamma) if gamma < 1.0 else 0.0
    for row in replay.newest_first:
        following, end = next_rows[row], ends[row]
        if operated[row]:
            result[row] = np.nan
        elif end in (End.TERMINATED, End.FAILED):
            result[row] = rewards[row] + (failed if end == End.FAILED else 0.0)
        elif end == End.TRUNCATED or (following != NONE and operated[following]):
            result[row] = rewards[row] + gamma * rest
        else:
            after = gap if following == NONE else result[following]
            result[row] = rewards[row] + gamma * after
    return result
