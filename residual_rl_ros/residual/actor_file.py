# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a run keeps its actor: a file that holds one weight message."""

from __future__ import annotations

from pathlib import Path

from residual_rl_ros.errors import ResidualRLError

CHECKPOINTS = 'checkpoints'
"""Folder of the checkpoints in a run's folder."""
ACTOR = 'actor.safetensors'


class ActorFileError(ResidualRLError):
    """There is no actor where one was expected."""


def read_actor(path: Path) -> bytes:
    """Return the weight message of a run's latest checkpoint, of a checkpoint, or of a file.

    Raises:
        ActorFileError: there is none.
    """
    places = (path / CHECKPOINTS / 'latest' / ACTOR, path / ACTOR, path)
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
