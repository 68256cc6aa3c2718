# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a transition ends its episode: what comes after it depends on that."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.transitions.transition import Success, Transition


class End(IntEnum):
    """How a transition ended its episode."""

    NOT = 0
    TRUNCATED = 1
    TERMINATED = 2
    FAILED = 3
    """Terminated, and labelled a failure."""


def end_of(transition: Transition) -> End:
    """Return how a transition ended its episode."""
    if transition.terminated:
        return End.FAILED if transition.success is Success.FAILURE else End.TERMINATED
    return End.TRUNCATED if transition.truncated else End.NOT


def ends_of(
    terminated: npt.NDArray[Any], truncated: npt.NDArray[Any], success: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return `end_of` many transitions, by their flags and labels, shape as these."""
    by_label = np.where(success == Success.FAILURE, End.FAILED, End.TERMINATED)
    cut_off = np.where(truncated != 0.0, End.TRUNCATED, End.NOT)
    return np.where(terminated != 0.0, by_label, cut_off)
