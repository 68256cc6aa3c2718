# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Residual max-entropy tree search (Li et al., NeurIPS 2023, arXiv 2306.09526): no training.

It looks for the soft-optimal action of the reward omega' log pi(a|s) + r_R at temperature alpha^,
up to a horizon, in copies of the environment itself:

    Q(s, a) = r_R(s, a) + gamma V(s')
    V(s) = alpha^ log sum over a of exp((Q(s, a) + omega' log pi(a|s)) / alpha^)

V is 0 at the horizon and where an episode ends. The same actions lead to the same states, so what
is known exactly is never looked at again: a tree that is expanded to the horizon is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from residual_rl_ros.numerics import Array
from residual_rl_ros.schema import parameter

LogPrior = Callable[[Array], Array]  # log pi, shape (actions,), at an observation, shape (n,).


@dataclass(frozen=True)
class MctsConfig:
    """The numbers of a search."""

    iterations: int = parameter(150, 'walks from the root to a new state', 1, 10**6)
    horizon: int = parameter(6, 'decisions looked ahead', 1, 1000)
    discount: float = parameter(0.8, 'gamma, of a decision', 0.0, 1.0)
    prior_weight: float = parameter(
        1.0, "omega': how much log pi of the base counts beside the add-on; 0 is greedy", 0.0, 1e6
    )
    temperature: float = parameter(1.0, 'alpha^: how random the best policy is', 1e-6, 1e6)
    exploration: float = parameter(
        1.0, 'share of uniform choices in the tree, times actions / log(1 + visits)', 0.0, 1e6
    )
    sample: bool = parameter(
        False, 'draw the action from the soft-optimal policy; else take its most likely one'
    )


class Simulator(Protocol):
    """The task in a state; the same actions lead to the same states."""

    def copy(self) -> Simulator:
        """Return another one in the same state."""

    def step(self, action: int) -> tuple[Array, float, bool]:
        """Execute an action; return the next observation, r_R and whether the episode is over."""


class Node:
    """A state in the tree.

    Args:
        config: numbers of the search.
        log_prior: log pi of every action, shape (actions,); size 0 where nothing follows.
        guess: soft value by the prior's own steps, until the actions are tried.
        simulator: at the state.
    """

    def __init__(
        self, config: MctsConfig, log_prior: Array, guess: float, simulator: Simulator | None
    ) -> None:
        count = len(log_prior)
        self.preference = config.prior_weight * log_prior
        """Omega' log pi, shape (actions,)."""
        self._temperature = config.temperature
        rest = config.temperature * np.logaddexp.reduce(self.preference / config.temperature)
        self.q = np.full(count, guess - rest)
        """Q of every action, shape (actions,); of one not tried what makes the guess the value."""
        self.reward = np.zeros(count)
        """R_R of every action that was tried, shape (actions,)."""
        self.children: list[Node | None] = [None] * count
        self.exact = np.zeros(count, dtype=bool)
        """Whether everything after an action is known, shape (actions,)."""
        self.visits = 0
        self.value = guess
        """V."""
        self._simulator = simulator

    @property
    def scores(self) -> Array:
        """Return (Q + omega' log pi) / alpha^, whose softmax is the policy, shape (actions,)."""
        return np.asarray((self.q + self.preference) / self._temperature)

    def leave(self) -> Simulator:
        """Return a simulator at this state, to be moved by an action that was not tried yet."""
        simulator = self._simulator
        assert simulator is not None
        if self.children.count(None) > 1:
            return simulator.copy()
        self._simulator = None
        return simulator

    def back_up(self, action: int, value: float, exact: bool) -> None:
        """Take in the Q of an action."""
        self.q[action], self.exact[action] = value, exact
        self.visits += 1
        self.value = self._temperature * float(np.logaddexp.reduce(self.scores))


def search(
    simulator: Simulator,
    log_prior: Array,
    prior: LogPrior,
    config: MctsConfig,
    rng: np.random.Generator,
) -> Node:
    """Return the root of the tree after the search.

    Args:
        simulator: at the present state; it is copied, and not moved.
        log_prior: log pi at the present state, shape (actions,).
        prior: the base policy.
        config: numbers of the search.
        rng: source of the choices.
    """
    root = Node(config, log_prior, 0.0, simulator.copy())
    for _ in range(config.iterations):
        if root.exact.all():
            break
        walk(root, prior, config, rng)
    return root


def walk(root: Node, prior: LogPrior, config: MctsConfig, rng: np.random.Generator) -> None:
    """Go down to a new state, value it, and take its value back to the root."""
    path: list[tuple[Node, int]] = []
    node: Node | None = root
    while node is not None:
        parent, action = node, choose(node, config, rng)
        path.append((parent, action))
        node = parent.children[action]
    simulator = parent.leave()
    observation, parent.reward[action], over = simulator.step(action)
    if over or len(path) == config.horizon:
        node = Node(config, np.zeros(0), 0.0, None)
    else:
        log_prior, steps = prior(observation), config.horizon - len(path)
        guess = roll_out(simulator.copy(), log_prior, steps, prior, config, rng)
        node = Node(config, log_prior, guess, simulator)
    parent.children[action] = node
    for parent, action in reversed(path):
        value = parent.reward[action] + config.discount * node.value
        parent.back_up(action, value, bool(node.exact.all()))
        node = parent


def choose(node: Node, config: MctsConfig, rng: np.random.Generator) -> int:
    """Return an action of which not everything is known: each once, then by the soft policy."""
    open_ = np.flatnonzero(~node.exact)
    fresh = np.array([index for index in open_ if node.children[index] is None], dtype=np.intp)
    if len(fresh):
        return int(fresh[draw(node.preference[fresh], rng)])
    uniform = config.exploration * len(node.q) / math.log1p(node.visits)
    if rng.random() < uniform:
        return int(rng.choice(open_))
    return int(open_[draw(node.scores[open_], rng)])


def draw(scores: Array, rng: np.random.Generator) -> int:
    """Return an index drawn from the softmax of scores, shape (count,)."""
    return int(np.argmax(scores + rng.gumbel(size=len(scores))))


def roll_out(
    simulator: Simulator,
    log_prior: Array,
    steps: int,
    prior: LogPrior,
    config: MctsConfig,
    rng: np.random.Generator,
) -> float:
    """Return the soft value of going on with the prior: what it costs to differ is counted."""
    total, discount = 0.0, 1.0
    for step in range(steps):
        action = draw(log_prior, rng)
        observation, reward, over = simulator.step(action)
        surplus = config.prior_weight - config.temperature
        total += discount * (reward + surplus * float(log_prior[action]))
        discount *= config.discount
        if over or step == steps - 1:
            break
        log_prior = prior(observation)
    return total


def act(root: Node, config: MctsConfig, rng: np.random.Generator) -> int:
    """Return the action of a searched tree."""
    return draw(root.scores, rng) if config.sample else int(np.argmax(root.scores))
