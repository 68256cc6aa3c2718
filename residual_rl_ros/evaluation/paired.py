# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluations of base and base + residual on the same seeds, and what they came to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.config.run import ResolvedRun, RunConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.evaluation.episode import Episode, in_processes, run_episode
from residual_rl_ros.evaluation.intervals import (
    Mean,
    Rate,
    mcnemar,
    mean_interval,
    paired_t,
    wilson,
)
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.tasks.mcts_planner import MctsPlanner


@dataclass(frozen=True)
class Added:
    """What an add-on adds to returns, or to a difference of returns."""

    add_on: Mean
    total: Mean
    """Of basic and add-on reward together."""

    def words(self, basic: Mean) -> str:
        """Return all three in words."""
        return f'basic {basic}, add-on {self.add_on}, total {self.total}'

    def summary(self, of: str) -> dict[str, float | None]:
        """Return it as plain numbers for JSON, under keys with `of` in their names."""
        return {
            f'{name}_{of}{end}': value
            for name, mean in (('add_on', self.add_on), ('total', self.total))
            for end, value in (('', mean.value), ('_low_95', mean.low), ('_high_95', mean.high))
        }


@dataclass(frozen=True)
class Score:
    """What the episodes of one policy came to."""

    success: Rate | None
    """None unless every episode was labelled."""
    returns: Mean
    """Of the task's own reward."""
    unlabelled: int
    """Episodes whose outcome the task did not tell."""
    added: Added | None = None
    """None without an add-on."""

    @property
    def main(self) -> Rate | Mean:
        """Success, or the mean return, with that of the add-on, of a task without."""
        if self.success is not None:
            return self.success
        return self.returns if self.added is None else self.added.total

    def __str__(self) -> str:
        if self.added is not None:
            success = '' if self.success is None else f'{self.success}, '
            return f'{success}return: {self.added.words(self.returns)}'
        return f'return {self.returns}' if self.success is None else str(self.success)

    def summary(self) -> dict[str, float | int | None]:
        """Return it as plain numbers for JSON."""
        rate, mean = self.success, self.returns
        return {
            'success': None if rate is None else round(rate.value, 4),
            'low_95': None if rate is None else round(rate.low, 4),
            'high_95': None if rate is None else round(rate.high, 4),
            'episodes': mean.trials,
            'unlabelled': self.unlabelled,
            'return': mean.value,
            'return_low_95': mean.low,
            'return_high_95': mean.high,
            **({} if self.added is None else self.added.summary('return')),
        }


def score(episodes: Sequence[Episode]) -> Score:
    """Return success and mean return of independent episodes.

    Raises:
        ValueError: there are none.
    """
    outcomes = [episode.success for episode in episodes if episode.success is not None]
    unlabelled = len(episodes) - len(outcomes)
    rate = None if unlabelled else wilson(outcomes)
    basic = mean_interval([e.episode_return for e in episodes])
    add_on = _add_on_returns(episodes)
    if add_on is None:
        return Score(rate, basic, unlabelled)
    total = mean_interval([e.total_return for e in episodes])
    return Score(rate, basic, unlabelled, Added(mean_interval(add_on), total))


def _add_on_returns(episodes: Sequence[Episode]) -> list[float] | None:
    """Return those of all episodes, None if there was no add-on."""
    found = [e.add_on_return for e in episodes if e.add_on_return is not None]
    return found if len(found) == len(episodes) else None


@dataclass(frozen=True)
class Difference:
    """Base + residual against the base, on the same seeds."""

    fixed: int | None
    """Seeds that the residual repairs; None if outcomes are not told."""
    broken: int | None
    """Seeds that it breaks."""
    returns: Mean
    """Difference of the returns."""
    p_value: float | None
    """Exact McNemar test of the outcomes; of returns alone, with those of the add-on, the paired t
    test; None for one pair."""
    added: Added | None = None
    """The same of add-on and total; None without an add-on."""

    def __str__(self) -> str:
        p = '?' if self.p_value is None else f'{self.p_value:.2g}'
        returns = f'difference of the returns {self.returns}'
        if self.added is not None:
            returns = f'difference of the returns: {self.added.words(self.returns)}'
        if self.fixed is None:
            return f'{returns}, p = {p} (paired t)'
        seeds = 'seed' if self.fixed == 1 else 'seeds'
        repaired = f'{self.fixed} {seeds} repaired, {self.broken} broken, p = {p} (McNemar, exact)'
        return repaired if self.added is None else f'{repaired}; {returns}'

    def summary(self) -> dict[str, float | int | None]:
        """Return it as plain numbers for JSON."""
        return {
            'fixed': self.fixed,
            'broken': self.broken,
            'paired_p_value': self.p_value,
            'return_difference': self.returns.value,
            'return_difference_low_95': self.returns.low,
            'return_difference_high_95': self.returns.high,
            **({} if self.added is None else self.added.summary('return_difference')),
        }


