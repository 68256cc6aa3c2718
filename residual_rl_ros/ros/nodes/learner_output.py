# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The folder that a learner node writes or continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy, read_policy_model
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config import DEFAULT_PRESET
from residual_rl_ros.demonstrations.frames import read_observation_map
from residual_rl_ros.demonstrations.source import Demonstrated, Recordings, add_demonstrations
from residual_rl_ros.errors import (
    CheckpointError,
    ConfigError,
    DemonstrationError,
    ResidualRLError,
)
from residual_rl_ros.learner.checkpoint import (
    CheckpointFolder,
    load_checkpoint,
    numbers,
)
from residual_rl_ros.learner.folder import IDENTITY, as_bytes
from residual_rl_ros.learner.learner import SILENT, Learner, Log
from residual_rl_ros.learner.metrics_log import MetricsLog
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.common.node_parameters import LearnerParameters
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.seal import Key


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
            resumed = self.checkpoints.latest if parameters.resume else None
            self._config = numbers(parameters.preset, overrides, resumed)
            self._identity = self._read_identity()
            self._recordings = self._read_recordings()
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

    def make_learner(
        self,
        layout: TransitionLayout,
        pulse: Callable[[], None],
        log: Log = SILENT,
        run: str = '',
    ) -> Learner:
        """Return a new learner with its demonstrations, or the checkpoint's in a new epoch.

        Args:
            layout: of the robot's transitions.
            pulse: called after every demonstration; what it raises ends it all.
            log: of the learner; it is told what demonstrations were read.
            run: see `Learner`.

        Raises:
            CheckpointError: the checkpoint cannot be read, or is of another layout.
            ConfigError: the replay is larger than the memory, or there is nothing to choose from.
            DemonstrationError: a demonstration cannot be used.
        """
        if not self._parameters.resume:
            self._config.check_proposals(layout.proposals)
            learner = Learner(self._config, layout, self._parameters.seed, log=log, run=run)
            self._add_demonstrations(learner, log.inform, pulse)
            return learner
        checkpoint = self.checkpoints.latest
        learner = load_checkpoint(checkpoint, self._key, log, run)
        if any(self._parameters.demonstrations):
            log.inform('the demonstrations are those of the checkpoint; none are read')
        if learner.layout != layout:
            raise CheckpointError(
                f'checkpoint {str(checkpoint)!r} has layout {learner.layout.label}, the '
                f'policy node {layout.label}; start without resume in another output_dir'
            )
        learner.begin_epoch(learner.epoch + 1)
        return learner

    def _read_identity(self) -> dict[str, Any]:
        """Return which robot and base policy the run is of, as far as the parameters say so.

        Raises:
            ResidualRLError: the base policy cannot be read.
        """
        parameters = self._parameters
        if not (parameters.robot_file and parameters.base_policy):
            return {}
        model = read_policy_model(find_base_policy(parameters.base_policy))
        return {
            'robot_file': str(Path(parameters.robot_file).absolute()),
            'base_policy': str(model.path.absolute()),
            'base_policy_sha256': model.sha256,
            'prefetch_steps': parameters.prefetch_steps,
            'temporal_ensemble': parameters.temporal_ensemble,
        }

    def save(self, learner: Learner) -> None:
        """Write the checkpoints, which say of which run they are.

        Raises:
            CheckpointError: they cannot be written.
        """
        self.checkpoints.save(learner, {IDENTITY: as_bytes(self._identity)})

    def _read_recordings(self) -> Recordings:
        """Return what the parameters say of demonstrations.

        Raises:
            DemonstrationError: one does not exist, or the preset samples none.
        """
        parameters = self._parameters
        if parameters.resume:
            return Recordings()  # The checkpoint has them.
        names = read_observation_map([text for text in parameters.observation_map if text])
        paths = tuple(Path(text) for text in parameters.demonstrations if text)
        recordings = Recordings(paths, names)
        samples = self._config.rule.samples_demonstrations
        recordings.check(parameters.preset or DEFAULT_PRESET, samples)
        return recordings

    def _add_demonstrations(
        self, learner: Learner, say: Callable[[str], None], pulse: Callable[[], None]
    ) -> None:
        """Store the demonstrations.

        Raises:
            DemonstrationError: one cannot be used, or base policy or robot cannot be read.
        """
        parameters = self._parameters
        if not self._recordings.paths:
            return
        try:
            policy = robot = None
            if parameters.robot_file:
                robot, _ = load_robot(parameters.robot_file)
            if parameters.base_policy:
                policy = OnnxBasePolicy.find(parameters.base_policy, robot)
            demonstrated = Demonstrated(
                policy,
                robot,
                splicing=Splicing.of(parameters),
                seed=parameters.seed,
            )
            add_demonstrations(learner, self._recordings, demonstrated, say, pulse)
        except DemonstrationError:
            raise
        except ResidualRLError as error:  # The learner ends, whatever it is.
            raise DemonstrationError(str(error)) from error

    def close(self) -> None:
        """Close the metrics, and let other learners have the folder."""
        self.log.close()
        self.checkpoints.close()
