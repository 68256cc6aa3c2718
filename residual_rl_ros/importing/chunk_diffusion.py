# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion policy with a U-Net over chunks, as two frameworks train it."""

from __future__ import annotations

import torch

from residual_rl_ros.importing.contract import Described, make_contract
from residual_rl_ros.importing.mapping import ImportOptions
from residual_rl_ros.importing.networks.ddim import ChunkDiffusion, NoiseSchedule
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.importing.networks.window_encoder import Observations
from residual_rl_ros.importing.policy import ImportedPolicy, PolicyInput
from residual_rl_ros.importing.weights import check_unet
from residual_rl_ros.numerics import Array


def chunk_diffusion(
    described: Described,
    observations: Observations,
    unet: ConditionalUnet1d,
    denoising: tuple[NoiseSchedule, int, tuple[str, ...]],
    affine: tuple[Array, Array],
    options: ImportOptions,
) -> ImportedPolicy:
    """Return the policy with all that surrounds its U-Net.

    Args:
        described: what the checkpoint says.
        observations: what it sees, and the network that sees it.
        unet: predicts what the schedule says.
        denoising: schedule of the training, number of steps, and remarks about them.
        affine: offset and scale of the action after the network, shape (m,) each.
        options: what the user says.

    Raises:
        PolicyImportError: the parts do not fit each other, or the map of the user not them.
    """
    schedule, steps, remarks = denoising
    offset, scale = affine
    check_unet(unet, described.horizon, described.n_obs_steps * observations.size)
    contract = make_contract(
        described, options.map, noise_default=options.noise_default or 'normal'
    )
    network = ChunkDiffusion(
        contract.from_robot,
        observations.encoder,
        unet,
        schedule,
        steps,
        torch.from_numpy(scale).float(),
        torch.from_numpy(offset).float(),
        contract.to_robot,
    )
    inputs = (
        contract.observation_input(observations.centre, observations.spread),
        PolicyInput('noise', torch.zeros(described.horizon, len(offset))),
        *contract.image_inputs(),
    )
    return ImportedPolicy(
        network,
        contract.metadata,
        inputs,
        ('action', *contract.feature_outputs),
        remarks,
        network.loop,
    )
