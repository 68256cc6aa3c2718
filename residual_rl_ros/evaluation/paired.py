# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes of one controller, and evaluations of base and base + residual on the same seeds."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.control.controller import ResidualController, StepFeedback
from residual_rl_ros.tasks.hosting import connect, make_environment
from residual_rl_ros.transitions.transition import Success, Transition


@dataclass(frozen=True)
class Episode:
    """Outcome of one episode."""

    seed: int
    success: bool
    steps: int
    """Control steps."""


def run_episode(
    env: gymnasium.Env[Any, Any],
    controller: ResidualController,
    seed: int,
    number: int,
    on_transition: Callable[[Transition], None] = lambda transition: None,
    on_step: Callable[[], None] = lambda: None,
    takeover: Callable[[], npt.NDArray[np.float64]] | None = None,
) -> Episode:
    """Play one episode from `env.reset(seed=seed)`.

    Args:
        env: environment; `info['success']` decides, or else a termination with positive reward.
        controller: the control loop.
        seed: seed of the environment.
        number: episode number; with the controller's own seed, seeds the base policy's noise.
        on_transition: called with every completed decision.
        on_step: called after every control step, for example to render.
        takeover: gives an operator's command for every control step.
    """
    observation, _ = env.reset(seed=seed)
    controller.begin_episode(number, observation, stamp=0.0)
    steps = 0
    while True:
        command = controller.command(takeover() if takeover else None)
        assert command is not None, 'a lockstep controller never holds'
        observation, reward, terminated, truncated, info = env.step(command.astype(np.float32))
        steps += 1
        done = terminated or truncated
        success = bool(info.get('success', terminated and float(reward) > 0.0))
        outcome = Success(int(success)) if done else Success.UNLABELLED
        feedback = StepFeedback(float(reward), terminated, truncated, outcome)
        transition = controller.step(observation, float(steps), feedback)
        on_step()
        if transition is not None:
            on_transition(transition)
        if done:
            return Episode(seed, success, steps)


EVALUATION_SEED = 90_000
"""First environment seed of reported evaluations; tuning uses none of 90000 to 90999."""
CURVE_SEED = 91_000
"""First environment seed of the evaluations during training; reported results use none of these."""


def evaluate(
    config: RunConfig,
    seeds: Sequence[int],
    actor_message: bytes | None = None,
    workers: int = 2,
) -> Iterator[Episode]:
    """Yield the episodes of every seed, in order, as they are done.

    Args:
        config: the run.
        seeds: environment seeds.
        actor_message: weight message of the residual actor; None runs the base policy alone.
        workers: processes.

    Raises:
        ResidualRLError: base policy, robot or environment do not fit.
    """
    yield from _play_all(config, [(0, seed) for seed in seeds], [actor_message], workers)


def evaluate_blind(
    config: RunConfig,
    seeds: Sequence[int],
    actor_message: bytes,
    rng: np.random.Generator,
    workers: int = 2,
) -> Iterator[tuple[bool, Episode]]:
    """Yield (whether the residual was on, episode) of both policies on every seed, shuffled.

    A drift during the evaluation then affects both policies alike.

    Args:
        config: the run.
        seeds: environment seeds.
        actor_message: weight message of the residual actor.
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
    messages: Sequence[bytes | None],
    workers: int,
) -> Iterator[Episode]:
    """Yield the episode of every (index of the message, seed), in order."""
    run = config.resolve()
    for message in messages:  # Errors are raised here, not in a worker.
        run.evaluation_controller(message).queue.close()
    connect(make_environment(config.task), run.robot).close()
    # Fork would copy the threads of ONNX Runtime and rclpy in an undefined state.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _start_worker, (config, messages)) as pool:
        yield from pool.map(_play, jobs, chunksize=5)


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
    env = connect(make_environment(config.task, render_mode='rgb_array'), run.robot)
    controller = run.evaluation_controller(actor_message)
    drawn: list[npt.NDArray[np.uint8]] = []
    run_episode(env, controller, seed, seed, on_step=lambda: drawn.append(np.asarray(env.render())))
    env.close()
    return [drawn[index] for index in np.linspace(0, len(drawn) - 1, frames).round().astype(int)]


class _Worker:
    """Environment and controllers of a worker process, built once."""

    current: _Worker

    def __init__(self, config: RunConfig, messages: Sequence[bytes | None]) -> None:
        torch.set_num_threads(1)
        run = config.resolve()
        self.env = connect(make_environment(config.task), run.robot)
        self.controllers = [run.evaluation_controller(message) for message in messages]


def _start_worker(config: RunConfig, messages: Sequence[bytes | None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal's Ctrl-C is the parent's to handle.
    _Worker.current = _Worker(config, messages)


def _play(job: tuple[int, int]) -> Episode:
    policy, seed = job
    worker = _Worker.current
    return run_episode(worker.env, worker.controllers[policy], seed, seed)


def silence_stderr() -> None:
    """Discard what drivers and destructors print."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
