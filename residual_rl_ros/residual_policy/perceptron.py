# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Changes of what the base policy tells of its actions, as the robot runs them, in NumPy.

Two kinds share a network, `Perceptron`; `torch_perceptron` has the torch twins. Kind `categorical`
has discrete actions: pi^(a|s) is proportional to exp((Q_R(s, a) + omega' log pi(a|s)) / alpha^) (Li
et al., "Residual Q-Learning", arXiv 2306.09526). A decision is one control step: the one-hot vector
of the action that is chosen, less that of the base action.

Kind `prior_gaussian` changes mean and log standard deviation of the base policy. Where nothing is
learned yet it is the base policy exactly, noise included. If the base's Gaussian is squashed by
tanh, the change acts before it. A base policy without density leaves a squashed Gaussian around the
middle of the trained range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import NO_DISTRIBUTION, BaseDistribution
from residual_rl_ros.numerics import Array, Float32, all_finite
from residual_rl_ros.residual_policy.architecture import (
    OBSERVATION_CLIP,
    NetworkArchitecture,
    body_layers,
    check_sizes,
)
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy, register_policy
from residual_rl_ros.robot.prior import Prior


def perceptron_shapes(
    inputs: int, hidden_sizes: tuple[int, ...], outputs: int
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor.

    Raises:
        ValueError: a size is none; weight messages come from outside.
    """
    check_sizes('network', (outputs, *hidden_sizes))
    shapes: dict[str, tuple[int, ...]] = {
        'normalizer.mean': (inputs,),
        'normalizer.std': (inputs,),
    }
    for linear, _, hidden in body_layers(hidden_sizes, 'none'):
        shapes |= {f'{linear}.weight': (hidden, inputs), f'{linear}.bias': (hidden,)}
        inputs = hidden
    return shapes | {'heads.weight': (outputs, inputs), 'heads.bias': (outputs,)}


class Perceptron:
    """One observation at a time.

    Args:
        hidden_sizes: widths of the hidden layers.
        tensors: by the names and of the shapes of `perceptron_shapes`.
    """

    def __init__(self, hidden_sizes: tuple[int, ...], tensors: Mapping[str, Float32]) -> None:
        self._mean, self._std = tensors['normalizer.mean'], tensors['normalizer.std']
        names = [linear for linear, _, _ in body_layers(hidden_sizes, 'none')]
        self._layers = [(tensors[f'{each}.weight'], tensors[f'{each}.bias']) for each in names]
        self._heads = tensors['heads.weight'], tensors['heads.bias']

    def __call__(self, observation: npt.ArrayLike) -> Array:
        """Return the output for one observation (n,), shape (outputs,)."""
        x = (np.asarray(observation, dtype=np.float32) - self._mean) / self._std
        x = np.clip(x, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        for weight, bias in self._layers:
            x = np.maximum(weight.dot(x) + bias, np.float32(0.0))
        weight, bias = self._heads
        out: Array = (weight.dot(x) + bias).astype(np.float64)
        return out


@dataclass(frozen=True)
class CategoricalArchitecture(NetworkArchitecture):
    """Sizes of the network of Q_R, and how it is weighed."""

    prior_weight: float
    """omega'; 0 forgets the base policy."""
    temperature: float
    """alpha^."""
    epsilon: float = 0.0
    """Probability of a uniformly drawn action while exploring."""

    def __post_init__(self) -> None:
        """Check that the numbers fit.

        Raises:
            ValueError: they do not; weight messages come from outside.
        """
        for name, least, most in (
            ('prior_weight', 0.0, math.inf),
            ('temperature', 0.0, math.inf),
            ('epsilon', 0.0, 1.0),
        ):
            value = getattr(self, name)
            if type(value) is not float or not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f'{name} is {value!r}, expected a number from {least} to {most}')
        if not self.temperature:
            raise ValueError('temperature is 0.0, expected a number above 0')
        if not self.layout.discrete or self.layout.decision_steps != 1:
            raise ValueError(
                'the layout has continuous actions or decisions of several steps, expected '
                'discrete ones of one step'
            )
        if self.prior_weight and self.layout.prior is not Prior.CATEGORICAL:
            raise ValueError(f'prior is {self.layout.prior}, expected categorical')

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""
        layout = self.layout
        return perceptron_shapes(layout.observation_size, self.hidden_sizes, layout.action_size)


@register_policy('categorical', CategoricalArchitecture)
class CategoricalPolicy(RobotPolicy):
    """Draws an action, or takes the best one.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    architecture: CategoricalArchitecture

    def __init__(
        self, architecture: CategoricalArchitecture, tensors: Mapping[str, Float32]
    ) -> None:
        super().__init__(architecture, tensors)
        self._values = Perceptron(architecture.hidden_sizes, tensors)
        self._size = architecture.layout.action_size

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the chosen one-hot vector less that of the base action, shape (m,).

        See `RobotPolicy.decide` for the arguments. Without `rng` it is the likeliest action. NaN
        where float32 overflows.
        """
        logits = self.logits(observation, distribution)
        if not all_finite(logits):
            return np.full(self._size, np.nan)
        if rng is None:
            chosen = int(logits.argmax())
        elif rng.random() < self.architecture.epsilon:
            chosen = int(rng.integers(self._size))
        else:
            chosen = int((logits + rng.gumbel(size=self._size)).argmax())
        residual: Array = -np.asarray(base_action, dtype=np.float64)
        residual[chosen] += 1.0
        return residual

    def logits(
        self, observation: npt.ArrayLike, distribution: BaseDistribution = NO_DISTRIBUTION
    ) -> Array:
        """Return (Q_R + omega' log pi) / alpha^ of every action, shape (m,)."""
        values = self._values(observation)
        if self.architecture.prior_weight:
            told = distribution.prior - distribution.prior.max()
            values = values + self.architecture.prior_weight * (told - np.log(np.exp(told).sum()))
        logits: Array = values / self.architecture.temperature
        return logits

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return no residual: a uniform one would be no action."""
        del half_width, rng
        return np.zeros(self._size)


LEAST_LOG_STD, MOST_LOG_STD = -20.0, 2.0
"""Range of the learned log standard deviation; that of the base policy may be beyond it."""
HELD_NOISE = 'held_noise'
"""Name of the tensor of noise that is held, shape (k * m,)."""


@dataclass(frozen=True)
class PriorGaussianArchitecture(NetworkArchitecture):
    """Sizes of the network of both changes."""

    initial_log_std: float = 0.0
    """Where the log standard deviation starts if the base policy tells no density."""
    hold_noise: bool = False
    """Explore with the noise of the weight message, the same for all of its decisions."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ValueError: one is wrong; weight messages come from outside.
        """
        start = self.initial_log_std
        if type(start) is not float or not LEAST_LOG_STD <= start <= MOST_LOG_STD:
            raise ValueError(
                f'initial_log_std is {start!r}, expected a number from {LEAST_LOG_STD} to '
                f'{MOST_LOG_STD}'
            )
        if type(self.hold_noise) is not bool:
            raise ValueError(f'hold_noise is {self.hold_noise!r}, expected a boolean')
        if self.layout.discrete:
            raise ValueError('the layout has discrete actions, expected continuous ones')

    @property
    def kind(self) -> Prior:
        """Kind of the density that is learned."""
        told = self.layout.prior
        return Prior.SQUASHED_GAUSSIAN if told is Prior.NONE else told

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor."""
        n, km = self.layout.observation_size, self.layout.decision_size
        held: dict[str, tuple[int, ...]] = {HELD_NOISE: (km,)} if self.hold_noise else {}
        return {**perceptron_shapes(n, self.hidden_sizes, 2 * km), **held}


@register_policy('prior_gaussian', PriorGaussianArchitecture)
class PriorGaussian(RobotPolicy):
    """Draws an action, or takes that of the mean.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, with the shapes of `tensor_shapes`.
    """

    architecture: PriorGaussianArchitecture

    def __init__(
        self, architecture: PriorGaussianArchitecture, tensors: Mapping[str, Float32]
    ) -> None:
        super().__init__(architecture, tensors)
        self._change = Perceptron(architecture.hidden_sizes, tensors)
        layout = architecture.layout
        low, high, bound = (
            np.tile(values, layout.decision_steps)
            for values in (layout.action_min, layout.action_max, layout.residual_bound)
        )
        self._centre, self._half_range = 0.5 * (low + high), 0.5 * (high - low)
        self._bound, self._active = np.maximum(bound, 1e-6), bound > 0.0
        km = layout.decision_size
        self._told = np.repeat([0.0, architecture.initial_log_std], km)

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return (a - b) / bound, clipped to [-1, 1], shape (k * m,).

        See `RobotPolicy.decide` for the arguments. Without `rng` a is the action of the mean. NaN
        where float32 overflows.
        """
        mean, log_std = self.moments(observation, distribution)
        if rng is not None:
            if self.architecture.hold_noise:
                noise = self.tensors[HELD_NOISE].astype(np.float64)
            else:
                noise = rng.standard_normal(len(mean))
            mean = mean + np.exp(log_std) * sample.noise_scale * noise
        if not all_finite(mean):
            return np.full(len(mean), np.nan)
        action = mean
        if self.architecture.kind is Prior.SQUASHED_GAUSSIAN:
            action = self._centre + self._half_range * np.tanh(mean)
        residual: Array = (action - np.asarray(base_action)) / self._bound * self._active
        return residual.clip(-1.0, 1.0)

    def moments(
        self, observation: npt.ArrayLike, distribution: BaseDistribution = NO_DISTRIBUTION
    ) -> tuple[Array, Array]:
        """Return mean and log standard deviation, before tanh if squashed, each (k * m,)."""
        known = self.architecture.layout.prior is not Prior.NONE
        told = distribution.prior if known else self._told
        mean, log_std = np.split(told + self._change(observation), 2)
        most = np.maximum(np.split(told, 2)[1], MOST_LOG_STD)
        return mean, np.minimum(np.maximum(log_std, LEAST_LOG_STD), most)

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        drawn: Array = rng.uniform(-half_width, half_width, len(self._bound)) * self._active
        return drawn
