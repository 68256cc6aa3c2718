# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A real-time recording handed to the live loop tick by tick, with judgements that it lacks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from residual_rl_ros.bags.rebuild.messages import RawMessages, RecordedMessage, Role
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import END_EPISODE, MARK_FAILURE, MARK_SUCCESS, StepFeedback
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.errors import BagError, CommandError, FormatError
from residual_rl_ros.files.yaml_text import read_yaml
from residual_rl_ros.findings import Findings
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.command import CommandVector
from residual_rl_ros.robot.stamps import to_nanoseconds
from residual_rl_ros.transitions.transition import Source

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
        if takeover is None and (differs > 0.0).any() and self.holds(sent):
            self.abandon()  # The base was late, or an operator held the robot.
            self._holding = True
            self.limiter.interrupt()
            return self.limiter.hold()
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

    def holds(self, sent: Array) -> bool:
        """Return whether a command is the one with which the robot would slow down or stay at rest.

        Positions are held by the last command again, which a policy may want too: nobody can tell.
        """
        if not self.limiter.safety.action.goes_to_zero.any():
            return False
        hold = self.limiter.holding()
        return hold is not None and bool((np.abs(sent - hold) <= SAME * self._half_range).all())

    @property
    def _half_range(self) -> Array:
        """Half of the range of the actions that the base policy was trained on, shape (m,)."""
        low, high = np.array(self.layout.action_min), np.array(self.layout.action_max)
        half: Array = 0.5 * (high - low)
        return half


OUTCOMES = {'success': MARK_SUCCESS, 'failure': MARK_FAILURE, 'end': END_EPISODE}


@dataclass(frozen=True)
class Mark:
    """An operator's judgement, given by hand after the recording."""

    stamp: float
    """ROS time [s]."""
    feedback: StepFeedback


def read_marks(path: Path) -> tuple[Mark, ...]:
    """Read a YAML list of `{stamp: <ROS time in seconds>, outcome: success | failure | end}`.

    Raises:
        BagError: the file cannot be read or an entry is wrong.
    """
    try:
        entries = read_yaml(path)
        if not isinstance(entries, list):
            raise TypeError(f'the file is a {type(entries).__name__}')
        marks = tuple(Mark(float(entry['stamp']), OUTCOMES[entry['outcome']]) for entry in entries)
        if not all(math.isfinite(mark.stamp) for mark in marks):
            raise ValueError('a stamp is not finite')
        return marks
    except FormatError as error:
        raise BagError(f'cannot read marks {str(path)!r}: {error}') from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BagError(
            f'marks {str(path)!r}: {error}; expected lines of the form "- {{stamp: 1700000012.5, '
            f'outcome: {" | ".join(OUTCOMES)}}}"'
        ) from error


@dataclass(frozen=True)
class RealTimeRecording:
    """What is known of a recording in real time."""

    period_s: float
    """Time between two commands [s]."""
    pause_s: float
    """Commands further apart belong to different episodes [s]."""
    end_is_success: bool
    """An episode that a pause ends has succeeded."""
    marks: tuple[Mark, ...]
    """Judgements that it lacks."""


