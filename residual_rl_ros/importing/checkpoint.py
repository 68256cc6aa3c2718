# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What kind of checkpoint a path is, and the reader of each kind."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.mapping import ImportOptions
from residual_rl_ros.importing.policy import ImportedPolicy, listed

SUPPORTED = (
    'a folder of LeRobot with config.json and model.safetensors, a .pth of robomimic, or a .ckpt '
    'of diffusion_policy'
)
"""What can be imported, for errors."""
CONFIG = 'config.json'
BELOW = ('.', 'pretrained_model', 'checkpoints/last/pretrained_model')
"""Where below a folder LeRobot's training writes the checkpoint."""
ZIP_MAGIC = b'PK\x03\x04'
TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt')
"""Files that torch wrote, zip or not: its reader says what is wrong with them."""


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
    if _first_bytes(path) == ZIP_MAGIC or path.suffix in TORCH_SUFFIXES:
        return CheckpointKind.TORCH_ZIP, path
    raise PolicyImportError(f'{str(path)!r} is no checkpoint that is known; expected {SUPPORTED}')


def import_checkpoint(path: Path, options: ImportOptions) -> ImportedPolicy:
    """Read a checkpoint and rebuild its policy in torch.

    Raises:
        PolicyImportError: it is of no known kind, damaged, or lacks something.
        ConfigError: so does the map.
    """
    kind, where = detect(path)
    return READERS[kind](where, options)


def _lerobot(path: Path, options: ImportOptions) -> ImportedPolicy:
    from residual_rl_ros.importing.lerobot.assembly import import_lerobot

    return import_lerobot(path, options)


def _torch_zip(path: Path, options: ImportOptions) -> ImportedPolicy:
    from residual_rl_ros.importing.diffusion_policy import (
        import_diffusion_policy,
        is_diffusion_policy,
    )
    from residual_rl_ros.importing.robomimic import import_robomimic, is_robomimic
    from residual_rl_ros.importing.torch_zip import TorchZip

    with TorchZip(path) as archive:
        if is_robomimic(archive.content):
            return import_robomimic(archive, options)
        if is_diffusion_policy(archive.content):
            return import_diffusion_policy(archive, options)
        keys = listed(archive.content) if isinstance(archive.content, dict) else 'no keys'
    raise PolicyImportError(
        f'{str(path)!r} has {keys}, expected a checkpoint of robomimic (algo_name, config, model) '
        'or of diffusion_policy (cfg, state_dicts); import another network with --module'
    )


READERS: dict[CheckpointKind, Callable[[Path, ImportOptions], ImportedPolicy]] = {
    CheckpointKind.LEROBOT: _lerobot,
    CheckpointKind.TORCH_ZIP: _torch_zip,
}
"""One for each kind; they import what they need when they are called."""


def _first_bytes(path: Path) -> bytes:
    """Return how a regular file begins; the opening of a pipe would wait for a writer."""
    try:
        if not path.is_file():
            raise PolicyImportError(f'{str(path)!r} is no regular file; expected {SUPPORTED}')
        with path.open('rb') as file:
            return file.read(len(ZIP_MAGIC))
    except OSError as error:
        raise PolicyImportError(f'{str(path)!r} cannot be read: {error.strerror}') from error
