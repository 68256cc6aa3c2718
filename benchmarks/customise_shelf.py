# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How often the tool is in the shelf, and how often the task succeeds: base and customised.

Needed: a run of `residual-rl bag train` with the add-on of docs/how-to/customise.md.

    python benchmarks/customise_shelf.py runs/shelf --out docs/images/customise_shelf.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from residual_rl_ros.config.run import ResolvedRun, load_run
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.evaluation.figures import pyplot
from residual_rl_ros.evaluation.intervals import mcnemar, wilson
from residual_rl_ros.evaluation.paired import EVALUATION_SEED
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.tasks.hosting import host

SHELF_M = 0.04
"""Height of the lower side of the shelf over the table [m]."""
Heights = list[npt.NDArray[np.float64]]


def play(run: ResolvedRun, message: bytes, scenes: range, weight: float) -> tuple[Heights, Any]:
    """Return the true height of the tool after each control step [m], and each success."""
    env, controller = host(run.config, run.robot), run.evaluation_controller(message)
    controller.customisation.change('', weight)
    heights, successes = [], []
    task: Any = env.unwrapped
    seen: list[float] = []

    def look() -> None:
        seen.append(task.tool_pose().position[2])

    for scene in scenes:
        seen.clear()
        episode = run_episode(env, controller, scene, scene, on_step=look)
        heights.append(np.array(seen))
        successes.append(bool(episode.success))
    controller.queue.close()
    env.close()
    return heights, successes


def draw(out: Path, sides: dict[str, Heights], rate_hz: float) -> None:
    """Draw the height of the tool over time in each episode, and the shelf."""
    figure, axes = pyplot().subplots(1, len(sides), figsize=(8.0, 3.0), sharex=True, sharey=True)
    for axis, (name, heights) in zip(axes, sides.items(), strict=True):
        for each in heights:
            inside = each.max() > SHELF_M
            color = '#c0392b' if inside else '#2c6e9b'
            times = np.arange(1, len(each) + 1) / rate_hz
            axis.plot(times, 1000.0 * each, color=color, linewidth=0.7, alpha=0.6)
        axis.axhspan(1000.0 * SHELF_M, 90.0, color='#c0392b', alpha=0.12, linewidth=0.0)
        axis.text(0.98, 0.94, 'shelf', transform=axis.transAxes, ha='right', va='top')
        count = sum(each.max() > SHELF_M for each in heights)
        axis.set_title(f'{name}: {count} of {len(heights)} episodes in the shelf', fontsize=9)
        axis.set_xlabel('time [s]')
        axis.set_ylim(0.0, 90.0)
    axes[0].set_ylabel('height of the tool [mm]')
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main(
    run: Annotated[Path, typer.Argument(help='Folder of a customised run.')],
    task: Annotated[str, typer.Option(help='Task of the run.')] = 'push_to_goal_shelf',
    out: Annotated[Path, typer.Option(help='PNG file.')] = Path('customise_shelf.png'),
    first_seed: Annotated[int, typer.Option(help='First environment seed.')] = EVALUATION_SEED,
    episodes: Annotated[int, typer.Option(min=1, help='Seeds.')] = 100,
) -> None:
    """Play the same scenes with weight 0 and weight 1, print what happened, and draw it."""
    message = read_actor(run)
    _, actor = decode_weights(message)
    resolved = load_run(task).resolve().trained_as(actor.architecture.layout)
    scenes = range(first_seed, first_seed + episodes)
    sides, outcomes = {}, {}
    for name, weight in (('base', 0.0), ('customised', 1.0)):
        sides[name], outcomes[name] = play(resolved, message, scenes, weight)
        inside = [int((each > SHELF_M).sum()) for each in sides[name]]
        print(
            f'{name}: success {wilson(outcomes[name])}; in the shelf {sum(map(bool, inside))} '
            f'episodes, {sum(inside)} control steps'
        )
    print(f'success, McNemar exact: p = {mcnemar(outcomes["base"], outcomes["customised"]):.2g}')
    draw(out, sides, resolved.robot.control_rate_hz)


if __name__ == '__main__':
    typer.run(main)
