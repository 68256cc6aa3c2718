# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What kind of checkpoint a path is, and the reader of each kind."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from residual_rl_ros.errors import FormatError, PolicyImportError
from residual_rl_ros.files.limits import CHECKPOINT_BYTES, read_bytes
from residual_rl_ros.importing.options import ImportOptions
from residual_rl_ros.importing.policy import ImportedPolicy

SUPPORTED = 'a folder of LeRobot with config.json and model.safetensors'
"""What can be imported, for errors."""
CONFIG = 'config.json'
BELOW = ('.', 'pretrained_model', 'checkpoints/last/pretrained_model')
"""Where below a folder LeRobot's training writes the checkpoint."""
ZIP_MAGIC = b'PK\x03\x04'


class CheckpointKind(StrEnum):
    """Kinds of checkpoints by what their files look like."""

    LEROBOT = 'lerobot'
    TORCH_ZIP = 'torch_zip'


def detect(path: Path) -> tuple[CheckpointKind, Path]:
    """Return the kind of a checkpoint, and the folder or file that it is.

    Raises:
        PolicyImportError: it does not exist, or is of no known kind.
    """
    if path.is_dir():
        for below in BELOW:
            if (path / below / CONFIG).exists():
                return CheckpointKind.LEROBOT, path / below
        raise PolicyImportError(
            f'{str(path)!r} has no {CONFIG}; expected {SUPPORTED} (such as '
            'outputs/train/NAME/checkpoints/last/pretrained_model)'
        )
    if not path.exists():
        raise PolicyImportError(
            f'{str(path)!r} does not exist; give {SUPPORTED}. A checkpoint of the Hugging Face Hub '
            'is downloaded first: hf download NAME --local-dir FOLDER'
        )
    if path.name in (CONFIG, 'model.safetensors'):
        return detect(path.parent)
    if _first_bytes(path) == ZIP_MAGIC:
        return CheckpointKind.TORCH_ZIP, path
    raise PolicyImportError(f'{str(path)!r} is no checkpoint that is known; expected {SUPPORTED}')


def import_checkpoint(path: Path, options: ImportOptions) -> ImportedPolicy:
    """Read a checkpoint and rebuild its policy in torch.

    Raises:
        PolicyImportError: it is of no known kind, damaged, or lacks something.
        ConfigError: so does the map.
    """
    kind, where = detect(path)
    if kind not in READERS:
        raise PolicyImportError(f'{str(path)!r} is a {kind} checkpoint; expected {SUPPORTED}')
    return READERS[kind](where, options)


def _lerobot(path: Path, options: ImportOptions) -> ImportedPolicy:
    from residual_rl_ros.importing.lerobot.assembly import import_lerobot

    return import_lerobot(path, options)


READERS: dict[CheckpointKind, Callable[[Path, ImportOptions], ImportedPolicy]] = {
    CheckpointKind.LEROBOT: _lerobot,
}
"""One for each kind; they import what they need when they are called."""


def _first_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, CHECKPOINT_BYTES)[: len(ZIP_MAGIC)]
    except FormatError as error:
        raise PolicyImportError(str(error)) from error
