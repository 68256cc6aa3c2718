# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot owner's worst days, drawn at random, and a judge who knows only what is promised.

`Day` draws a robot and lets everything happen to its loop that can happen to it. `Judge` sees what
is measured, what happens and what is sent; it shares no code with the limiter that it judges. The
same seed is the same day.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, Recorder
from robot_builders import make_metadata
from urdf_builders import gap, two_links

from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import END_EPISODE, MARK_FAILURE, MARK_SUCCESS
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.home import GoHome
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.control.real_time_loop import STOP_LIMIT_S, RealTimeLoop
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.body_spec import SelfCollisionSpec, WorkspaceSpec
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.preparation_spec import HomeKeys, home_of
from residual_rl_ros.robot.topics import FLOAT_ARRAY, Channel
from residual_rl_ros.robot.urdf import Urdf
from residual_rl_ros.transitions.transition import Source

MEASURED = ('arm.position.a', 'arm.position.b')
CHANNELS = (
    Channel('arm', 'joints', FLOAT_ARRAY, ('position.a', 'position.b'), (), 0.2),
    Channel('tool', 'tool', FLOAT_ARRAY, ('z',), (), 0.2),
)
EPSILON = 1e-9
BOX_LOW, BOX_HIGH = np.array([1.5, -0.25, -1.0]), np.array([2.5, 0.2, 1.0])
APART = 'apart'
"""An arm that must not touch its own base; it needs pinocchio."""
KINDS = {
    'unmeasured': (),
    'position': ('rad', 'rad'),
    'boxed': ('rad', 'rad'),
    'velocity': ('m/s', 'rad/s'),
    'mixed': ('rad', 'rad/s'),
    'effort': ('N', 'N m'),
}


def excess(joints: np.ndarray) -> np.ndarray:
    """Return how far the tip of an arm of two links of 1 m is outside of the box, shape (3,)."""
    a, b = joints
    tip = np.array([np.cos(a) + np.cos(a + b), np.sin(a) + np.sin(a + b), 0.0])
    return np.maximum(np.maximum(BOX_LOW - tip, tip - BOX_HIGH), 0.0)


