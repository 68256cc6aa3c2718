# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of a checkpoint: read within limits, and put into networks of their sizes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from residual_rl_ros.base_policy.metadata import MOST_STEPS
from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.files.limits import CHECKPOINT_BYTES, HEADER_BYTES, HEADER_TENSORS
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.importing.policy import build_empty, load_by_name


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
        ValueError: it is no file, or its header is larger than the limits.
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


M = TypeVar('M', bound=nn.Module)


def build(make: Callable[[], M], tensors: Mapping[str, Tensor], what: str) -> M:
    """Return a network with its weights, in single precision.

    Args:
        make: makes the network, without memory for its numbers.
        tensors: its weights, by name.
        what: what it is, for errors.

    Raises:
        PolicyImportError: the sizes make no network, or a weight is missing, of another shape, or
            fits nowhere.
    """
    try:
        network = build_empty(make)
    except (RuntimeError, ValueError, ArithmeticError, TypeError) as error:
        raise PolicyImportError(f'{what} cannot be built: {error}') from error
    single = {
        name: each.float() if each.is_floating_point() else each for name, each in tensors.items()
    }
    load_by_name(network, single, what)
    return network


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)
    }


FIRST = 'down_modules.{}.0.blocks.0.block.0.weight'
MOST_STAGES = 16


def load_unet(tensors: Mapping[str, Tensor], groups: int = 8) -> ConditionalUnet1d:
    """Return the U-Net with its weights.

    Args:
        tensors: its weights, by their names in diffusion_policy.
        groups: of its group normalisations, which no weight tells.

    Raises:
        PolicyImportError: a weight is missing, has another shape, or fits nowhere.
    """
    if any(name.startswith('local_cond_encoder.') for name in tensors):
        raise PolicyImportError(
            'the U-Net has a local condition (obs_as_local_cond), expected obs_as_global_cond; '
            'import it with --module'
        )
    stages = [FIRST.format(index) for index in range(MOST_STAGES)]
    try:
        first = [tensors[name].shape for name in stages if name in tensors]
        widths = [shape[0] for shape in first]
        step_size = tensors['diffusion_step_encoder.3.weight'].shape[0]
        film = tensors['down_modules.0.0.cond_encoder.1.weight'].shape
        sizes = (first[0][1], film[1] - step_size, widths, first[0][2])
        scales = film[0] == 2 * widths[0]
    except LookupError as error:
        raise PolicyImportError(
            f'the checkpoint has no U-Net over time: {error} is missing'
        ) from error
    renamed = {_renamed(name): each for name, each in tensors.items()}
    return build(lambda: ConditionalUnet1d(*sizes, groups, step_size, scales), renamed, 'the U-Net')


def check_unet(network: ConditionalUnet1d, horizon: int, condition: int) -> None:
    """Refuse a U-Net that does not fit the rest of its policy.

    Args:
        network: the U-Net.
        horizon: actions of a chunk.
        condition: numbers of the features of a window.

    Raises:
        PolicyImportError: it is for other features, or the horizon cannot be halved so often.
    """
    halved = 2 ** (len(network.down_modules) - 1)
    if not 1 <= horizon <= MOST_STEPS or horizon % halved:
        raise PolicyImportError(
            f'the horizon is {horizon}, expected a multiple of {halved} up to {MOST_STEPS}: the '
            'U-Net halves it between its stages'
        )
    sizes = {name: each.shape for name, each in network.state_dict().items()}
    step = sizes['diffusion_step_encoder.3.weight'][0]
    own = sizes['mid_modules.0.cond_encoder.1.weight'][1] - step
    if own != condition:
        raise PolicyImportError(
            f'the U-Net takes {own} features, the observations of its window have {condition}'
        )


def _renamed(name: str) -> str:
    name = name.replace('.blocks.0.', '.conv1.').replace('.blocks.1.', '.conv2.')
    return re.sub(r'^((?:down|up)_modules\.\d+\.2)\.conv\.', r'\1.', name)
