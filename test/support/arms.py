# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An arm of two joints before a loop in real time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, real_time

from residual_rl_ros.robot.action_spec import ActionSpec

NAMES = ('a.position', 'b.position')
MEASURED = ('arm.position.a', 'arm.position.b')
STEP = 0.02
LIMIT = np.full(2, 2.97)
ARM = ActionSpec(NAMES, -LIMIT, LIMIT, np.full(2, STEP), MEASURED, start_limit=np.full(2, 3.0))
UNMEASURED = replace(ARM, measured_by=())


class Arm:
    """A robot that goes where it is told, unless it is stuck, before a loop."""

    def __init__(self, target: float = 1.0, spec: ActionSpec = ARM, **changes: Any) -> None:
        self.policy = LinearPolicy()
        self.target = target
        self.policy.infer = lambda window, noise=None: np.full(  # type: ignore[method-assign]
            self.policy.noise_shape, self.target, dtype=np.float32
        )
        self.loop, self.said = real_time(
            self.policy, action=spec, **{'hold_limit_s': 0.5, **changes}
        )
        self.position = np.zeros(2)
        self.stuck = False
        self.loop.activate()

    def run(self, ticks: int, seen: bool = True) -> np.ndarray:
        """Run control steps; return the commands that were sent, shape (·, 2)."""
        sent = len(self.said.commands)
        for _ in range(ticks):
            now = self.said.now = self.said.now + PERIOD
            if seen:
                self.loop.push_observation('arm', now, self.position)
                self.loop.push_observation('tool', now, np.zeros(1))
            if self.loop.active:
                self.loop.tick(now)
            if len(self.said.commands) > sent and not self.stuck:
                self.position = self.said.commands[-1][1]
        return np.array([command for _, command in self.said.commands[sent:]]).reshape(-1, 2)
