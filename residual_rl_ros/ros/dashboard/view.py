# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a robot and how old it is; knows no ROS and no page."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, MalformedTransitionError
from residual_rl_ros.ros.dashboard.history import Episodes, Motion, MotionHistory, Share
from residual_rl_ros.transitions.layout import TransitionLayout

ADVANTAGES = 600
"""Reports of the learner whose advantage is remembered."""


class Report(Protocol):
    """What a node has said of itself on `/diagnostics`."""

    @property
    def level(self) -> bytes:
        """0 fine, 1 warning, 2 error."""

    @property
    def message(self) -> str:
        """What is to be said."""

    @property
    def values(self) -> Mapping[str, str]:
        """The rest."""

    @property
    def received(self) -> float:
        """When it came, on the clock of the reports [s]."""


class Reports(Protocol):
    """The newest report of every node; `bringup.monitor.Monitor` is one."""

    def status(self, node: str) -> Report | None:
        """Return the newest report of a node, None before the first."""

    def age(self, node: str) -> float:
        """Return how old that is [s], infinite before the first."""

    def is_stale(self, node: str) -> bool:
        """Return whether it is too old to be believed."""


class Health(StrEnum):
    """How a node is."""

    GOOD = 'good'
    WARNING = 'warning'
    ERROR = 'error'
    DEAD = 'dead'
    """It was heard, and is not any more."""
    UNKNOWN = 'unknown'
    """It was never heard."""


@dataclass(frozen=True)
class NodeLine:
    """The state of a node in a line."""

    name: str
    health: Health
    age_s: float
    """Since its last report came; infinite before the first."""
    text: str

    @property
    def age_text(self) -> str:
        """The age as a person reads it."""
        if math.isinf(self.age_s):
            return 'never heard'
        return f'{self.age_s:.1f} s ago' if self.age_s < 60.0 else f'{self.age_s / 60:.0f} min ago'


@dataclass(frozen=True)
class GuardEvidence:
    """What the learner's report says of the guard; what it did not tell is None."""

    doubt: float | None
    """Its sum [nat]; a trial begins at `learner.guard.DOUBT`."""
    base_share: float | None
    """Share of episodes without residual that the robot is to draw."""
    rollbacks: int | None
    outcomes: str
    """Latest outcomes of the residual, 1 is success."""
    watches: str
    """`success` or `return`; `nothing` if it is off."""


