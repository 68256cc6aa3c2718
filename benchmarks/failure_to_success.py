# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An animation of one seed that the base policy fails and the residual of a run repairs.

Needed: the folder of a run (`residual-rl train` or `demo`), and OpenGL (`MUJOCO_GL=egl`).

    python benchmarks/failure_to_success.py runs/peg_insert_seed0 --task peg_insert
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.evaluation.figures import FRAME_STEPS, draw_animation
from residual_rl_ros.evaluation.paired import EVALUATION_SEED, evaluate, film
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.weights import decode_weights


def main(
    run: Annotated[Path, typer.Argument(help='Output folder of train or demo.')],
    task: Annotated[str, typer.Option(help='Task of the run.')] = 'peg_insert',
    out: Annotated[Path, typer.Option(help='WebP file.')] = Path('failure_to_success.webp'),
    first_seed: Annotated[int, typer.Option(help='First environment seed.')] = EVALUATION_SEED,
    episodes: Annotated[int, typer.Option(min=1, help='Seeds to look through.')] = 20,
    workers: Annotated[int, typer.Option(min=1, help='Processes.')] = 1,
) -> None:
    """Draw the repaired seed whose failure is longest, in real time."""
    message = read_actor(run)
    _, actor = decode_weights(message)
    resolved = load_run(task).resolve().trained_as(actor.architecture.layout)
    config = resolved.config
    seeds = range(first_seed, first_seed + episodes)
    base, final = (
        list(evaluate(config, seeds, policy, workers=workers)) for policy in (None, message)
    )
    repaired = [
        (before, after)
        for before, after in zip(base, final, strict=True)
        if after.success and before.success is False
    ]
    if not repaired:
        raise ResidualRLError(f'no seed of {seeds.start} to {seeds.stop - 1} was repaired')
    before, after = max(repaired, key=lambda pair: pair[0].steps)
    failure, success = (
        film(config, before.seed, policy, max(2, steps // FRAME_STEPS))
        for policy, steps in ((None, before.steps), (message, after.steps))
    )
    rate_hz = resolved.robot.control_rate_hz
    draw_animation(out, failure, success, round(1000.0 * FRAME_STEPS / rate_hz))
    print(f'seed {before.seed}: {before.steps} and {after.steps} steps, {out}')


if __name__ == '__main__':
    typer.run(main)
