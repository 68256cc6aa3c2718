# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What episodes say of the actors: how well they do, when to go back, and to which networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.learner.episodes import EpisodeLog, EpisodeRecord
from residual_rl_ros.learner.exploration_schedule import PublishedShares
from residual_rl_ros.learner.guard import Guard, GuardConfig
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
        self.guard = Guard(
            GuardConfig(config.guard_drop, config.guard_false_alarm_episodes, config.guard_share)
        )
        self.best = BestNetworks()
        """What a rollback returns to."""
        self.base_shares = PublishedShares()
        """Shares of base-only episodes, by the actors under which they were drawn."""
        self.rollbacks: list[Rollback] = []
        """What the guard has found so far."""
        self._rolled_back = (0, -1)  # Newest (epoch, sequence) whose actor a rollback has revoked.

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
            Why to roll back; empty if there is no reason.
        """
        fails = self._config.unlabelled_fails(self._episodes.only_success_is_labelled)
        outcome, warm = record.outcome(fails), record.warmup
        revoked = actor <= self._rolled_back
        if outcome is None or (record.residual and revoked):
            return ''
        # Once online, episodes without residual are the guard's and say nothing of the learner.
        if record.residual or warm:
            self._episodes.rate(outcome)
        if record.residual and not warm:
            self.best.rate(outcome, self.guard.base_outcomes, networks, transitions)
        if warm and record.residual:
            return ''
        if not self._config.guard_share and record.residual:
            return ''
        # Of two episodes under a revoked actor only that of the base counts: no fair draw.
        share = 0.0 if revoked else self.base_shares.of(actor)
        alarm = self.guard.record_outcome(outcome, record.residual, share)
        return '' if alarm is None else str(alarm)

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
        self.guard.reset()
        self._episodes.forget_outcomes()
        self.rollbacks.append(Rollback(len(self._episodes.history), reason))
        return self.best.restore()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the networks as JSON values, for a checkpoint."""
        return {
            'guard': self.guard.state_dict(),
            'base_shares': self.base_shares.state_dict(),
            'rollbacks': [asdict(rollback) for rollback in self.rollbacks],
            'rolled_back': list(self._rolled_back),
            **self.best.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.guard.load_state_dict(state['guard'])
        self.base_shares.load_state_dict(state['base_shares'])
        self.rollbacks = [Rollback(**rollback) for rollback in state['rollbacks']]
        epoch, sequence = state['rolled_back']
        self._rolled_back = (int(epoch), int(sequence))
        self.best.load_state_dict(state)
