# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The base policy trained again on its demonstrations and its own successes: what RL must beat.

There is no learner and no residual. The base plays the budget, and after each fifth of it the
recipe of the base is followed anew on the demonstrations and on all episodes that succeeded so far.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console

from residual_rl_ros.config.run import ResolvedRun, training_seed
from residual_rl_ros.config.success import SUCCESS
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import Episode, run_episode
from residual_rl_ros.evaluation.paired import difference, score
from residual_rl_ros.evaluation.progress import Report, say
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.files.json_text import plain
from residual_rl_ros.numerics import Float32
from residual_rl_ros.pretraining.demonstrations import Demonstrations
from residual_rl_ros.pretraining.train_base import BaseRecipe, export, load_recipe, train
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.tasks.success_probe import settled
from residual_rl_ros.training.curve import LearningCurve, final_scenes, outcomes
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.provenance import git_commit, versions
from residual_rl_ros.training.run_folder import SUMMARY, prepare_output, write_json

ROUNDS = 5
"""How often the base is trained again, after equal parts of the budget."""


def retrain_identity(run: ResolvedRun, options: TrainOptions) -> dict[str, Any]:
    """Return what makes two of these runs the same experiment, as JSON values."""
    identity: dict[str, Any] = {
        'kind': 'retrain',
        'task': run.config.task,
        'seed': options.seed,
        'control_steps': run.config.control_steps,
        'paired_seeds': options.paired_seeds,
        **options.evaluation_identity(),
        'base_policy_sha256': run.policy.sha256,
        'robot_sha256': file_sha256(run.robot_file),
        'success': run.config.success,
        'rounds': ROUNDS,
    }
    as_json: dict[str, Any] = plain(identity)
    return as_json


