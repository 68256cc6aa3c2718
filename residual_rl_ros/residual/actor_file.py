# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a run keeps its checkpoints, and in them its actor: a file that holds a weight message."""

from __future__ import annotations

from pathlib import Path

from residual_rl_ros.errors import ResidualRLError

CHECKPOINTS = 'checkpoints'
"""Folder of the checkpoints in a run's folder."""
ACTOR = 'actor.safetensors'


class ActorFileError(ResidualRLError):
    """There is no actor where one was expected."""


def readable_checkpoint(directory: Path) -> Path:
    """Return the checkpoint, or the one before it if a save was killed between its renames."""
    stale = directory.with_name(directory.name + '.old')
    return stale if stale.exists() and not directory.exists() else directory


def checkpoint_exists(directory: Path) -> bool:
    """Return whether there is a checkpoint, or the one before it after a killed save."""
    return readable_checkpoint(directory).exists()


def read_actor(path: Path) -> bytes:
    """Return the weight message of a run's latest checkpoint, of a checkpoint, or of a file.

    Raises:
        ActorFileError: there is none.
    """
    latest = readable_checkpoint(path / CHECKPOINTS / 'latest')
    places = (latest / ACTOR, readable_checkpoint(path) / ACTOR, path)
    for place in places:
        if place.is_file():
            try:
                return place.read_bytes()
            except OSError as error:
                raise ActorFileError(f'cannot read actor {str(place)!r}: {error}') from error
    raise ActorFileError(
        f'{str(path)!r} holds no actor; expected {CHECKPOINTS}/latest/{ACTOR}, {ACTOR} or such a '
        'file'
    )
