# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Control steps on the robot until 90 % success: from scratch, and from a bag of base transitions.

`python benchmarks/bag_warm_start.py collect` records the bag, `run` plays one learner seed one way,
`table` compares the runs `scratch_SEED` and `bag_SEED` of a folder. 90 % is reached when 45 of the
latest 50 training episodes with a residual succeeded; from scratch that counts the warm-up, which
the bag saves.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from residual_rl_ros.bags.transitions.writer import TransitionWriter
from residual_rl_ros.config.run import load_run, training_seed
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.learner.checkpoint import CheckpointFolder
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS
from residual_rl_ros.tasks.hosting import connect, make_environment
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.run_folder import read_history, steps_to
from residual_rl_ros.training.train import run_training
from residual_rl_ros.training.train_from_bags import TransitionUse, train_from_bags
from residual_rl_ros.transitions.transition import Transition

BOOTSTRAPS = 10_000
BAG_SEED = 600_000
"""Distance of the bag's environment seeds from those of training."""
app = typer.Typer(no_args_is_help=True, add_completion=False)
Task = Annotated[str, typer.Option(help='Task of config/finetune/.')]


@app.command()
def collect(out: Path, task: Task = 'peg_insert', transitions: int = 20_000) -> None:
    """Record base transitions into the bag OUT."""
    config = load_run(task)
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    env = connect(make_environment(config.task), robot)
    controller = config.controller_config(0, explore=True, scheduled=True).build(
        policy, robot.action
    )
    with TransitionWriter(out, controller.layout, custom_data={'task': task}) as writer:
        begun, number = time.time(), 0

        def write(transition: Transition) -> None:
            stamp = begun + transition.step / robot.control_rate_hz
            writer.write(replace(transition, stamp=stamp), round(1e9 * stamp))

        while writer.transitions < transitions:
            episode = run_episode(
                env, controller, training_seed(0) + BAG_SEED + number, number, write
            )
            begun += (episode.steps + 1) / robot.control_rate_hz
            number += 1
    controller.queue.close()


@app.command()
def run(
    out: Path,
    bag: Annotated[Path, typer.Option(help='Begin with this bag; without it, from scratch.')] = (
        Path()
    ),
    task: Task = 'peg_insert',
    seed: int = 60,
    control_steps: int = 40_000,
) -> None:
    """Train one learner seed into OUT."""
    config = replace(load_run(task), control_steps=control_steps)
    start = None
    if bag != Path():
        start = out.with_name(out.name + '_learner')
        learner, _ = train_from_bags([bag], TransitionUse.BASE, config.learner_config(), seed)
        CheckpointFolder(start / CHECKPOINTS).save(learner)
    options = TrainOptions(config, seed, out, start=start, paired_seeds=0)
    run_training(options, Console(stderr=True))


@app.command()
def table(folder: Path, level: float = 0.9) -> None:
    """Compare the runs `scratch_SEED` and `bag_SEED` in FOLDER, in control steps on the robot.

    A run from scratch that did not reach the level counts with its length: it needs at least that.
    """
    print('| learner seed | from scratch | from the bag | fewer |\n|---|---|---|---|')
    saved = []
    for out in sorted(folder.glob('scratch_*')):
        seed = out.name.removeprefix('scratch_')
        scratch, late = _steps_to(level, out)
        bag, unknown = _steps_to(level, folder / f'bag_{seed}')
        if unknown:
            raise typer.BadParameter(f'{folder}/bag_{seed} did not reach {level:g}: run it longer')
        at_least = '>= ' if late else ''
        saved.append(scratch - bag)
        print(f'| {seed} | {"> " if late else ""}{scratch} | {bag} | {at_least}{saved[-1]} |')
    if not saved:
        return
    means = np.random.default_rng(0).choice(saved, (BOOTSTRAPS, len(saved))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    print(f'| mean | | | {np.mean(saved):.0f} (95 % interval {low:.0f} to {high:.0f}, bootstrap) |')


def _steps_to(level: float, run: Path) -> tuple[int, bool]:
    """Return the control steps to a success rate, or of the whole run, and whether it was late."""
    history = read_history(run)
    if not history:
        raise typer.BadParameter(f'{run} holds no finished episode')
    steps = steps_to(level, history)
    return (history[-1].control_steps, True) if steps is None else (steps, False)


if __name__ == '__main__':
    app()
