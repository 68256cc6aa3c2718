# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a base policy tells beside its action: how likely actions are, and what else it would do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from residual_rl_ros.base_policy.inputs import Context
from residual_rl_ros.base_policy.metadata import UNUSED_RANGE, BasePolicyMetadata
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.robot.prior import Prior


@dataclass(frozen=True)
class BaseDistribution:
    """Of the base action of one decision."""

    prior: Array
    """Density of the action, shape (P,); see `robot.prior.Prior`."""
    proposals: Array
    """Other draws of the base policy at the same observation, shape (N - 1, k * m)."""


NO_DISTRIBUTION = BaseDistribution(np.zeros(0), np.zeros((0, 0)))
"""A base policy that tells its action alone."""


@dataclass(frozen=True)
class BaseDecision:
    """What a base policy says for the k control steps of a decision."""

    actions: Array
    """Shape (k, m), command units."""
    distribution: BaseDistribution
    """Of these actions."""

    def with_chosen(self, proposal: int) -> BaseDecision:
        """Return it with a proposal, 1 to N - 1, and the base action in each other's place."""
        others = self.distribution.proposals.copy()
        chosen = others[proposal - 1].reshape(self.actions.shape).copy()
        others[proposal - 1] = self.actions.ravel()
        return BaseDecision(chosen, replace(self.distribution, proposals=others))


class BasePolicy(Protocol):
    """What the control loop needs of a base policy."""

    metadata: BasePolicyMetadata
    stochastic: bool
    """Whether it has a noise input."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise, of most policies (horizon, m)."""

    def plan(
        self, window: Float32, noises: Float32 | None = None, context: Context | None = None
    ) -> Float32:
        """Return a chunk: a row for each action, so that all that belongs to it moves with it.

        Args:
            window: the newest observations, oldest first, shape (n_obs_steps, n).
            noises: standard normal noise, shape (N, *noise_shape); None of a deterministic policy.
            context: what else the policy is given; None of one that has no such inputs.

        Returns:
            Shape (horizon, c): m actions of the first noise, `metadata.prior.size(m)` numbers of
            their density, and m actions of each further noise.
        """


def base_decision(rows: Float32, prior: Prior, actions: int) -> BaseDecision:
    """Return what rows of a chunk say.

    Args:
        rows: see `BasePolicy.plan`, shape (k, c).
        prior: kind of density.
        actions: number of actions m.
    """
    values = rows.astype(np.float64)
    if values.shape[1] == actions:
        return BaseDecision(values, NO_DISTRIBUTION)
    split = actions + prior.size(actions)
    # All means come before all log standard deviations.
    density = values[:, actions:split].reshape(len(rows), -1, actions).swapaxes(0, 1)
    others = values[:, split:].reshape(len(rows), -1, actions).swapaxes(0, 1)
    return BaseDecision(
        values[:, :actions],
        BaseDistribution(density.ravel(), others.reshape(len(others), len(rows) * actions)),
    )


class GaussianAround:
    """A base policy without density, taken for a Gaussian of stated width around its action.

    That is approximate: how likely the policy's actions are, nobody has said.

    Args:
        policy: the base policy.
        width: standard deviation in half ranges of the trained actions, one or one per dimension.

    Raises:
        ConfigError: the width does not fit, or the policy tells its density itself.
    """

    def __init__(self, policy: BasePolicy, width: tuple[float, ...]) -> None:
        meta = policy.metadata
        if meta.prior is not Prior.NONE:
            raise ConfigError(
                f'prior_width is {list(width)}, but the base policy tells its density itself '
                f'(prior {meta.prior}); remove prior_width'
            )
        count = len(meta.action_names)
        if len(width) not in (1, count) or not all(0.0 < value < np.inf for value in width):
            raise ConfigError(
                f'prior_width is {list(width)}, expected 1 or {count} finite numbers above 0 (one '
                f'per action: {", ".join(meta.action_names)})'
            )
        self.metadata = replace(meta, prior=Prior.GAUSSIAN)
        self.stochastic, self.noise_shape = policy.stochastic, policy.noise_shape
        self._policy = policy
        span = np.array(meta.action_max) - np.array(meta.action_min)
        # No residual moves what the base never uses: any width says the same there.
        std = np.where(span < UNUSED_RANGE, 1.0, np.array(width) * span / 2.0)
        self._log_std = np.log(std).astype(np.float32)

    def plan(
        self, window: Float32, noises: Float32 | None = None, context: Context | None = None
    ) -> Float32:
        """Return a chunk; see `BasePolicy.plan`."""
        rows = self._policy.plan(window, noises, context)
        count = len(self._log_std)
        actions, others = rows[:, :count], rows[:, count:]
        log_std = np.broadcast_to(self._log_std, actions.shape)
        return np.concatenate([actions, actions, log_std, others], axis=1)
