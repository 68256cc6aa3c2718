# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a control loop goes from one chunk of the base policy to the next."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from residual_rl_ros.base_policy.chunk_queue import NUMBERS, ChunkQueue, Mixing
from residual_rl_ros.base_policy.distribution import BasePolicy
from residual_rl_ros.base_policy.ensemble_queue import EnsembleQueue
from residual_rl_ros.base_policy.prefetch import AUTO
from residual_rl_ros.base_policy.received_policy import ReceivedPolicy, ReceivedQueue
from residual_rl_ros.errors import ConfigError


@dataclass(frozen=True)
class Splicing:
    """When chunks are requested, and what is made of several.

    The names are those of the keys of runs, the parameters of nodes and the options of commands.
    """

    prefetch_steps: int = 0
    """Control steps before its first use at which a chunk is requested; `prefetch.AUTO` measures
    inference when the queue is warmed up."""
    chunk_blend_steps: int = 0
    """Control steps over which a new chunk takes over from the one before."""
    temporal_ensemble: float = 0.0
    """Coefficient m of the mean over chunks; 0: one chunk at a time."""
    ensemble_steps: int = 0
    """Control steps between two chunks of that mean; 0: a chunk at every decision."""

    @classmethod
    def of(cls, keys: Any) -> Splicing:
        """Return what an object says that has such keys; of one that it has not, the default."""
        own = [item for item in fields(cls) if hasattr(keys, item.name)]
        return cls(**{item.name: getattr(keys, item.name) for item in own})

    @property
    def in_lockstep(self) -> Splicing:
        """How it is where the robot waits for the base policy: there is nothing to measure."""
        return replace(self, prefetch_steps=0) if self.prefetch_steps == AUTO else self

    def queue(
        self,
        policy: BasePolicy,
        decision_steps: int,
        proposals: int = 1,
        mixing: Mixing = NUMBERS,
    ) -> ChunkQueue:
        """Return the queue that does so.

        Args:
            policy: the base policy.
            decision_steps: control steps per residual decision (k).
            proposals: number of chunks that are drawn for one window.
            mixing: what the mean of actions needs to know of them.

        Raises:
            ResidualRLError: the numbers do not fit the base policy, or each other.
        """
        if isinstance(policy, ReceivedPolicy):
            return self._received(policy, decision_steps, proposals, mixing)
        if not self.temporal_ensemble:
            return ChunkQueue(
                policy,
                decision_steps,
                self.prefetch_steps,
                self.chunk_blend_steps,
                proposals,
                mixing,
            )
        means = f'but temporal_ensemble {self.temporal_ensemble:g} takes the mean of all chunks'
        if self.chunk_blend_steps:
            raise ConfigError(
                f'chunk_blend_steps is {self.chunk_blend_steps}, {means}: set one of them to 0'
            )
        if proposals > 1:
            raise ConfigError(
                f'proposals is {proposals}, {means}, and those of two chunks are independent '
                'draws, whose mean the policy would not propose: set temporal_ensemble to 0, or '
                'proposals to 1'
            )
        return EnsembleQueue(
            policy,
            decision_steps,
            self.prefetch_steps,
            self.temporal_ensemble,
            self.ensemble_steps,
            mixing,
        )

    def _received(
        self, policy: ReceivedPolicy, decision_steps: int, proposals: int, mixing: Mixing
    ) -> ReceivedQueue:
        """Return the queue of a policy that runs elsewhere, where the numbers mean something."""
        for key, given in (
            ('temporal_ensemble', self.temporal_ensemble != 0.0),
            ('prefetch_steps', self.prefetch_steps > 0),
            ('proposals', proposals > 1),
        ):
            if given:
                raise ConfigError(
                    f'{key} is given, but base_policy is a topic, whose chunks nobody here asks '
                    'for: leave it out'
                )
        return ReceivedQueue(policy, decision_steps, self.chunk_blend_steps, mixing)


ONE_BY_ONE = Splicing()
"""Each chunk is requested where the one before it ends."""
MEASURED = Splicing(AUTO)
"""Each chunk is requested so early that it is there where the one before it ends."""
