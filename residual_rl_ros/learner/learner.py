# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The learner: transitions in, weight messages out. Phases and pacing live here.

It knows no middleware, no thread and no clock; the learner node and the in-process runner feed it
the same way. Updates follow the *count* of transitions, so that the same transitions in the same
order give the same weights, however they arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch

from residual_rl_ros.algorithms.dawn import Dawn
from residual_rl_ros.learner.config import LearnerConfig
from residual_rl_ros.replay.buffer import ReplayBuffer
from residual_rl_ros.residual.weights import WeightsHeader, encode_weights
from residual_rl_ros.spec import Source, Success, Transition, TransitionLayout

RECENT_EPISODES = 50


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode, for the learning curve."""

    control_steps: int
    """Control steps received up to its end."""
    success: bool | None
    """Outcome; None if it was not labelled."""
    residual: bool
    """Whether the residual was on at its end."""


class Phase(Enum):
    """What the learner does with transitions."""

    WARMUP = 'warmup'
    """Base policy only; transitions are stored, no gradient step is taken."""
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
        self.algorithm = Dawn(config, layout, torch.Generator().manual_seed(seed))
        self.replay = ReplayBuffer(layout, config.replay_capacity)
        self.rng = np.random.default_rng(seed)
        self.epoch = epoch
        self.sequence = 0
        self.phase = Phase.WARMUP
        self.transitions = 0
        """Transitions received."""
        self.updates = 0
        """Gradient steps taken."""
        self.control_steps = 0
        """Control steps received; the last decision of an episode counts in full."""
        self.history: list[EpisodeRecord] = []
        """Every finished episode."""
        self._recent: deque[bool] = deque(maxlen=RECENT_EPISODES)
        self.metrics: dict[str, float] = {}
        """Metrics of the update before the latest publication."""
        self._latest: dict[str, torch.Tensor] = {}
        self._epoch_start = 0

    def first_message(self) -> bytes:
        """Return the message that opens the epoch: residual off until the warm-up is over."""
        if self.phase is Phase.ONLINE:
            return self._message(True, 0, self._until_publication() + self.config.publish_interval)
        return self._message(False, 0, self.config.warmup_transitions - self.transitions)

    def begin_epoch(self, epoch: int) -> None:
        """Start a new epoch after a resume or a rollback; its counts begin at zero."""
        self.epoch, self.sequence, self._epoch_start = epoch, 0, self.transitions

    def _until_publication(self) -> int:
        since = self.transitions - self.config.warmup_transitions
        return self.config.publish_interval - since % self.config.publish_interval

    def ingest(self, transition: Transition) -> bytes | None:
        """Learn from one transition.

        Returns:
            A weight message when one is due.
        """
        self.replay.add(transition)
        self.transitions += 1
        self.control_steps += self.layout.decision_steps
        if transition.terminated or transition.truncated:
            self._record_episode(transition)
        if self.phase is Phase.WARMUP:
            if self.transitions < self.config.warmup_transitions:
                return None
            self.algorithm.fit_normalizer(self.replay.observations())
            self.phase = Phase.ONLINE
            self.sequence += 1
            now = self._epoch_transitions
            return self._message(True, now, now + 2 * self.config.publish_interval)
        since = self.transitions - self.config.warmup_transitions
        # The tolerance keeps 10 x 0.1 from being 0.999…
        while self.updates < int(self.config.utd * since + 1e-6):
            batch = self.replay.sample(
                self.config.batch_size, self.rng, self.config.gamma, self.config.n_step
            )
            self._latest = self.algorithm.update(batch)
            self.updates += 1
        if since % self.config.publish_interval:
            return None
        self.metrics = {name: float(value) for name, value in self._latest.items()}
        # The policy goes on with the previous actor for one interval meanwhile: learning and
        # collecting overlap, and still every decision knows which actor is its own.
        self.sequence += 1
        due = self._epoch_transitions + self.config.publish_interval
        return self._message(True, due, due + self.config.publish_interval)

    @property
    def success_rate(self) -> float | None:
        """Success over the latest labelled episodes, None before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def _record_episode(self, last: Transition) -> None:
        success = None if last.success is Success.UNLABELLED else last.success is Success.SUCCESS
        residual = last.source is Source.RESIDUAL
        self.history.append(EpisodeRecord(self.control_steps, success, residual))
        if success is not None:
            self._recent.append(success)

    @property
    def _epoch_transitions(self) -> int:
        return self.transitions - self._epoch_start

    def state(self) -> dict[str, Any]:
        """Return counters and generator as JSON values, for a checkpoint."""
        return {
            'epoch': self.epoch,
            'sequence': self.sequence,
            'phase': self.phase.value,
            'transitions': self.transitions,
            'control_steps': self.control_steps,
            'updates': self.updates,
            'epoch_start': self._epoch_start,
            'rng': self.rng.bit_generator.state,
            'history': [asdict(record) for record in self.history],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned; networks and replay are restored on their own."""
        self.epoch, self.sequence = int(state['epoch']), int(state['sequence'])
        self.phase = Phase(state['phase'])
        self.transitions = int(state['transitions'])
        self.control_steps = int(state['control_steps'])
        self.updates = int(state['updates'])
        self._epoch_start = int(state['epoch_start'])
        self.rng.bit_generator.state = state['rng']
        self.history = [EpisodeRecord(**record) for record in state['history']]
        labelled = [record.success for record in self.history if record.success is not None]
        self._recent.extend(labelled[-RECENT_EPISODES:])

    def current_message(self) -> bytes:
        """Return the actor as it is now, to be used at once (deployment, evaluation)."""
        return self._message(self.phase is Phase.ONLINE, 0, 0)

    def _message(self, enabled: bool, effective_from: int, next_effective_from: int) -> bytes:
        """Return a weight message; the counts are transitions since the epoch began."""
        header = WeightsHeader(
            self.epoch, self.sequence, enabled, effective_from, next_effective_from
        )
        return encode_weights(self.algorithm.mean_actor, header)