class Judge:
    """Says whether a command may be sent.

    Args:
        spec: of the robot.
        boxed: its tip has to stay in the box.
    """

    def __init__(self, spec: ActionSpec, boxed: bool) -> None:
        self.spec = spec
        self.boxed = boxed
        self.slows = np.array([unit not in ('m', 'rad') for unit in spec.units or ('rad',) * 2])
        self.pushes = spec.units == KINDS['effort']
        """An effort is measured, and says nothing of where the next may begin."""
        self.last: np.ndarray | None = None
        self.paused = True
        """Something was between the last command and the next, so that the robot may have moved."""
        self.operated = self.perhaps = False
        """An operator has the robot, who may say nothing, so that it holds and may be moved."""
        self.forbidden = ''
        """Why the robot must hold."""
        self.events: deque[Any] = deque(maxlen=40)
        """What was judged, for whoever looks for the cause."""
        self.near: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque(maxlen=64)
        """Latest commands, with the smallest and the largest that the slew limit allowed."""

    def judge(self, command: np.ndarray, measured: np.ndarray | None, slack: float = 1.0) -> None:
        """Fail if a command must not be sent.

        Args:
            command: shape (2,).
            measured: what was measured last, None if nothing was, or nothing believable.
            slack: how many slew limits a robot that stops may take at once.
        """
        spec = self.spec
        self.events.append((command, measured, self.paused, self.forbidden))
        assert command.shape == (2,)
        assert np.isfinite(command).all()
        assert (command >= spec.lower).all(), 'below the limits'
        assert (command <= spec.upper).all(), 'above the limits'
        holds = self._holds(command, slack)
        assert holds or not self.forbidden, f'moved although {self.forbidden}'
        self._judge_step(command, measured, holds)
        self.perhaps = holds and (self.operated or self.paused or self.perhaps)
        self.paused = bool(holds and self.forbidden)
        self.last = command

    def _holds(self, command: np.ndarray, slack: float) -> bool:
        """Return whether a command repeats positions and slows everything else down."""
        if self.last is None:
            return False
        stays = command == self.last
        slower = (np.abs(command) <= np.abs(self.last)) & (command * self.last >= 0.0)
        gently = np.abs(command - self.last) <= slack * self.spec.max_step + EPSILON
        full = np.abs(command) <= np.maximum(np.abs(self.last) - self.spec.max_step, 0.0) + EPSILON
        return bool(np.where(self.slows, slower & gently & full, stays).all())

    def _judge_step(self, command: np.ndarray, measured: np.ndarray | None, holds: bool) -> None:
        """Fail if a command is too far from where its step may begin."""
        measures = bool(self.spec.measured_by) and not self.pushes
        begins = [] if self.paused and measures else [self.last]
        if self.pushes and self.spec.measured_by and self.last is None:
            begins = [np.zeros(2)]
        if measures and (self.paused or self.perhaps) and measured is not None:
            begins.append(measured)
        problems = [self._problem(command, begin) for begin in begins] or ['from nowhere']
        assert holds or '' in problems, '; '.join(problems)

    def _problem(self, command: np.ndarray, begin: np.ndarray | None) -> str:
        """Return what is wrong with a step, empty if nothing is."""
        spec = self.spec
        if begin is None:
            self.near.append((command, spec.lower, spec.upper))
            return ''
        low = np.clip(begin - spec.max_step, spec.lower, spec.upper)
        high = np.clip(begin + spec.max_step, spec.lower, spec.upper)
        self.near.append((command, low, high))
        if (command < low - EPSILON).any() or (command > high + EPSILON).any():
            return f'a step too far from {begin}'
        start = np.clip(begin, spec.lower, spec.upper)
        if spec.self_collision is not None:
            allowed_gap = min(spec.self_collision.distance, gap(begin), gap(start))
            if gap(command) < allowed_gap - 1e-5:
                return f'nearer to itself than {begin}'
        if self.boxed:
            allowed = np.maximum(excess(begin), excess(start))
            if (excess(command) > allowed + EPSILON).any():
                return f'out of the box, or further out than {begin}'
        return ''


