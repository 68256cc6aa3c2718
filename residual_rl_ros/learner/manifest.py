# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a checkpoint: the digest of every file, so that none is missing or altered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.json_text import read_json
from residual_rl_ros.transitions.seal import SEAL

MANIFEST = 'manifest.json'
"""SHA-256 of every other file by its name."""
APART = (MANIFEST, MANIFEST + SEAL)


def write_manifest(directory: Path) -> None:
    """Note the digest of every file of a checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    names = sorted(path.name for path in directory.iterdir() if path.name not in APART)
    digests = {name: _sha256(directory / name) for name in names}
    (directory / MANIFEST).write_text(json.dumps(digests, indent=1) + '\n', encoding='utf-8')


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _listed(directory: Path) -> dict[str, str]:
    """Return the digests that a checkpoint should have, by file name.

    Raises:
        OSError, ValueError: there are none to read.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(f'{MANIFEST} is missing: it was removed, or an earlier version wrote this')
    try:
        digests = read_json(path)
    except FormatError as error:
        raise ValueError(f'{MANIFEST} is altered: {error}') from error
    if not isinstance(digests, dict) or not all(Path(name).name == name for name in digests):
        raise ValueError(f'{MANIFEST} is altered: expected digests by file name')
    return digests


def check_files(directory: Path, *names: str) -> dict[str, str]:
    """Refuse files that are not those which were saved; return the digests of all.

    Args:
        directory: the checkpoint.
        *names: files; none means all.

    Raises:
        OSError, ValueError: names the first that is missing or altered.
    """
    listed = _listed(directory)
    for name in names or listed:
        if name not in listed:
            raise ValueError(f'{name} is not in {MANIFEST}')
        if not (directory / name).is_file():
            raise ValueError(f'{name!r}, which is in {MANIFEST}, is missing')
        found = _sha256(directory / name)
        if found != listed[name]:
            raise ValueError(
                f'{name} is altered: its sha256 is {found}, {MANIFEST} says {listed[name]}'
            )
    return listed
