# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One episode of a controller in an environment, and many in several processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.rewards.composition import BoundAddOns
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.transitions.transition import Success, Transition

Player = TypeVar('Player')
Job = TypeVar('Job')
Result = TypeVar('Result')
JOBS_AT_ONCE = 5
"""Jobs that a process is handed together."""


def in_processes(
    build: Callable[[], Player],
    play: Callable[[Player, Job], Result],
    jobs: Sequence[Job],
    workers: int,
) -> Iterator[Result]:
    """Yield the result of every job, in order.

    Args:
        build: makes what plays in a process; it must be picklable, as `play` must.
        play: does one job.
        jobs: what is to be done.
        workers: processes.
    """
    # Fork would copy the threads of ONNX Runtime and rclpy in an undefined state.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _Process.begin, (build,)) as pool:
        yield from pool.map(partial(_Process.run, play), jobs, chunksize=JOBS_AT_ONCE)


class _Process:
    """What a process plays with."""

    player: ClassVar[Any]

    @classmethod
    def begin(cls, build: Callable[[], Any]) -> None:
        """Build it."""
        # A terminal's Ctrl-C is the parent's to handle.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cls.player = build()

    @classmethod
    def run(cls, play: Callable[[Any, Job], Result], job: Job) -> Result:
        """Do one job."""
        return play(cls.player, job)


@dataclass(frozen=True)
class Episode:
    """Outcome of one episode."""

    seed: int
    success: bool | None
    """None if the task does not tell."""
    steps: int
    """Control steps."""
    episode_return: float
    """Sum of the rewards of the task: the basic return."""
    add_on_return: float | None = None
    """Sum of the add-on rewards of its decisions; None without an add-on."""

    @property
    def total_return(self) -> float:
        """Basic return and that of the add-on together."""
        return self.episode_return + (self.add_on_return or 0.0)


def run_episode(
    env: gymnasium.Env[Any, Any],
    controller: ResidualController,
    seed: int,
    number: int,
    on_transition: Callable[[Transition], None] = lambda transition: None,
    on_step: Callable[[], None] = lambda: None,
    takeover: Callable[[], npt.NDArray[np.float64] | None] = lambda: None,
    add_on: BoundAddOns | None = None,
) -> Episode:
    """Play one episode from `env.reset(seed=seed)`.

    Args:
        env: environment; its attribute `success_criterion` says how it tells success.
        controller: the control loop.
        seed: seed of the environment.
        number: episode number; with the controller's own seed, seeds the base policy's noise.
        on_transition: called with every completed decision.
        on_step: called after every control step, for example to render.
        takeover: gives an operator's command for every control step, None while the policy acts.
        add_on: what is asked for beside the task; it is summed up on its own.

    Raises:
        TaskError: the environment failed, or answered with something that is no number.
        RewardError: the add-on did.
    """
    task = CheckedEnvironment(env)
    first = task.reset(seed, number)
    controller.begin_episode(number, first, 0.0, task.images)
    steps, episode_return = 0, 0.0
    added = None if add_on is None else 0.0
    while True:
        own = takeover()
        if own is None and controller.limiter.overridden:
            controller.limiter.interrupt()  # As `PolicyLoop.set_takeover` when he hands back.
        command = controller.command(own)
        assert command is not None, 'a lockstep controller never holds'
        observation, feedback = task.step(command)
        steps, episode_return = steps + 1, episode_return + feedback.reward
        transition = controller.step(observation, float(steps), feedback, task.images)
        on_step()
        if transition is not None:
            if add_on is not None and added is not None:
                added += add_on.of_transition(transition)
            on_transition(transition)
        if feedback.done:
            labelled = feedback.success is not Success.UNLABELLED
            success = feedback.success is Success.SUCCESS if labelled else None
            return Episode(seed, success, steps, episode_return, added)
