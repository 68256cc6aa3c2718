# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: directories that are whole or not there; safetensors and JSON, nothing executable.

`actor.safetensors` is the weight message of the actor and all that a deployment needs; the other
files continue the learner.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.learner.config import LearnerConfig
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.spec import TransitionLayout

ACTOR, ALGORITHM, REPLAY, STATE = (
    'actor.safetensors',
    'algorithm.safetensors',
    'replay.safetensors',
    'learner.json',
)


class CheckpointError(ResidualRLError):
    """A checkpoint cannot be written or read; the previous one is untouched."""


def save_checkpoint(directory: Path, learner: Learner) -> None:
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
        save_tensors(learner.algorithm.state(), fresh / ALGORITHM)
        save_arrays(learner.replay.export(), fresh / REPLAY)
        state = {
            'config': learner.config.to_mapping(),
            'layout': learner.layout.to_yaml(),
            'state': learner.state(),
        }
        (fresh / STATE).write_text(json.dumps(state), encoding='utf-8')
        shutil.rmtree(stale, ignore_errors=True)
        if directory.exists():
            directory.rename(stale)
        fresh.rename(directory)
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
    stale = directory.with_name(directory.name + '.old')
    if stale.exists() and not directory.exists():
        directory = stale
    try:
        stored: dict[str, Any] = json.loads((directory / STATE).read_text(encoding='utf-8'))
        config = LearnerConfig.from_mapping(stored['config'], str(directory / STATE))
        learner = Learner(config, TransitionLayout.from_yaml(stored['layout']), seed=0)
        learner.algorithm.load_state(load_tensors(directory / ALGORITHM))
        learner.replay.restore(
            {key: np.asarray(value) for key, value in load_arrays(directory / REPLAY).items()}
        )
        learner.load_state(stored['state'])
    except (
        OSError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
        ResidualRLError,
    ) as error:
        raise CheckpointError(f'cannot read checkpoint {str(directory)!r}: {error}') from error
    return learner
