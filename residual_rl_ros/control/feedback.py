# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the simulator, a reward node or an operator says of a control step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from residual_rl_ros.errors import FormatError
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.observation import MAX_STAMP_S
from residual_rl_ros.transitions.transition import MAX_REWARD, Success

STEP_FEEDBACK = 'step_feedback'
"""Topic of what `StepFeedback.to_array` gives."""


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

    def to_array(self, stamp: float) -> Array:
        """Return `[stamp, reward, terminated, truncated, success]`, shape (5,).

        Args:
            stamp: time of what it judges, ROS time [s].
        """
        return np.array([stamp, self.reward, self.terminated, self.truncated, self.success])

    @classmethod
    def from_array(cls, data: Array) -> tuple[float, StepFeedback]:
        """Return stamp [s] and feedback that `to_array` gave; arrays come from outside.

        Raises:
            FormatError: it is no such array.
        """
        sound = (
            data.shape == (5,)
            and bool(np.isfinite(data).all())
            and abs(data[0]) <= MAX_STAMP_S
            and abs(data[1]) <= MAX_REWARD
            and data[4] in (-1.0, 0.0, 1.0)
        )
        if not sound:
            raise FormatError(
                f'{STEP_FEEDBACK} is {data[:8].tolist()}, expected 5 finite numbers [stamp, '
                'reward, terminated, truncated, success], stamps up to '
                f'{MAX_STAMP_S:g} s, rewards up to {MAX_REWARD:g} and success -1, 0 or 1'
            )
        stamp, reward, terminated, truncated, success = data.tolist()
        return stamp, cls(reward, bool(terminated), bool(truncated), Success(int(success)))

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
    observation: Array
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