class RealTimeReplay:
    """Ticks a loop.

    Args:
        messages: of the robot.
        loop: active.
        recording: what is known of it.
        vector: reads commands.
        take: passes a message to the loop.
        answer: takes in the command of the tick that follows.
    """

    def __init__(
        self,
        messages: RawMessages,
        loop: RealTimeLoop,
        recording: RealTimeRecording,
        vector: CommandVector,
        take: Callable[[RecordedMessage], None],
        answer: Callable[[RecordedMessage, Array], None],
    ) -> None:
        self._commands = messages.of(Role.COMMAND)
        self._part = 0  # Of the recording: its clock may have been set back.
        self._feedback = _Ahead(messages.of(Role.FEEDBACK))
        self._others = _Ahead(messages.of(Role.CHANNEL, Role.TAKEOVER, Role.ACTIVE))
        self._path = messages.bag.path
        self._problems: Findings = messages.bag.problems
        self._loop = loop
        self._recording = recording
        self._marks = deque(sorted(recording.marks, key=lambda mark: mark.stamp))
        self._vector = vector
        self._began = math.inf  # When the first command of an incomplete vector was received.
        self._take = take
        self._answer = answer
        self._recorded = math.inf  # When the next command was: what came later waits for it.

    def ticks(self) -> Iterator[None]:
        """Replay all, step by step."""
        latest = -math.inf
        for received in self._commands:
            now = received.stamp
            if now == latest and received.raw.part == self._part:
                continue
            index = received.reading.command
            try:
                part = self._vector.readers[index].values(received.message)
            except CommandError:  # The survey has reported it.
                continue
            if received.time - self._began > 0.5 * self._recording.period_s:
                self._forget_part(received)
            self._began = min(self._began, received.time)
            values = self._vector.put(index, part)
            if values is None:
                continue
            self._began = math.inf
            if received.raw.part != self._part:
                self._recorded = math.inf
                self._finish(latest, latest + self._recording.pause_s)
                yield
                self._part, latest = received.raw.part, -math.inf
                self._began = math.inf
                for ahead in (self._feedback, self._others):
                    ahead.skip_to(self._part)
            self._recorded = received.time
            if now - latest > self._recording.pause_s:
                self._finish(latest, now)
                yield
            self._receive_until(now)
            self._answer(received, values)
            with self._not_beginning_in_a_hold(values):
                self._loop.tick(now)
            latest = now
            yield
        self._recorded = math.inf
        self._finish(latest, math.inf)
        yield

    @contextmanager
    def _not_beginning_in_a_hold(self, values: Array) -> Iterator[None]:
        """Let no episode begin with a command with which a robot comes to rest after the last."""
        rules, controller = self._loop.rules, self._loop.controller
        assert isinstance(controller, ReplayedController)
        moves = not (self._loop.in_episode or controller.limiter.at_rest)
        if moves and controller.holds(values):
            self._loop.rules = replace(rules, auto_start=False)
        try:
            yield
        finally:
            self._loop.rules = rules

    def _forget_part(self, received: RecordedMessage) -> None:
        """Drop commands of a control step of which another one is not recorded."""
        self._vector.forget()
        self._began = math.inf
        self._problems.add(
            self._path,
            'a control step without all its commands: one was lost, and the step is left out',
            topic=received.raw.topic.name,
            place=received.raw.place,
            kind='incomplete command',
        )

    def _receive_until(self, now: float) -> None:
        """Hand over what had been received by a time, and the judgements up to it."""
        limit = min(now, self._recorded)
        while True:
            # At the same time the observation is first: the feedback is about it.
            feedback, others = self._feedback.time(self._part), self._others.time(self._part)
            source = self._feedback if feedback < others else self._others
            due = min(feedback, others)
            if due == math.inf or due > limit:
                break
            self._judge_until(due)
            self._take(source.pop())
        self._judge_until(now)

    def _judge_until(self, now: float) -> None:
        """Hand over the marks up to a time."""
        while self._marks and self._marks[0].stamp <= now:
            self._judge()

    def _judge(self) -> None:
        """Hand over the next mark."""
        mark = self._marks.popleft()
        if not self._loop.end_episode(mark.feedback, mark.stamp):
            reason = f'the mark at {mark.stamp:.3f} s is not used: no episode is open then'
            self._problems.add(self._path, reason)

    def _finish(self, latest: float, until: float) -> None:
        """End an episode after its last command.

        Args:
            latest: time of that command [s].
            until: time of the next one: feedback before it judges the episode [s].
        """
        end = min(latest + self._recording.period_s, until)
        self._receive_until(end)
        if self._loop.in_episode:
            self._receive_judgement(until)
            if not self._loop.ending:
                success = self._recording.end_is_success
                self._loop.end_episode(MARK_SUCCESS if success else END_EPISODE, end)
            self._loop.tick(end)
        if until == math.inf:
            self._receive_until(until)

    def _receive_judgement(self, until: float) -> None:
        """Hand over the feedback and the marks of a pause, up to the first that ends the episode.

        An operator judges when the motion has stopped.
        """
        while not self._loop.ending:
            marked = self._marks[0].stamp if self._marks else math.inf
            feedback = self._feedback.time(self._part)
            if feedback < marked and feedback <= min(until, self._recorded):
                self._take(self._feedback.pop())
            elif self._marks and marked <= until:
                self._judge()
            else:
                return


class _Ahead:
    """Messages, of which the next one can be looked at."""

    def __init__(self, messages: Iterator[RecordedMessage]) -> None:
        self._messages = messages
        self.next = next(messages, None)

    def time(self, part: int) -> float:
        """Return when the next message of a part was received, infinity if there is none [s]."""
        if self.next is None or self.next.raw.part > part:
            return math.inf
        return self.next.time if self.next.raw.part == part else -math.inf

    def skip_to(self, part: int) -> None:
        """Go on to the first message of a part."""
        while self.next is not None and self.next.raw.part < part:
            self.pop()

    def pop(self) -> RecordedMessage:
        """Return the next message and go on."""
        received, self.next = self.next, next(self._messages, None)
        assert received is not None
        return received
