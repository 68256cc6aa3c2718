# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the weights of a run are, and how they are read."""

from __future__ import annotations

from pathlib import Path

from residual_rl_ros.errors import ResidualRLError, WeightsError
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.transitions.seal import Key

MAX_ACTOR_BYTES = 2**28
"""Largest file of an actor; those of planners hold a model of the dynamics."""
CHECKPOINTS = 'checkpoints'
"""Folder of the checkpoints in a run's folder."""
ACTOR = 'actor.safetensors'


def readable_checkpoint(directory: Path) -> Path:
    """Return the checkpoint, or the one before it if a save was killed between its renames."""
    absolute = directory.absolute()  # `.` has no name.
    stale = absolute.parent / f'{absolute.name}.old'
    return stale if stale.exists() and not directory.exists() else directory


def checkpoint_exists(directory: Path) -> bool:
    """Return whether there is a checkpoint, or the one before it after a killed save."""
    return readable_checkpoint(directory).exists()


def check_actor_size(size: int) -> None:
    """Refuse a file that no actor has.

    Raises:
        WeightsError: it is larger.
    """
    if size > MAX_ACTOR_BYTES:
        raise WeightsError('size', f'it has {size} bytes, expected at most {MAX_ACTOR_BYTES}')


def read_actor(path: Path, key: Key | None = None) -> bytes:
    """Return the weight message of a run's latest checkpoint, of a checkpoint, or of a file.

    Args:
        path: of one of these.
        key: it must be sealed with this one; None accepts any.

    Raises:
        ResidualRLError: there is none, it is not sealed with the key, or it is no weight message.
    """
    latest = readable_checkpoint(path / CHECKPOINTS / 'latest')
    places = (latest / ACTOR, readable_checkpoint(path) / ACTOR, path)
    for place in places:
        if place.is_file():
            try:
                check_actor_size(place.stat().st_size)
                (key or Key()).check_file(place)
                message = place.read_bytes()
                decode_weights(message)
            except OSError as error:
                raise ResidualRLError(f'cannot read actor {str(place)!r}: {error}') from error
            except WeightsError as error:
                raise WeightsError(error.reason, f'actor {str(place)!r}: {error}') from error
            return message
    lack = 'holds no actor' if path.exists() else 'does not exist'
    raise ResidualRLError(
        f'{str(path)!r} {lack}; expected {CHECKPOINTS}/latest/{ACTOR}, {ACTOR} or such a file'
    )
