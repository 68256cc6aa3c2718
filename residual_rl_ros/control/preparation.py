# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between two episodes: the robot goes home, then the scene is reset, then it may settle.

Nothing here moves a robot by itself: the loop asks for the next command, limits it as every other,
and asks for none while something else has the say.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.home import GoHome
from residual_rl_ros.control.reset_hook import ResetHook
from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.preparation_spec import BETWEEN_EPISODES, NEVER, ResetSpec


class _Reset(StrEnum):
    """How far the reset of the scene is."""

    DONE = ''
    DUE = 'the reset is due'
    RUNNING = 'resetting the scene'
    SETTLING = 'settling'
    FAILED = 'reset failed'


_AT_WORK = (_Reset.RUNNING, _Reset.SETTLING)


class Preparation:
    """What has to be done before an episode may begin.

    Args:
        home: leads the robot home; None: it stays where it is.
        reset: how the scene is reset; None: somebody sees to it.
        hook: does it; None: it is only waited for.
    """

    def __init__(
        self,
        home: GoHome | None = None,
        reset: ResetSpec | None = None,
        hook: ResetHook | None = None,
    ) -> None:
        self._home = home
        self._reset = reset
        self._hook = hook
        self._stage = _Reset.DONE
        self._since = 0.0
        self._last_command: Array | None = None
        self._home_due = self._home_asked = False
        self._at_once = False  # Else the reset waits until somebody wants an episode.
        self._paused = False
        self.homing = False
        """Whether the robot is on its way home."""
        self.fault = ''
        """Why the robot cannot get home."""
        self.failure = ''
        """Why the scene is not reset; `confirm` says that it is."""

    def forget(self) -> None:
        """Begin anew: nobody has asked for anything.

        A reset that goes on is given up, and is due before the next episode, as one that was due.
        One that has failed has still failed.
        """
        if self._stage in _AT_WORK:
            running, self._stage = self._stage is _Reset.RUNNING, _Reset.DUE
            if running and self._hook is not None and (problem := self._hook.cancel()):
                self._fail(problem)
        self._home_due = self._home_asked = self._at_once = self.homing = False
        self.fault = ''

    def end_episode(self, last: Array | None) -> None:
        """Say that an episode is over.

        Args:
            last: what the robot was told last, shape (m,); None: nothing.
        """
        self._last_command = last
        self._home_due |= self._goes_by_itself
        if self._reset is not None:
            self._stage, self._at_once = _Reset.DUE, True

    def request_home(self) -> str:
        """Go home as soon as nothing else has the say; return why not, empty if it will."""
        if self._home is None or self._home.spec.when == NEVER:
            return 'robot.home is not in the robot YAML, or its `when` is never'
        if self._stage in _AT_WORK:
            return f'{self._stage.value}: wait until that is done'
        self._home_asked = True
        return ''

    def confirm(self) -> None:
        """Say that the scene is ready, although its reset has failed."""
        if self._stage is _Reset.FAILED:
            self._stage, self.failure = _Reset.DONE, ''

    def pause(self, now: float) -> bool:
        """Say that the robot must not move: what was asked for is forgotten, what is due waits.

        Args:
            now: time [s].

        Returns:
            Whether the robot is on a way home that goes on later.
        """
        self._home_asked = False
        self.homing &= self._home_due
        self._paused = True
        self._watch_reset(now)
        return self.homing

    def interrupt(self, limiter: CommandLimiter, now: float, wanted: bool) -> None:
        """Give way to an operator, who holds or commands the robot.

        Args:
            limiter: knows where the robot is.
            now: time [s].
            wanted: somebody wants an episode.
        """
        self.pause(now)
        self.homing = False
        self._home_due = self._home_due or (wanted and self._may_leave)
        self._home_due &= not self._look(limiter)

    def shift(self, seconds: float) -> None:
        """Move all times, after a jump of the clock [s]; the way home begins anew in any case."""
        self._since += seconds

    @property
    def _goes_by_itself(self) -> bool:
        return self._home is not None and self._home.spec.when == BETWEEN_EPISODES

    @property
    def _may_leave(self) -> bool:
        """Whether the robot may go home by itself: not into a scene that somebody is busy with."""
        return self._goes_by_itself and self._stage in (_Reset.DONE, _Reset.DUE)

    @property
    def _leaves(self) -> bool:
        return self._home_due or self._home_asked

    @property
    def ready(self) -> bool:
        """Whether an episode may begin."""
        return not self._leaves and self._stage is _Reset.DONE

    @property
    def doing(self) -> str:
        """What goes on, empty if nothing is left to do."""
        if self.homing:
            return 'going home'
        return 'waiting to go home' if self._leaves else self.failure or self._stage.value

    def step(self, limiter: CommandLimiter, now: float, wanted: bool) -> Array | None:
        """Go on; return what to command, shape (m,), None for nothing.

        Args:
            limiter: knows where the robot is.
            now: time [s].
            wanted: somebody wants an episode.
        """
        self._watch_reset(now)
        command = self._go_home(limiter, now, wanted)
        free = command is None and not self._leaves
        if free and self._stage is _Reset.DUE and (wanted or self._at_once):
            self._begin_reset(now)
        return command

    def _look(self, limiter: CommandLimiter) -> bool:
        """Take in what the robot was told; return whether it is at home."""
        if limiter.last_command is not None:
            self._last_command = limiter.last_command
        if self._home is None:
            return False
        self._home.see(limiter.observation)
        return self._home.is_home(limiter.measured)

    def _go_home(self, limiter: CommandLimiter, now: float, wanted: bool) -> Array | None:
        home, measured, reference = self._home, limiter.measured, limiter.reference
        if home is None or measured is None or reference is None:
            return None
        at_home = self._look(limiter)
        self._home_due |= wanted and self._may_leave and not at_home
        if not self._leaves:
            return None
        command = home.step(reference) if self.homing and not self._paused else None
        if at_home and (command is None or np.array_equal(command, reference)):
            self._home_due = self._home_asked = self.homing = False
            return None
        if command is None:
            home.begin(measured, self._last_command, now)
            self.homing, self._paused = True, False
            command = home.step(reference)
        elif now > home.deadline:
            self.fault = home.problem(measured)
            return None
        return command

    def _begin_reset(self, now: float) -> None:
        self._stage, self._since = _Reset.RUNNING, now
        if self._hook is not None:
            self._hook.begin()

    def _watch_reset(self, now: float) -> None:
        """See whether the reset has ended, or takes too long."""
        if self._reset is None:
            return
        if self._stage is _Reset.RUNNING:
            outcome = '' if self._hook is None else self._hook.outcome()
            if outcome == '':
                self._stage, self._since = _Reset.SETTLING, now
            elif outcome is not None:
                self._fail(outcome)
            elif now - self._since > self._reset.timeout_s:
                assert self._hook is not None
                late = f'not done within {self._reset.timeout_s:g} s'
                self._fail('; '.join(filter(None, (late, self._hook.cancel()))))
        if self._stage is _Reset.SETTLING and now - self._since >= self._reset.settle_s:
            self._stage = _Reset.DONE

    def _fail(self, reason: str) -> None:
        assert self._hook is not None
        self._stage = _Reset.FAILED
        self.failure = (
            f'reset failed: {self._hook.name}: {reason}; call ~/start_episode when the scene is '
            'ready'
        )
