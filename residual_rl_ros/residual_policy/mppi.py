# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual-MPPI (Wang et al., ICLR 2025, arXiv 2407.00898): the base's action, planned better.

At each decision the base policy is rolled through a learned model, perturbed, and the perturbations
are averaged with the weights of what they are worth: an add-on reward, and how likely the base
would act so. Nothing of the reward that the base was trained on is needed. The functions stand in
the order of the paper's algorithm; kind `mppi` of robot policy is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.errors import shown
from residual_rl_ros.numerics import Array, Float32, scalar
from residual_rl_ros.residual_policy.dynamics import DynamicsModel, ModelSizes
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import Planner, RobotPolicy, register_policy
from residual_rl_ros.rewards.composition import (
    MAX_WEIGHT,
    AddOns,
    BoundAddOns,
    decision_reward,
)
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.schema import from_mapping, parameter
from residual_rl_ros.transitions.layout import TransitionLayout

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


@dataclass(frozen=True)
class MppiArchitecture:
    """All that is needed to rebuild a planner from its tensors; travels with them."""

    tells_cost: ClassVar[bool] = False
    """Whether the policy tells the cost to go of a base action: it has no critics."""

    layout: TransitionLayout
    """Names, sizes and scales of the decisions that it is for."""
    sizes: ModelSizes
    """Of the model."""
    config: MppiConfig = field(default_factory=MppiConfig)
    """Numbers of a plan."""
    add_on: AddOns = field(default_factory=AddOns)
    """What is wanted beside the task."""
    add_on_weight: float = 1.0
    """Factor on the add-on; 0 is the base policy, exactly."""
    held_out: tuple[float, ...] = ()
    """How well the model predicts what it was not trained on: of each observation, the share of
    its change in a decision that is not explained (root mean square). Empty: not measured."""

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            ConfigError: the robot lacks an observation or action that the add-on names.
            ValueError: something else; weight messages come from outside.
        """
        if self.layout.discrete:
            raise ValueError('mppi plans continuous actions, and these are discrete')
        if self.config.prior_weight > 0.0 and self.sizes.density is Prior.NONE:
            raise ValueError(
                f'prior_weight is {self.config.prior_weight}, expected 0 without a density of the '
                'base policy; give train-dynamics a --prior-width, or plan greedily'
            )
        weight = self.add_on_weight
        if type(weight) is not float or not 0.0 <= weight <= MAX_WEIGHT:
            raise ValueError(f'add_on_weight is {shown(weight)}, expected 0 to {MAX_WEIGHT:g}')
        count = len(self.held_out)
        if count not in (0, self.layout.observation_size) or not np.isfinite(self.held_out).all():
            raise ValueError(f'held_out has {count} values, expected one for each observation')
        self.reward  # noqa: B018 - Unknown names are an error here.

    @cached_property
    def reward(self) -> BoundAddOns:
        """The add-on, bound to the names of the layout."""
        return decision_reward(self.add_on, self.layout)

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            'layout': self.layout.to_mapping(),
            'sizes': asdict(self.sizes),
            'config': asdict(self.config),
            'add_on': self.add_on.to_list(),
            'add_on_weight': self.add_on_weight,
            'held_out': list(self.held_out),
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> MppiArchitecture:
        """Return what `to_mapping` gave, JSON between; see `Architecture.from_mapping`.

        Raises:
            ValueError: also where an add-on names code: a message must not choose what is run.
        """
        sizes = values['sizes']
        for part in values['add_on']:
            if ':' in part['name']:
                raise ValueError(
                    f'add-on {shown(part["name"])} names code; install it as an entry point'
                )
        return cls(
            TransitionLayout.from_mapping(values['layout']),
            ModelSizes(tuple(sizes['dynamics']), tuple(sizes['prior']), Prior(sizes['density'])),
            from_mapping(MppiConfig, values['config'], 'config'),
            AddOns.of(values['add_on']),
            values['add_on_weight'],
            tuple(scalar(value) for value in values['held_out']),
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""
        return self.sizes.tensor_shapes(self.layout)


@register_policy('mppi', MppiArchitecture)
class MppiPlanner(Planner, RobotPolicy):
    """Plans every decision anew; see `residual_policy.mppi`.

    Args:
        architecture: sizes, numbers of a plan and add-on.
        tensors: those of the model.
    """

    architecture: MppiArchitecture

    def __init__(self, architecture: MppiArchitecture, tensors: Mapping[str, Float32]) -> None:
        super().__init__(architecture, tensors)
        self.model = DynamicsModel(architecture.sizes, architecture.layout, tensors)
        layout = architecture.layout
        self._bound = np.tile(np.array(layout.residual_bound), layout.decision_steps)

    def customised(self, **changes: Any) -> MppiPlanner:
        """Return it with other fields of its architecture, such as `add_on` and `config`.

        Raises:
            ConfigError: the robot lacks an observation or action that the add-on names.
            ValueError: a number is out of range.
        """
        return MppiPlanner(replace(self.architecture, **changes), self.tensors)

    def for_add_on(self, add_on: AddOns) -> MppiPlanner:
        """Return it with another add-on; see `Planner.for_add_on`."""
        return self.customised(add_on=add_on)

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the planned residual, shape (k * m,).

        See `RobotPolicy.decide` for the arguments. Without `rng` perturbations are always the same.

        Raises:
            RewardError: the add-on failed.
        """
        state = self.model.within(np.array(observation, dtype=np.float32))
        base = np.array(base_action, dtype=np.float32)
        return self._plan(state, base, distribution.prior, rng, sample)

    def decide_ahead(
        self,
        observation: npt.ArrayLike,
        action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
    ) -> Array:
        """Return the planned residual of the decision after one; see `Planner.decide_ahead`."""
        known = np.array(observation, dtype=np.float32)[None]
        state = self.model.step(self.model.within(known), np.array(action, dtype=np.float32)[None])
        base = self.model.deterministic(self.model.prior(state)[0])
        return self._plan(state[0], base[0], NO_DISTRIBUTION.prior, rng, sample)

    def _plan(
        self,
        state: Float32,
        base: Float32,
        prior: Array,
        rng: np.random.Generator | None,
        sample: ExplorationSample,
    ) -> Array:
        size = self.architecture.layout.decision_size
        reach = self._bound * sample.bound_scale
        weight = self.architecture.add_on_weight * sample.weight
        if weight == 0.0 or not self.architecture.add_on or not reach.any():
            return np.zeros(size)
        of_decision = self.architecture.reward.of_decision
        difference = plan(
            self.model,
            lambda *rows: weight * of_decision(*rows),
            state,
            base,
            prior,
            reach.astype(np.float32),
            self.architecture.config,
            np.random.default_rng(0) if rng is None else rng,
        )
        residual = np.divide(difference, reach, out=np.zeros(size), where=reach > 0.0)
        return residual.clip(-1.0, 1.0)  # The rounding of a mean may leave the range of its parts.

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        return rng.uniform(-half_width, half_width, len(self._bound)) * (self._bound > 0.0)
