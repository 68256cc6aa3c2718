# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes of the base policy alone, of each start with several noises.

The start is the seed of the environment. The noise is the seed of everything that the base policy
draws in an episode, and has nothing to do with the start. The first noise of a start is the one
with which `evaluate` plays it. A policy whose `noise_default` is zero plays with zero there, and
draws in the others, as its further proposals are drawn.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
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
    """Number of the noise, from 0 on; 0 is the policy as it is."""
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


def attempt(
    env: Env,
    controller: ResidualController,
    start: int,
    noise: int,
    first_is_zero: bool = False,
) -> Attempt:
    """Play a start with one of its noises.

    Args:
        env: the environment.
        controller: a control loop without an actor. With proposals it measures how far they are
            apart; they change nothing of what is done.
        start: seed of the environment, below `NOISE_STRIDE`.
        noise: number of the noise.
        first_is_zero: what is done is of zero noise, and no draw.
    """
    layout = controller.layout
    variances: list[Array] = []

    def measure(transition: Transition) -> None:
        drawn = () if first_is_zero else (transition.base_action,)
        draws = np.concatenate([*drawn, transition.proposals])
        steps = draws.reshape(layout.proposals - first_is_zero, layout.decision_steps, -1)
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
        self._first_is_zero = plays_zero(run)
        self._first = measuring.evaluation_controller(None)
        others = replace(run, config=config, policy=_drawing(run.policy))
        self._others = others.evaluation_controller(None)

    @classmethod
    def of(cls, config: RunConfig) -> NoisePlayer:
        """Return that of a run."""
        return cls(config.resolve())

    def play(self, job: tuple[int, int]) -> Attempt:
        """Play a start with a noise: the first one measures the spread too."""
        start, noise = job
        controller = self._others if noise else self._first
        return attempt(self.env, controller, start, noise, self._first_is_zero)

    def close(self) -> None:
        """End its threads and its environment."""
        self._first.queue.close()
        self._others.queue.close()
        self.env.close()


def plays_zero(run: ResolvedRun) -> bool:
    """Return whether the base policy has a noise input and does what zero noise says."""
    return run.policy.stochastic and run.policy.metadata.noise_default == 'zero'


def _drawing(policy: OnnxBasePolicy) -> OnnxBasePolicy:
    """Return the same policy that draws its noise, whatever its metadata say."""
    drawing = copy.copy(policy)
    drawing.metadata = replace(policy.metadata, noise_default='normal')
    return drawing


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
