# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events of a run."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from residual_rl_ros.learner.learner import Learner


class MetricsLog:
    """Writes a learner's metrics over control steps.

    Args:
        directory: folder for the event file.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(str(directory))

    def write(self, learner: Learner) -> None:
        """Append the metrics of the latest update and the recent success."""
        step = learner.control_steps
        values = {f'learner/{name}': value for name, value in learner.metrics.items()}
        values['run/updates'] = float(learner.updates)
        if learner.success_rate is not None:
            values['run/success_recent'] = learner.success_rate
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()
