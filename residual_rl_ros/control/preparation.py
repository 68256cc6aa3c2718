# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between two episodes: the robot goes home, then the scene is reset, then it may settle.

Nothing here moves a robot by itself: the loop asks for the next command, limits it as every other,
and asks for none while something else has the say.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from contextlib import suppress
from enum import StrEnum
from os import killpg
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import clamp
from residual_rl_ros.robot.preparation import BETWEEN_EPISODES, NEVER, HomeSpec, ResetSpec

Array = npt.NDArray[np.float64]
SAID = 200
"""So many characters are told of what a program that failed has printed last."""


class GoHome:
    """Leads a robot home: straight in its actions, with a trapezoid of velocity.

    Each step goes on from the last command, so that a step that was cut short is not made up for.

    Args:
        spec: where to, and how fast.
        safety: the limits.
        period_s: control period [s].

    Raises:
        ConfigError: home is outside of the workspace, or links are too near one another there.
    """

    def __init__(self, spec: HomeSpec, safety: SafetyFilter, period_s: float) -> None:
        self.spec = spec
        """Where it leads to."""
        self.deadline = np.inf
        """When it must have arrived [s]."""
        self._action = safety.action
        self._period = period_s
        self._gain = 1.0 if spec.acceleration_s == 0.0 else period_s / spec.acceleration_s
        """Share of the largest velocity that is gained in a control step, at the most."""
        self._velocity = 0.0
        """Share of the largest velocity."""
        self._goal = spec.goal
        self._led = ~np.isnan(spec.goal)
        problem = safety.body_problem(spec.goal) if self._led.all() else ''
        if problem:
            raise ConfigError(f'robot.home.positions {problem}; change one of them')

    def is_home(self, measured: Array | None) -> bool:
        """Return whether a robot is at home.

        Args:
            measured: where it is, shape (m,); None if nobody knows.
        """
        # An action that stays has no goal: NaN is not larger than anything.
        far = None if measured is None else np.abs(measured - self.spec.goal) > self.spec.tolerance
        return far is not None and not far.any()

    def begin(self, measured: Array, told: Array | None, now: float) -> None:
        """Set out.

        Args:
            measured: where the robot is, shape (m,).
            told: what it was told last, which an action without a home is told on: a gripper keeps
                its grip; None: nobody commands it.
            now: time [s].
        """
        staying = clamp(measured if told is None else told, self._action.lower, self._action.upper)
        staying = np.where(self._action.goes_to_zero, 0.0, staying)
        self._goal = np.where(self._led, self.spec.goal, staying)
        self._velocity = 0.0
        way_s, rise_s = self._remaining(measured) * self._period, self.spec.acceleration_s
        needed_s = way_s + rise_s if way_s >= rise_s else 2.0 * float(np.sqrt(way_s * rise_s))
        self.deadline = now + needed_s + self.spec.timeout_s

    def pause(self) -> None:
        """Say that the robot stands still, or is moved by somebody else."""
        self._velocity = 0.0

    def _remaining(self, position: Array) -> float:
        """Return the way that is left, in control steps at the largest velocity."""
        ways = np.abs(self._goal - position) / self.spec.max_step
        return float(ways[self._led].max())

    def step(self, position: Array) -> Array:
        """Return what to command next, shape (m,).

        Args:
            position: where the step begins, shape (m,).
        """
        remaining = self._remaining(position)
        half = 0.5 * self._gain
        stopping = np.sqrt(half * half + 2.0 * self._gain * remaining) - half
        self._velocity = min(self._velocity + self._gain, 1.0, float(stopping))
        if self._velocity >= remaining:
            return self._goal
        moved = position + self._velocity / remaining * (self._goal - position)
        command: Array = np.where(self._led, moved, self._goal)
        return command

    def problem(self, measured: Array) -> str:
        """Return which action has not arrived, and where it is instead.

        Args:
            measured: where the robot is, shape (m,).
        """
        goal, tolerance = self.spec.goal, self.spec.tolerance
        index = int(np.nanargmax(np.abs(measured - goal) / tolerance))
        return (
            f'not home in time: {self._action.names[index]!r} is at {measured[index]:.4g}, '
            f'expected {goal[index]:.4g} give or take {tolerance[index]:.4g}; clear the way, or '
            'change robot.home'
        )


class ResetHook(Protocol):
    """Resets a scene, while control goes on."""

    name: str
    """What it is, for messages."""

    def begin(self) -> None:
        """Begin, without waiting."""

    def outcome(self) -> str | None:
        """Return None while it goes on, empty when it is done, and else why it failed."""

    def cancel(self) -> None:
        """Give up."""


