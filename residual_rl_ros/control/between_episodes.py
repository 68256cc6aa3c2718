# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real time outside of episodes: the way to a start, an operator's commands, and rest.

An episode begins when it is wanted, robot and scene are prepared, and its first command is near.
"""

from __future__ import annotations

from residual_rl_ros.control.gates import HoldWatch, RealTimeRules, StartGate
from residual_rl_ros.control.obstacles import Obstacles
from residual_rl_ros.control.policy_loop import Answer, LoopParts, PolicyLoop
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.errors import BasePolicyError, UnsafeCommandError
from residual_rl_ros.numerics import Array


class BetweenEpisodes(PolicyLoop):
    """Moves a robot that no policy moves, and lets episodes begin.

    Args:
        parts: what it is put together from.
        rules: what may change while the robot runs.
        preparation: what is done between episodes; None: nothing.
    """

    def __init__(
        self, parts: LoopParts, rules: RealTimeRules, preparation: Preparation | None = None
    ) -> None:
        super().__init__(parts)
        self.rules = rules
        self.preparation = preparation or Preparation()
        """What is done between episodes."""
        self.obstacles = Obstacles(self.controller.limiter)
        """Why the robot must not move."""
        self._gate, self._holding = StartGate(), HoldWatch()
        self._externally_moved = False  # By an operator or on the way home.

    def _forget_requests(self) -> None:
        self._gate, self._holding = StartGate(), HoldWatch()
        self.obstacles.reset()
        self.preparation.forget()
        self._externally_moved = False

    def set_held(self, held: bool) -> Answer:
        """Hold the robot, whatever else it is told, or let it go."""
        self.held = held
        return Answer(True, 'holding' if held else 'released')

    def request_start(self) -> Answer:
        """Start an episode, or let go one that waits to, or whose scene could not be reset."""
        if self.obstacles.stops:
            return Answer(False, '; '.join(self.obstacles.stops.values()))
        far, failed = self._gate.waits, bool(self.preparation.failure)
        if not self._gate.request(self.active and not self.in_episode):
            return Answer(False, 'inactive or in an episode already')
        self.preparation.confirm()
        doing = self.preparation.doing
        if far:
            but = ', although the first command is far from the robot'
        elif failed:
            but = ', although the reset of the scene has failed'
        else:
            but = f'; first: {doing}' if doing else ''
        return Answer(True, f'starting{but}')

    def request_home(self) -> Answer:
        """Go home, outside of an episode."""
        for forbidden, reason in (
            (not self.active, 'inactive: activate the node first'),
            (self.in_episode, 'in an episode: end it first'),
            (self.held, 'held: release the hold first'),
            (self._takeover_active, 'an operator has the robot: release the takeover first'),
            (bool(self.obstacles.stops), '; '.join(self.obstacles.stops.values())),
        ):
            if forbidden:
                return Answer(False, reason)
        refused = self.preparation.request_home()
        return Answer(not refused, refused or 'going home')

    @property
    def waits_to_start(self) -> bool:
        """Whether an episode waits because its first command is too far from the robot."""
        return self._gate.waits

    def _prepare(self, now: float) -> bool:
        """Bring robot and scene to where an episode begins; return whether that goes on."""
        preparation, limiter = self.preparation, self.controller.limiter
        wanted = self._gate.wanted(self.rules)
        if self.held or self._takeover_active:
            preparation.interrupt(limiter, now, wanted)
        elif leap := limiter.leap():  # No way begins at one wrong sample.
            if wanted or preparation.doing:
                self._callbacks.warn(leap)
            self._idle(now)
            return True
        else:
            command = preparation.step(limiter, now, wanted)
            if preparation.fault:
                self._callbacks.fault(preparation.fault)
                return True
            if command is not None:
                self._externally_moved = True
                self._send_external(now, command)
                return True
            if preparation.failure:
                self._callbacks.warn(preparation.failure)
        if not preparation.ready:
            self._idle(now)
        return not preparation.ready

    def _idle(self, now: float) -> None:
        """Between episodes, let an operator move the robot; else let it come to rest."""
        limiter = self.controller.limiter
        if not self._externally_moved:
            limiter.release()
        was_guided, begins = self._externally_moved, not self._externally_moved
        self._externally_moved = self._commanding and not (begins and limiter.leap())
        if self._externally_moved:
            self._send_external(now)
        elif was_guided or not limiter.at_rest:
            self._send_hold(now)

    def _send_external(self, now: float, home: Array | None = None) -> None:
        """Send an operator's command, or one of the way home, where there is nothing to decide."""
        limiter, command = self.controller.limiter, self._takeover if home is None else home
        assert command is not None
        try:
            self._publish(limiter.commit(limiter.limit(command), overridden=home is None), now)
        except UnsafeCommandError as error:
            self._callbacks.fault(str(error))

    @property
    def _commanded(self) -> bool:
        """Whether somebody commands the robot: policy, operator, or who leads it home."""
        return super()._commanded or self._externally_moved

    @property
    def _commanding(self) -> bool:
        """Whether an operator has taken over and commands a robot that may move, and is seen."""
        may_move = not self.obstacles.any and self.controller.limiter.knows_where
        return may_move and super()._commanding

    def _too_far(self, now: float) -> bool:
        """Return whether the episode's first command is too far away; it then waits to be begun."""
        if not self._gate.at_start:
            return False
        if self._takeover_active:  # He begins it where the robot is.
            return self._gate.refuses('', now)
        self._fade_in(now)
        try:
            target = self.controller.target()
        except BasePolicyError as error:
            self._callbacks.fault(str(error))
            return True
        if target is None:
            return False
        reason = self.controller.limiter.start_error(target)
        if not self._gate.refuses(reason, now):
            return False
        self.episode -= 1
        self.in_episode = False
        self.controller.abandon()
        self.counts['refused_starts'] += 1
        self._callbacks.warn(
            f'not starting: {reason}. Bring the robot there, or call ~/start_episode to let it go'
        )
        self._idle(now)
        return True
