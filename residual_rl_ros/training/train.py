# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in one process without ROS, from the command line: `residual-rl train`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from residual_rl_ros.config.run import training_seed
from residual_rl_ros.config.success import RETURN, SUCCESS, SuccessCriterion
from residual_rl_ros.demonstrations.source import Demonstrated, add_demonstrations
from residual_rl_ros.errors import OutputError, ResidualRLError, TaskError
from residual_rl_ros.evaluation.episode import Episode, run_episode
from residual_rl_ros.evaluation.figures import draw_learning_curve
from residual_rl_ros.evaluation.paired import Score, difference, score
from residual_rl_ros.evaluation.progress import Report, progress, say
from residual_rl_ros.learner.checkpoint import (
    CheckpointFolder,
    check_numbers,
    load_checkpoint,
    load_run_state,
)
from residual_rl_ros.learner.episodes import RECENT_EPISODES
from residual_rl_ros.learner.folder import IDENTITY, as_bytes
from residual_rl_ros.learner.learner import Learner, Log
from residual_rl_ros.learner.metrics_log import MetricsLog
from residual_rl_ros.pretraining.demonstrations import demonstrate
from residual_rl_ros.pretraining.experts import has_expert
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.tasks.success_probe import settled
from residual_rl_ros.training.curve import CurveRecorder, LearningCurve, final_scenes, returns_apart
from residual_rl_ros.training.identity import (
    CONFIGURATION,
    check_identity,
    configuration_json,
    run_identity,
)
from residual_rl_ros.training.in_process import (
    InProcessRun,
    refuse_nothing_to_learn,
    refuse_silence,
)
from residual_rl_ros.training.interruption import Interruption
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.provenance import git_commit, versions
from residual_rl_ros.training.run_folder import (
    SUMMARY,
    describe_learning,
    prepare_output,
    read_history,
    write_json,
)
from residual_rl_ros.training.simulated_operator import operator_of

DEMONSTRATION_SEED = 900_000
"""Distance of the demonstrations' seeds from those of the training episodes."""
PRACTICE_SEED = 950_000
"""Distance of the seeds of an operator's own episodes from those of the training episodes."""