class CommandHook:
    """Resets a scene by a program.

    Args:
        command: the program, and its arguments.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self.name = f'robot.reset.command {command[0]!r}'
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None
        self._refused = ''

    def begin(self) -> None:
        """Start the program."""
        self._refused, self._printed = '', tempfile.TemporaryFile()  # noqa: SIM115 - `_close` does.
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._refused = f'{error.strerror or error}'
            self._close()

    def outcome(self) -> str | None:
        """Return how it ended; see `ResetHook`."""
        if self._process is None:
            return self._refused
        code = self._process.poll()
        if code is None:
            return None
        said = self._last_line()
        self._close()
        return '' if code == 0 else f'ended with code {code}{said}'

    def cancel(self) -> None:
        """Kill the program, with what it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._close()

    def _last_line(self) -> str:
        assert self._printed is not None
        self._printed.seek(max(self._printed.seek(0, 2) - 10 * SAID, 0))
        lines = self._printed.read().decode(errors='replace').split('\n')
        last = next((line.strip() for line in reversed(lines) if line.strip()), '')
        return f': {last[:SAID]}' if last else ''

    def _close(self) -> None:
        self._process = None
        if self._printed is not None:
            self._printed.close()
            self._printed = None


class _Reset(StrEnum):
    """How far the reset of the scene is."""

    DONE = ''
    DUE = 'the reset is due'
    RUNNING = 'resetting the scene'
    SETTLING = 'settling'
    FAILED = 'reset failed'


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
        self._home_due = False
        self.homing = False
        """Whether the robot is on its way home."""
        self.fault = ''
        """Why the robot cannot get home."""
        self.failure = ''
        """Why the scene is not reset; `confirm` says that it is."""

    def forget(self) -> None:
        """Begin anew: nothing is due, and what goes on is given up."""
        if self._stage is _Reset.RUNNING and self._hook is not None:
            self._hook.cancel()
        self._stage = _Reset.DONE
        self._home_due = self.homing = False
        self.fault = self.failure = ''

    def end_episode(self) -> None:
        """Say that an episode is over."""
        self._home_due |= self._goes_by_itself
        if self._reset is not None:
            self._stage = _Reset.DUE

    def request_home(self) -> str:
        """Go home as soon as nothing else has the say; return why not, empty if it will."""
        if self._home is None or self._home.spec.when == NEVER:
            return 'robot.home is not in the robot YAML, or its `when` is never'
        self._home_due = True
        return ''

    def confirm(self) -> None:
        """Say that the scene is ready, although its reset has failed."""
        if self._stage is _Reset.FAILED:
            self._stage, self.failure = _Reset.DONE, ''

    def pause(self) -> None:
        """Say that the robot stands still although it is on its way."""
        if self._home is not None:
            self._home.pause()

    def interrupt(self) -> None:
        """Give way to an operator: what was asked for is forgotten, what must be done waits."""
        self.homing = False
        self._home_due &= self._goes_by_itself

    def shift(self, seconds: float) -> None:
        """Move all times, after a jump of the clock [s]."""
        self._since += seconds
        if self._home is not None:
            self._home.deadline += seconds

    @property
    def _goes_by_itself(self) -> bool:
        return self._home is not None and self._home.spec.when == BETWEEN_EPISODES

    @property
    def ready(self) -> bool:
        """Whether an episode may begin."""
        return not self._home_due and self._stage is _Reset.DONE

    @property
    def doing(self) -> str:
        """What goes on, empty if nothing is left to do."""
        if self.homing:
            return 'going home'
        return 'waiting to go home' if self._home_due else self.failure or self._stage.value

    def step(self, limiter: CommandLimiter, now: float, wanted: bool) -> Array | None:
        """Go on; return what to command, shape (m,), None for nothing.

        Args:
            limiter: knows where the robot is.
            now: time [s].
            wanted: somebody wants an episode.
        """
        command = self._go_home(limiter, now, wanted)
        if command is None and not self._home_due:
            self._reset_scene(now)
        return command

    def _go_home(self, limiter: CommandLimiter, now: float, wanted: bool) -> Array | None:
        home, measured, reference = self._home, limiter.measured, limiter.reference
        if home is None or measured is None or reference is None:
            return None
        at_home = home.is_home(measured)
        self._home_due |= wanted and self._goes_by_itself and not at_home
        if not self._home_due:
            return None
        command = home.step(reference) if self.homing else None
        if at_home and (command is None or np.array_equal(command, reference)):
            self._home_due = self.homing = False
            return None
        if not self.homing:
            home.begin(measured, limiter.last_command, now)
            self.homing = True
            command = home.step(reference)
        elif now > home.deadline:
            self.fault = home.problem(measured)
            return None
        return command

    def _reset_scene(self, now: float) -> None:
        """Begin, watch or end the reset of the scene."""
        if self._reset is None:
            return
        if self._stage is _Reset.DUE:
            self._stage, self._since = _Reset.RUNNING, now
            if self._hook is not None:
                self._hook.begin()
        if self._stage is _Reset.RUNNING:
            outcome = '' if self._hook is None else self._hook.outcome()
            if outcome == '':
                self._stage, self._since = _Reset.SETTLING, now
            elif outcome is not None:
                self._fail(outcome)
            elif now - self._since > self._reset.timeout_s:
                assert self._hook is not None
                self._hook.cancel()
                self._fail(f'not done within {self._reset.timeout_s:g} s')
        if self._stage is _Reset.SETTLING and now - self._since >= self._reset.settle_s:
            self._stage = _Reset.DONE

    def _fail(self, reason: str) -> None:
        assert self._hook is not None
        self._stage = _Reset.FAILED
        self.failure = (
            f'reset failed: {self._hook.name}: {reason}; call ~/start_episode when the scene is '
            'ready'
        )
