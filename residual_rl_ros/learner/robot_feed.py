# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One robot's transitions on their way to the learner: decoded, counted, checked for gaps."""

from __future__ import annotations

from collections import Counter

import numpy.typing as npt

from residual_rl_ros.gaps import GapCounter
from residual_rl_ros.transition import MalformedTransitionError, Transition, TransitionLayout


class RobotFeed:
    """Decodes what a robot sends and counts what it does not.

    Args:
        robot: namespace of the robot.
    """

    def __init__(self, robot: str) -> None:
        self.robot = robot
        self.counts: Counter[str] = Counter({'transitions': 0, 'malformed': 0, 'missing': 0})
        """`missing`: decisions that were made and did not arrive, lost or dropped by a hold. At
        least so many: of an episode that is missing altogether one is known."""
        self._gaps = GapCounter()

    def decode(self, layout: TransitionLayout, data: npt.ArrayLike, label: str) -> Transition:
        """Return the transition that a message holds.

        Raises:
            MalformedTransitionError: it holds none; it is counted.
        """
        try:
            transition = layout.decode(data, label)
        except MalformedTransitionError:
            self.counts['malformed'] += 1
            raise
        self.counts['transitions'] += 1
        episode, step, k = transition.episode, transition.step, layout.decision_steps
        self.counts['missing'] += self._gaps.before(episode, step, k)
        done = transition.terminated or transition.truncated
        self._gaps.expect(*((episode + 1, 0) if done else (episode, step + k)))
        return transition
