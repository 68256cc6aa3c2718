# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in one process without ROS, from the command line: `residual-rl train`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from residual_rl_ros.config.run import FinetuneConfig, training_seed
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import OutputError, ResidualRLError
from residual_rl_ros.evaluation.figures import draw_learning_curve
from residual_rl_ros.evaluation.intervals import mcnemar, wilson
from residual_rl_ros.evaluation.paired import (
    CURVE_SEED,
    EVALUATION_SEED,
    Episode,
    make_evaluation_controller,
    run_episode,
)
from residual_rl_ros.learner.checkpoint import (
    CheckpointFolder,
    check_numbers,
    load_checkpoint,
    load_run_state,
)
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.learner.metrics_log import MetricsLog
from residual_rl_ros.pretraining.demonstrations import demonstrate
from residual_rl_ros.pretraining.experts import EXPERTS
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.tasks.hosting import Env, connect, make_environment
from residual_rl_ros.training.in_process import InProcessRun
from residual_rl_ros.training.run_folder import (
    SUMMARY,
    Interruption,
    describe_learning,
    file_sha256,
    git_commit,
    prepare_output,
    rate_summary,
    read_history,
    versions,
    write_json,
)
from residual_rl_ros.transitions.transition import TransitionLayout

PROGRESS = 'progress.json'
IDENTITY = 'identity'
"""In the run state of a checkpoint: `run_identity` as UTF-8 JSON, shape (bytes,)."""
DEMONSTRATION_SEED = 900_000
"""Distance of the demonstrations' seeds from those of the training episodes."""


@dataclass(frozen=True)
class TrainOptions:
    """What the command line chooses."""

    config: FinetuneConfig
    seed: int
    """Learner seed; the evaluation seeds are the same for all."""
    output_dir: Path
    start: Path | None = None
    """Begin with the learner of this run or checkpoint, such as `bag train` leaves."""
    resume: bool = False
    """Continue the run in `output_dir` from its latest checkpoint."""
    demonstrations: int = 20
    """Expert episodes for a preset that samples demonstrations; the task must have an expert."""
    checkpoint_steps: int = 8000
    """Control steps between two checkpoints."""
    curve_steps: int = 0
    """Control steps between two evaluations during training; 0 does none."""
    curve_seeds: int = 50
    """Episodes of each."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end; 0 does none."""


