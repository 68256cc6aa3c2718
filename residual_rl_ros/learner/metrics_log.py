# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from residual_rl_ros.learner.learner import Learner

RETRY_AFTER = 100
"""Metrics that are skipped after a failure before a new event file is tried."""


class MetricsLog:
    """Writes a learner's metrics over control steps. A full disk costs metrics, never the run.

    Args:
        directory: folder for the event file.
        warn: told why metrics are not written.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._warn = warn
        self._writer: SummaryWriter | None = SummaryWriter(str(directory))
        self._skipped = 0
        self._written: dict[str, float] | None = None

    def write(self, learner: Learner, returns: Mapping[str, float] | None = None) -> None:
        """Append the learner's metrics and the recent success, if it has new ones.

        Args:
            learner: the learner.
            returns: recent returns `basic`, `add_on` and `total`, of a run with an add-on.
        """
        if learner.updates.metrics is self._written:
            return
        self._written = learner.updates.metrics
        step = learner.control_steps
        values = {f'learner/{name}': value for name, value in learner.updates.metrics.items()}
        values['run/updates'] = float(learner.updates.online)
        values['run/rollbacks'] = float(len(learner.judge.rollbacks))
        values['run/takeovers'] = float(learner.episodes.takeovers)
        values['run/operator_steps'] = float(learner.episodes.operator_steps)
        if learner.episodes.success_rate is not None:
            values['run/success_recent'] = learner.episodes.success_rate
        if returns:
            values['run/return_basic'] = returns['basic']
            values['run/return_add_on'] = returns['add_on']
            values['run/return_total'] = returns['total']
        if self._writer is None and self._skipped < RETRY_AFTER:
            self._skipped += 1
            return
        try:
            self._writer = self._writer or SummaryWriter(str(self._directory))
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Flush and close the event file."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer, self._skipped = None, 0
        self._warn(f'metrics in {str(self._directory)!r} are not written: {error}')
