# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the next command may begin: at the last one or, after a pause, where the robot is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ObservationError, UnsafeCommandError
from residual_rl_ros.numerics import Array, Mask, clamp


class CommandLimiter:
    """Passes commands through the safety filter and remembers the last one.

    A step is counted from the last command while commands follow one another. After anything else
    (activation, the start of an episode, a hold, a takeover, a missed control step) the robot may
    have been moved: the step is counted from its measurement. A gripper keeps its grip: it goes on
    from the last command, unless it has been opened since. A robot that measures nothing goes on
    from the last command that was published, across episodes and activations. So do increments and
    efforts, which begin at zero: what is measured of them is another thing.

    Args:
        safety: last filter before the robot.
        observation_names: where the measured positions of the actions are found.
    """

    def __init__(self, safety: SafetyFilter, observation_names: Sequence[str]) -> None:
        action = safety.action
        self.safety = safety
        indices = [observation_names.index(name) for name in action.measured_by]
        self._indices = np.array(indices, dtype=np.intp)
        self._near = action.following_limit.min() ** 2
        """Squared distance up to which a robot follows."""
        self._grips = np.isin(np.arange(action.size), action.grippers)
        self._has_grips = bool(self._grips.any())
        self.slows_down = bool(action.goes_to_zero.any())
        """Whether a hold changes the command of some action: it goes to zero."""
        self._rest = action.hold_command
        self._tracked = action.is_tracked
        self._all_tracked = bool(self._tracked.all())
        self.observation: Array | None = None
        """What is observed, shape (n,), None if nobody knows."""
        self._measured: Array | None = None
        self._sample: Array | None = None  # The newest, believed or not, and the one before.
        self._before: Array | None = None
        self._last: Array | None = None
        self._nearest: Array = np.full(action.size, np.inf)  # So near it has come since.
        self._interrupted = self._released = True
        self._follows = False
        self.overridden = False
        """Whether the last command was an operator's."""

    def observe(self, observation: Array | None) -> None:
        """Take in where the robot is.

        Args:
            observation: shape (n,); None if nobody knows.
        """
        self._follows, self.observation = False, observation
        if observation is None or not self._indices.size:
            self._measured = None
            return
        self._measured = observation[self._indices]
        self._before, self._sample = self._sample, self._measured
        if not self._released and self._last is not None:
            distance = self.safety.difference(self._last, self._measured)
            # Then each action follows, and is inside of the limits as far as it must be.
            self._follows = bool(distance.dot(distance) < self._near)
            if self._has_grips:
                self._nearest = np.minimum(self._nearest, np.abs(distance))

    def begin(self) -> None:
        """Say that commands begin: what was measured so far is old, and nobody commands the robot.

        The robot may have been moved since the last command.
        """
        self.observe(None)
        self._before = self._sample = None
        self.release()

    def interrupt(self) -> None:
        """Say that the robot may be moved before the next command."""
        self._interrupted = True

    def release(self) -> None:
        """Say that nobody commands the robot: until somebody does, there is nothing to hold.

        One that has not come to rest goes on slowing down.
        """
        self.overridden = False
        self._interrupted = True
        self._released |= self.at_rest

    @property
    def continues(self) -> bool:
        """Whether the next command goes on from the last one."""
        return not self._interrupted

    @property
    def measured(self) -> Array | None:
        """Where the robot is, shape (m,), None if nobody knows."""
        return self._measured

    @property
    def last_command(self) -> Array | None:
        """What the robot is told, shape (m,), None if nobody commands it."""
        return None if self._released else self._last

    @property
    def reference(self) -> Array | None:
        """Where the step of the next command begins, shape (m,); None if that is not known."""
        if not (self._interrupted and self._indices.size):
            return self._last
        last, reference = self.last_command, self._measured
        if reference is not None and last is not None and self._has_grips:
            away = np.abs(self.safety.difference(last, reference))
            grips = self._grips & (away <= self._nearest + self.safety.action.max_step)
            reference = np.where(grips, last, reference)
        if reference is not None and not self._all_tracked:
            rest = np.zeros(len(reference)) if self._last is None else self._last
            reference = np.where(self._tracked, reference, rest)
        return reference

    @property
    def knows_where(self) -> bool:
        """Whether it is known where the next command begins, if that can be measured at all."""
        return self.reference is not None or not self._indices.size

    @property
    def at_rest(self) -> bool:
        """Whether the robot stays as it is without another command."""
        last = self._last
        if last is None:
            return True
        if self._rest is not None:
            return bool((last == self._rest).all())
        return not self.slows_down or not last[self.safety.action.goes_to_zero].any()

    def check_measured(self) -> None:
        """Refuse a measurement that no robot inside its limits can have.

        Raises:
            ObservationError: it is further outside of the limits than `following_limit`, or no
                orientation.
        """
        if self._measured is None:
            return
        # First: numbers of any size mean some orientation.
        for orientation in self.safety.orientations:
            if problem := orientation.measured_problem(self._measured):
                raise ObservationError(f'{problem}: check the sensor')
        if self._follows:
            return
        action = self.safety.action
        outside = self.safety.excess(self._measured) > action.following_limit
        if outside.any():
            index = int(np.argmax(outside))
            raise ObservationError(
                f'{action.measured_by[index]} is {self._measured[index]:.6g}, expected '
                f'{action.lower[index]:.6g} to {action.upper[index]:.6g}, give or take '
                f'{action.following_limit[index]:.6g}: check the sensor, or raise '
                'robot.action.following_limit'
            )

    def leap(self) -> str:
        """Return which action the next command may not begin at, empty if there is none.

        Where the next command would begin at a measurement, that must be where the one before was,
        or within `following_limit` of it: one wrong sample inside the limits is no place to begin.
        """
        measured, before, action = self._measured, self._before, self.safety.action
        if not self._interrupted or self._follows or measured is None or before is None:
            return ''
        far = np.abs(self.safety.difference(measured, before)) > action.following_limit
        if not far.any():
            return ''
        index = int(np.argmax(far))
        return (
            f'{action.measured_by[index]} went from {before[index]:.4g} to {measured[index]:.4g} '
            f'in a control step, further than following_limit {action.following_limit[index]:.4g}: '
            'check the sensor'
        )

    def lagging(self) -> Mask:
        """Return which actions are not followed by their measurements, shape (m,)."""
        last, action = self.last_command, self.safety.action
        if self._follows or self._measured is None or last is None:
            return np.zeros(action.size, dtype=np.bool_)
        return np.abs(self.safety.difference(last, self._measured)) > action.following_limit

    def following_error(self) -> str:
        """Return which action is not followed by its measurement, empty if all are.

        Of those that are tracked: see `ActionSpec.is_tracked`.
        """
        last, measured, far = self.last_command, self._measured, self.lagging()
        if last is None or measured is None or not far.any():
            return ''
        action = self.safety.action
        index = int(np.argmax(far))
        return (
            f'{action.names[index]!r} was told {last[index]:.4g} and is at '
            f'{measured[index]:.4g}, further than following_limit '
            f'{action.following_limit[index]:.4g}: the robot does not follow'
        )

    def start_error(self, command: Array) -> str:
        """Return which action begins too far from its measurement, empty if none does.

        Args:
            command: what an episode's first control step wants, shape (m,).
        """
        if self._measured is None:
            return ''
        action = self.safety.action
        command = clamp(command, action.lower, action.upper)
        far = np.abs(self.safety.difference(command, self._measured)) > action.start_limit
        if not far.any():
            return ''
        index = int(np.argmax(far))
        return (
            f'{action.names[index]!r} is at {self._measured[index]:.4g}, and the first command is '
            f'{command[index]:.4g}, further than start_limit {action.start_limit[index]:.4g}'
        )

    def limit(self, command: Array, base: Array | None = None) -> Array:
        """Return a command as it may be sent, shape (m,), without sending it.

        Args:
            command: wanted command, shape (m,).
            base: the base action in it; None limits the command as a whole.

        Raises:
            UnsafeCommandError: nothing may be sent.
        """
        if not self.knows_where:
            raise UnsafeCommandError(
                f'{", ".join(self.safety.action.measured_by)} not measured; holding'
            )
        goes_on = not self._interrupted or not self._indices.size
        return self.safety.apply(command, self.reference, base, passed=goes_on)

    def commit(self, command: Array, overridden: bool = False) -> Array:
        """Remember a command that is sent, and return it.

        Args:
            command: shape (m,).
            overridden: it is an operator's.
        """
        self._last, self.overridden = command, overridden
        if self._measured is not None and self._has_grips:
            self._nearest = np.abs(self.safety.difference(command, self._measured))
        self._interrupted = self._released = False
        return command

    def override(self, command: Array) -> Array:
        """Return an operator's command, limited, shape (m,).

        Raises:
            UnsafeCommandError: nothing may be sent.
        """
        return self.commit(self.limit(command), overridden=True)

    def hold(self, within_steps: float = np.inf) -> Array | None:
        """Return the command that holds the robot, shape (m,), None if nobody commands it.

        The next command goes on from it, unless `interrupt` says that the robot may be moved.

        Args:
            within_steps: control steps in which the robot must be at rest.
        """
        if (command := self.holding(within_steps)) is not None:
            self._last = command
        return command

    def holding(self, within_steps: float = np.inf) -> Array | None:
        """Return what `hold` would, without sending it.

        Positions are told again. Everything else takes one step of slowing down, at the slew limit
        or, where that takes longer than it may, faster. Discrete actions hold by `hold_action`.
        """
        last = self.last_command
        if last is not None and self._rest is not None:
            return self._rest
        if last is None or not self.slows_down:
            return last
        goes_to_zero = self.safety.action.goes_to_zero
        slower = self.safety.apply(np.where(goes_to_zero, 0.0, last), last, passed=True)
        longest = last * (1.0 - 1.0 / within_steps)
        faster: Array = np.where(goes_to_zero & (np.abs(longest) < np.abs(slower)), longest, slower)
        return faster


def start_reference(safety: SafetyFilter, measured: Array, last: Array | None) -> Array:
    """Return where whoever begins to command a robot goes on, shape (m,).

    What was told last counts where the robot follows it: a gripper keeps its grip.

    Args:
        safety: the limits.
        measured: where the robot is, shape (m,).
        last: the last command, shape (m,); None: none.
    """
    measured = np.where(safety.action.is_tracked, measured, 0.0)
    if last is None:
        return measured
    follows = np.abs(safety.difference(last, measured)) <= safety.action.following_limit
    for each in safety.action.orientations:  # Half of one and half of another are a third.
        places = [index for index in each if index >= 0]
        follows[places] = follows[places].all()
    return np.where(follows, last, measured)
