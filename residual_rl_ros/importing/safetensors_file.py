# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Weights in safetensors files: plain tensors behind a JSON header, with limits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.files.limits import CHECKPOINT_BYTES, HEADER_BYTES, HEADER_TENSORS


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a file by name; numbers of any precision become float32.

    A link is followed, as the cache of Hugging Face is made of them; what it leads to must be a
    regular file.

    Raises:
        PolicyImportError: it cannot be read, is no such file, damaged, or too large.
    """
    try:
        _check_header(path)
        with safe_open(str(path), 'pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        raise PolicyImportError(
            f'{str(path)!r} is no readable safetensors file: {reason}; copy the checkpoint again'
        ) from error
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _check_header(path: Path) -> None:
    """Refuse what is no regular file, is too large or asks for too many tensors.

    Raises:
        OSError: it cannot be opened.
        ValueError: it does.
    """
    # Without this flag the opening of a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, 'rb') as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError('it is no regular file')
        if status.st_size > CHECKPOINT_BYTES:
            raise ValueError(f'it has {status.st_size} bytes, expected at most {CHECKPOINT_BYTES}')
        length = int.from_bytes(file.read(8), 'little')
        if not 2 <= length <= min(HEADER_BYTES, status.st_size - 8):
            raise ValueError(
                f'its header has {length} of {status.st_size} bytes, expected 2 to {HEADER_BYTES} '
                'that are there'
            )
        count = file.read(length).count(b'data_offsets')
        if count > HEADER_TENSORS:
            raise ValueError(f'it has {count} tensors, expected at most {HEADER_TENSORS}')
