# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a controller is put together: its numbers, and its parts from a base policy and a robot."""

from __future__ import annotations

from dataclasses import dataclass

from residual_rl_ros.base_policy.distribution import BasePolicy, GaussianAround
from residual_rl_ros.base_policy.received_policy import ReceivedPolicy
from residual_rl_ros.base_policy.splicing import ONE_BY_ONE, Splicing
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.rotation import OrientationMixing
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.mailbox import MAX_WEIGHTS_BYTES, ActorMailbox
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout

PROPOSALS = (
    "number N of draws of the base policy's noise that a decision is given: its action, and N - 1 "
    'others that it could take'
)
CUSTOMISABLE = 'transitions tell the add-on reward and its weight'
PRIOR_WIDTH = (
    'take a base policy that tells no density for a Gaussian around its action, of this standard '
    'deviation in half ranges of the trained actions: one value, or one per action dimension; 0 or '
    'nothing does not'
)
"""Descriptions of keys that runs and nodes have alike."""


@dataclass(frozen=True)
class ControllerConfig:
    """How a base policy and a residual run together."""

    decision_steps: int
    """Control steps per residual decision (k)."""
    residual_scale: tuple[float, ...]
    """Lambda: one value, or one per action dimension."""
    splicing: Splicing = ONE_BY_ONE
    """How it goes from one chunk to the next."""
    seed: int = 0
    """Seeds the base policy's and the exploration noise, with the episode number."""
    explore: bool = False
    """Sample the residual instead of using its mean."""
    lockstep: bool = True
    """Wait for a late chunk instead of holding."""
    scheduled_actor: bool = True
    """Use each actor exactly from the decision it names, and wait for it (reproducible)."""
    chunk_timeout_s: float = 0.0
    """Outside lockstep: how long a control step waits for a late chunk before it holds."""
    proposals: int = 1
    """Number N of draws of the base policy's noise: its action, and N - 1 that it might do."""
    customisable: bool = False
    """Transitions tell the add-on reward and its weight."""
    prior_width: tuple[float, ...] = ()
    """Take a base policy without density for a Gaussian of this standard deviation around its
    action, in half ranges of the trained actions: one value, or one per action dimension. Empty,
    or 0: no density."""
    max_weights_bytes: int = MAX_WEIGHTS_BYTES
    """Larger weight messages are refused unread."""

    def build(
        self,
        policy: BasePolicy,
        action: ActionSpec,
        kind: type[ResidualController] = ResidualController,
    ) -> ResidualController:
        """Put a controller together.

        Args:
            policy: base policy, already checked against the robot.
            action: command names and limits.
            kind: its class.

        Raises:
            ResidualRLError: the numbers do not fit the base policy or the robot.
        """
        stated = any(self.prior_width)
        if isinstance(policy, ReceivedPolicy) and (stated or self.lockstep):
            key = 'prior_width' if stated else 'lockstep'
            raise ConfigError(
                f'{key} is given, but base_policy is a topic: its chunks tell no density, and come '
                'in their own time; leave it out'
            )
        between = {
            'chunk_blend_steps': self.splicing.chunk_blend_steps,
            'prior_width': stated,
            'temporal_ensemble': self.splicing.temporal_ensemble,
        }
        for key in (key for key, given in between.items() if given and action.is_discrete):
            raise ConfigError(f'{key} is given, but discrete actions have nothing between them')
        several = self.proposals > 1 or stated or policy.metadata.prior is not Prior.NONE
        if self.splicing.chunk_blend_steps and action.orientations and several:
            raise ConfigError(
                'chunk_blend_steps is given, but an orientation that is blended has no density and '
                'no proposals: set it to 0, or run without prior_width and proposals'
            )
        if stated:
            policy = GaussianAround(policy, self.prior_width)
        metadata = policy.metadata
        bound = ResidualBound.from_metadata(metadata, self.residual_scale, action.is_discrete)
        layout = TransitionLayout(
            metadata.observation_names,
            metadata.action_names,
            self.decision_steps,
            metadata.action_min,
            metadata.action_max,
            tuple(bound.values.tolist()),
            prior=metadata.prior,
            proposals=self.proposals,
            customisable=self.customisable,
            discrete=action.is_discrete,
        )
        splicing = self.splicing.in_lockstep if self.lockstep else self.splicing
        safety = SafetyFilter(action)
        mixing = OrientationMixing(safety.orientations)
        return kind(
            layout=layout,
            queue=splicing.queue(policy, self.decision_steps, self.proposals, mixing),
            bound=bound,
            safety=safety,
            mailbox=ActorMailbox(layout, self.scheduled_actor, self.max_weights_bytes),
            seed=self.seed,
            explore=self.explore,
            chunk_timeout_s=None if self.lockstep else self.chunk_timeout_s,
        )
