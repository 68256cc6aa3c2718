# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decisions that must have been made between those that are there: lost, or dropped by a hold."""

from __future__ import annotations


class GapCounter:
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
