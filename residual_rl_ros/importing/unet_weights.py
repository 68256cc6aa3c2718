# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The U-Net of diffusion_policy and robomimic: its sizes are those of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.importing.weights import build

FIRST = 'down_modules.{}.0.blocks.0.block.0.weight'
MOST_STAGES = 16


def load_unet(tensors: Mapping[str, Tensor], what: str, groups: int = 8) -> ConditionalUnet1d:
    """Return the U-Net with its weights.

    Args:
        tensors: its weights, by their names in diffusion_policy.
        what: what it is, for the error.
        groups: of its group normalisations, which no weight tells.

    Raises:
        PolicyImportError: a weight is missing, has another shape, or fits nowhere.
    """
    if any(name.startswith('local_cond_encoder.') for name in tensors):
        raise PolicyImportError(
            f'{what} has a local condition (obs_as_local_cond), expected obs_as_global_cond; '
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
        raise PolicyImportError(f'{what} is no U-Net over time: {error} is missing') from error
    renamed = {_renamed(name): each for name, each in tensors.items()}
    return build(lambda: ConditionalUnet1d(*sizes, groups, step_size, scales), renamed, what)


def _renamed(name: str) -> str:
    name = name.replace('.blocks.0.', '.conv1.').replace('.blocks.1.', '.conv2.')
    return re.sub(r'^((?:down|up)_modules\.\d+\.2)\.conv\.', r'\1.', name)
