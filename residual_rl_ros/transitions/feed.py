# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot's transitions on their way to the learner: kept, decoded, counted, checked for losses."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy.typing as npt

from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

if TYPE_CHECKING:
    from std_msgs.msg import Float64MultiArray

EPOCHS_AHEAD = 1000
"""A robot may use weights of so many epochs after those of a learner that has lost its folder. It
goes on after the robot's; one wrong number must not use up the epochs that there are."""


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

    def decode(
        self, layout: TransitionLayout, data: npt.ArrayLike, label: str, epoch: int
    ) -> Transition:
        """Return the transition that a message holds.

        Args:
            layout: of the robot.
            data: the message's numbers.
            label: label of the message's only dimension.
            epoch: of the learner.

        Raises:
            MalformedTransitionError: it holds none; it is counted.
        """
        try:
            transition = layout.decode(data, label)
            if transition.epoch > epoch + EPOCHS_AHEAD:
                raise MalformedTransitionError(
                    f'epoch {transition.epoch}, and this learner is in epoch {epoch}; restart '
                    'policy_node if it uses such weights'
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


COUNT_LIMIT = 1000
"""Messages kept."""
BYTES_LIMIT = 64 * 2**20
"""Their size: before the layout is known a message may be anything [byte]."""


class PendingTransitions:
    """Keeps messages, up to a limit, until they are taken."""

    def __init__(self) -> None:
        self._messages: list[tuple[TransitionFeed, Float64MultiArray]] = []
        self._bytes = 0

    def keep(self, feed: TransitionFeed, message: Float64MultiArray) -> bool:
        """Keep a message of a robot; return False if there is no room."""
        size = self._bytes + message.data.itemsize * len(message.data)
        if len(self._messages) == COUNT_LIMIT or size > BYTES_LIMIT:
            return False
        self._messages.append((feed, message))
        self._bytes = size
        return True

    def take(self) -> list[tuple[TransitionFeed, Float64MultiArray]]:
        """Return the messages, oldest first, and forget them."""
        messages, self._messages, self._bytes = self._messages, [], 0
        return messages