def run_training(options: TrainOptions, console: Console) -> dict[str, Any]:
    """Train and return the summary, which is also in `summary.json`.

    Ctrl-C ends the run after the episode in progress and saves it; a second one ends it at once,
    with the checkpoint before.

    Raises:
        ResidualRLError: bad input.
        KeyboardInterrupt: after Ctrl-C.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    config, out = options.config, options.output_dir
    policy, robot, _ = config.load()
    env = connect(make_environment(config.task), robot)
    controller = config.controller_config(options.seed, explore=True, scheduled=True).build(
        policy, robot.action
    )
    prepare_output(out, options.resume)
    checkpoints = CheckpointFolder(out / CHECKPOINTS)
    if options.resume:
        run = _resume(options, env, controller, checkpoints)
    else:
        learner = _new_learner(options, controller.layout)
        run = InProcessRun(env, controller, learner, training_seed(options.seed))
        _add_demonstrations(options, env, learner, console)
    console.print(f'replay: {run.learner.rule.memory.nbytes / 1e6:.0f} MB when full')
    curve = _Curve(options, env, run.steps, console)
    try:
        log = MetricsLog(out / 'tensorboard', console.print)
    except OSError as error:
        raise OutputError(f'no metrics can be written in {str(out)!r}: {error}') from error
    identity = np.frombuffer(json.dumps(run_identity(options)).encode(), dtype=np.uint8)
    saved = run.steps

    with Interruption() as interruption, _progress(console) as progress:
        bar = progress.add_task(config.task, total=config.control_steps, completed=run.steps)

        def on_episode(episode: Episode) -> None:
            nonlocal saved
            del episode
            curve.measure(run)
            if interruption.wanted or run.steps - saved >= options.checkpoint_steps:
                checkpoints.save(run.learner, {**run.state_dict(), IDENTITY: identity})
                saved = run.steps
            if interruption.wanted:
                raise KeyboardInterrupt
            rate = run.learner.episodes.success_rate
            recent = '' if rate is None else f', success {rate:.0%}'
            phase = f'{config.task}, {run.learner.phase.value}{recent}'
            progress.update(bar, completed=run.steps, description=phase)

        try:
            run.run(config.control_steps, on_episode, log.write)
            curve.measure(run, last=True)
        finally:
            log.close()
        checkpoints.save(run.learner, {**run.state_dict(), IDENTITY: identity})
    summary = _summarise(options, env, run, curve, robot.control_rate_hz)
    summary['wall_s'] = round(time.monotonic() - started, 1)
    write_json(out / SUMMARY, summary)
    controller.queue.close()
    env.close()
    return summary


def run_identity(options: TrainOptions) -> dict[str, Any]:
    """Return what makes two runs the same experiment, as JSON values."""
    config = options.config
    _, robot_file = load_robot(config.robot)
    identity = {
        'task': config.task,
        'seed': options.seed,
        'control_steps': config.control_steps,
        'paired_seeds': options.paired_seeds,
        'base_policy_sha256': file_sha256(find_base_policy(config.base_policy)),
        'robot_sha256': file_sha256(robot_file),
        'decision_steps': config.decision_steps,
        'residual_scale': config.residual_scale,
        'prefetch_steps': config.prefetch_steps,
        **config.learner_config().to_mapping(),
    }
    as_json: dict[str, Any] = json.loads(json.dumps(identity))
    return as_json


def _resume(
    options: TrainOptions,
    env: Env,
    controller: ResidualController,
    checkpoints: CheckpointFolder,
) -> InProcessRun:
    """Return the run of the latest checkpoint.

    Raises:
        ResidualRLError: it is not the run that the options say, or a longer one.
    """
    learner = _load_learner(options, checkpoints.latest, controller.layout)
    run = InProcessRun(env, controller, learner, training_seed(options.seed))
    state = load_run_state(checkpoints.latest)
    _check_identity(options, checkpoints.latest, state.pop(IDENTITY, None))
    run.load_state_dict(state)
    return run


def _check_identity(
    options: TrainOptions, checkpoint: Path, stored: npt.NDArray[np.uint8] | None
) -> None:
    if stored is None:
        raise ResidualRLError(f'{str(checkpoint)!r} does not say which run it is of; start anew')
    found, wanted = json.loads(stored.tobytes()), run_identity(options)
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


def _new_learner(options: TrainOptions, layout: TransitionLayout) -> Learner:
    """Return a learner that has not met this robot yet."""
    if options.start is None:
        return Learner(options.config.learner_config(), layout, options.seed)
    latest = options.start / CHECKPOINTS / 'latest'
    found = latest if checkpoint_exists(latest) else options.start
    learner = _load_learner(options, found, layout)
    learner.begin_epoch(learner.epoch + 1)  # This robot counts its decisions from zero.
    return learner


def _load_learner(options: TrainOptions, checkpoint: Path, layout: TransitionLayout) -> Learner:
    """Return the learner of a checkpoint made for the same robot and with the same numbers."""
    check_numbers(checkpoint, options.config.learner_config())
    learner = load_checkpoint(checkpoint)
    if learner.layout != layout:
        raise ResidualRLError(
            f'{str(checkpoint)!r} has layout {learner.layout.label}, this configuration '
            f'{layout.label}; use the same robot, base policy, decision_steps and residual_scale'
        )
    return learner


def _add_demonstrations(
    options: TrainOptions, env: Env, learner: Learner, console: Console
) -> None:
    """Fill the demonstration buffer of a preset that has one."""
    memory = learner.rule.memory
    wanted = options.demonstrations and learner.config.rule.samples_demonstrations
    if not wanted or memory.demonstrations:
        return  # None are wanted, or a bag has given them.
    task = options.config.task
    if task not in EXPERTS:
        console.print(f'no expert knows {task!r}: training without demonstrations')
        return
    controller = make_evaluation_controller(options.config, None)
    seed = training_seed(options.seed) + DEMONSTRATION_SEED
    for transition in demonstrate(env, task, controller, options.demonstrations, seed):
        memory.add_demonstration(transition)
    controller.queue.close()
    console.print(f'{memory.demonstrations} demonstration transitions')


class _Curve:
    """Evaluations during training, on seeds of their own; they do not touch the learner."""

    def __init__(self, options: TrainOptions, env: Env, done: int, console: Console) -> None:
        self._options = options
        self._env = env
        self._console = console
        self._path = options.output_dir / PROGRESS
        self.points: list[tuple[int, float]] = []
        """(control steps, success) of each."""
        if options.resume and self._path.is_file():
            try:
                stored = json.loads(self._path.read_text(encoding='utf-8'))
                self.points = [(int(at), float(rate)) for at, rate in stored if at <= done]
            except (OSError, TypeError, ValueError) as error:
                raise ResidualRLError(
                    f'{str(self._path)!r} cannot be read: {error}; remove it to go on without the '
                    'evaluations so far'
                ) from error

    def measure(self, run: InProcessRun, last: bool = False) -> None:
        """Evaluate if it is due."""
        every = self._options.curve_steps
        previous = self.points[-1][0] if self.points else -every
        due = run.steps > previous if last else run.steps - previous >= every
        if not every or not due:
            return
        seeds = range(CURVE_SEED, CURVE_SEED + self._options.curve_seeds)
        outcomes = play(self._options.config, self._env, seeds, run.learner.current_message())
        self.points.append((run.steps, float(np.mean(outcomes))))
        try:
            write_json(self._path, self.points)
        except OutputError as error:  # It costs points after a resume, never the run.
            self._console.print(str(error))


def play(config: FinetuneConfig, env: Env, seeds: range, message: bytes | None) -> list[bool]:
    """Return the outcome of every seed, in this process."""
    controller = make_evaluation_controller(config, message)
    outcomes = [run_episode(env, controller, seed, seed).success for seed in seeds]
    controller.queue.close()
    return outcomes


def _summarise(
    options: TrainOptions, env: Env, run: InProcessRun, curve: _Curve, rate_hz: float
) -> dict[str, Any]:
    """Evaluate base and base + residual and put the summary together."""
    config, out = options.config, options.output_dir
    summary: dict[str, Any] = {
        'task': config.task,
        'preset': config.preset,
        'seed': options.seed,
        'run': run_identity(options),
        'base': None,
        'final': None,
        **describe_learning(out, rate_hz),
        'evaluations': curve.points,
        'versions': versions(),
        'git_commit': git_commit(),
    }
    if options.paired_seeds:
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + options.paired_seeds)
        base = play(config, env, seeds, None)
        final = play(config, env, seeds, run.learner.current_message())
        summary['base'] = rate_summary(wilson(base))
        summary['final'] = rate_summary(wilson(final))
        summary['paired_p_value'] = mcnemar(base, final)
        draw_learning_curve(
            out / 'learning_curve.png',
            f'{config.task}, preset {config.preset}, seed {options.seed}',
            read_history(out),
            rate_hz,
            wilson(base),
            wilson(final),
        )
    return summary


def _progress(console: Console) -> Progress:
    columns = (TextColumn('{task.description}'), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)
