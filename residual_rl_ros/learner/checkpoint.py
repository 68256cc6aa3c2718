# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: directories that are whole or not there; safetensors and JSON, nothing executable.

`actor.safetensors` is the weight message of the actor and all that a deployment needs; the other
files continue the learner.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from residual_rl_ros.config.preset import LearnerConfig, learner_config
from residual_rl_ros.errors import CheckpointError, ConfigError, ResidualRLError
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.files.safetensors_header import check_file
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.weights import ACTOR, readable_checkpoint
from residual_rl_ros.transitions.transition import TransitionLayout

ALGORITHM, GOOD, CANDIDATE, STATE, RUN = (
    'algorithm.safetensors',
    'good.safetensors',
    'candidate.safetensors',
    'learner.json',
    'run.safetensors',
)
MEMORY = 'memory.{}.safetensors'
"""Each part of the rule's memory."""


class CheckpointFolder:
    """The two checkpoints of a run: the latest, and the one with the best recent success.

    Args:
        root: folder of both.
    """

    def __init__(self, root: Path) -> None:
        self.latest = root / 'latest'
        self.best = root / 'best'
        self._best_success = _success_of(self.best)

    def save(self, learner: Learner, run: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Write the latest, and the best too if this is it.

        Args:
            learner: what to save.
            run: state of an in-process run.

        Raises:
            CheckpointError: the folder cannot be written or the disk is full.
        """
        save_checkpoint(self.latest, learner, run)
        success = learner.episodes.rated_success
        if success > self._best_success:
            save_checkpoint(self.best, learner, run)
            self._best_success = success


def save_checkpoint(
    directory: Path, learner: Learner, run: Mapping[str, npt.NDArray[Any]] | None = None
) -> None:
    """Write a checkpoint; an earlier one at the same place stays until the new one is whole.

    Raises:
        CheckpointError: the folder cannot be written or the disk is full.
    """
    fresh = directory.with_name(directory.name + '.new')
    stale = directory.with_name(directory.name + '.old')
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / ACTOR).write_bytes(learner.current_message())
        save_tensors(learner.rule.state_dict(), fresh / ALGORITHM)
        save_tensors(learner.best.good, fresh / GOOD)
        save_tensors(learner.best.candidate, fresh / CANDIDATE)
        for part, arrays in learner.rule.memory.export().items():
            save_arrays(arrays, fresh / MEMORY.format(part))
        if run is not None:
            save_arrays(dict(run), fresh / RUN)
        state = {
            'config': learner.config.to_mapping(),
            'layout': learner.layout.to_yaml(),
            'success': learner.episodes.rated_success,
            'state': learner.state_dict(),
        }
        (fresh / STATE).write_text(json.dumps(state), encoding='utf-8')
        for path in [*fresh.iterdir(), fresh]:
            _sync(path)
        if directory.exists():  # Else a save was killed, and the stale one is all there is.
            shutil.rmtree(stale, ignore_errors=True)
            directory.rename(stale)
        fresh.rename(directory)
        _sync(directory.parent)
        shutil.rmtree(stale, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if stale.exists() and not directory.exists():
            stale.rename(directory)
        raise CheckpointError(
            f'cannot write checkpoint {str(directory)!r}: {error}; free space or choose another '
            'folder'
        ) from error


def load_checkpoint(directory: Path) -> Learner:
    """Return a learner that continues where the checkpoint was taken.

    If a save was killed between its two renames, the checkpoint before it is used.

    Raises:
        CheckpointError: missing, truncated or of another architecture.
    """
    directory = readable_checkpoint(directory)
    try:
        stored = _read_state(directory)
        config = _config(stored, directory)
        for path in directory.glob('*.safetensors'):
            check_file(path)
        learner = Learner(config, TransitionLayout.from_yaml(stored['layout']), seed=0)
        learner.rule.load_state_dict(load_tensors(directory / ALGORITHM))
        learner.best.good = load_tensors(directory / GOOD)
        learner.best.candidate = load_tensors(directory / CANDIDATE)
        memory = learner.rule.memory
        memory.restore({part: _arrays(directory / MEMORY.format(part)) for part in memory.export()})
        learner.load_state_dict(stored['state'])
    except _UNREADABLE as error:
        raise _unreadable(directory, error) from error
    return learner


def check_numbers(directory: Path, config: LearnerConfig) -> None:
    """Refuse to continue a checkpoint with other numbers than those it was made with.

    Raises:
        CheckpointError: they differ, or it cannot be read.
    """
    stored, wanted = stored_config(directory).to_mapping(), config.to_mapping()
    differing = [key for key in wanted | stored if stored.get(key) != wanted.get(key)]
    if differing:
        key = differing[0]
        more = f', and {len(differing) - 1} more differ' if differing[1:] else ''
        raise CheckpointError(
            f'checkpoint {str(directory)!r} was trained with other numbers: {key} is '
            f'{stored.get(key, "absent")} there, {wanted.get(key, "absent")} by the preset and its '
            f'overrides{more}; use the same, or another folder'
        )


def stored_config(directory: Path) -> LearnerConfig:
    """Return the numbers that a checkpoint was made with.

    Raises:
        CheckpointError: it cannot be read.
    """
    directory = readable_checkpoint(directory)
    try:
        return _config(_read_state(directory), directory)
    except _UNREADABLE as error:
        raise _unreadable(directory, error) from error


def load_run_state(directory: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the in-process run state of a checkpoint.

    Raises:
        CheckpointError: it has none, for example because a learner node wrote it.
    """
    directory = readable_checkpoint(directory)
    try:
        check_file(directory / RUN)
        return _arrays(directory / RUN)
    except _UNREADABLE as error:
        raise CheckpointError(
            f'checkpoint {str(directory)!r} holds no in-process run to continue: {error}'
        ) from error


_UNREADABLE = (
    OSError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    SafetensorError,
    ResidualRLError,
)


def _unreadable(directory: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f'cannot read checkpoint {str(directory)!r}: {error}')


def _read_state(directory: Path) -> dict[str, Any]:
    stored: dict[str, Any] = read_run_json(directory / STATE)
    return stored


def _config(stored: dict[str, Any], directory: Path) -> LearnerConfig:
    """Return the configuration of a checkpoint, which holds every number: none is a default."""
    config = learner_config(stored['config'], str(directory / STATE))
    missing = sorted(config.to_mapping().keys() - stored['config'].keys())
    if missing:
        raise ConfigError(
            str(directory / STATE),
            [f'{", ".join(missing)} missing: an earlier version of this package wrote it'],
        )
    return config


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    return {key: np.asarray(value) for key, value in load_arrays(path).items()}


def _success_of(directory: Path) -> float:
    """Return the success that a checkpoint was saved with, -1 if there is none to read."""
    try:
        return float(_read_state(readable_checkpoint(directory))['success'])
    except (ResidualRLError, KeyError, TypeError, ValueError):
        return -1.0


def _sync(path: Path) -> None:
    """Make a file or folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
