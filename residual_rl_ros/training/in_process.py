# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in one process, without ROS: the same classes, the same schedule, no middleware.

A run that could not learn is refused before it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.algorithms.rule import ADD_ON
from residual_rl_ros.config.run import ResolvedRun
from residual_rl_ros.config.success import RETURN
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import Episode, run_episode
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.rewards.composition import BoundAddOns
from residual_rl_ros.tasks.success_probe import PROBE_SEED
from residual_rl_ros.training.simulated_operator import SimulatedOperator
from residual_rl_ros.transitions.transition import Transition


def refuse_nothing_to_learn(run: ResolvedRun) -> None:
    """Refuse a run of a customisation that could not change what the base does.

    Raises:
        ConfigError: no add-on where nothing else is learned, or one proposal to choose from.
    """
    rule, config = run.learner.rule, run.config
    wanted = bool(config.add_ons) or bool(rule.add_on)
    if rule.reward == ADD_ON and not wanted:
        raise ConfigError(
            f'preset {config.preset} learns from an add-on reward, and there is none: give '
            '--add-on, or set reward to total or basic'
        )
    run.learner.check_proposals(config.proposals)


SILENT_EPISODES = 20
"""Episodes of the base without any reward after which a task without success is refused."""


def refuse_silence(run: ResolvedRun, env: gymnasium.Env[Any, Any]) -> None:
    """Refuse a task that tells neither success nor a reward: nothing could be learned from it.

    A task that tells no success is played by the base until the first reward, which most give in
    the first episode. A task that tells success is not played.

    Args:
        run: the run; `success` of its configuration is settled.
        env: its environment.

    Raises:
        ConfigError: there was no reward in `SILENT_EPISODES` episodes.
    """
    if run.config.success != RETURN:
        return
    with run.evaluation_controller(None) as controller:
        for number in range(SILENT_EPISODES):
            seed = PROBE_SEED + number
            if run_episode(env, controller, seed, number, add_on=run.add_on).total_return:
                return
    raise ConfigError(
        f'{run.config.task} tells no success, and the return of {SILENT_EPISODES} episodes of the '
        'base is 0: there is nothing to learn from; say how it tells success (--success), or give '
        'it a reward'
    )


OPERATOR_STREAM = 4
"""With the environment's seed, seeds the operator in an episode."""


class InProcessRun:
    """Robot and learner side by side; between two episodes it can be saved and continued.

    Args:
        env: environment.
        controller: exploring controller in lockstep.
        learner: a learner of the same layout.
        first_seed: environment seed of the first episode; the following count up.
        operator: helps, if there is one.
        add_on: what is asked for beside the task, if anything is.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        controller: ResidualController,
        learner: Learner,
        first_seed: int,
        operator: SimulatedOperator | None = None,
        add_on: BoundAddOns | None = None,
    ) -> None:
        self._env = env
        self._controller = controller
        self._first_seed = first_seed
        self._operator = operator
        self._add_on = add_on
        self.learner = learner
        self.steps = 0
        """Control steps done."""
        self.episodes = 0
        """Episodes done."""

    def run(
        self,
        control_steps: int,
        on_episode: Callable[[Episode], None] = lambda episode: None,
        on_publication: Callable[[Learner], None] = lambda learner: None,
    ) -> None:
        """Collect, learn and swap actors until `control_steps` are done.

        Args:
            control_steps: budget; the episode that crosses it is played to its end.
            on_episode: called after every episode; the run may be saved there.
            on_publication: called after every weight message.

        Raises:
            TaskError: the environment failed in an episode; the run may be saved then too.
        """
        mailbox = self._controller.mailbox

        def ingest(transition: Transition) -> None:
            message = self.learner.ingest(transition)
            if message is not None:
                mailbox.submit(message)
                on_publication(self.learner)

        if not self.episodes:
            mailbox.submit(self.learner.first_message())
        while self.steps < control_steps:
            seed = self._first_seed + self.episodes
            takeover = self._takeover(seed)
            number = self.episodes
            self.episodes += 1  # One that fails is not played again.
            episode = run_episode(
                self._env,
                self._controller,
                seed,
                number,
                ingest,
                takeover=takeover,
                add_on=self._add_on,
            )
            self.steps += episode.steps
            on_episode(episode)

    def _takeover(self, seed: int) -> Callable[[], npt.NDArray[np.float64] | None]:
        """Return what gives the operator's commands in an episode; none without an operator."""
        if self._operator is None:
            return lambda: None
        return self._operator.attend(np.random.default_rng([seed, OPERATOR_STREAM]))

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Return what the learner's own state lacks, for a checkpoint."""
        decisions, messages = self._controller.mailbox.state_dict()
        arrays = {
            f'message_{index}': np.frombuffer(message, dtype=np.uint8)
            for index, message in enumerate(messages)
        }
        return {**arrays, 'counts': np.array([self.steps, self.episodes, decisions])}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore what `state_dict` returned; the learner is restored on its own."""
        self.steps, self.episodes, decisions = (int(count) for count in state['counts'])
        messages = [state[f'message_{index}'].tobytes() for index in range(len(state) - 1)]
        self._controller.mailbox.load_state_dict(decisions, messages)
