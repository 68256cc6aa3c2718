# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in one process without ROS, from the command line: `residual-rl train`."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from residual_rl_ros.algorithms.customisation import ADD_ON
from residual_rl_ros.config.operator import OperatorConfig
from residual_rl_ros.config.run import ResolvedRun, RunConfig, training_seed
from residual_rl_ros.config.success import RETURN, SUCCESS, SuccessCriterion
from residual_rl_ros.demonstrations.source import Demonstrated, Recordings, add_demonstrations
from residual_rl_ros.errors import ConfigError, OutputError, ResidualRLError
from residual_rl_ros.evaluation.figures import draw_learning_curve
from residual_rl_ros.evaluation.paired import (
    CURVE_SEED,
    EVALUATION_SEED,
    Episode,
    Score,
    difference,
    refuse_silence,
    run_episode,
    score,
)
from residual_rl_ros.evaluation.progress import Report, progress, say
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.learner.checkpoint import (
    CheckpointFolder,
    check_numbers,
    load_checkpoint,
    load_run_state,
)
from residual_rl_ros.learner.episodes import RECENT_EPISODES
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.learner.metrics_log import MetricsLog
from residual_rl_ros.pretraining.demonstrations import demonstrate
from residual_rl_ros.pretraining.experts import has_expert
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.tasks.success_probe import settle_success
from residual_rl_ros.training.curve import CurveRecorder, LearningCurve, final_scenes, returns_apart
from residual_rl_ros.training.in_process import InProcessRun
from residual_rl_ros.training.run_folder import (
    SUMMARY,
    Interruption,
    describe_learning,
    file_sha256,
    git_commit,
    prepare_output,
    read_history,
    versions,
    write_json,
)
from residual_rl_ros.training.simulated_operator import operator_of

IDENTITY = 'identity'
"""In the run state of a checkpoint: `run_identity` as UTF-8 JSON, shape (bytes,)."""
DEMONSTRATION_SEED = 900_000
"""Distance of the demonstrations' seeds from those of the training episodes."""
PRACTICE_SEED = 950_000
"""Distance of the seeds of an operator's own episodes from those of the training episodes."""


@dataclass(frozen=True)
class TrainOptions:
    """What the command line chooses."""

    config: RunConfig
    seed: int
    """Learner seed; the evaluation seeds are the same for all."""
    output_dir: Path
    start: Path | None = None
    """Begin with the learner of this run or checkpoint, such as `bag train` leaves."""
    resume: bool = False
    """Continue the run in `output_dir` from its latest checkpoint."""
    demonstrations: int = 20
    """Expert episodes for a preset that samples demonstrations; the task must have an expert."""
    recordings: Recordings = field(default_factory=Recordings)
    """Recorded demonstrations for such a preset."""
    checkpoint_steps: int = 8000
    """Control steps between two checkpoints."""
    curve_steps: int = 0
    """Control steps between two evaluations during training; 0 does none."""
    curve_seeds: int = 50
    """Episodes of each."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end; 0 does none."""
    first_scene: int | None = None
    """First environment seed of evaluations of this run's own: first those during training, then
    those at the end; None takes the same for all."""
    protocol: str = ''
    """SHA-256 of the benchmark's protocol that the run is of, if it is of one."""

    def evaluation_identity(self) -> dict[str, Any]:
        """Return what makes the evaluations of two runs the same; scenes alone in a grid."""
        add_ons = self.config.add_ons
        added = {'add_ons': add_ons.to_list()} if add_ons else {}
        if self.first_scene is None:
            return added
        names = ('first_scene', 'curve_steps', 'curve_seeds')
        protocol = {'protocol': self.protocol} if self.protocol else {}
        return {**added, **protocol, **{name: getattr(self, name) for name in names}}

    @property
    def curve_scenes(self) -> range:
        """Environment seeds of the evaluations during training."""
        first = CURVE_SEED if self.first_scene is None else self.first_scene
        return range(first, first + self.curve_seeds)

    @property
    def final_scenes(self) -> range:
        """Environment seeds of the evaluation at the end."""
        own = self.first_scene is not None
        first = self.curve_scenes.stop if own else EVALUATION_SEED
        return range(first, first + self.paired_seeds)


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


def run_identity(run: ResolvedRun, options: TrainOptions) -> dict[str, Any]:
    """Return what makes two runs the same experiment, as JSON values."""
    config, operator = run.config, OperatorConfig.parse(run.config.operator)
    identity = {
        'task': config.task,
        'seed': options.seed,
        'control_steps': config.control_steps,
        'paired_seeds': options.paired_seeds,
        'base_policy_sha256': run.policy.sha256,
        'robot_sha256': file_sha256(run.robot_file),
        'decision_steps': config.decision_steps,
        'residual_scale': config.residual_scale,
        'prefetch_steps': config.prefetch_steps,
        **config.customisation,
        'success': config.success,
        'operator': None if operator is None else asdict(operator),
        **options.evaluation_identity(),
        **run.learner.to_mapping(),
    }
    if run.learner.rule.samples_demonstrations:
        recorded = options.recordings
        identity['demonstrations'] = [options.demonstrations, *map(str, recorded.paths)]
        identity['observation_map'] = dict(recorded.observation_map)
    as_json: dict[str, Any] = json.loads(json.dumps(identity))
    return as_json


