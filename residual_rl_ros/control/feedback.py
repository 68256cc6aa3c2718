# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the simulator, a reward node or an operator says of a control step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.transitions.transition import Success


@dataclass(frozen=True)
class StepFeedback:
    """What is said of the control step just ended."""

    reward: float
    terminated: bool
    truncated: bool
    success: Success

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated

    def merged(self, later: StepFeedback) -> StepFeedback:
        """Return it with what was said later within the same control step: rewards add up."""
        unlabelled = later.success is Success.UNLABELLED
        return StepFeedback(
            self.reward + later.reward,
            self.terminated or later.terminated,
            self.truncated or later.truncated,
            self.success if unlabelled else later.success,
        )


@dataclass(frozen=True)
class StepOutcome:
    """What is known of an executed control step."""

    feedback: StepFeedback
    observation: npt.NDArray[np.float64]
    """Shape (n,)."""
    stamp: float
    """ROS time [s]."""


MARK_SUCCESS = StepFeedback(1.0, True, False, Success.SUCCESS)
"""An operator says that the task is done."""
MARK_FAILURE = StepFeedback(0.0, True, False, Success.FAILURE)
"""An operator says that the task has failed."""
END_EPISODE = StepFeedback(0.0, False, True, Success.UNLABELLED)
"""An operator ends the episode without judging it."""
NOTHING_HAPPENED = StepFeedback(0.0, False, False, Success.UNLABELLED)


class PendingFeedback:
    """What has been said since the last control step that was accounted for."""

    def __init__(self) -> None:
        self.said: StepFeedback | None = None
        self.stamp = -np.inf
        """Of what was said last [s]."""

    @property
    def ends(self) -> bool:
        """Whether it ends the episode."""
        return self.said is not None and self.said.done

    def add(self, feedback: StepFeedback, stamp: float) -> None:
        """Add up what is said within one control step; its stamp is a ROS time [s]."""
        self.said = feedback if self.said is None else self.said.merged(feedback)
        self.stamp = stamp

    def replace(self, feedback: StepFeedback, stamp: float) -> None:
        """Take what is said of a stamp [s] for all that is known."""
        self.said, self.stamp = feedback, stamp

    def take(self) -> StepFeedback:
        """Return what was said, and wait for the next step's."""
        said, self.said = self.said or NOTHING_HAPPENED, None
        return said