def run_training(
    options: TrainOptions, console: Console, report: Report | None = None
) -> dict[str, Any]:
    """Train and return the summary, which is also in `summary.json`.

    Ctrl-C ends the run after the episode in progress and saves it; a second one ends it at once,
    with the checkpoint before.

    Args:
        options: what to run.
        console: where progress goes.
        report: takes the share that is done, instead of a bar on the console.

    Raises:
        ResidualRLError: bad input, or the environment failed.
        KeyboardInterrupt: after Ctrl-C.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    task = options.config.task
    with ExitStack() as made:
        training = _Training(options, console, made)
        shown = nullcontext(report) if report else progress(console, task, 1.0, training.share)
        training.show = made.enter_context(shown)
        training.learn()
        summary = training.summarise()
        summary['wall_s'] = round(time.monotonic() - started, 1)
        write_json(options.output_dir / SUMMARY, summary)
        training.draw()
    return summary


class _Training:
    """One run: everything that its options name, resolved once.

    Args:
        options: what the command line chooses.
        console: where progress goes.
        made: takes back what is made.
    """

    def __init__(self, options: TrainOptions, console: Console, made: ExitStack) -> None:
        config = settled(options.config, partial(say, console))
        self._options = options = replace(options, config=config)
        self._console = console
        self._resolved = run = options.config.resolve()
        if not options.resume:  # The checkpoint has them.
            samples = run.learner.rule.samples_demonstrations
            options.recordings.check(run.config.preset, samples)
        self._identity = run_identity(run, options)
        if run.add_on is not None and not run.learner.learns_add_on:
            say(
                console,
                f'preset {run.config.preset} learns from the reward of the task alone: the add-on '
                'is measured, and nothing follows it',
            )
        refuse_nothing_to_learn(run)
        self._env = host(run.config, run.robot)
        made.callback(self._env.close)
        if not options.resume:
            refuse_silence(run, self._env)
        self._controller = run.controller(options.seed, explore=True, scheduled=True)
        layout = self._controller.layout
        say(console, self._controller.bound.words(layout.action_names, layout.decision_steps))
        made.callback(self._controller.queue.close)
        if options.resume and not checkpoint_exists(options.output_dir / CHECKPOINTS / 'latest'):
            raise OutputError(
                f'output folder {str(options.output_dir)!r} holds no checkpoint to resume; correct '
                '--out, or leave out --resume'
            )
        prepare_output(options.output_dir, options.resume)
        self._checkpoints = CheckpointFolder(options.output_dir / CHECKPOINTS)
        made.callback(self._checkpoints.close)
        latest = self._checkpoints.latest
        self._log = Log(partial(say, console), partial(say, console))
        learner = self._load_learner(latest) if options.resume else self._new_learner()
        first_seed = training_seed(options.seed)
        operator = operator_of(run, self._env, self._controller, first_seed + PRACTICE_SEED)
        self._run = InProcessRun(
            self._env, self._controller, learner, first_seed, operator, run.add_on
        )
        if options.resume:
            self._continue(latest)
        else:
            self._add_demonstrations(learner)
        say(console, f'replay: {learner.rule.memory.nbytes / 1e6:.0f} MB when full')
        lack = self._checkpoints.lack_of_space(learner)
        if lack:
            self._log.warn(lack)
        measure = RETURN if self._resolved.config.success == RETURN else SUCCESS
        self._curve = CurveRecorder(
            LearningCurve(measure, options.curve_scenes.start),
            options.output_dir,
            options.curve_steps,
            self._run.steps,
            partial(say, console),
        )
        self.show: Report = lambda done, description='': None
        """Takes the share that is done."""
        self._evaluated = 0
        """Control steps of evaluations so far."""
        self._recent_episodes: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self._scores: tuple[Score, Score] | None = None
        """Of base and base + residual, once they are evaluated."""

    def learn(self) -> None:
        """Collect and learn until the budget is spent, saving on the way."""
        options, run = self._options, self._run
        try:
            log = MetricsLog(options.output_dir / 'tensorboard', self._console.print)
        except OSError as error:
            raise OutputError(
                f'no metrics can be written in {str(options.output_dir)!r}: {error}'
            ) from error
        saved, budget = run.steps, self._resolved.config.control_steps

        with Interruption() as interruption:

            def on_episode(episode: Episode) -> None:
                nonlocal saved
                history = run.learner.episodes.history
                if not (history and (history[-1].takeover or history[-1].random)):
                    self._recent_episodes.append(episode)
                self._measure()
                if interruption.wanted or run.steps - saved >= options.checkpoint_steps:
                    self._save()
                    saved = run.steps
                if interruption.wanted:
                    raise KeyboardInterrupt
                self._show(f'{run.learner.phase.value}{self._recent()}')

            try:
                self._measure(first=True)
                run.run(
                    budget, on_episode, lambda learner: log.write(learner, self._recent_returns())
                )
                self._measure(last=True)
            except TaskError:
                self._save()
                self._log.inform('what was learned is saved: --resume goes on with other episodes')
                raise
            finally:
                log.close()
            self._save()

    def summarise(self) -> dict[str, Any]:
        """Evaluate base and base + residual and put the summary together."""
        options, config = self._options, self._resolved.config
        out, rate_hz = options.output_dir, self._resolved.robot.control_rate_hz
        summary: dict[str, Any] = {
            'task': config.task,
            'preset': config.preset,
            'seed': options.seed,
            'run': self._identity,
            'base': None,
            'final': None,
            **describe_learning(out, rate_hz),
            'derived': self._run.learner.derived(),
            'evaluations': self._curve.curve.to_mapping(),
            'control_rate_hz': rate_hz,
            'precision': 'bfloat16' if self._resolved.learner.rule.in_bfloat16 else 'float32',
            'versions': versions(),
            'git_commit': git_commit(),
        }
        if options.paired_seeds:
            seeds, measure = options.final_scenes, self._curve.curve.measure
            base = self._play(seeds, None, 'evaluating the base')
            message = self._run.learner.current_message()
            final = self._play(seeds, message, 'evaluating base + residual')
            before, after = self._scores = score(base), score(final)
            pair = difference(base, final)
            summary['base'], summary['final'] = before.summary(), after.summary()
            summary |= pair.summary()
            for line in (f'base            {before}', f'base + residual {after}', str(pair)):
                say(self._console, line)
            if after.main.value < before.main.value:
                say(
                    self._console,
                    'base + residual did worse than the base: do not deploy it; train for longer, '
                    'or with a smaller residual_scale',
                )
            summary['scenes'] = final_scenes(seeds.start, base, final, measure)
        return summary

    def draw(self) -> None:
        """Draw the learning curve, if base and base + residual were evaluated."""
        if self._scores is None:
            return
        out, config = self._options.output_dir, self._resolved.config
        draw_learning_curve(
            out / 'learning_curve.png',
            f'{config.task}, preset {config.preset}, seed {self._options.seed}',
            read_history(out),
            self._resolved.robot.control_rate_hz,
            *(found.main for found in self._scores),
        )

    def _save(self) -> None:
        said = {
            IDENTITY: as_bytes(self._identity),
            CONFIGURATION: as_bytes(configuration_json(self._resolved.config)),
        }
        self._checkpoints.save(self._run.learner, {**self._run.state_dict(), **said})

    def _continue(self, checkpoint: Path) -> None:
        """Continue the run of a checkpoint.

        Raises:
            ResidualRLError: it is not the run that the options say, or a longer one.
        """
        state = load_run_state(checkpoint)
        check_identity(checkpoint, state.pop(IDENTITY, None), self._identity)
        state.pop(CONFIGURATION, None)  # Of the same run, perhaps at another place.
        self._run.load_state_dict(state)

    def _new_learner(self) -> Learner:
        """Return a new learner, or that of `--from` in a new epoch."""
        start = self._options.start
        if start is None:
            layout, seed = self._controller.layout, self._options.seed
            return Learner(self._resolved.learner, layout, seed, log=self._log)
        latest = start / CHECKPOINTS / 'latest'
        learner = self._load_learner(latest if checkpoint_exists(latest) else start)
        learner.begin_epoch(learner.epoch + 1)  # This robot counts its decisions from zero.
        return learner

    def _load_learner(self, checkpoint: Path) -> Learner:
        """Return the learner of a checkpoint made for the same robot and with the same numbers."""
        layout = self._controller.layout
        check_numbers(checkpoint, self._resolved.learner)
        learner = load_checkpoint(checkpoint, log=self._log)
        if learner.layout != layout:
            raise ResidualRLError(
                f'{str(checkpoint)!r} has layout {learner.layout.label}, this configuration '
                f'{layout.label}; use the same robot, base policy, decision_steps and '
                'residual_scale'
            )
        return learner

    def _add_demonstrations(self, learner: Learner) -> None:
        """Store recorded demonstrations and those of the expert, if the preset samples any.

        Raises:
            ResidualRLError: a recorded one cannot be used.
        """
        memory, options, run = learner.rule.memory, self._options, self._resolved
        if not run.learner.rule.samples_demonstrations:
            return
        before = memory.demonstrations
        add_demonstrations(
            learner,
            options.recordings,
            Demonstrated(
                run.policy,
                run.robot,
                SuccessCriterion.parse(run.config.success),
                run.config.splicing.in_lockstep,
                seed=options.seed,
                prior_width=run.config.prior_width,
            ),
            lambda text: say(self._console, text),
        )
        task = run.config.task
        if not options.demonstrations or before:
            if not memory.demonstrations:
                say(self._console, 'learning without demonstrations; --demonstrations names some')
            return  # A bag, or a run before, has supplied them.
        if not has_expert(task):
            say(self._console, f'no expert knows {task!r}: training without demonstrations')
            return
        seed, count = training_seed(options.seed) + DEMONSTRATION_SEED, options.demonstrations
        with self._resolved.evaluation_controller(None) as controller:
            for transition in demonstrate(self._env, task, controller, count, seed):
                learner.add_demonstration(transition)
        say(self._console, f'{memory.demonstrations} demonstration transitions')

    def _measure(self, first: bool = False, last: bool = False) -> None:
        """Evaluate on the scenes of the curve: the base at first, the residual when it is due."""
        options, steps = self._options, self._run.steps
        if not options.curve_steps:
            return
        if first:
            self._curve.measure_base(lambda: self._play(options.curve_scenes, None))
        elif self._curve.due(steps, last):
            message = self._run.learner.current_message()
            self._curve.add(steps, self._play(options.curve_scenes, message))

    def _play(self, seeds: Sequence[int], message: bytes | None, doing: str = '') -> list[Episode]:
        """Return the episode of every seed, played in this process."""
        episodes, add_on = [], self._resolved.add_on
        with self._resolved.evaluation_controller(message) as controller:
            for seed in seeds:
                episodes.append(run_episode(self._env, controller, seed, seed, add_on=add_on))
                self._evaluated += episodes[-1].steps
                self._show(doing)
        return episodes

    def _recent_returns(self) -> dict[str, float]:
        """Return the mean returns of the latest training episodes, by name: apart, with an add-on.

        Without one there is nothing to take apart, and before the first episode nothing at all.
        """
        apart = returns_apart(self._recent_episodes)
        means = {name: float(np.mean(values)) for name, values in apart.items()}
        return {**means, 'total': sum(means.values())} if means else {}

    def _recent(self) -> str:
        """Return how the latest training episodes went, in words."""
        apart = self._recent_returns()
        words = ''
        if self._resolved.config.success == RETURN and not apart:
            words = f', return {np.mean([e.episode_return for e in self._recent_episodes]):.4g}'
        rate = self._run.learner.episodes.success_rate
        if self._resolved.config.success != RETURN and rate is not None:
            words = f', success {rate:.0%}'
        if apart:
            words += f', return {apart["basic"]:.4g}, add-on {apart["add_on"]:.4g}'
        return words

    def _show(self, doing: str) -> None:
        """Show the share that is done, and what is being done."""
        task = self._resolved.config.task
        self.show(self.share, f'{task}, {doing}' if doing else '')

    @property
    def share(self) -> float:
        """Share of all control steps that is done, those of evaluations included."""
        options, run = self._options, self._run
        budget = max(self._resolved.config.control_steps, run.steps)
        evaluations = budget // options.curve_steps + 2 if options.curve_steps else 0
        episodes = 2 * options.paired_seeds + evaluations * options.curve_seeds
        # Evaluations are taken to be as long as the episodes so far.
        still = max(0.0, episodes * run.steps / max(1, run.episodes) - self._evaluated)
        return (run.steps + self._evaluated) / (budget + self._evaluated + still)