def difference(base: Sequence[Episode], final: Sequence[Episode]) -> Difference:
    """Compare two policies on the same seeds, in the same order.

    Raises:
        ValueError: the numbers of episodes differ, or are zero.
    """
    returns, p_value = paired_t(*([e.episode_return for e in side] for side in (base, final)))
    before_add_on, after_add_on = _add_on_returns(base), _add_on_returns(final)
    added = None
    if before_add_on is not None and after_add_on is not None:
        total, p_value = paired_t(*([e.total_return for e in side] for side in (base, final)))
        added = Added(paired_t(before_add_on, after_add_on)[0], total)
    outcomes = [(b.success, a.success) for b, a in zip(base, final, strict=True)]
    pairs = [(b, a) for b, a in outcomes if b is not None and a is not None]
    if len(pairs) < len(outcomes):
        return Difference(None, None, returns, p_value, added)
    before, after = zip(*pairs, strict=True)
    fixed = sum(a and not b for b, a in pairs)
    broken = sum(b and not a for b, a in pairs)
    return Difference(fixed, broken, returns, mcnemar(before, after), added)


EVALUATION_SEED = 90_000
"""First environment seed of reported evaluations; tuning uses none of 90000 to 90999."""
CURVE_SEED = 91_000
"""First environment seed of the evaluations during training; reported results use none of these."""


Policy = bytes | MctsPlanner | None
"""What acts beside the base policy: a weight message, a tree search, or nothing."""


def evaluate(
    config: RunConfig,
    seeds: Sequence[int],
    actor_message: Policy = None,
    workers: int = 2,
) -> Iterator[Episode]:
    """Yield the episodes of every seed, in order, as they are done.

    Args:
        config: the run.
        seeds: environment seeds.
        actor_message: weight message of the residual actor, or a tree search; None runs the base
            policy alone.
        workers: processes.

    Raises:
        ResidualRLError: base policy, robot or environment do not fit.
    """
    yield from _play_all(config, [(0, seed) for seed in seeds], [actor_message], workers)


def evaluate_blind(
    config: RunConfig,
    seeds: Sequence[int],
    actor_message: bytes | MctsPlanner,
    rng: np.random.Generator,
    workers: int = 2,
) -> Iterator[tuple[bool, Episode]]:
    """Yield (whether the residual was on, episode) of both policies on every seed, shuffled.

    A drift during the evaluation then affects both policies alike.

    Args:
        config: the run.
        seeds: environment seeds.
        actor_message: weight message of the residual actor, or a tree search.
        rng: draws the order.
        workers: processes.
    """
    jobs = [(policy, seed) for seed in seeds for policy in (0, 1)]
    jobs = [jobs[index] for index in rng.permutation(len(jobs))]
    episodes = _play_all(config, jobs, [None, actor_message], workers)
    for (policy, _), episode in zip(jobs, episodes, strict=True):
        yield policy == 1, episode


def _play_all(
    config: RunConfig,
    jobs: Sequence[tuple[int, int]],
    messages: Sequence[Policy],
    workers: int,
) -> Iterator[Episode]:
    """Yield the episode of every (index of the message, seed), in order."""
    run = config.resolve()
    env = host(config, run.robot)
    for message in messages:  # Errors are raised here, not in a worker.
        _controller(run, env, message).close()
    env.close()
    yield from in_processes(partial(_Worker, config, messages), _Worker.play, jobs, workers)


def film(
    config: RunConfig, seed: int, actor_message: bytes | None, frames: int
) -> list[npt.NDArray[np.uint8]]:
    """Return images of one episode, evenly spread over its length.

    Args:
        config: the run.
        seed: environment seed.
        actor_message: weight message of the residual actor; None plays the base policy alone.
        frames: number of images.

    Raises:
        RuntimeError: no OpenGL is available; what MuJoCo raises has no common type.
    """
    run = config.resolve()
    env = host(config, run.robot, render_mode='rgb_array')
    controller = run.evaluation_controller(actor_message)
    drawn: list[npt.NDArray[np.uint8]] = []
    run_episode(env, controller, seed, seed, on_step=lambda: drawn.append(np.asarray(env.render())))
    env.close()
    return [drawn[index] for index in np.linspace(0, len(drawn) - 1, frames).round().astype(int)]


def _controller(
    run: ResolvedRun, env: gymnasium.Env[Any, Any], policy: Policy
) -> ResidualController:
    """Return a controller that does not explore, for an environment."""
    if not isinstance(policy, MctsPlanner):
        return run.evaluation_controller(policy)
    controller = run.evaluation_controller(None)
    controller.mailbox.install(policy.build(env, controller.layout, run.policy))
    return controller


class _Worker:
    """Environment and controllers of a worker process, built once."""

    def __init__(self, config: RunConfig, messages: Sequence[Policy]) -> None:
        run = config.resolve()
        self.env = host(config, run.robot)
        self.add_on = run.add_on
        self.controllers = [_controller(run, self.env, message) for message in messages]

    def play(self, job: tuple[int, int]) -> Episode:
        """Return the episode of (index of the message, seed)."""
        policy, seed = job
        return run_episode(self.env, self.controllers[policy], seed, seed, add_on=self.add_on)


def silence_stderr() -> None:
    """Discard what drivers and destructors print."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