def stored_identity(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `run_identity` with every key: stored ones can be of a version before one."""
    return {'operator': None, 'add_ons': [], **found}


CHOOSING = {'q_remix': ', and residual_scale to 2', 'choose_and_edit': ''}
"""Algorithms that choose among proposals of the base, and what else these need."""


def refuse_nothing_to_learn(run: ResolvedRun) -> None:
    """Refuse a run of a customisation that could not change what the base does.

    Raises:
        ConfigError: no add-on where nothing else is learned, or one proposal to choose from.
    """
    rule, config = run.learner.rule, run.config
    wanted = bool(config.add_ons) or bool(getattr(rule, 'add_on', None))
    if getattr(rule, 'reward', '') == ADD_ON and not wanted:
        raise ConfigError(
            f'preset {config.preset} learns from an add-on reward, and there is none: give '
            '--add-on, or set reward to total or basic'
        )
    if run.learner.algorithm in CHOOSING and config.proposals < 2:
        raise ConfigError(
            f'preset {config.preset} chooses among proposals of the base, and proposals is '
            f'{config.proposals}: set it to 8 (--set proposals=8)'
            f'{CHOOSING[run.learner.algorithm]}'
        )


class _Training:
    """One run: everything that its options name, resolved once.

    Args:
        options: what the command line chooses.
        console: where progress goes.
        made: takes back what is made.
    """

    def __init__(self, options: TrainOptions, console: Console, made: ExitStack) -> None:
        config = options.config
        success = settle_success(config.task, config.success, lambda text: say(console, text))
        self._options = options = replace(options, config=replace(config, success=success))
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
        made.callback(self._controller.queue.close)
        prepare_output(options.output_dir, options.resume)
        self._checkpoints = CheckpointFolder(options.output_dir / CHECKPOINTS)
        made.callback(self._checkpoints.close)
        latest = self._checkpoints.latest
        learner = self._load_learner(latest) if options.resume else self._new_learner()
        learner.warn = learner.inform = partial(say, console)
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
            learner.warn(lack)
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
                if not (history and history[-1].takeover):
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
            'versions': versions(),
            'git_commit': git_commit(),
        }
        if options.paired_seeds:
            seeds, measure = options.final_scenes, self._curve.curve.measure
            base = self._play(seeds, None, 'evaluating the base')
            message = self._run.learner.current_message()
            final = self._play(seeds, message, 'evaluating base + residual')
            self._scores = score(base), score(final)
            summary['base'], summary['final'] = (found.summary() for found in self._scores)
            summary |= difference(base, final).summary()
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
        identity = np.frombuffer(json.dumps(self._identity).encode(), dtype=np.uint8)
        self._checkpoints.save(self._run.learner, {**self._run.state_dict(), IDENTITY: identity})

    def _continue(self, checkpoint: Path) -> None:
        """Continue the run of a checkpoint.

        Raises:
            ResidualRLError: it is not the run that the options say, or a longer one.
        """
        state = load_run_state(checkpoint)
        _check_identity(checkpoint, state.pop(IDENTITY, None), self._identity)
        self._run.load_state_dict(state)

    def _new_learner(self) -> Learner:
        """Return a new learner, or that of `--from` in a new epoch."""
        start = self._options.start
        if start is None:
            return Learner(self._resolved.learner, self._controller.layout, self._options.seed)
        latest = start / CHECKPOINTS / 'latest'
        learner = self._load_learner(latest if checkpoint_exists(latest) else start)
        learner.begin_epoch(learner.epoch + 1)  # This robot counts its decisions from zero.
        return learner

    def _load_learner(self, checkpoint: Path) -> Learner:
        """Return the learner of a checkpoint made for the same robot and with the same numbers."""
        layout = self._controller.layout
        check_numbers(checkpoint, self._resolved.learner)
        learner = load_checkpoint(checkpoint)
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
                run.config.prefetch_steps,
                seed=options.seed,
                prior_width=run.config.prior_width,
            ),
            lambda text: say(self._console, text),
        )
        task = run.config.task
        if not options.demonstrations or before:
            return  # A bag has supplied them.
        if not has_expert(task):
            say(self._console, f'no expert knows {task!r}: training without demonstrations')
            return
        controller = self._resolved.evaluation_controller(None)
        seed = training_seed(options.seed) + DEMONSTRATION_SEED
        for transition in demonstrate(self._env, task, controller, options.demonstrations, seed):
            learner.add_demonstration(transition)
        controller.queue.close()
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
        controller = self._resolved.evaluation_controller(message)
        episodes = []
        for seed in seeds:
            episodes.append(
                run_episode(self._env, controller, seed, seed, add_on=self._resolved.add_on)
            )
            self._evaluated += episodes[-1].steps
            self._show(doing)
        controller.queue.close()
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


def _check_identity(
    checkpoint: Path, stored: npt.NDArray[np.uint8] | None, wanted: Mapping[str, Any]
) -> None:
    if stored is None:
        raise ResidualRLError(f'{str(checkpoint)!r} does not say which run it is of; start anew')
    text = stored.tobytes().decode(errors='replace')
    found = stored_identity(parse_json(text, f'run of {str(checkpoint)!r}'))
    wanted = stored_identity(wanted)
    for key in sorted(wanted.keys() - {'paired_seeds', 'control_steps'}):
        if found.get(key) != wanted[key]:
            raise ResidualRLError(
                f'{str(checkpoint)!r} is of another run: {key} is {found.get(key)} there and '
                f'{wanted[key]} here; resume with what it was started with'
            )
    if found['control_steps'] > wanted['control_steps']:
        raise ResidualRLError(
            f'{str(checkpoint)!r} is of a run of {found["control_steps"]} control steps, which can '
            f'go on for longer but not end at {wanted["control_steps"]}'
        )