def run_retraining(
    options: TrainOptions, recipe: str, console: Console, report: Report
) -> dict[str, Any]:
    """Run it and return the summary, which is also in `summary.json`; there are no checkpoints.

    Args:
        options: the run; of the preset nothing is used.
        recipe: name or file of the base policy's recipe; empty is the one that the model names.
        console: where it says what happens.
        report: takes the share that is done.

    Raises:
        ResidualRLError: bad input, or the environment failed.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    options = replace(options, config=settled(options.config, partial(say, console)))
    run = options.config.resolve()
    found = load_recipe(recipe or run.policy.metadata.task)
    demonstrations = found.collect()
    if demonstrations.sha256 != run.policy.metadata.dataset_sha256:
        raise ConfigError(
            f'recipe {recipe or found.task!r} gives demonstrations of SHA-256 '
            f'{demonstrations.sha256}, but base policy {str(run.policy.path)!r} was trained on '
            f'{run.policy.metadata.dataset_sha256}; name its recipe, or train the base again'
        )
    with ExitStack() as made:
        env = _Recorder(host(options.config, run.robot))
        made.callback(env.close)
        prepare_output(options.output_dir)
        retraining = _Retraining(options, run, env, found, demonstrations)
        made.callback(retraining.close)
        summary = retraining.run(report)
    summary['wall_s'] = round(time.monotonic() - started, 1)
    write_json(options.output_dir / SUMMARY, summary)
    return summary


class _Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps observations and commands of the current episode."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._observations: list[Any] = []
        self._actions: list[Any] = []

    def reset(self, **options: Any) -> Any:
        """Begin anew."""
        answer = self.env.reset(**options)
        self._observations, self._actions = [answer[0]], []
        return answer

    def step(self, action: Any) -> Any:
        """Keep what was done, and what was seen after it."""
        answer = self.env.step(action)
        self._actions.append(action)
        self._observations.append(answer[0])
        return answer

    def episode(self) -> tuple[Float32, Float32]:
        """Return observations (steps, n) and actions (steps, m) so far."""
        steps = len(self._actions)
        return (
            np.array(self._observations[:steps], dtype=np.float32),
            np.array(self._actions, dtype=np.float32),
        )


@dataclass
class _Retraining:
    """One run.

    Args:
        options: what to run.
        run: the same, resolved.
        env: environment of the base and of what it becomes.
        recipe: how the base was trained.
        demonstrations: what it was trained on.
    """

    options: TrainOptions
    run_of_base: ResolvedRun
    env: _Recorder
    recipe: BaseRecipe
    demonstrations: Demonstrations
    episodes: list[Episode] = field(default_factory=list)
    successes: list[tuple[Float32, Float32]] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.controller = self.run_of_base.controller(
            self.options.seed, explore=False, scheduled=False
        )

    def close(self) -> None:
        """Stop the thread of the base policy."""
        self.controller.close()

    def run(self, report: Report) -> dict[str, Any]:
        """Play, train again and evaluate; return the summary."""
        options, base = self.options, self.run_of_base
        budget, every = base.config.control_steps, options.curve_steps
        curve = LearningCurve(SUCCESS, options.curve_scenes.start)
        acting = base
        if every:
            curve.base = outcomes(self._evaluate(base, options.curve_scenes), SUCCESS)
        latest = curve.base
        for number in range(1, ROUNDS + 1):
            begun = self.steps
            self._collect(budget * number // ROUNDS, report)
            if every:
                # What acts in this round was trained at its beginning.
                marks = range(every, self.steps, every)
                curve.points += [(at, latest) for at in marks if at > begun]
            acting = self._train(options.output_dir / f'retrained_{number}.onnx')
            if every:
                latest = outcomes(self._evaluate(acting, options.curve_scenes), SUCCESS)
                curve.points.append((self.steps, latest))
            report(number / (ROUNDS + 1), '')
        return self._summary(curve, acting)

    def _collect(self, until: int, report: Report) -> None:
        """Let the base play until it has done so many control steps."""
        first, budget = training_seed(self.options.seed), self.run_of_base.config.control_steps
        while self.steps < until:
            number = len(self.episodes)
            episode = run_episode(self.env, self.controller, first + number, number)
            self.steps += episode.steps
            self.episodes.append(episode)
            if episode.success:
                self.successes.append(self.env.episode())
            report(ROUNDS * self.steps / budget / (ROUNDS + 1), '')

    def _train(self, path: Path) -> ResolvedRun:
        """Train the base again, write it, and return the run with it."""
        both = Demonstrations((*self.demonstrations.episodes, *self.successes))
        policy = train(self.recipe, both, self.options.seed, lambda step, loss: None)
        export(policy, self.recipe, both, path)
        return replace(self.run_of_base.config, base_policy=str(path)).resolve()

    def _evaluate(self, run: ResolvedRun, scenes: range) -> list[Episode]:
        """Return the episode of a base policy on each scene."""
        with run.evaluation_controller(None) as controller:
            return [
                run_episode(self.env, controller, scene, scene, add_on=run.add_on)
                for scene in scenes
            ]

    def _summary(self, curve: LearningCurve, acting: ResolvedRun) -> dict[str, Any]:
        options, run = self.options, self.run_of_base
        rate_hz = run.robot.control_rate_hz
        base, final = (self._evaluate(each, options.final_scenes) for each in (run, acting))
        return {
            'task': run.config.task,
            'preset': 'retrain',
            'seed': options.seed,
            'run': retrain_identity(run, options),
            'base': score(base).summary(),
            'final': score(final).summary(),
            'episodes': len(self.episodes),
            'failed_episodes': sum(not episode.success for episode in self.episodes),
            'successes_trained_on': len(self.successes),
            'control_steps': self.steps,
            'robot_minutes': round(self.steps / rate_hz / 60.0, 2),
            'rollbacks': 0,
            'evaluations': curve.to_mapping(),
            'control_rate_hz': rate_hz,
            'scenes': final_scenes(options.final_scenes.start, base, final, SUCCESS),
            **difference(base, final).summary(),
            'versions': versions(),
            'git_commit': git_commit(),
        }