class Day:
    """One robot and what happens to it.

    Args:
        seed: of everything that is drawn.
        folder: of the arm's model.
        kind: of the robot; empty draws one of `KINDS`.
    """

    def __init__(self, seed: int, folder: Path, kind: str = '') -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.kind = kind or str(rng.choice(list(KINDS)))
        self.spec = self._draw_spec(folder)
        self.judge = Judge(self.spec, self.kind == 'boxed')
        self.policy = LinearPolicy(make_metadata(exec_steps=4))
        self.policy.weights *= rng.choice([1.0, 4.0, 100.0])
        self.infer, self.policy.infer = self.policy.infer, self._infer  # type: ignore[method-assign]
        self.spoil = 0.0
        self.steps = int(rng.choice([1, 2, 4]))
        config = ControllerConfig(
            self.steps,
            (float(rng.choice([0.0, 0.05, 1.0])),),
            Splicing(
                prefetch_steps=0 if self.steps > 2 else int(rng.choice([0, 1])),
                chunk_blend_steps=int(rng.choice([0, 2])),
            ),
            explore=bool(rng.random() < 0.5),
            lockstep=False,
        )
        controller = config.build(self.policy, self.spec)
        self.said = Recorder()
        self.said.send_command = self._on_command  # type: ignore[method-assign]
        self.said.send_transition = self._on_transition  # type: ignore[method-assign]
        self.said.fault = self._on_fault  # type: ignore[method-assign]
        blend = BlendRamp(float(rng.choice([0.0, 0.3])))
        assembler = ObservationAssembler(CHANNELS)
        self.loop = RealTimeLoop(
            LoopParts(controller, assembler, blend, self.said, lambda: 0.0),
            PERIOD,
            RealTimeRules(bool(rng.random() < 0.7), 0.5, float(rng.choice([0.0, 2.0]))),
            self.said.slept.append,
            self._draw_preparation(controller.limiter.safety),
        )
        self.now = 100.0
        begin = self.spec.upper if self.kind == APART else np.zeros(2)
        self.position = np.clip(begin, self.spec.lower, self.spec.upper)
        self.measured: np.ndarray | None = None
        self.before: np.ndarray | None = None
        self.sequence = self.commands = 0
        self.episode = -1
        self.ticked = self.stopping = False
        self.late(False)

    def _draw_spec(self, folder: Path) -> ActionSpec:
        rng, box = self.rng, None
        if self.kind == 'boxed':
            box = WorkspaceSpec(str(folder / 'arm.urdf'), ('tip',), ('a', 'b'), BOX_LOW, BOX_HIGH)
        if self.kind == APART:
            return ActionSpec(
                ('a.position', 'b.position'),
                np.array([2.2, 1.85]),  # Within the post, where the base policy leads.
                np.array([2.8, 2.8]),
                np.full(2, rng.choice([0.01, 0.1])),
                MEASURED,
                units=('rad', 'rad'),
                start_limit=np.full(2, 100.0),
                self_collision=SelfCollisionSpec(Urdf('arm.urdf', two_links(), ('a', 'b')), 0.03),
            )
        half = rng.uniform(0.2, 3.0, 2)
        measures = self.kind == 'boxed' or (self.kind != 'unmeasured' and rng.random() < 0.7)
        return ActionSpec(
            ('a.position', 'b.position'),
            -half * rng.uniform(0.1, 1.0, 2),
            half,
            half * rng.choice([0.005, 0.05, 0.3]),
            MEASURED if measures else (),
            box,
            KINDS[self.kind],
            start_limit=np.full(2, rng.choice([0.5, 100.0])),
        )

    def _draw_preparation(self, safety: SafetyFilter) -> Preparation:
        """Return a way home for half of the arms that know where they are."""
        drawn = self.rng.random() < 0.5
        if self.kind != 'position' or not self.spec.measured_by or not drawn:
            return Preparation()
        goal = self.rng.uniform(0.5 * self.spec.lower, 0.5 * self.spec.upper)
        positions = dict(zip(self.spec.names, goal.tolist(), strict=True))
        home = home_of(HomeKeys(positions=positions, velocity_share=1.0), self.spec, PERIOD)
        return Preparation(GoHome(home, safety, PERIOD))

    # --- what the loop says

    def _infer(self, window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        chunk = self.infer(window, noise)
        if self.spoil:
            chunk[self.policy.calls % len(chunk)] = self.spoil
        return chunk

    def _on_command(self, command: np.ndarray, stamp: float, holding: bool) -> None:
        del stamp, holding
        assert self.loop.active, 'a command of an inactive loop'
        if self.loop.episode != self.episode:
            self.episode, self.judge.paused = self.loop.episode, True
        slack = np.inf if self.stopping else 1.0
        self.judge.judge(command, self.measured, slack)
        self.commands += 1
        self.sent = command

    def _on_transition(self, transition: Any) -> None:
        layout = self.loop.controller.layout
        np.testing.assert_array_equal(
            layout.decode(layout.encode(transition), layout.label).step, transition.step
        )
        assert np.abs(transition.residual_action).max() <= 1.0
        rows = transition.executed_action.reshape(self.steps, 2)
        base = transition.base_action.reshape(self.steps, 2)
        bound = self.loop.controller.bound.values
        for wanted, row in zip(base, rows, strict=True):
            if (row == wanted).all():
                continue
            for command, low, high in self.judge.near:
                # A row that was not reached keeps the plan, which no limit has touched.
                if command is row or (command == row).all():
                    limited = np.clip(np.clip(wanted, low, high), self.spec.lower, self.spec.upper)
                    of_residual = transition.source in (Source.RESIDUAL, Source.RANDOM)
                    reach = bound if of_residual else 0.0
                    near = (np.abs(row - limited) <= reach + EPSILON).all()
                    of_body = self.kind in ('boxed', APART)
                    if near or of_body or transition.source is Source.TAKEOVER:
                        break
            else:
                was_sent = any((command == row).all() for command, _, _ in self.judge.near)
                assert not was_sent, f'{transition.source} executed {row}, base {wanted}'

    def _on_fault(self, reason: str) -> None:
        self.said.faults.append(reason)
        self.deactivate()

    # --- what happens

    def deactivate(self) -> None:
        slept = len(self.said.slept)
        self.stopping = True
        self.loop.deactivate(self.now)
        self.stopping = False
        assert (len(self.said.slept) - slept) * PERIOD <= STOP_LIMIT_S + EPSILON
        last = self.judge.last
        assert last is None or not last[self.judge.slows].any(), f'still told {last}'
        self.judge.paused = True

    def late(self, late: bool) -> None:
        (self.policy.gate.clear if late else self.policy.gate.set)()
        self.loop.controller._chunk_timeout_s = 0.0 if late else 10.0

    def observe(self) -> None:
        """Measure the robot, or something else."""
        rng, kind = self.rng, self.rng.random()
        values, stamp = self.position, self.now
        if kind < 0.02:
            values = rng.choice([np.nan, np.inf, 1e6, 50.0, -50.0, 1e30], 2)
        elif kind < 0.04:
            values = values + rng.normal(0.0, 0.5, 2)
        elif kind < 0.05:
            values = rng.normal(size=int(rng.integers(0, 4)))
        elif kind < 0.07:
            stamp += float(rng.choice([-0.3, 0.1, 0.5, -0.1]))
        elif kind < 0.09:
            return
        self.loop.push_observation('arm', stamp, values)
        self.loop.push_observation('tool', stamp, rng.normal(size=1))

    def tick(self, dt: float) -> None:
        """Let a control step pass, and the robot go where it is told, if it can."""
        self.now += dt
        self.said.now = self.now
        self.observe()
        loop, judge = self.loop, self.judge
        if not loop.active:
            return
        if self.measured is not None:
            self.before = self.measured
        try:
            seen = loop.assembler.assemble(self.now)
            self.measured = seen[:2]
        except Exception:  # noqa: BLE001 - whatever it is, nothing is known.
            self.measured = None
        judge.paused |= not 0.0 <= dt <= 2.0 * PERIOD
        commanded = loop.in_episode or loop.homing or loop.taken_over
        judge.paused |= not commanded  # Whoever begins to move it begins where it is.
        judge.forbidden, judge.operated = self._forbidden(), loop.taken_over
        judge.paused |= bool(judge.forbidden)
        before, self.sent = self.commands, None
        loop.tick(self.now)
        assert self.commands <= before + 1 or not loop.active, 'two commands in one control step'
        if self.commands == before:
            judge.paused = True
        elif self.moves and self.sent is not None:
            self.position = np.where(judge.slows, self.sent, self.sent)

    def _forbidden(self) -> str:
        """Return why the robot must not move, by what is known before the control step."""
        loop, spec = self.loop, self.spec
        if loop.held:
            return 'an operator holds it'
        if loop.obstacles.stops:
            return 'a stop input forbids it'
        measured = self.measured
        if measured is None:
            return '' if loop.taken_over else 'nothing is measured'
        if not spec.measured_by:
            return ''
        outside = np.maximum(spec.lower - measured, measured - spec.upper)
        if (outside > spec.following_limit).any():
            return '' if loop.taken_over else f'{measured} cannot be true'
        last, judge = self.judge.last, self.judge
        commanded = loop.in_episode or loop.homing
        goes_on = not (judge.paused or judge.perhaps) and last is not None and commanded
        if goes_on and (np.abs(last - measured) > spec.following_limit).any():
            return 'it does not follow'
        leaps = self.before is not None and judge.paused
        if leaps and last is not None and not judge.pushes:
            apart = np.abs(measured - self.before) > spec.following_limit
            away = np.linalg.norm(measured - last) > spec.following_limit.min()
            return f'{measured} came after {self.before}' if apart.any() and away else ''
        return ''

    def happen(self) -> None:
        """Let one thing happen beside the control steps."""
        rng, loop = self.rng, self.loop
        what = int(rng.integers(0, 17))
        if what == 0:
            self.moves = bool(rng.random() < 0.7)
        elif what == 1:
            self.position = self.position + rng.normal(0.0, rng.choice([0.05, 1.0]), 2)
        elif what == 2:
            loop.held = bool(rng.random() < 0.3)
        elif what == 3:
            had = loop.taken_over
            loop.set_takeover(bool(rng.random() < 0.4))
            self.judge.paused |= had and not loop.taken_over
        elif what in (4, 5):
            values = rng.choice([rng.normal(), 1e30, np.nan, -3.0], int(rng.choice([2, 2, 2, 3])))
            loop.receive_takeover(np.asarray(values))
        elif what == 6:
            loop.obstacles.set_stop('safety', 'stop' if rng.random() < 0.3 else '')
        elif what == 7:
            self.late(bool(rng.random() < 0.3))
        elif what == 8:
            self.send_weights()
        elif what == 9:
            ends = [MARK_SUCCESS, MARK_FAILURE, END_EPISODE]
            loop.end_episode(ends[int(rng.integers(3))], self.now)
        elif what == 10:
            loop.receive_feedback(rng.choice([0.0, 1.0, np.nan, 1e30, self.now], 5))
        elif what == 11 and loop.active and rng.random() < 0.3:
            self.deactivate()
        elif what == 12:
            loop.controller.residual.enabled = bool(rng.random() < 0.8)
        elif what == 13:
            self.spoil = float(rng.choice([0.0, 0.0, 0.0, np.nan, np.inf, 1e30]))
        elif what == 14:
            loop.request_start()
        elif what == 15:  # Somebody brings it back.
            self.position, self.moves = rng.uniform(self.spec.lower, self.spec.upper), True
        elif what == 16:
            loop.request_home()
        if not loop.active and rng.random() < 0.3:
            loop.activate()
            self.before = self.measured = None
            self.judge.paused = True

    def send_weights(self) -> None:
        rng, layout = self.rng, self.loop.controller.layout
        self.sequence += int(rng.random() < 0.8)
        gain = float(rng.choice([0.1, 10.0, 1e3]))
        explores = Exploration(random_share=float(rng.choice([0.0, 0.5])))
        tensors = make_actor(layout, seed=self.sequence, gain=gain).to_numpy()
        message = encode_weights(tensors, WeightsHeader(1, self.sequence, explores))
        if rng.random() < 0.2:
            place = int(rng.integers(len(message)))
            message = message[:place] + bytes(rng.integers(0, 256, 4).tolist()) + message[place:]
        self.loop.receive_weights(message)
        self.loop.take_weights(wait=True)

    def run(self, steps: int) -> None:
        """Run control steps; fail with what happened."""
        self.moves = True
        self.loop.activate()
        for step in range(steps):
            try:
                if self.rng.random() < 0.15:
                    self.happen()
                jump = self.rng.random() < 0.004
                self.tick(float(self.rng.choice([0.12, 0.7, -10.0, 10.0])) if jump else PERIOD)
            except MalformedTransitionError:
                raise
            except AssertionError as error:
                raise AssertionError(f'{self.kind} robot, control step {step}: {error}') from error
        self.close()

    def close(self) -> None:
        self.policy.gate.set()
        self.loop.close()
        self.loop.controller.queue.close()
