# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What episodes say of the actors: how well they do, when to go back, and to which networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.learner.episodes import EpisodeLog, EpisodeRecord
from residual_rl_ros.learner.exploration_schedule import PublishedShares
from residual_rl_ros.learner.guard import (
    NOTHING,
    RETURN,
    SUCCESS,
    Guard,
    GuardConfig,
    ReturnGuard,
)
from residual_rl_ros.learner.kept_networks import BestNetworks, Networks


@dataclass(frozen=True)
class Rollback:
    """One return to earlier networks."""

    episode: int
    """Number of episodes finished by then."""
    reason: str


class ActorJudge:
    """Lets a finished episode count for the actor that began it, and against it.

    Args:
        config: the preset.
        episodes: what became of the episodes.
    """

    def __init__(self, config: LearnerConfig, episodes: EpisodeLog) -> None:
        self._config = config
        self._episodes = episodes
        self._numbers = GuardConfig(
            config.guard_drop, config.guard_false_alarm_episodes, config.guard_share
        )
        self._by_success, self._by_return = Guard(self._numbers), ReturnGuard(self._numbers)
        self.best = BestNetworks()
        """What a rollback returns to."""
        self.base_shares = PublishedShares()
        """Shares of base-only episodes, by the actors under which they were drawn."""
        self.rollbacks: list[Rollback] = []
        """What the guard has found so far."""
        self._rolled_back = (0, -1)  # Newest (epoch, sequence) whose actor a rollback has revoked.

    @property
    def watches(self) -> str:
        """What the guard compares: returns as long as no episode was ever labelled."""
        if not self._config.guard_share:
            return NOTHING
        unlabelled = self._config.guard_unlabelled == 'auto' and not self._episodes.labelled
        return RETURN if unlabelled else SUCCESS

    @property
    def guard(self) -> Guard:
        """The guard by what it watches."""
        return self._by_return if self.watches == RETURN else self._by_success

    def adopt(self, base_successes: Iterable[bool]) -> None:
        """Take in whether earlier base-only episodes succeeded, oldest first."""
        for success in base_successes:
            self._by_success.record_outcome(success, residual=False, base_share=1.0)

    def judge(
        self,
        record: EpisodeRecord,
        actor: tuple[int, int],
        networks: Callable[[], Networks],
        transitions: int,
    ) -> str:
        """Take in a finished episode.

        Args:
            record: the episode.
            actor: (epoch, sequence) of the actor that began it.
            networks: returns the present ones, which are finite.
            transitions: received so far.

        Returns:
            Why to roll back; empty if there is no reason. A random episode rates nothing: neither
            actor nor base decided in it.
        """
        if record.random:
            return ''
        revoked = actor <= self._rolled_back
        if record.residual and revoked:
            return ''
        self._forget_returns()
        fails = self._config.unlabelled_fails(self._episodes.only_success_is_labelled)
        success = record.outcome(fails)
        # Once online, episodes without residual are the guard's and say nothing of the learner.
        if success is not None and (record.residual or record.warmup):
            self._episodes.rate(success, record.takeover)
        outcome = self._grade(record) if self.watches == RETURN else success
        if outcome is not None and record.acts:
            self.best.rate(outcome, self.guard.base_outcomes, networks, transitions)
        if record.residual and (record.warmup or not self._config.guard_share):
            return ''
        # Of two episodes under a revoked actor only that of the base counts: no fair draw.
        share = 0.0 if revoked else self.base_shares.of(actor)
        alarm = None
        if success is not None:
            alarm = self._by_success.record_outcome(success, record.residual, share)
        if self.watches == RETURN and not record.operator_began:
            alarm = self._by_return.record_return(
                record.basic_return, record.residual, share, record.takeover
            )
        return '' if alarm is None else str(alarm)

    def _grade(self, record: EpisodeRecord) -> float | None:
        """Return how good an episode was by its return, from 0 to 1; None if nobody can tell."""
        if record.operator_began:
            return None
        grade = self._by_return.grade(record.basic_return)
        return 0.0 if grade is not None and record.takeover else grade

    def _forget_returns(self) -> None:
        """Begin to rate anew when the first label comes after episodes that returns had rated."""
        if self.watches == RETURN or self._by_return.base_success is None:
            return
        self._by_return = ReturnGuard(self._numbers)
        if self.best.good:
            self.best.begin(self.best.good, 0.0, self.best.taken_at)

    def roll_back(self, version: tuple[int, int], reason: str) -> Networks:
        """Revoke the present actor.

        The robot acts with it until the next message, and its episodes do not count against the
        restored one.

        Args:
            version: its (epoch, sequence).
            reason: for `rollbacks`.

        Returns:
            The networks to return to; none during warm-up.
        """
        self._rolled_back = version
        self._by_success.reset()
        self._by_return.reset()
        self._episodes.forget_outcomes()
        self.rollbacks.append(Rollback(len(self._episodes.history), reason))
        return self.best.restore()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the networks as JSON values, for a checkpoint."""
        return {
            'guard_watches': self.watches,  # For a summary; it follows from the episodes.
            'guard': self._by_success.state_dict(),
            'return_guard': self._by_return.state_dict(),
            'base_shares': self.base_shares.state_dict(),
            'rollbacks': [asdict(rollback) for rollback in self.rollbacks],
            'rolled_back': list(self._rolled_back),
            **self.best.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._by_success.load_state_dict(state['guard'])
        self._by_return.load_state_dict(state['return_guard'])
        self.base_shares.load_state_dict(state['base_shares'])
        self.rollbacks = [Rollback(**rollback) for rollback in state['rollbacks']]
        epoch, sequence = state['rolled_back']
        self._rolled_back = (int(epoch), int(sequence))
        self.best.load_state_dict(state)
