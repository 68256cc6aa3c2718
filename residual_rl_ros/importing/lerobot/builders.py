# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The network of each architecture, made of the configuration of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.lerobot import act, diffusion, vqbet
from residual_rl_ros.importing.lerobot.architecture import read_architecture
from residual_rl_ros.importing.lerobot.core import Core
from residual_rl_ros.importing.lerobot.folder import LerobotFolder
from residual_rl_ros.importing.lerobot.statistics import IN_WEIGHTS
from residual_rl_ros.importing.options import DEFAULT_DDIM_STEPS, ImportOptions
from residual_rl_ros.importing.policy import build_empty, load_by_name


@dataclass(frozen=True)
class Built:
    """The network of an architecture, and what the metadata says of it."""

    core: Core
    prefix: str
    """Beginning of the names of its weights in the checkpoint."""
    n_obs_steps: int
    horizon: int
    exec_start: int
    exec_steps: int
    noise_shape: tuple[int, ...]
    """Without the batch; empty if it takes none."""
    noise_default: str
    feature_names: tuple[str, ...]
    """Of the features of one camera."""
    training_only: tuple[str, ...] = ()
    """Beginnings of the names of weights that are left out."""
    training_only_ends: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def build(folder: LerobotFolder, options: ImportOptions) -> Built:
    """Return the network with its weights.

    Raises:
        PolicyImportError: the configuration is wrong, or the weights are not those of it.
    """
    built = build_empty(lambda: BUILDERS[folder.policy_type](folder, options))
    load_by_name(built.core, own_weights(folder, built), f'{folder.policy_type} in {folder.path}')
    return built


def sizes_of(folder: LerobotFolder) -> tuple[int, int, list[tuple[int, int]], int]:
    """Return numbers of state and environment, sizes of the images, and numbers of an action."""
    numbers = {each.kind: each.shape[0] for each in folder.numbers}
    cameras = [(each.shape[1], each.shape[2]) for each in folder.cameras]
    return numbers.get('STATE', 0), numbers.get('ENV', 0), cameras, folder.action.shape[0]


def _build_act(folder: LerobotFolder, options: ImportOptions) -> Built:
    arch = read_architecture(act.ActArchitecture, folder.config)
    remarks = []
    if arch.temporal_ensemble_coeff:
        remarks.append(
            f'the checkpoint asks for temporal ensembling ({arch.temporal_ensemble_coeff:g}), '
            'which is no part of the graph: set temporal_ensemble of the run or policy_node to that'
        )
    if not arch.use_vae:
        remarks.append('trained without a latent (use_vae): it has no noise, and one action')
    return Built(
        core=act.Act(arch, *sizes_of(folder)),
        prefix='model.',
        n_obs_steps=1,
        horizon=arch.chunk_size,
        exec_start=0,
        exec_steps=arch.n_action_steps,
        noise_shape=(arch.latent_dim,) if arch.use_vae else (),
        noise_default='zero',
        feature_names=tuple(f'feature{index}' for index in range(arch.dim_model)),
        training_only=act.TRAINING_ONLY,
        remarks=tuple(remarks),
    )


def _build_diffusion(folder: LerobotFolder, options: ImportOptions) -> Built:
    arch = read_architecture(diffusion.DiffusionArchitecture, folder.config)
    state, environment, cameras, actions = sizes_of(folder)
    if not state:
        raise PolicyImportError('a diffusion policy of LeRobot has observation.state; this has not')
    steps = options.ddim_steps or arch.own_steps or DEFAULT_DDIM_STEPS
    remarks = []
    if steps != arch.own_steps:
        own = arch.num_inference_steps or arch.num_train_timesteps
        remarks.append(
            f'sampled by {steps} steps of DDIM; LeRobot takes {own} of '
            f'{arch.noise_scheduler_type}, so single actions differ (--ddim-steps)'
        )
    return Built(
        core=diffusion.Diffusion(arch, state, environment, cameras, actions, steps),
        prefix='diffusion.',
        n_obs_steps=arch.n_obs_steps,
        horizon=arch.horizon,
        exec_start=arch.n_obs_steps - 1,
        exec_steps=arch.n_action_steps,
        noise_shape=(arch.horizon, actions),
        noise_default='normal',
        feature_names=diffusion.feature_names(arch),
        remarks=tuple(remarks),
    )


def _build_vqbet(folder: LerobotFolder, options: ImportOptions) -> Built:
    arch = read_architecture(vqbet.VqbetArchitecture, folder.config)
    vqbet.check_inputs([each.kind for each in folder.inputs])
    state, _, cameras, actions = sizes_of(folder)
    trained = folder.weights.get(f'vqbet.{vqbet.DISCRETIZED}')
    remarks = []
    if trained is not None and not bool(trained):
        remarks.append('its codebooks were never trained (discretized is false): it cannot work')
    return Built(
        core=vqbet.Vqbet(arch, state, cameras[0], actions),
        prefix='vqbet.',
        n_obs_steps=arch.n_obs_steps,
        horizon=arch.action_chunk_size,
        exec_start=0,
        exec_steps=arch.action_chunk_size,
        noise_shape=(vqbet.CODEBOOKS, arch.vqvae_n_embed),
        noise_default='normal',
        feature_names=vqbet.feature_names(arch),
        training_only=vqbet.TRAINING_ONLY,
        training_only_ends=vqbet.TRAINING_ONLY_ENDS,
        remarks=tuple(remarks),
    )


BUILDERS: Mapping[str, Callable[[LerobotFolder, ImportOptions], Built]] = {
    'act': _build_act,
    'diffusion': _build_diffusion,
    'vqbet': _build_vqbet,
}


def own_weights(folder: LerobotFolder, built: Built) -> dict[str, Tensor]:
    """Return the weights of the network by its own names.

    What does not begin as the weights of the architecture do keeps its name, and so fits nowhere.
    """
    found = {}
    for name, tensor in folder.weights.items():
        own = name.removeprefix(built.prefix)
        if name.startswith(IN_WEIGHTS):
            continue
        if own != name and own.startswith(built.training_only):
            continue
        if own != name and built.training_only_ends and own.endswith(built.training_only_ends):
            continue
        found[own] = tensor
    return found