class RobotView:
    """Collects what is heard of one robot; one thread may tell while another one looks.

    Args:
        reports: diagnostics of all nodes.
        policy: name of the policy node, with namespace, without the first `/`.
        learner: that of its learner.
        clock: monotonic time [s].
    """

    def __init__(
        self,
        reports: Reports,
        policy: str,
        learner: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy, self.learner = policy, learner
        self.episodes = Episodes()
        self.problem = ''
        """Why transitions cannot be shown; empty if they can."""
        self._reports = reports
        self._clock = clock
        self._history: MotionHistory | None = None
        self._heard = -math.inf
        self._advantages: deque[tuple[float, float]] = deque(maxlen=ADVANTAGES)
        self._lock = threading.Lock()

    def hear_layout(self, text: str) -> None:
        """Take in the layout of the transitions that follow."""
        try:
            layout = TransitionLayout.from_yaml(text)
        except ConfigError as error:
            self.problem = str(error)
            return
        with self._lock:
            if self._history is None or self._history.layout != layout:
                self._history = MotionHistory(layout)
                self.problem = ''

    def hear_transition(self, data: npt.ArrayLike, label: str) -> None:
        """Take in a transition; one that is not of the layout is only named."""
        with self._lock:
            if self._history is None:
                return
            try:
                transition = self._history.layout.decode(data, label)
            except MalformedTransitionError as error:
                self.problem = str(error)
                return
            self.problem = ''
            self._heard = self._clock()
            self.episodes.take(transition)
            self._history.take(transition)

    def nodes(self) -> list[NodeLine]:
        """Return the lines of policy and learner."""
        return [self.line(self.policy), self.line(self.learner)]

    def line(self, node: str) -> NodeLine:
        """Return the line of a node; of a dead one it says that what follows is the past."""
        report, age = self._reports.status(node), self._reports.age(node)
        if report is None:
            return NodeLine(node, Health.UNKNOWN, math.inf, 'nothing heard yet')
        if self._reports.is_stale(node):
            text = f'NOTHING HEARD FOR {age:.0f} s; it was: {report.message}'
            return NodeLine(node, Health.DEAD, age, text)
        health = (Health.GOOD, Health.WARNING, Health.ERROR)[min(report.level[0], 2)]
        return NodeLine(node, health, age, report.message)

    def value(self, node: str, key: str) -> str | None:
        """Return a value that may be believed now: None if it is unknown or too old."""
        report = self._reports.status(node)
        if report is None or self._reports.is_stale(node):
            return None
        return report.values.get(key)

    def number(self, node: str, key: str) -> float | None:
        """Return such a value as a number, None if it is none."""
        text = self.value(node, key)
        try:
            number = float(text or 'nan')
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def switch(self, node: str, key: str) -> bool | None:
        """Return such a value as a switch, None if that is unknown."""
        return {'True': True, 'False': False}.get(self.value(node, key) or '')

    def state(self) -> str:
        """Return what the robot does, in a word or two for everybody in the room."""
        line = self.line(self.policy)
        if line.health is Health.UNKNOWN:
            return 'NOT HEARD YET'
        if line.health is Health.DEAD:
            return f'DEAD FOR {line.age_s:.0f} s'
        if self.value(self.policy, 'stops'):
            return 'STOPPED BY AN INPUT'
        for key, text in (('held', 'HELD'), ('takeover', 'TAKEOVER')):
            if self.switch(self.policy, key):
                return text
        if line.health is Health.ERROR:
            return 'FAULT'
        if self.switch(self.policy, 'active') is False:
            return 'INACTIVE'
        if self.switch(self.policy, 'waits_to_start'):
            return 'WAITS TO START'
        if preparing := self.value(self.policy, 'preparing'):
            return preparing.partition(':')[0].upper()
        if self.switch(self.policy, 'in_episode') is False:
            return 'READY, NO EPISODE'
        return 'RUNNING' if self.switch(self.policy, 'residual_on') else 'RUNNING, BASE ALONE'

    def motion(self) -> Motion | None:
        """Return base and executed action, None before the layout."""
        with self._lock:
            return None if self._history is None else self._history.motion()

    def motion_age(self) -> float:
        """Return how old the newest transition is [s], infinite before the first."""
        return self._clock() - self._heard

    def shares(self) -> list[Share]:
        """Return the residual as a share of its bound, of every action that has one."""
        with self._lock:
            return [] if self._history is None else self._history.shares()

    def curve(self, residual: bool) -> list[tuple[int, float]]:
        """Return the success of the residual or of the base, see `Episodes.curve`."""
        with self._lock:
            return self.episodes.curve(residual)

    def success_text(self, residual: bool) -> str:
        """Return the success over the latest episodes, as a person reads it."""
        with self._lock:
            successes, number = self.episodes.latest(residual)
        return f'{successes} of {number}' if number else 'none yet'

    def advantage(self) -> float | None:
        """Return by how much the critics prefer the actor's mean to the base action, if told."""
        policy, base = (self.number(self.learner, key) for key in ('q_policy', 'q_base'))
        return None if policy is None or base is None else policy - base

    def look(self) -> None:
        """Remember the advantage of a new report."""
        report, advantage = self._reports.status(self.learner), self.advantage()
        with self._lock:
            known = self._advantages and report and self._advantages[-1][0] >= report.received
            if report is not None and advantage is not None and not known:
                self._advantages.append((report.received, advantage))

    def advantages(self) -> Sequence[tuple[float, float]]:
        """Return the advantages that were remembered: pairs of time [s] and advantage."""
        with self._lock:
            return list(self._advantages)

    def guard(self) -> GuardEvidence:
        """Return the guard's evidence."""
        rollbacks = self.number(self.learner, 'rollbacks')
        return GuardEvidence(
            self.number(self.learner, 'guard_statistic'),
            self.number(self.learner, 'guard_base_share'),
            None if rollbacks is None else int(rollbacks),
            self.value(self.learner, 'residual_outcomes') or '',
            self.value(self.learner, 'guard_watches') or '',
        )

    def summary(self) -> str:
        """Return a line for a terminal: state, success of both, share of the bound, advantage."""
        parts = [
            self.state(),
            f'base {self.success_text(False)}',
            f'base + residual {self.success_text(True)}',
        ]
        shares = self.shares()
        if shares:
            parts.append(f'residual {max(share.executed for share in shares):.0%} of its bound')
        advantage = self.advantage()
        if advantage is not None:
            parts.append(f'advantage {advantage:+.3g}')
        return ', '.join(parts)
