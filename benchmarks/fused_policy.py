# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a fused policy commands beside the controller that plays a task, and how long each takes.

Needed: a run of `residual-rl train` on that task.

    python benchmarks/fused_policy.py runs/peg_insert_seed0 --task peg_insert --steps 10000
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import typer

from residual_rl_ros.base_policy.inputs import NO_IMAGES, Images
from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.deployment.export import ExportOptions, export_run
from residual_rl_ros.deployment.parity import FusedRunner, compare
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.tasks.hosting import host

Array = npt.NDArray[np.float64]


class TaskWorld:
    """A simulated task; the environment is seeded with the number of the episode."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._env = CheckedEnvironment(env)

    def begin(self, episode: int) -> tuple[Array, Images]:
        """See `World.begin`."""
        return np.asarray(self._env.reset(episode, episode), np.float64), NO_IMAGES

    def step(self, command: Array) -> tuple[Array, Images, StepFeedback]:
        """See `World.step`."""
        observation, feedback = self._env.step(command)
        return np.asarray(observation, np.float64), NO_IMAGES, feedback


def main(run: Path, task: str = 'peg_insert', steps: int = 10_000, float32: bool = False) -> None:
    """Print both."""
    message = read_actor(run)
    _, policy = decode_weights(message)
    layout = policy.architecture.layout
    resolved = load_run(task).resolve().trained_as(layout)
    with TemporaryDirectory() as folder:
        out, precision = Path(folder) / 'fused.onnx', 'float32' if float32 else 'float64'
        options = ExportOptions(run, out, task, batch=1, precision=precision)
        metadata = export_run(options, print).metadata
        runner = FusedRunner(out.read_bytes(), metadata)
    env = host(resolved.config, resolved.robot)
    controller = resolved.evaluation_controller(message)
    controller.queue.warm_up()
    decisions = -(-steps // layout.decision_steps)
    found = compare(controller, policy, runner, TaskWorld(env), decisions)
    controller.queue.close()
    env.close()
    print(
        f'{found.decisions} decisions of {layout.decision_steps} control steps: largest difference '
        f'{found.largest:.2g}, equal in float32 {found.equal_share:.2%}, ties {found.ties}'
    )
    for name, latency in (('controller', found.controller), ('fused', found.fused)):
        report = latency.report(name)
        print(', '.join(f'{key} {value:.0f}' for key, value in report.items()))


if __name__ == '__main__':
    typer.run(main)
