# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The learner: transitions in, weight messages out. Phases and pacing live here.

It knows no middleware, no thread and no clock; the learner node and the in-process runner feed it
the same way. Updates follow the *count* of transitions, so that the same transitions in the same
order give the same weights, however they arrive.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import numpy as np
import torch

from residual_rl_ros.algorithms.dawn import Dawn
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.learner.config import LearnerConfig
from residual_rl_ros.replay.buffer import ReplayBuffer
from residual_rl_ros.residual.composition import ResidualBound
from residual_rl_ros.residual.weights import WeightsHeader, encode_weights
from residual_rl_ros.spec import Success, Transition, TransitionLayout

RECENT_EPISODES = 50


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
        metadata: the base policy's metadata.
        bound: residual bound.
        seed: seeds initialisation, sampling and updates.
        epoch: greater than that of any earlier learner of this robot.
    """

    def __init__(
        self,
        config: LearnerConfig,
        layout: TransitionLayout,
        metadata: BasePolicyMetadata,
        bound: ResidualBound,
        seed: int,
        epoch: int = 1,
    ) -> None:
        self.config = config
        self.layout = layout
        self.algorithm = Dawn(
            config, layout, metadata, bound, torch.Generator().manual_seed(seed)
        )
        self.replay = ReplayBuffer(layout, config.replay_capacity)
        self.rng = np.random.default_rng(seed)
        self.epoch = epoch
        self.sequence = 0
        self.phase = Phase.WARMUP
        self.transitions = 0
        """Transitions received in this epoch."""
        self.updates = 0
        """Gradient steps taken."""
        self.episodes = 0
        """Episodes that ended."""
        self.recent_successes: deque[bool] = deque(maxlen=RECENT_EPISODES)
        """Outcomes of the latest labelled episodes."""
        self.metrics: dict[str, float] = {}
        """Metrics of the update before the latest publication."""
        self._owed = 0.0

    def first_message(self) -> bytes:
        """Return the message that opens the epoch: residual off until the warm-up is over."""
        return self._message(
            enabled=False, effective_from=0, next_effective_from=self.config.warmup_transitions
        )

    def ingest(self, transition: Transition) -> bytes | None:
        """Learn from one transition.

        Returns:
            A weight message when one is due.
        """
        self.replay.add(transition)
        self.transitions += 1
        if transition.terminated or transition.truncated:
            self.episodes += 1
            if transition.success is not Success.UNLABELLED:
                self.recent_successes.append(transition.success is Success.SUCCESS)
        if self.phase is Phase.WARMUP:
            if self.transitions < self.config.warmup_transitions:
                return None
            self.algorithm.fit_normalizer(self.replay.observations())
            self.phase = Phase.ONLINE
            return self._publish(effective_from=self.transitions)
        self._owed += self.config.utd
        while self._owed >= 1.0:
            batch = self.replay.sample(self.config.batch_size, self.rng)
            metrics = self.algorithm.update(batch)
            self.updates += 1
            self._owed -= 1.0
        since = self.transitions - self.config.warmup_transitions
        if since % self.config.publish_interval:
            return None
        self.metrics = {name: float(value) for name, value in metrics.items()}
        # The policy goes on with the previous actor for one interval meanwhile: learning and
        # collecting overlap, and still every decision knows which actor is its own.
        return self._publish(effective_from=self.transitions + self.config.publish_interval)

    @property
    def success_rate(self) -> float | None:
        """Success over the latest labelled episodes, None before the first."""
        recent = self.recent_successes
        return sum(recent) / len(recent) if recent else None

    def _publish(self, effective_from: int) -> bytes:
        self.sequence += 1
        return self._message(
            enabled=True,
            effective_from=effective_from,
            next_effective_from=effective_from
            + (2 if self.sequence == 1 else 1) * self.config.publish_interval,
        )

    def _message(self, enabled: bool, effective_from: int, next_effective_from: int) -> bytes:
        header = WeightsHeader(
            self.epoch, self.sequence, enabled, effective_from, next_effective_from
        )
        return encode_weights(self.algorithm.actor, header)
