# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual tree search in copies of the environment that is played: in one process, in lockstep."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from residual_rl_ros.base_policy.distribution import (
    NO_DISTRIBUTION,
    BaseDistribution,
    BasePolicy,
    base_decision,
)
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import Decider
from residual_rl_ros.rewards.composition import AddOns, BoundAddOns, decision_reward
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.tasks.checked import Env, environment_name, foreign
from residual_rl_ros.tasks.residual_mcts import (
    LogPrior,
    MctsConfig,
    act,
    search,
)
from residual_rl_ros.transitions.layout import TransitionLayout

Reward = Callable[[Array, Array, Array], float]
"""r_R of an observation, an action as a one-hot vector, and the next observation."""
PROBE_SEED = 80_000
"""Environment seed with which copies are tried."""


def clone(env: Env) -> Env:
    """Return a copy of an environment in the same state, that shares nothing with it.

    Raises:
        ConfigError: it cannot be copied.
    """
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise ConfigError(
            f'{environment_name(env)} cannot be copied, as tree search needs: '
            f'{type(error).__name__}: {error}; use another algorithm, such as residual_soft_q'
        ) from error


def planning_copy(env: Env, rng: np.random.Generator) -> Env:
    """Return a copy that draws other random numbers: a plan must not know the future.

    Where an environment has a method `simplify`, as those of highway-env have, the copy is what
    that returns: one without what is too far away to matter.

    Raises:
        ConfigError: it cannot be copied.
    """
    copied = clone(env)
    if hasattr(copied.unwrapped, 'simplify'):
        simple = copied.unwrapped.simplify()
        innermost: Any = copied
        while innermost.unwrapped is not innermost and innermost.env is not copied.unwrapped:
            innermost = innermost.env
        if innermost is copied.unwrapped:
            copied = simple
        else:
            innermost.env = simple
    copied.unwrapped.np_random = np.random.default_rng(rng.integers(2**32))
    return copied


def check_cloneable(env: Env) -> None:
    """Refuse an environment whose copies do not do the same, or move it.

    Raises:
        ConfigError: a copy did something else, or moved the environment.
        TaskError: it failed.
    """
    name = environment_name(env)
    foreign(f'{name}, reset', lambda: env.reset(seed=PROBE_SEED))
    answers = []
    for _ in range(2):
        simulator = EnvironmentSimulator(clone(env), lambda *_: 0.0, np.zeros(0))
        answers.append([simulator.step(action)[0] for action in (0, simulator.actions - 1)])
    if not np.array_equal(answers[0], answers[1]):
        raise ConfigError(
            f'two copies of {name} in one state do not do the same: its copies share a state, or '
            'draw random numbers of their own; tree search needs others'
        )


class EnvironmentSimulator:
    """A copy of an environment, as tree search takes it.

    Args:
        env: the copy, which is moved.
        reward: r_R.
        observation: what was observed last, shape (n,).
    """

    def __init__(self, env: Env, reward: Reward, observation: Array) -> None:
        self._env, self._reward, self._observation = env, reward, observation
        space = env.action_space
        assert isinstance(space, gymnasium.spaces.Discrete)
        self.actions = int(space.n)
        """Number of actions."""
        self._first = int(space.start)

    def copy(self) -> EnvironmentSimulator:
        """Return another one in the same state."""
        return EnvironmentSimulator(clone(self._env), self._reward, self._observation)

    def step(self, action: int) -> tuple[Array, float, bool]:
        """Execute an action; return the next observation, r_R and whether the episode is over."""
        chosen = np.zeros(self.actions)
        chosen[action] = 1.0
        answer = foreign(
            f'{environment_name(self._env)}, in tree search',
            lambda: self._env.step(self._first + action),
        )
        before, self._observation = self._observation, np.asarray(answer[0], dtype=np.float64)
        reward = self._reward(before, chosen, self._observation)
        return self._observation, reward, bool(answer[2] or answer[3])


