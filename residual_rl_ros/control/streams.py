# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Random numbers of an episode: each use has its own, which do not shift with another's."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for; part of their seed, so these values never change.

    A seed is padded with zeros: `[seed, episode]` alone would be `BASE`, and is nothing's.
    """

    BASE = 0
    """The base policy's noise: the same with and without residual."""
    EXPLORATION = 1
    NOISE_SCALE = 2
    BASE_ONLY = 3
    PROPOSALS = 4
    """Noise of the base policy's other proposals."""
    SWITCH = 5
    PLAN = 6
    """With the step of its decision."""
    RANDOM_EPISODE = 7
    RANDOM_RESIDUAL = 8
    """With the number of the residual in its episode."""
    DYNAMICS = 9
    """Noise of what a dynamics model is trained on."""


def episode_rng(seed: int, episode: int, stream: Stream, *item: int) -> np.random.Generator:
    """Return the random numbers of one use in an episode.

    Args:
        seed: of the robot.
        episode: its number.
        stream: what they are for.
        item: which of several in the episode.
    """
    return np.random.default_rng([seed, episode, stream, *item])
