# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The U-Net of diffusion_policy and robomimic: its sizes are those of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from residual_rl_ros.base_policy.metadata import MOST_STEPS
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