@dataclass(frozen=True)
class MctsPlanner:
    """How a tree search is made for an environment; can be sent to a process."""

    add_on: AddOns
    """What is wanted beside the task."""
    weight: float = 1.0
    """Factor on it; 0 is the base policy, exactly."""
    config: MctsConfig = field(default_factory=MctsConfig)
    """Numbers of the search."""

    def build(self, env: Env, layout: TransitionLayout, policy: BasePolicy) -> ResidualMcts:
        """Return the planner of an environment.

        Args:
            env: the one that is played; it is tried, and reset.
            layout: of the decisions.
            policy: the base policy.

        Raises:
            ConfigError: it cannot be copied, its actions are not discrete, it has not what the
                add-on reads, or the base policy tells no density.
        """
        if not layout.discrete or layout.decision_steps != 1:
            raise ConfigError(
                'tree search needs discrete actions and decision_steps 1; for continuous ones '
                'train the dynamics of planner mppi (residual-rl train-dynamics)'
            )
        if self.config.iterations < layout.action_size:
            raise ConfigError(
                f'iterations is {self.config.iterations}, expected at least {layout.action_size}, '
                'one for each action'
            )
        reward = decision_reward(self.add_on, layout)
        prior = log_prior_of(policy)
        check_cloneable(env)
        return ResidualMcts(env, reward, self, prior)


def log_prior_of(policy: BasePolicy) -> LogPrior:
    """Return log pi of a base policy at any observation, without noise.

    Raises:
        ConfigError: it tells none, or needs more than one observation.
    """
    meta = policy.metadata
    if meta.prior is not Prior.CATEGORICAL:
        raise ConfigError(
            f'tree search needs a base policy with prior categorical (output logits), and this one '
            f'has prior {meta.prior}'
        )
    if meta.n_obs_steps != 1:
        raise ConfigError(
            f'tree search needs a base policy of one observation, and n_obs_steps is '
            f'{meta.n_obs_steps}'
        )
    if meta.images:
        raise ConfigError(
            'tree search needs a base policy without images, and this one wants '
            f'{", ".join(meta.image_sizes)}'
        )
    noises = np.zeros((1, *policy.noise_shape), dtype=np.float32) if policy.stochastic else None
    rows, count = slice(meta.exec_start, meta.exec_start + 1), len(meta.action_names)

    def log_prior(observation: Array) -> Array:
        chunk = policy.plan(observation.astype(np.float32)[None], noises)
        prior = base_decision(chunk[rows], meta.prior, count).distribution.prior
        return np.asarray(log_softmax(prior))

    return log_prior


class ResidualMcts(Decider):
    """Decides by a search from the present state of the environment that is played.

    Args:
        env: the environment; at a decision it is copied.
        reward: the add-on.
        planner: numbers.
        prior: the base policy.
    """

    def __init__(
        self, env: Env, reward: BoundAddOns, planner: MctsPlanner, prior: LogPrior
    ) -> None:
        self._env, self._reward, self._planner, self._prior = env, reward, planner, prior

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return nothing to add, shape (m,): nothing is between two actions."""
        del half_width, rng
        return np.zeros(len(self._reward.names.action))

    def decide(
        self,
        observation: npt.ArrayLike,
        base_action: npt.ArrayLike,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
        distribution: BaseDistribution = NO_DISTRIBUTION,
    ) -> Array:
        """Return the chosen action less the base's, shape (m,): in {-1, 0, 1}.

        See `RobotPolicy.decide` for the arguments. Without `rng` the observation seeds the search.
        """
        state = np.array(observation, dtype=np.float64)
        base = np.asarray(base_action, dtype=np.float64)
        if self._planner.weight == 0.0:
            return np.zeros(base.shape)
        if rng is None:
            rng = np.random.default_rng(zlib.crc32(state.tobytes()))
        env = planning_copy(self._env, rng)
        prior = distribution.prior
        log_prior = log_softmax(prior) if prior.size else self._prior(state)
        weight, of_decision = self._planner.weight, self._reward.of_decision
        simulator = EnvironmentSimulator(
            env, lambda *rows: weight * float(of_decision(*rows)), state
        )
        root = search(simulator, log_prior, self._prior, self._planner.config, rng)
        chosen = np.zeros(base.shape)
        chosen[act(root, self._planner.config, rng)] = 1.0
        return chosen - base
