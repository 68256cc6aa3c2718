# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The control loop's accounting for commands that were sent when a bag was recorded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.robot.decoders import to_nanoseconds
from residual_rl_ros.transitions.transition import Source

Array = npt.NDArray[np.float64]

SAME = 1e-6
"""Commands that differ by less, in half ranges of the trained actions, are the same: another
processor may compute the base policy with other last digits."""


class ReplayedController(ResidualController):
    """A controller whose commands are those of a recording.

    It runs the base policy over the recorded observations and compares each recorded command with
    what the base alone would have sent, after all limits. A difference within the bound is a
    residual's, a larger one an operator's. A recording does not hold the actor's output; the
    difference, in units of the bound, stands for it.
    """

    commands: dict[int, Array]
    """Recorded commands by the nanosecond of the observation or tick that they answer."""
    unanswered = 0
    """Control steps without a recorded command; their decision is dropped."""

    def command(self, takeover: Array | None = None) -> Array | None:
        """Account for the recorded command of this control step and return it, shape (m,).

        Args:
            takeover: not None while an operator had taken over.
        """
        sent = self.commands.get(to_nanoseconds(self._stamp))
        if sent is None:
            self.unanswered += 1
            self.abandon()
            return None
        decision = self._current_decision()
        self._holding = decision is None
        if decision is None:
            self._hold(None if takeover is None else sent)
            return self.limiter.commit(sent, self.limiter.overridden)
        step = decision.steps_sent
        own = self.limiter.limit(decision.planned[step])
        differs = np.abs(sent - own) - SAME * self._half_range
        bound = self.bound.values
        if takeover is not None:
            decision.source = Source.TAKEOVER
        elif (differs > bound).any():
            decision.source = Source.TAKEOVER
            decision.residual[:] = 0.0
        elif (differs > 0.0).any() and decision.source is not Source.TAKEOVER:
            decision.source = Source.RESIDUAL
            added = sent - decision.planned[step]
            decision.residual[step] = np.divide(
                added, bound, out=np.zeros_like(added), where=bound > 0.0
            ).clip(-1.0, 1.0)
        decision.send(sent)
        return self.limiter.commit(sent, overridden=takeover is not None)

    @property
    def _half_range(self) -> Array:
        """Half of the range of the actions that the base policy was trained on, shape (m,)."""
        low, high = np.array(self.layout.action_min), np.array(self.layout.action_max)
        half: Array = 0.5 * (high - low)
        return half
