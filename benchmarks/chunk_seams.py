# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How large the steps of the commands are where one chunk of a base policy follows another.

A chunk that is asked for d control steps before its first use is spliced in by the steps executed
since, so what is sent is the same for every inference time up to d. Needed: a shipped task.

    python benchmarks/chunk_seams.py --task peg_insert --episodes 20
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import typer

from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.tasks.hosting import connect, make_environment


@dataclass
class Steps:
    """Sizes of the steps between two commands [half ranges of the action, largest dimension]."""

    seams: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)


def measure(config: RunConfig, delay: int, blend: int, episodes: int) -> Steps:
    """Run the base policy alone and return the steps of its commands.

    Args:
        config: task, robot and base policy.
        delay: control steps that inference may take.
        blend: control steps over which a chunk takes over from the one before.
        episodes: how many; the environment is seeded with their numbers.
    """
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    controller_config = replace(
        config.controller_config(0, explore=False, scheduled=False),
        splicing=Splicing(delay, blend),
    )
    controller = controller_config.build(policy, robot.action)
    env = connect(make_environment(config.task), robot)
    half = (np.array(policy.metadata.action_max) - np.array(policy.metadata.action_min)) / 2
    queue, steps = controller.queue, Steps()
    for number in range(episodes):
        last, chunk, since = None, None, blend + 1

        def observe() -> None:
            nonlocal last, chunk, since
            command = controller.limiter.last_command
            assert command is not None
            since = since + 1 if queue._active is chunk or chunk is None else 0
            chunk = queue._active
            if last is not None:
                size = float((np.abs(command - last) / half).max())
                (steps.seams if since <= blend else steps.inside).append(size)
            last = command.copy()

        run_episode(env, controller, number, number, on_step=observe)
    queue.close()
    env.close()
    return steps


def rows(config: RunConfig, episodes: int) -> Iterator[str]:
    """Yield the rows of a Markdown table; steps inside chunks are those without blending."""
    yield '| delay | blend | p95 seam | inside | max seam | inside | ratio of p95 | of max |'
    yield '|---|---|---|---|---|---|---|---|'
    for delay in (0, 1, 3, 10):
        inside: list[float] = []
        for blend in (0, 3, 7):
            try:
                steps = measure(config, delay, blend, episodes)
            except BasePolicyError:
                yield f'| {delay} | {blend} | chunks of the base policy are too short | | | | | |'
                continue
            inside = inside or steps.inside
            (p95, largest), (p95_inside, largest_inside) = (
                (float(np.percentile(values, 95)), max(values)) for values in (steps.seams, inside)
            )
            figures = (p95, p95_inside, largest, largest_inside)
            ratios = (p95 / p95_inside, largest / largest_inside)
            cells = ' | '.join([*(f'{f:.3f}' for f in figures), *(f'{r:.2f}' for r in ratios)])
            yield f'| {delay} | {blend} | {cells} |'


def main(task: str = 'peg_insert', episodes: int = 20) -> None:
    """Print the table."""
    for row in rows(load_run(task), episodes):
        print(row, flush=True)


if __name__ == '__main__':
    typer.run(main)
