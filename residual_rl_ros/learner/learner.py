# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The learner: transitions in, weight messages out. Phases and pacing live here.

It knows no middleware, no thread and no clock; the learner node and the in-process runner feed it
the same way. Updates follow the *count* of transitions, so that the same transitions in the same
order give the same weights, however they arrive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch

from residual_rl_ros.algorithms.customisation import BASIC
from residual_rl_ros.algorithms.rule import Customisable
from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.errors import ConfigError, MalformedTransitionError
from residual_rl_ros.learner.best_networks import BestNetworks, Networks
from residual_rl_ros.learner.episodes import EpisodeLog, EpisodeRecord
from residual_rl_ros.learner.exploration_schedule import (
    PublishedShares,
    grown_share,
    residual_exploration,
    warmup_exploration,
)
from residual_rl_ros.learner.finite_networks import FiniteNetworks
from residual_rl_ros.learner.guard import Guard, GuardConfig
from residual_rl_ros.residual_policy.robot_policy import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.rewards.composition import AddOns, decision_reward
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

MAX_OWED_UPDATES = 1000
"""After a burst of transitions: updates that are still taken for it."""
MEASURE_EVERY = 50
"""Transitions between two sets of metrics, at least: one costs as much as several updates."""

WARN_EVERY = 1000
"""Of refused transitions, the first is told and then every so many."""


@dataclass(frozen=True)
class Rollback:
    """One return to earlier networks."""

    episode: int
    """Number of episodes finished by then."""
    reason: str


class Phase(Enum):
    """What the learner does with transitions."""

    WARMUP = 'warmup'
    """Base policy only; transitions are stored, no gradient step is taken."""
    POLICY_WARMUP = 'policy_warmup'
    """The pre-trained actor acts; transitions are stored, no gradient step is taken (WSRL)."""
    ONLINE = 'online'
    """Every transition pays for `utd` updates."""


