# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The learner: transitions in, weight messages out. Phases and publications live here.

It knows no middleware, no thread and no clock; the learner node and the in-process runner feed it
the same way. Updates follow the *count* of transitions, so that the same transitions in the same
order give the same weights, however they arrive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch

from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.learner.add_on import LearnedAddOn
from residual_rl_ros.learner.episodes import EpisodeLog
from residual_rl_ros.learner.exploration_schedule import (
    grown_share,
    residual_exploration,
    warmup_exploration,
)
from residual_rl_ros.learner.guard import RETURN
from residual_rl_ros.learner.judge import ActorJudge
from residual_rl_ros.learner.updates import Updates
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

WARN_EVERY = 1000
"""Of refused transitions, the first is told and then every so many."""


class Phase(Enum):
    """What the learner does with transitions."""

    WARMUP = 'warmup'
    """Base policy only; transitions are stored, no gradient step is taken."""
    POLICY_WARMUP = 'policy_warmup'
    """The pre-trained actor acts; transitions are stored, no gradient step is taken (WSRL)."""
    ONLINE = 'online'
    """Every transition pays for `utd` updates."""


def _ignore(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Log:
    """Who is told what a learner finds."""

    warn: Callable[[str], None] = _ignore
    """Told what is wrong; the learner goes on."""
    inform: Callable[[str], None] = _ignore
    """Told what the warm-up has shown."""


SILENT = Log()


class Learner:
    """Stores transitions, updates the networks, publishes actors.

    Args:
        config: the preset.
        layout: transition layout.
        seed: seeds initialisation, sampling and updates.
        epoch: greater than that of any earlier learner of this robot.
        log: is told what it finds.
        run: names it in weight messages, where there may be another.
    """

    def __init__(
        self,
        config: LearnerConfig,
        layout: TransitionLayout,
        seed: int,
        epoch: int = 1,
        log: Log = SILENT,
        run: str = '',
    ) -> None:
        self._log, self._run = log, run
        self.config = config
        self.layout = layout
        self._generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.rule = config.make_rule(layout, self._generator, self.rng)
        """Networks, update and memory."""
        self.epoch = epoch
        self.sequence = 0
        self.phase = Phase.WARMUP
        self.transitions = 0
        """Transitions received."""
        self.updates = Updates(self.rule, self._generator, log.warn)
        """Updates taken so far, and what they left."""
        self.control_steps = 0
        """Control steps received; the last decision of an episode counts in full."""
        self.episodes = EpisodeLog()
        """What became of the episodes."""
        self.judge = ActorJudge(config, self.episodes)
        """What the episodes say of the actors."""
        self.add_on = LearnedAddOn(config, self.rule, layout)
        """The add-on reward that is learned for."""
        self.refused = 0
        """Transitions that were none of the layout."""
        self._publication_due = False
        self._epoch_start = 0
        self._shown_at: int | None = None  # See `with_best_networks`.
        self._warmup_transitions = config.warmup_transitions
        """Transitions of the warm-up; more than the preset's while its episodes are too few."""
        self._bound_ramp_transitions = config.bound_ramp_transitions

    @property
    def _online_from(self) -> int:
        """Transitions before the first online update."""
        return self._warmup_transitions + self.config.policy_warmup_transitions

    def first_message(self) -> bytes:
        """Return the message that opens the epoch: residual off until the warm-up is over."""
        self.updates.recover()
        if self.phase is Phase.WARMUP:
            # Pre-training that was interrupted begins again with the next transition.
            rest = self._warmup_transitions - self.transitions
            return self._message(0, max(1, rest))
        interval = self.config.publish_interval
        since = self.transitions - self._online_from
        to_publication = interval - (since if since < 0 else since % interval)
        return self._message(0, to_publication + interval)

    def begin_epoch(self, epoch: int) -> None:
        """Start a new epoch after a resume or a rollback; its counts begin at zero."""
        self.epoch, self.sequence, self._epoch_start = epoch, 0, self.transitions

    def ingest(
        self,
        transition: Transition,
        robot: str = '',
        learn: bool = True,
        pulse: Callable[[], None] = lambda: None,
    ) -> bytes | None:
        """Learn from one transition; one that the layout does not allow is refused and counted.

        Args:
            transition: the transition.
            robot: namespace of the robot that made it.
            learn: take the updates that are due; if not, they are owed to the next transition, up
                to `MAX_OWED_UPDATES`, and the rest is dropped and counted. A publication that is
                due waits with them.
            pulse: called before every update, to stay responsive; what it raises ends the updates.

        Returns:
            A weight message when one is due.
        """
        if not self._allows(transition):
            return None
        self.rule.observe(transition, robot)
        self.transitions += 1
        self.control_steps += self.layout.decision_steps
        warm = self.phase is Phase.WARMUP
        finished = self.episodes.record(
            transition, robot, self.control_steps, warm, self.layout.decision_steps
        )
        if finished is not None:
            networks = self.updates.finite_networks
            reason = self.judge.judge(*finished, networks, self.transitions)
            if reason:
                self.roll_back(reason)
        interval = self.config.publish_interval
        if self.phase is Phase.WARMUP:
            if self.transitions < self._warmup_transitions:
                return None
            if len(self.episodes.history) < self.config.warmup_episodes:
                self._warmup_transitions += interval
                return self._publish(0, interval)
            self._end_warmup(self.episodes.success_rate, pulse)
            return self._publish(0, self.config.policy_warmup_transitions + 2 * interval)
        since = self.transitions - self._online_from
        if since <= 0:
            return None
        self.phase = Phase.ONLINE
        self._publication_due |= since % interval == 0
        due = self.rule.updates_due(since)
        if not learn:
            self.updates.postpone(due)
            return None
        self.updates.take(due, pulse)
        if self._publication_due or not self.updates.are_finite:
            self.updates.recover()
        if not self._publication_due:
            return None
        self._publication_due = False
        if self.updates.measure_due(self.transitions):
            self.updates.measure(self.transitions, self._metrics())
        # The policy goes on with the previous actor for one interval meanwhile: learning and
        # collecting overlap, and still every decision knows which actor is its own.
        return self._publish(interval, 2 * interval)

    def adopt_warmup(
        self,
        transitions: int,
        success: float | None,
        pulse: Callable[[], None] = lambda: None,
        base_outcomes: Iterable[bool] = (),
    ) -> None:
        """Take base transitions that are already in the memory for the warm-up of this robot.

        With fewer of them than a warm-up has, the robot makes the rest. Otherwise its first
        step counts as the first one after the warm-up, so that what grows from there (the bound)
        grows on the robot, and no more of them stay in the memory than a warm-up has: among more,
        what the robot does would be drawn too seldom.

        Args:
            transitions: how many were stored.
            success: their success rate, for the guard's rollback; None if it is not known.
            pulse: called before every update.
            base_outcomes: outcomes of base-only episodes, oldest first, for the guard to compare
                with.
        """
        self.judge.adopt(base_outcomes)
        config, memory = self.config, self.rule.memory
        wanted = math.ceil(config.warmup_episodes * memory.episode_decisions)
        self._warmup_transitions = max(config.warmup_transitions, wanted)
        self.transitions = min(transitions, self._warmup_transitions)
        if transitions >= self._warmup_transitions:
            self._end_warmup(success, pulse)
            memory.keep_newest(self._warmup_transitions)
            self.begin_epoch(self.epoch)

    def _end_warmup(self, success: float | None, pulse: Callable[[], None]) -> None:
        """Let the rule use the warm-up, and switch the residual on."""
        ramp = math.ceil(self.config.bound_ramp_episodes * self.rule.memory.episode_decisions)
        self._bound_ramp_transitions = max(self.config.bound_ramp_transitions, ramp)
        self.updates.prepare(pulse)
        self.judge.best.begin(self.rule.state_dict(), success or 0.0, self.transitions)
        self.episodes.forget_outcomes()
        derived = ', '.join(f'{name} {value:.4g}' for name, value in self.derived().items())
        if derived:
            self._log.inform(f'from {self.transitions} decisions of the base follow: {derived}')
        if self.judge.watches == RETURN:
            self._log.inform('no episode was labelled: the guard watches returns')
        if share := self.config.random_exploration_share:
            self._log.inform(
                'while episodes fail without help, a random residual acts in some '
                f'(random_exploration_share {share:g}; 0: in none)'
            )
        waits = self.config.policy_warmup_transitions > 0
        self.phase = Phase.POLICY_WARMUP if waits else Phase.ONLINE

    def derived(self) -> dict[str, float]:
        """Return the numbers that follow from the warm-up, by their names in a preset."""
        ramp = self._bound_ramp_transitions
        changed = ramp != self.config.bound_ramp_transitions
        own = {'bound_ramp_transitions': float(ramp)} if changed else {}
        return {**own, **self.rule.derived()}

    def roll_back(self, reason: str) -> None:
        """Return to the networks with the best recent success, before any those of the warm-up.

        Data and counters stay: the learner goes on from there, knowing what went wrong.

        Args:
            reason: for `ActorJudge.rollbacks`.
        """
        good = self.judge.roll_back((self.epoch, self.sequence), reason)
        if good:
            self.updates.finite.restore(good)

    def customise(
        self, text: str, weight: float, pulse: Callable[[], None] = lambda: None
    ) -> bytes | None:
        """Learn for another add-on reward, or another weight of it, from now on.

        The memory has basic rewards, and an add-on is a function of a transition: all that was seen
        counts for the new one at once. Until new weights come the robot goes on with the old ones.

        Args:
            text: add-ons as YAML; empty is none.
            weight: factor on them.
            pulse: called before every update.

        Returns:
            A weight message of a new epoch, if updates were due at once.

        Raises:
            ConfigError: the rule learns no add-on, or the text is wrong for this robot; what was
                learned for stays.
        """
        changed = self.add_on.change(text, weight)
        count = self.config.rule.relearning_updates
        if not changed or self.phase is Phase.WARMUP or not count:
            return None
        self.updates.relearn(count, pulse)
        success = self.episodes.success_rate or 0.0
        self.judge.best.begin(self.rule.state_dict(), success, self.transitions)
        self.begin_epoch(self.epoch + 1)
        return self.first_message()

    def add_demonstration(self, transition: Transition, robot: str = '') -> None:
        """Store a recorded demonstration, if the layout allows it; see `Memory`."""
        if self._allows(transition):
            self.rule.memory.add_demonstration(transition, robot)

    def _allows(self, transition: Transition) -> bool:
        """Return whether a transition is one of the layout; else count it and say why."""
        try:
            self.layout.encode(transition)
        except MalformedTransitionError as error:
            self.refused += 1
            if self.refused == 1 or self.refused % WARN_EVERY == 0:
                self._log.warn(f'transition refused ({self.refused} so far): {error}')
            return False
        return True

    def _metrics(self) -> dict[str, float]:
        """Return metrics of the guard and of the pace."""
        return {
            'guard_statistic': self.judge.guard.statistic,
            'guard_base_share': self.exploration().base_only_share,
            'update_ratio': self.updates.online / (self.transitions - self._online_from),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return counters and generator as JSON values, for a checkpoint."""
        return {
            'epoch': self.epoch,
            'sequence': self.sequence,
            'phase': self.phase.value,
            'transitions': self.transitions,
            'control_steps': self.control_steps,
            'epoch_start': self._epoch_start,
            'warmup_transitions': self._warmup_transitions,
            'bound_ramp_transitions': self._bound_ramp_transitions,
            'publication_due': self._publication_due,
            'rng': self.rng.bit_generator.state,
            **self.updates.state_dict(),
            **self.judge.state_dict(),
            **self.add_on.state_dict(),
            **self.episodes.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; networks and replay are restored on their own."""
        self.epoch, self.sequence = int(state['epoch']), int(state['sequence'])
        self.phase = Phase(state['phase'])
        self.transitions = int(state['transitions'])
        self.control_steps = int(state['control_steps'])
        self._epoch_start = int(state['epoch_start'])
        self._warmup_transitions = int(state['warmup_transitions'])
        self._bound_ramp_transitions = int(state['bound_ramp_transitions'])
        self._publication_due = bool(state['publication_due'])
        self.rng.bit_generator.state = state['rng']
        self.updates.load_state_dict(state)
        self.judge.load_state_dict(state)
        self.episodes.load_state_dict(state)
        self.add_on.load_state_dict(state)
        self.updates.recover()  # Keeps what was loaded.

    def current_message(self) -> bytes:
        """Return the actor as it is now, to be used at once (deployment, evaluation)."""
        self.updates.recover()
        # A bound that still grows is as much a part of what was learned as the weights are.
        learning = self.exploration(self._shown_at)
        exploration = Exploration(
            residual_probability=float(self.phase is not Phase.WARMUP),
            bound_scale=learning.wide_bound_scale,
            wide_bound_scale=learning.wide_bound_scale,
            full_bound_cost=learning.full_bound_cost,
        )
        return self._encode(exploration)

    @contextmanager
    def with_best_networks(self) -> Iterator[None]:
        """Let the rule have the best networks meanwhile, with the bound that they acted with."""
        self.updates.recover()
        present = self.rule.state_dict()
        self.rule.load_state_dict(self.judge.best.good)
        self._shown_at = self.judge.best.taken_at
        try:
            yield
        finally:
            self._shown_at = None
            self.rule.load_state_dict(present)
            self.updates.recover()  # Keeps what was loaded.

    def exploration(self, transitions: int | None = None) -> Exploration:
        """Return how the robot acts until the next message.

        Args:
            transitions: as after so many; None is now.
        """
        if self.phase is Phase.WARMUP:
            return warmup_exploration(self.config)
        received = self.transitions if transitions is None else transitions
        since = max(0, received - self._warmup_transitions)
        grown = grown_share(since, self._bound_ramp_transitions)
        episodes = len(self.episodes.history)
        failures = self.episodes.unhelped_failure_rate
        guard = self.judge.guard
        return residual_exploration(self.config, since, grown, guard, episodes, failures)

    def _publish(self, effective_in: int, next_effective_in: int) -> bytes:
        """Return the next message of the epoch; the counts are transitions from now."""
        self.sequence += 1
        now = self.transitions - self._epoch_start
        return self._message(now + effective_in, now + next_effective_in)

    def _message(self, effective_from: int, next_effective_from: int) -> bytes:
        """Return a weight message; the counts are transitions since the epoch began."""
        exploration = self.exploration()
        self.rule.published((self.epoch, self.sequence))
        self.judge.base_shares.publish((self.epoch, self.sequence), exploration.base_only_share)
        return self._encode(exploration, effective_from, next_effective_from)

    def _encode(
        self, exploration: Exploration, effective_from: int = 0, next_effective_from: int = 0
    ) -> bytes:
        """Return a weight message of the present networks."""
        header = WeightsHeader(
            self.epoch,
            self.sequence,
            exploration,
            effective_from,
            next_effective_from,
            len(self.judge.rollbacks),
            self._run,
        )
        return encode_weights(self.rule.robot_policy(), header)
