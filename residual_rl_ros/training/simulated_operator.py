# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An operator beside the simulated robot: a scripted expert that takes over where it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from residual_rl_ros.config.operator import OperatorConfig
from residual_rl_ros.config.run import ResolvedRun
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.numerics import Array
from residual_rl_ros.pretraining.demonstrations import demonstrate
from residual_rl_ros.pretraining.experts import make_expert
from residual_rl_ros.tasks.checked import Env

PRACTICE_EPISODES = 5
"""Episodes from which the operator knows how long the task takes him; no robot time."""


def time_needed(env: Env, task: str, controller: ResidualController, seed: int) -> int:
    """Return how long the operator needs for an episode of his own [control steps].

    Args:
        env: the task.
        task: its name.
        controller: controller in lockstep, without an actor.
        seed: seed of the first episode; the following count up.

    Raises:
        ConfigError: no expert knows the task, or the one that does never succeeds.
    """
    decisions = demonstrate(env, task, controller, PRACTICE_EPISODES, seed)
    if not decisions:
        raise ConfigError(
            f'the expert of task {task!r} never succeeded: an operator who cannot do the task '
            'helps nobody; leave operator out, or correct expert or success of the task'
        )
    episodes = len({transition.episode for transition in decisions})
    return round(len(decisions) * controller.layout.decision_steps / episodes)


def operator_of(
    run: ResolvedRun, env: Env, controller: ResidualController, seed: int
) -> SimulatedOperator | None:
    """Return the operator that a run's configuration names, None if it names none.

    Args:
        run: the run.
        env: its environment.
        controller: the controller whose commands he watches.
        seed: of the first of his own episodes.

    Raises:
        ConfigError: nobody can help in this task.
    """
    config, task = OperatorConfig.parse(run.config.operator), run.config.task
    if config is None:
        return None
    with run.evaluation_controller(None) as alone:
        steps = time_needed(env, task, alone, seed)
    return SimulatedOperator(config, env, task, controller, run.robot.control_rate_hz, steps)


class SimulatedOperator:
    """Watches every episode and takes over when it goes wrong.

    At every control step he compares what the policy is about to command with what he would
    command. They may differ, but not by more than the deadband for `watch_s`, later than the first
    `patience` of an episode: where the policy is as quick as the expert, or does what he would do,
    he does nothing. He hands back when they agree again, at the latest after `max_takeover_s`.
    How an operator behaves who is asked to help as little as possible is the model: HIL-SERL (Luo
    et al., arXiv 2410.21845) finds such corrections to be what makes learning on robots fast.

    Args:
        config: numbers.
        env: the task, which the expert sees as it is.
        task: its name.
        controller: the controller whose commands he watches.
        rate_hz: control rate [Hz].
        steps_needed: control steps of his own episodes, see `time_needed`.

    Raises:
        ConfigError: no expert knows the task, or the policy has no residual to differ by.
    """

    def __init__(
        self,
        config: OperatorConfig,
        env: Env,
        task: str,
        controller: ResidualController,
        rate_hz: float,
        steps_needed: int,
    ) -> None:
        self.config = config
        self.expert = make_expert(task)
        self.env = env.unwrapped
        self.controller = controller
        self.bound = controller.bound.values
        if not self.bound.any():
            raise ConfigError(
                f'operator of task {task!r}: residual_scale is 0 for every action, and there is '
                'no residual that could learn from him; raise residual_scale'
            )
        self.patience = math.ceil(config.patience * steps_needed)
        """Control steps of an episode in which he decides nothing."""
        self.watch, self.reaction, self.shortest, self.longest = (
            max(1, math.ceil(seconds * rate_hz - 1e-9))
            for seconds in (
                *(config.watch_s, config.reaction_s),
                *(config.min_takeover_s, config.max_takeover_s),
            )
        )

    def attend(self, rng: np.random.Generator) -> Callable[[], Array | None]:
        """Return what gives his command for every control step of an episode, None for most.

        Args:
            rng: source of what he overlooks, and of the noise of his hand.
        """
        return _Attention(self, rng)


class _Attention:
    """The operator in one episode."""

    def __init__(self, operator: SimulatedOperator, rng: np.random.Generator) -> None:
        self._operator = operator
        self._rng = rng
        self._steps = 0
        self._row = 0
        """Control steps in a row that speak for a change of hands."""
        self._until: int | None = None
        """Control steps until he acts on a decision to take over; None while there is none."""
        self._helped: int | None = None
        """Control steps of the takeover so far; None while the policy has the robot."""

    def __call__(self) -> Array | None:
        operator = self._operator
        if not self._steps:
            operator.expert.reset(operator.env)
        self._steps += 1
        own = operator.expert.act(operator.env)
        helping = self._helped is not None
        self._row = self._row + 1 if self._differs(own) is not helping else 0
        if self._helped is not None:
            if not self._returns_control(self._helped):
                self._helped += 1
                return self._command(own)
            self._helped, self._row = None, 0
        elif self._takes_over():
            self._until, self._helped, self._row = None, 1, 0
            return self._command(own)
        return None

    def _differs(self, own: Array) -> bool:
        """Return whether the policy is about to do something else."""
        planned, bound = self._operator.controller.target(), self._operator.bound
        used = bound > 0.0
        if planned is None:
            return True
        apart = np.abs(planned - own)[used] / bound[used]
        return bool(apart.max() > self._operator.config.deadband)

    def _returns_control(self, helped: int) -> bool:
        operator = self._operator
        agreed = self._row >= operator.watch and helped >= operator.shortest
        return agreed or helped >= operator.longest

    def _takes_over(self) -> bool:
        """Decide to take over, if it is time; return whether his hands follow now."""
        operator = self._operator
        if self._until is not None:
            self._until -= 1
        elif self._row >= operator.watch and self._steps > operator.patience:
            if self._rng.random() < operator.config.misses:
                self._row = 0
            else:
                self._until = operator.reaction
        return self._until == 0

    def _command(self, own: Array) -> Array:
        operator = self._operator
        noise = operator.config.noise * operator.bound
        return own + noise * self._rng.standard_normal(len(own))