class Learner:
    """Stores transitions, updates the networks, publishes actors.

    Args:
        config: the preset.
        layout: transition layout.
        seed: seeds initialisation, sampling and updates.
        epoch: greater than that of any earlier learner of this robot.
    """

    def __init__(
        self,
        config: LearnerConfig,
        layout: TransitionLayout,
        seed: int,
        epoch: int = 1,
    ) -> None:
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
        self.updates = 0
        """Updates taken while online."""
        self.dropped_updates = 0
        """Updates that fell due faster than they could be taken, and never will be."""
        self.pretraining_updates = 0
        """Updates taken at the end of the warm-up, offline or of the critics alone."""
        self.control_steps = 0
        """Control steps received; the last decision of an episode counts in full."""
        self.episodes = EpisodeLog()
        """What became of the episodes."""
        self.guard = Guard(
            GuardConfig(config.guard_drop, config.guard_false_alarm_episodes, config.guard_share)
        )
        self._base_shares = PublishedShares()
        self.rollbacks: list[Rollback] = []
        """What the guard has found so far."""
        self.best = BestNetworks()
        """What a rollback returns to."""
        self._rolled_back = (0, -1)  # Newest (epoch, sequence) whose actor a rollback has revoked.
        self.metrics: dict[str, float] = {}
        """Of the last update before a publication, and of a batch then; see `MEASURE_EVERY`."""
        self.warn: Callable[[str], None] = lambda reason: None
        """Told what is wrong; the learner goes on."""
        self.inform: Callable[[str], None] = lambda text: None
        """Told what the warm-up has shown."""
        self.add_on = ('', 1.0)
        """Add-ons in use beside those of the preset, as YAML, and their weight."""
        self._add_on_changed = False
        self.run = ''
        """Names this learner in weight messages, where there may be another."""
        self.refused = 0
        """Transitions that were none of the layout."""
        self.finite = FiniteNetworks(self.rule, self._generator)
        """The latest networks that were; see `recover`."""
        self._latest: dict[str, torch.Tensor] = {}
        self._publication_due = False
        self._measured_at = 0
        self._epoch_start = 0
        self._shown_at: int | None = None  # See `confirmed`.
        self._warmup_transitions = config.warmup_transitions
        """Transitions of the warm-up; more than the preset's while its episodes are too few."""
        self._bound_ramp_transitions = config.bound_ramp_transitions

    @property
    def _online_from(self) -> int:
        """Transitions before the first online update."""
        return self._warmup_transitions + self.config.policy_warmup_transitions

    def first_message(self) -> bytes:
        """Return the message that opens the epoch: residual off until the warm-up is over."""
        self.recover()
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
            self._judge(*finished)
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
            owed = due - self.updates - self.dropped_updates
            self.dropped_updates += max(0, owed - MAX_OWED_UPDATES)
            return None
        while self.updates + self.dropped_updates < due:
            pulse()
            self._latest |= self.rule.update()
            self.updates += 1
        if self._publication_due or not all(map(math.isfinite, self._latest.values())):
            self.recover()
        if not self._publication_due:
            return None
        self._publication_due = False
        if not self._measured_at or self.transitions - self._measured_at >= MEASURE_EVERY:
            self._measure()
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
        for outcome in base_outcomes:
            self.guard.record_outcome(outcome, residual=False, base_share=1.0)
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

        def counted() -> None:
            pulse()
            self.pretraining_updates += 1

        ramp = math.ceil(self.config.bound_ramp_episodes * self.rule.memory.episode_decisions)
        self._bound_ramp_transitions = max(self.config.bound_ramp_transitions, ramp)
        self._latest |= self.rule.prepare(counted)
        self.recover()
        self.best.begin(self.rule.state_dict(), success or 0.0, self.transitions)
        self.episodes.forget_outcomes()
        derived = ', '.join(f'{name} {value:.4g}' for name, value in self.derived().items())
        if derived:
            self.inform(f'from {self.transitions} decisions of the base follow: {derived}')
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

        Data and counters stay: the learner goes on from there, knowing what went wrong. The robot
        acts with the revoked actor until the next message, and its episodes do not count against
        the restored one.

        Args:
            reason: for `rollbacks`.
        """
        good = self.best.restore()
        if good:
            self.finite.restore(good)
        self._rolled_back = (self.epoch, self.sequence)
        self.guard.reset()
        self.episodes.forget_outcomes()
        self.rollbacks.append(Rollback(len(self.episodes.history), reason))

    def customise(
        self, text: str, weight: float, pulse: Callable[[], None] = lambda: None
    ) -> bytes | None:
        """Learn for another add-on reward, or another weight of it, from now on.

        The memory has basic rewards, and an add-on is a function of a transition: all that was seen
        counts for the new one at once. Until new weights come the robot goes on with the old ones.
        At weight 0 the base acts alone, and what was learned waits.

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
        self.check_add_on(text)
        rule, before = self.rule, self.add_on
        if not weight or not isinstance(rule, Customisable):
            return None
        known = self._wanted(before[0], self._add_on_changed)
        self._add_on_changed |= bool(text)
        wanted = self._wanted(text, self._add_on_changed)
        rule.set_add_on(wanted.to_yaml(), weight)
        self.add_on = (text, weight)
        if self.phase is Phase.WARMUP or wanted.to_list() == known.to_list():
            return None
        for _ in range(self.config.rule.relearning_updates):
            pulse()
            self._latest |= rule.update()
            self.pretraining_updates += 1
        if not self.config.rule.relearning_updates:
            return None
        self.recover()
        self.best.begin(rule.state_dict(), self.episodes.success_rate or 0.0, self.transitions)
        self.begin_epoch(self.epoch + 1)
        return self.first_message()

    def _wanted(self, text: str, changed: bool) -> AddOns:
        """Return the add-ons of a text; as long as nobody has asked for others, the preset's."""
        preset = AddOns.of(getattr(self.config.rule, 'add_on', ()))
        return AddOns.from_message(text) if changed else preset

    def check_add_on(self, text: str) -> None:
        """Refuse an add-on that cannot be learned.

        Raises:
            ConfigError: the rule learns none, or the text is wrong for this robot.
        """
        learns = isinstance(self.rule, Customisable)
        if text and (not learns or getattr(self.config.rule, 'reward', BASIC) == BASIC):
            raise ConfigError(
                f'algorithm {self.config.algorithm} of this preset learns from the basic reward '
                'alone: take a preset of customisation, and set reward to add_on or total'
            )
        decision_reward(AddOns.from_message(text), self.layout)

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
                self.warn(f'transition refused ({self.refused} so far): {error}')
            return False
        return True

    def recover(self) -> None:
        """Return to the latest finite networks if the present ones are not; else keep these.

        What is published and saved is finite by this: it is called after pre-training and after
        updates whose metrics are not finite, and before metrics, a message and a checkpoint.
        """
        reason = self.finite.check()
        if reason:
            self._latest.clear()
            self.warn(f'after {self.updates} updates {reason}')

    def _finite_networks(self) -> Networks:
        self.recover()
        return self.rule.state_dict()

    def _measure(self) -> None:
        """Collect metrics, in a new dictionary."""
        self._measured_at = self.transitions
        metrics = {name: float(value) for name, value in self._latest.items()}
        metrics |= self.rule.diagnose()
        for source, share in self.rule.memory.composition().items():
            metrics[f'replay_{source.name.lower()}_share'] = share
        metrics['guard_statistic'] = self.guard.statistic
        metrics['guard_base_share'] = self.exploration().base_only_share
        metrics['update_ratio'] = self.updates / (self.transitions - self._online_from)
        self.metrics = metrics

    def _judge(self, record: EpisodeRecord, actor: tuple[int, int]) -> None:
        """Let a finished episode count for its actor, and against it."""
        fails = self.config.unlabelled_fails(self.episodes.only_success_is_labelled)
        outcome, warm = record.outcome(fails), record.warmup
        revoked = actor <= self._rolled_back
        if outcome is None or (record.residual and revoked):
            return
        # Once online, episodes without residual are the guard's and say nothing of the learner.
        if record.residual or warm:
            self.episodes.rate(outcome)
        if record.residual and not warm:
            base = self.guard.base_outcomes
            self.best.rate(outcome, base, self._finite_networks, self.transitions)
        if warm and record.residual:
            return
        if self.config.guard_share or not record.residual:
            # Of two episodes under a revoked actor only that of the base counts: no fair draw.
            share = 0.0 if revoked else self._base_shares.of(actor)
            alarm = self.guard.record_outcome(outcome, record.residual, share)
            if alarm is not None:
                self.roll_back(str(alarm))

    def state_dict(self) -> dict[str, Any]:
        """Return counters and generator as JSON values, for a checkpoint."""
        return {
            'epoch': self.epoch,
            'sequence': self.sequence,
            'phase': self.phase.value,
            'transitions': self.transitions,
            'control_steps': self.control_steps,
            'updates': self.updates,
            'dropped_updates': self.dropped_updates,
            'pretraining_updates': self.pretraining_updates,
            'epoch_start': self._epoch_start,
            'warmup_transitions': self._warmup_transitions,
            'bound_ramp_transitions': self._bound_ramp_transitions,
            'publication_due': self._publication_due,
            'measured_at': self._measured_at,
            'rng': self.rng.bit_generator.state,
            'guard': self.guard.state_dict(),
            'base_shares': self._base_shares.state_dict(),
            'rollbacks': [asdict(rollback) for rollback in self.rollbacks],
            'rolled_back': list(self._rolled_back),
            'add_on': list(self.add_on),
            'add_on_changed': self._add_on_changed,
            **self.best.state_dict(),
            **self.episodes.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; networks and replay are restored on their own."""
        self.epoch, self.sequence = int(state['epoch']), int(state['sequence'])
        self.phase = Phase(state['phase'])
        self.transitions = int(state['transitions'])
        self.control_steps = int(state['control_steps'])
        self.updates = int(state['updates'])
        self.dropped_updates = int(state['dropped_updates'])
        self.pretraining_updates = int(state['pretraining_updates'])
        self._epoch_start = int(state['epoch_start'])
        self._warmup_transitions = int(state['warmup_transitions'])
        self._bound_ramp_transitions = int(state['bound_ramp_transitions'])
        self._publication_due = bool(state['publication_due'])
        self._measured_at = int(state['measured_at'])
        self.rng.bit_generator.state = state['rng']
        self.guard.load_state_dict(state['guard'])
        self._base_shares.load_state_dict(state['base_shares'])
        self.rollbacks = [Rollback(**rollback) for rollback in state['rollbacks']]
        self.best.load_state_dict(state)
        self.episodes.load_state_dict(state)
        epoch, sequence = state['rolled_back']
        self._rolled_back = (int(epoch), int(sequence))
        text, weight = state.get('add_on', self.add_on)
        if isinstance(self.rule, Customisable):
            wanted = self._wanted(str(text), bool(state.get('add_on_changed', text)))
            self.rule.set_add_on(wanted.to_yaml(), float(weight))
            self.add_on = (str(text), float(weight))
            self._add_on_changed = bool(state.get('add_on_changed', text))
        self.recover()  # Keeps what was loaded.

    def current_message(self) -> bytes:
        """Return the actor as it is now, to be used at once (deployment, evaluation)."""
        self.recover()
        # A bound that still grows is as much a part of what was learned as the weights are.
        learning = self.exploration(self._shown_at)
        exploration = Exploration(
            residual_probability=float(self.phase is not Phase.WARMUP),
            bound_scale=learning.wide_bound_scale,
            wide_bound_scale=learning.wide_bound_scale,
            full_bound_cost=learning.full_bound_cost,
        )
        header = WeightsHeader(
            self.epoch,
            self.sequence,
            exploration,
            rollbacks=len(self.rollbacks),
            run=self.run,
        )
        return encode_weights(self.rule.robot_policy(), header)

    @contextmanager
    def confirmed(self) -> Iterator[None]:
        """Let the rule have the best networks meanwhile, with the bound that they acted with."""
        self.recover()
        present = self.rule.state_dict()
        self.rule.load_state_dict(self.best.good)
        self._shown_at = self.best.taken_at
        try:
            yield
        finally:
            self._shown_at = None
            self.rule.load_state_dict(present)
            self.recover()  # Keeps what was loaded.

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
        return residual_exploration(self.config, since, grown, self.guard, episodes)

    def _publish(self, effective_in: int, next_effective_in: int) -> bytes:
        """Return the next message of the epoch; the counts are transitions from now."""
        self.sequence += 1
        now = self.transitions - self._epoch_start
        return self._message(now + effective_in, now + next_effective_in)

    def _message(self, effective_from: int, next_effective_from: int) -> bytes:
        """Return a weight message; the counts are transitions since the epoch began."""
        exploration = self.exploration()
        self.rule.published((self.epoch, self.sequence))
        self._base_shares.publish((self.epoch, self.sequence), exploration.base_only_share)
        header = WeightsHeader(
            self.epoch,
            self.sequence,
            exploration,
            effective_from,
            next_effective_from,
            len(self.rollbacks),
            self.run,
        )
        return encode_weights(self.rule.robot_policy(), header)
