# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever arrives, in whatever order and at whatever time: every command is legal."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from builders import LinearPolicy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from loop_builders import ACTION, PERIOD, feed, real_time, weights

from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.policy_loop import END_EPISODE, MARK_FAILURE, MARK_SUCCESS
from residual_rl_ros.control.safety import SafetyFilter, Workspace
from residual_rl_ros.robot.action_spec import ActionSpec, WorkspaceSpec

TWO_LINKS = """<robot name="planar">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="tip"/>
  <joint name="a" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
    <limit lower="-9" upper="9" effort="1" velocity="1"/></joint>
  <joint name="b" type="revolute"><parent link="upper"/><child link="lower"/>
    <origin xyz="1 0 0"/><axis xyz="0 0 1"/>
    <limit lower="-9" upper="9" effort="1" velocity="1"/></joint>
  <joint name="end" type="fixed"><parent link="lower"/><child link="tip"/>
    <origin xyz="1 0 0"/></joint>
</robot>"""


@functools.cache
def boxed() -> ActionSpec:
    """Return the limits of an arm whose tip also has to stay in a box."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, 'arm.urdf')
        model.write_text(TWO_LINKS)
        box = WorkspaceSpec(
            str(model), 'tip', ('a', 'b'), np.array([1.5, -0.25, -1.0]), np.array([2.5, 0.2, 1.0])
        )
        spec = replace(ACTION, measured_by=('arm.position.a', 'arm.position.b'), workspace=box)
        KEPT.append(SafetyFilter(spec)._workspace)
    return spec


KEPT: list[Workspace | None] = []
"""The box of that arm, whose file is gone."""


@dataclass(frozen=True)
class WatchedBound(ResidualBound):
    """Knows the blend ratio of the decision in progress."""

    ratios: list[float] = field(default_factory=lambda: [0.0])

    def compose(self, base: Any, residual: Any, blend_ratio: float) -> np.ndarray:
        self.ratios[0] = blend_ratio
        return super().compose(base, residual, blend_ratio)


class WatchedSafety(SafetyFilter):
    """Checks every command that leaves it against all that is promised of it."""

    def __init__(self, action: ActionSpec, bound: ResidualBound) -> None:
        super().__init__(replace(action, workspace=None))
        self.box = self._workspace = KEPT[0] if action.workspace else None
        self.bound = WatchedBound(bound.values)
        self.results: list[np.ndarray] = []

    def apply(
        self, command: Any, previous: np.ndarray | None, base: np.ndarray | None = None
    ) -> np.ndarray:
        sent = super().apply(command, previous, base)
        assert np.isfinite(sent).all()
        low, high = self.action.lower, self.action.upper
        if previous is not None:
            start = np.clip(previous, low, high)
            assert (np.abs(sent - start) <= self.action.max_step + 1e-12).all()
            if self.box is not None:
                excess = np.maximum(self.box.excess(start), self.box.excess(previous))
                assert (self.box.excess(sent) <= excess).all()
        assert ((sent >= low) & (sent <= high)).all()
        if base is not None:
            self.check_bound(sent, base, previous)
        self.results.append(sent)
        return sent

    def check_bound(self, sent: np.ndarray, base: np.ndarray, previous: np.ndarray | None) -> None:
        """Check the distance to what the limits leave of the base, with or without the box."""
        reach = self.bound.ratios[0] * self.bound.values + 1e-12
        unboxed = SafetyFilter(self.action).apply(base, previous)
        near = (np.abs(sent - unboxed) <= reach).all()
        if not near:
            assert self.box is not None
            boxed_base = SafetyFilter(self.action)
            boxed_base._workspace = self.box
            assert (sent == boxed_base.apply(base, previous)).all()


class AnyRobot(RuleBasedStateMachine):
    """Everything that can reach a robot's policy node."""

    @initialize(
        ramp=st.sampled_from([0.0, 0.3]),
        auto=st.booleans(),
        steps=st.sampled_from([1, 2, 4]),
        box=st.booleans(),
    )
    def start(self, ramp: float, auto: bool, steps: int, box: bool) -> None:
        self.policy = LinearPolicy()
        self.action = boxed() if box else ACTION
        self.loop, self.callbacks = real_time(
            self.policy,
            ramp_s=ramp,
            auto_start=auto,
            decision_steps=steps,
            action=replace(self.action, workspace=None),
        )
        controller = self.loop.controller
        self.safety = controller.limiter.safety = WatchedSafety(self.action, controller.bound)
        controller.bound = self.safety.bound
        self.policy.weights *= 4.0  # Far enough to meet every limit.
        self.sequence = self.checked = 0
        self.loop.activate()
        self.loop.request_start()
        self.actor(10.0, again=False)
        self.run_on(10, 0.1)

    @rule(steps=st.integers(5, 30), a=st.floats(-0.3, 0.3))
    def go_on(self, steps: int, a: float) -> None:
        self.run_on(steps, a)

    @rule(steps=st.integers(1, 6), a=st.floats(-3.0, 3.0))
    def run_on(self, steps: int, a: float) -> None:
        for _ in range(steps):
            self.observe(0.0, a)
            self.tick(PERIOD)

    @rule(age=st.floats(-0.1, 0.5), a=st.floats(-50.0, 50.0))
    def observe(self, age: float, a: float) -> None:
        feed(self.loop, self.callbacks.now - age, a)

    @rule(values=st.lists(st.floats(), max_size=3))
    def observe_nonsense(self, values: list[float]) -> None:
        self.loop.push_observation('arm', self.callbacks.now, np.array(values))

    @rule(dt=st.sampled_from([0.0, PERIOD, PERIOD, PERIOD, 0.12, 0.7, -10.0, 10.0]))
    def tick(self, dt: float) -> None:
        self.callbacks.now += dt
        if self.loop.active:
            self.loop.tick(self.callbacks.now)

    @rule(slow=st.booleans())
    def base_policy_speed(self, slow: bool) -> None:
        (self.policy.gate.clear if slow else self.policy.gate.set)()
        self.loop.controller._chunk_timeout_s = 0.0 if slow else 10.0

    @rule(gain=st.floats(0.0, 100.0), again=st.booleans())
    def actor(self, gain: float, again: bool) -> None:
        self.sequence += not again
        self.loop.receive_weights(weights(self.loop, self.sequence, gain))
        self.loop.take_weights(wait=True)

    @rule(data=st.binary(max_size=40))
    def nonsense_weights(self, data: bytes) -> None:
        self.loop.receive_weights(data)
        self.loop.take_weights(wait=True)

    @rule(values=st.lists(st.floats(), min_size=1, max_size=3))
    def takeover_command(self, values: list[float]) -> None:
        self.loop.receive_takeover(np.array(values))

    @rule(active=st.booleans())
    def takeover(self, active: bool) -> None:
        self.loop.set_takeover(active)

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:
        self.loop.held = held

    @rule(enabled=st.booleans())
    def residual(self, enabled: bool) -> None:
        self.loop.controller.residual_enabled = enabled

    @rule(feedback=st.sampled_from([MARK_SUCCESS, MARK_FAILURE, END_EPISODE]))
    def mark(self, feedback: Any) -> None:
        self.loop.end_episode(feedback, self.callbacks.now)

    @rule(data=st.lists(st.floats(), max_size=6))
    def nonsense_feedback(self, data: list[float]) -> None:
        self.loop.receive_feedback(np.array(data))

    @rule()
    def start_episode(self) -> None:
        self.loop.request_start()

    @rule()
    def reactivate(self) -> None:
        if not self.loop.active:
            self.loop.activate()

    @invariant()
    def every_command_has_passed_the_filter(self) -> None:
        if not hasattr(self, 'callbacks'):
            return
        passed = {result.tobytes() for result in self.safety.results}
        for _, command in self.callbacks.commands[self.checked :]:
            assert command.tobytes() in passed
        self.checked = len(self.callbacks.commands)
        del self.safety.results[:-50]

    @invariant()
    def every_transition_is_what_was_sent(self) -> None:
        if not hasattr(self, 'callbacks'):
            return
        for transition in self.callbacks.transitions:
            assert np.isfinite(transition.executed_action).all()
            assert np.abs(transition.residual_action).max() <= 1.0
        self.callbacks.transitions.clear()

    def teardown(self) -> None:
        if hasattr(self, 'policy'):
            self.policy.gate.set()
            self.loop.controller.queue.close()


TestAnyRobot = AnyRobot.TestCase
TestAnyRobot.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
