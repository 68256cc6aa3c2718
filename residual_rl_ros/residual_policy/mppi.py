# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual-MPPI (Wang et al., ICLR 2025, arXiv 2407.00898): the base's action, planned better.

At each decision the base policy is rolled through a learned model, perturbed, and the perturbations
are averaged with the weights of what they are worth: an add-on reward, and how likely the base
would act so. Nothing of the reward that the base was trained on is needed. The functions stand in
the order of the paper's algorithm; `mppi_planner` makes a kind of robot policy of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.residual_policy.dynamics import DynamicsModel
from residual_rl_ros.residual_policy.robot_policy import Array, Float32
from residual_rl_ros.schema import parameter

Reward = Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], Array]
"""r_R of decisions: of observations (rows, n), actions (rows, k * m) and next observations."""
MAX_PREDICTIONS = 2**17
"""Most predictions of a plan, samples times horizon: weight messages come from outside."""


@dataclass(frozen=True)
class MppiConfig:
    """The numbers of a plan."""

    samples: int = parameter(256, 'perturbed sequences (K); the first is not perturbed', 1)
    horizon: int = parameter(8, 'decisions looked ahead (T)', 1)
    discount: float = parameter(0.9, 'gamma, of a decision', 0.0, 1.0)
    prior_weight: float = parameter(
        0.0, "omega': how much log pi of the base counts beside the add-on; 0 is greedy", 0.0, 1e6
    )
    temperature: float = parameter(
        0.01, 'lambda: the smaller, the more the best sequence alone counts', 1e-9, 1e9
    )
    noise: float = parameter(
        0.1,
        'standard deviation of the perturbations, in half ranges of the trained actions',
        1e-6,
        1.0,
    )

    def problems(self) -> Iterator[str]:
        """Yield what asks for more than a plan may take."""
        if self.samples * self.horizon > MAX_PREDICTIONS:
            yield (
                f'samples {self.samples} times horizon {self.horizon} is '
                f'{self.samples * self.horizon}, expected <= {MAX_PREDICTIONS}'
            )


def nominal(model: DynamicsModel, observation: Float32, base: Float32, horizon: int) -> Float32:
    """Return U, the base's deterministic actions along the model, shape (T, k * m).

    Args:
        model: dynamics and distilled prior.
        observation: x_0, shape (n,).
        base: u_0, the base action at x_0, shape (k * m,).
        horizon: T.
    """
    state, actions = observation[None], [base[None]]
    while len(actions) < horizon:
        state = model.step(state, actions[-1])
        actions.append(model.deterministic(model.prior(state)[0]))
    return np.concatenate(actions)


def perturb(
    model: DynamicsModel,
    actions: Float32,
    reach: Float32,
    config: MppiConfig,
    rng: np.random.Generator,
) -> Float32:
    """Return V, K sequences around U within reach of it, shape (K, T, k * m); V_0 is U.

    Args:
        model: knows the range of the trained actions.
        actions: U, shape (T, k * m).
        reach: largest difference from the base that the robot executes, shape (k * m,).
        config: numbers of the plan.
        rng: source of the perturbations.
    """
    shape = config.samples, *actions.shape
    difference = rng.standard_normal(shape, dtype=np.float32)
    difference *= np.float32(config.noise) * model.half_range
    difference[0] = 0.0
    # As far as the trained range goes; where the base leaves it, not further.
    low = np.minimum(model.center - model.half_range - actions, 0.0)
    high = np.maximum(model.center + model.half_range - actions, 0.0)
    np.clip(difference, np.maximum(low, -reach), np.minimum(high, reach), out=difference)
    return np.asarray(actions + difference, dtype=np.float32)


def scores(
    model: DynamicsModel,
    reward: Reward,
    observation: Float32,
    prior: Array,
    sequences: Float32,
    config: MppiConfig,
) -> Array:
    """Return S = sum over t of gamma^t (r_R(x_t, u_t) + omega' log pi(u_t | x_t)), shape (K,).

    Args:
        model: dynamics and distilled prior.
        reward: r_R.
        observation: x_0, shape (n,).
        prior: density of the base at x_0, mean and log_std; size 0: the distilled one.
        sequences: V, shape (K, T, k * m).
        config: numbers of the plan.
    """
    total = np.zeros(len(sequences))
    states = np.repeat(observation[None], len(sequences), axis=0)
    for step in range(sequences.shape[1]):
        actions = np.ascontiguousarray(sequences[:, step])
        following = model.step(states, actions)
        value = reward(states, actions, following)
        if config.prior_weight > 0.0:
            known = step == 0 and prior.size
            told = prior.astype(np.float32).reshape(2, 1, -1) if known else model.prior(states)
            value = value + config.prior_weight * model.log_density(actions, told[0], told[1])
        total += config.discount**step * value
        states = following
    return total


def weights(values: Array, control: Array, temperature: float) -> Array:
    """Return softmax(S / lambda - sum over t of u_t' Sigma^-1 eps_t), shape (K,)."""
    exponent = values / temperature - control
    exponent = np.exp(exponent - exponent.max())
    return np.asarray(exponent / exponent.sum())


def plan(
    model: DynamicsModel,
    reward: Reward,
    observation: Float32,
    base: Float32,
    prior: Array,
    reach: Float32,
    config: MppiConfig,
    rng: np.random.Generator,
) -> Array:
    """Return by how much the planned action of x_0 differs from the base's, shape (k * m,).

    Args:
        model: dynamics and distilled prior.
        reward: r_R.
        observation: x_0, shape (n,).
        base: base action at x_0, shape (k * m,).
        prior: see `scores`.
        reach: see `perturb`.
        config: numbers of the plan.
        rng: source of the perturbations.
    """
    actions = nominal(model, observation, base, config.horizon)
    sequences = perturb(model, actions, reach, config, rng)
    values = scores(model, reward, observation, prior, sequences, config)
    # In units of the noise, from the middle of the range: zero need not be the easiest command.
    unit = model.half_range * np.float32(config.noise)
    control = (sequences - actions) / unit * ((actions - model.center) / unit)
    share = weights(values, control.sum(axis=(1, 2)), config.temperature)
    return np.asarray(share @ (sequences[:, 0] - actions[0]), dtype=np.float64)
