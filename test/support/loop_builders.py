# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Control loops without middleware, what they need, and callbacks that keep what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from robot_builders import make_action_spec

from residual_rl_ros.base_policy.splicing import ONE_BY_ONE
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.policy_loop import LoopParts, PolicyLoop
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.topics import FLOAT_ARRAY, Channel
from residual_rl_ros.transitions.transition import Transition

PERIOD = 0.05
ARM = Channel('arm', 'joints', FLOAT_ARRAY, ('position.a', 'position.b'), (), 0.2)
TOOL = Channel('tool', 'tool', FLOAT_ARRAY, ('z',), (), 0.2)
CHANNELS = (ARM, TOOL)
ACTION = make_action_spec(
    lower=np.array([-0.3, -0.2]), upper=np.array([0.3, 0.2]), max_step=np.array([0.1, 0.05])
)


class Recorder:
    """Callbacks that keeps what it is given."""

    def __init__(self) -> None:
        self.loop: PolicyLoop | None = None
        self.now = 0.0
        self.commands: list[tuple[float, np.ndarray]] = []
        self.holding: list[bool] = []
        self.transitions: list[Transition] = []
        self.warnings: list[str] = []
        self.faults: list[str] = []
        self.slept: list[float] = []

    def send_command(self, command: np.ndarray, stamp: float, holding: bool = False) -> None:
        self.commands.append((stamp, command.copy()))
        self.holding.append(holding)

    def send_transition(self, transition: Transition) -> None:
        self.transitions.append(transition)

    def warn(self, reason: str) -> None:
        self.warnings.append(reason)

    def fault(self, reason: str) -> None:
        self.faults.append(reason)
        assert self.loop is not None
        self.loop.deactivate(self.now)


def real_time(policy: LinearPolicy, **changes: Any) -> tuple[RealTimeLoop, Recorder]:
    """Return a loop in real time, and its callbacks."""
    callbacks = Recorder()
    config = ControllerConfig(
        changes.pop('decision_steps', 1),
        (0.05,),
        changes.pop('splicing', ONE_BY_ONE),
        explore=True,
        lockstep=False,
        customisable=changes.pop('customisable', False),
    )
    controller = config.build(policy, changes.pop('action', ACTION))
    controller._chunk_timeout_s = changes.pop('chunk_timeout_s', 10.0)
    blend = BlendRamp(changes.pop('ramp_s', 0.0))
    rules = RealTimeRules(**{'auto_start': True, 'hold_limit_s': 0.5, **changes})
    assembler = ObservationAssembler(CHANNELS)
    parts = LoopParts(controller, assembler, blend, callbacks)
    loop = RealTimeLoop(parts, PERIOD, rules, callbacks.slept.append)
    callbacks.loop = loop
    return loop, callbacks


def weights(loop: PolicyLoop, sequence: int, gain: float = 5.0, random_share: float = 0.0) -> bytes:
    actor = make_actor(loop.controller.layout, seed=sequence, gain=gain)
    exploration = Exploration(random_share=random_share)
    return encode_weights(actor.to_numpy(), WeightsHeader(1, sequence, exploration))


def feed(loop: PolicyLoop, stamp: float, a: float = 0.1) -> None:
    loop.push_observation('arm', stamp, np.array([a, -a]))
    loop.push_observation('tool', stamp, np.array([0.5]))


def drive(loop: RealTimeLoop, start: float, ticks: int) -> float:
    """Run so many control steps with fresh observations; return the time after them [s]."""
    for tick in range(ticks):
        feed(loop, start + tick * PERIOD)
        loop.tick(start + tick * PERIOD)
    return start + ticks * PERIOD
