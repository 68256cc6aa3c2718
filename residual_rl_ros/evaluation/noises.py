# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes of the base policy alone, of each start with several noises.

The start is the seed of the environment. The noise is the seed of everything that the base policy
draws in an episode, and has nothing to do with the start. The first noise of a start is the one
with which `evaluate` plays it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from residual_rl_ros.config.run import ResolvedRun, RunConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import Episode, run_episode
from residual_rl_ros.evaluation.intervals import Array
from residual_rl_ros.evaluation.processes import in_processes
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.transitions.transition import Transition

DIAGNOSIS_SEED = 30_000
"""First environment seed by default: none of those that results are reported on."""
NOISE_STRIDE = 1_000_000_000
"""Between the numbers of the episodes of two noises: no start has another one's noise."""
SPREAD_DRAWS = 8
"""Chunks that are drawn at each decision of the first noise, to see how far apart they are."""
TIMED_STARTS = 3
"""Starts whose episodes tell beforehand how long all will take."""


@dataclass(frozen=True)
class Attempt:
    """One start, played with one of its noises."""

    noise: int
    """Number of the noise, from 0 on."""
    episode: Episode
    variance: Array | None
    """Variance of the base action between draws at the same observation, mean over decisions and
    their control steps, shape (m,), command units squared; None where it was not measured."""

    @property
    def success(self) -> bool:
        """Whether it succeeded.

        Raises:
            ConfigError: the task did not tell.
        """
        if self.episode.success is None:
            raise ConfigError(
                f'the episode of seed {self.episode.seed} has no outcome, and only outcomes tell '
                'what choosing among noises is worth; say how the task tells success (--success)'
            )
        return self.episode.success


def attempt(env: Env, controller: ResidualController, start: int, noise: int) -> Attempt:
    """Play a start with one of its noises.

    Args:
        env: the environment.
        controller: a control loop without an actor. With proposals it measures how far they are
            apart; they change nothing of what is done.
        start: seed of the environment, below `NOISE_STRIDE`.
        noise: number of the noise.
    """
    layout = controller.layout
    variances: list[Array] = []

    def measure(transition: Transition) -> None:
        draws = np.concatenate([transition.base_action, transition.proposals])
        steps = draws.reshape(layout.proposals, layout.decision_steps, -1)
        variances.append(steps.var(0, ddof=1).mean(0))

    measured = layout.proposals > 1
    episode = run_episode(
        env,
        controller,
        start,
        start + NOISE_STRIDE * noise,
        measure if measured else lambda transition: None,
    )
    return Attempt(noise, episode, np.mean(variances, 0) if measured else None)


class NoisePlayer:
    """An environment with the base policy alone.

    Args:
        run: the run; what it says of proposals, density and add-on plays no part.

    Raises:
        ResidualRLError: the environment cannot be made, or does not fit.
    """

    def __init__(self, run: ResolvedRun) -> None:
        config = replace(run.config, proposals=1, customisable=False, prior_width=())
        draws = SPREAD_DRAWS if run.policy.stochastic else 1
        measuring = replace(run, config=replace(config, proposals=draws))
        self.env = host(config, run.robot)
        self._first = measuring.evaluation_controller(None)
        self._others = replace(run, config=config).evaluation_controller(None)

    @classmethod
    def of(cls, config: RunConfig) -> NoisePlayer:
        """Return that of a run."""
        return cls(config.resolve())

    def play(self, job: tuple[int, int]) -> Attempt:
        """Play a start with a noise: the first one measures the spread too."""
        start, noise = job
        return attempt(self.env, self._others if noise else self._first, start, noise)

    def close(self) -> None:
        """End its threads and its environment."""
        self._first.queue.close()
        self._others.queue.close()
        self.env.close()


def predicted_seconds(
    run: ResolvedRun,
    starts: Sequence[int],
    noises: int,
    workers: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return about how long all episodes will take, from some of them [s].

    Raises:
        ResidualRLError: they cannot be played; nothing else has happened then.
    """
    player = NoisePlayer(run)
    some = [starts[len(starts) * index // TIMED_STARTS] for index in range(TIMED_STARTS)]
    kinds = {0: len(starts), 1: len(starts) * (noises - 1)}
    seconds = 0.0
    try:
        for noise, episodes in kinds.items():
            if episodes:
                begun = clock()
                for start in some:
                    _ = player.play((start, noise)).success
                seconds += episodes * (clock() - begun) / TIMED_STARTS
    finally:
        player.close()
    return seconds / min(workers, len(starts) * noises)


def play_noises(
    config: RunConfig, starts: Sequence[int], noises: int, workers: int = 2
) -> Iterator[Attempt]:
    """Yield the attempts of every start with every noise, start after start.

    Args:
        config: the run; `success` is settled.
        starts: environment seeds, each below `NOISE_STRIDE`.
        noises: how many noises each start is played with.
        workers: processes.
    """
    jobs = [(start, noise) for start in starts for noise in range(noises)]
    yield from in_processes(partial(NoisePlayer.of, config), NoisePlayer.play, jobs, workers)
