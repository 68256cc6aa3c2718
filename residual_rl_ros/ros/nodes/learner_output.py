# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The folder that a learner node writes or continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from residual_rl_ros.config import DEFAULT_PRESET
from residual_rl_ros.config.preset import LearnerConfig, learner_config, load_preset
from residual_rl_ros.errors import CheckpointError, ConfigError
from residual_rl_ros.learner.checkpoint import (
    CheckpointFolder,
    check_numbers,
    load_checkpoint,
    stored_config,
)
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.learner.metrics_log import MetricsLog
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.ros.common.node_parameters import LearnerParameters
from residual_rl_ros.transitions.seal import Key
from residual_rl_ros.transitions.transition import TransitionLayout


class LearnerOutput:
    """Checkpoints and metrics of a learner, and the numbers that it is made with.

    Args:
        parameters: where, and whether to go on there.
        overrides: what replaces numbers of the preset.
        key: seals what is written.
        warn: told why metrics are not written.

    Raises:
        ResidualRLError: another learner has the folder, it cannot be written, or does not fit the
            parameters.
    """

    def __init__(
        self,
        parameters: LearnerParameters,
        overrides: Mapping[str, Any],
        key: Key,
        warn: Callable[[str], None],
    ) -> None:
        if not parameters.output_dir:
            raise ConfigError('parameter output_dir of learner_node is empty; give a folder')
        self._parameters, self._key = parameters, key
        folder = Path(parameters.output_dir)
        self.checkpoints = CheckpointFolder(folder / CHECKPOINTS, key)
        try:
            self._check_resume()
            self._config = self._read_config(overrides)
            self.log = MetricsLog(folder / 'tensorboard', warn)
        except OSError as error:
            self.checkpoints.close()
            raise ConfigError(
                f'output_dir {parameters.output_dir!r} cannot be written: {error.strerror}'
            ) from error
        except Exception:
            self.checkpoints.close()
            raise

    def _check_resume(self) -> None:
        folder, resume = self._parameters.output_dir, self._parameters.resume
        if checkpoint_exists(self.checkpoints.latest) is not resume:
            raise ConfigError(
                f'there is no checkpoint in {folder!r} to resume'
                if resume
                else f'{folder!r} already holds a checkpoint; set resume:=true to continue it, or '
                'choose another output_dir'
            )

    def _read_config(self, overrides: Mapping[str, Any]) -> LearnerConfig:
        """Return the preset with its overrides; to resume, it must be the checkpoint's.

        Raises:
            ResidualRLError: a number is wrong or not the checkpoint's.
        """
        parameters, latest = self._parameters, self.checkpoints.latest
        if parameters.resume and not parameters.preset:
            stored = stored_config(latest)
            config = learner_config({**stored.to_mapping(), **overrides})
        else:
            config = load_preset(parameters.preset or DEFAULT_PRESET, overrides)
        if parameters.resume:
            check_numbers(latest, config)
        return config

    def make_learner(self, layout: TransitionLayout) -> Learner:
        """Return a new learner, or the checkpoint's in a new epoch.

        Raises:
            CheckpointError: the checkpoint cannot be read, or is of another layout.
            ConfigError: the replay is larger than the memory.
        """
        if not self._parameters.resume:
            return Learner(self._config, layout, self._parameters.seed)
        checkpoint = self.checkpoints.latest
        learner = load_checkpoint(checkpoint, self._key)
        if learner.layout != layout:
            raise CheckpointError(
                f'checkpoint {str(checkpoint)!r} has layout {learner.layout.label}, the '
                f'policy node {layout.label}; start without resume in another output_dir'
            )
        learner.begin_epoch(learner.epoch + 1)
        return learner

    def close(self) -> None:
        """Close the metrics, and let other learners have the folder."""
        self.log.close()
        self.checkpoints.close()
