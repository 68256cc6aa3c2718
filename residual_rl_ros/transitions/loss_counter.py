# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One robot's transitions on their way to the learner: decoded, counted, checked for losses."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy.typing as npt

from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import MAX_COUNT, Transition

if TYPE_CHECKING:
    pass

LAST_EPOCH = MAX_COUNT // 2
"""A robot at a later epoch leaves none to go on in; learners count one for each start."""


class LossCounter:
    """Counts what one robot's transitions leave out."""

    def __init__(self) -> None:
        self.expected: tuple[int, int] | None = None
        """Episode and step of the next decision, unless there is a gap."""

    def expect(self, episode: int, step: int) -> None:
        """Take a decision for the next one, if there is no gap."""
        self.expected = episode, step

    def before(self, episode: int, step: int, decision_steps: int) -> int:
        """Return how many decisions are missing before this one.

        At least so many: of an episode that is missing altogether one is known.
        """
        if self.expected is None or episode < self.expected[0]:
            return 0  # The first, or the robot has restarted.
        from_step = self.expected[1] if episode == self.expected[0] else 0
        # Where an episode differs, the end of the one in progress or a whole one is missing.
        return (episode - self.expected[0]) + max(0, -((from_step - step) // decision_steps))


class TransitionFeed:
    """Decodes what a robot sends and counts what it does not.

    Args:
        robot: namespace of the robot.
    """

    def __init__(self, robot: str) -> None:
        self.robot = robot
        self.counts: Counter[str] = Counter({'transitions': 0, 'malformed': 0, 'missing': 0})
        """`missing`: decisions that were made and did not arrive, lost or dropped by a hold. At
        least so many: of an episode that is missing altogether one is known."""
        self._gaps = LossCounter()

    def __str__(self) -> str:
        """Return whose it is, for warnings."""
        return f'robot {self.robot!r}' if self.robot else 'the robot'

    def decode(self, layout: TransitionLayout, data: npt.ArrayLike, label: str) -> Transition:
        """Return the transition that a message holds.

        Raises:
            MalformedTransitionError: it holds none; it is counted.
        """
        try:
            transition = layout.decode(data, label)
            if transition.epoch > LAST_EPOCH:
                raise MalformedTransitionError(
                    f'epoch {transition.epoch}, expected <= {LAST_EPOCH}; restart policy_node if '
                    'it uses such weights'
                )
        except MalformedTransitionError:
            self.counts['malformed'] += 1
            raise
        self.counts['transitions'] += 1
        episode, step, k = transition.episode, transition.step, layout.decision_steps
        self.counts['missing'] += self._gaps.before(episode, step, k)
        done = transition.terminated or transition.truncated
        self._gaps.expect(*((episode + 1, 0) if done else (episode, step + k)))
        return transition
