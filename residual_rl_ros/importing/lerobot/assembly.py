# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A LeRobot checkpoint as a base policy: network, normalisation, units, names and metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, PolicyImportError
from residual_rl_ros.importing.lerobot import act, diffusion, vqbet
from residual_rl_ros.importing.lerobot.core import (
    Core,
    ImagePreparation,
    Observed,
    read_architecture,
)
from residual_rl_ros.importing.lerobot.folder import LerobotFolder, read_folder
from residual_rl_ros.importing.lerobot.numbers import (
    NOTHING,
    DatasetFacts,
    names_of,
    range_of,
    read_dataset,
    remarks_on,
    usual_observation,
)
from residual_rl_ros.importing.lerobot.statistics import IN_WEIGHTS, Statistics, read_statistics
from residual_rl_ros.importing.mapping import (
    DEFAULT_DDIM_STEPS,
    FromRobot,
    ImportOptions,
    MappedNumbers,
    ToRobot,
    map_numbers,
    robot_range,
)
from residual_rl_ros.importing.policy import (
    ImportedPolicy,
    PolicyInput,
    build_empty,
    load_by_name,
)
from residual_rl_ros.robot.image_encoder import FEATURES


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
    loop: nn.Module | None = None
    """See `ImportedPolicy`."""


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
    core = diffusion.Diffusion(arch, state, environment, cameras, actions, steps)
    return Built(
        core=core,
        prefix='diffusion.',
        n_obs_steps=arch.n_obs_steps,
        horizon=arch.horizon,
        exec_start=arch.n_obs_steps - 1,
        exec_steps=arch.n_action_steps,
        noise_shape=(arch.horizon, actions),
        noise_default='normal',
        feature_names=diffusion.feature_names(arch),
        remarks=tuple(remarks),
        loop=core.loop,
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


class LerobotPolicy(nn.Module):
    """Takes what the robot has and returns what it is to do.

    Args:
        folder: what the checkpoint takes and gives.
        statistics: how that is normalised.
        built: the network.
        observation: units and order of the observation.
        action: of the action.
    """

    def __init__(
        self,
        folder: LerobotFolder,
        statistics: Statistics,
        built: Built,
        observation: MappedNumbers,
        action: MappedNumbers,
    ) -> None:
        super().__init__()
        normalisations = statistics.normalisations
        self.noisy = bool(built.noise_shape)
        self.from_robot, self.to_robot = FromRobot(observation), ToRobot(action)
        self.sizes = [each.shape[0] for each in folder.numbers]
        self.kinds = tuple(each.kind for each in folder.numbers)
        self.numbers = nn.ModuleList(normalisations[each.key] for each in folder.numbers)
        self.cameras = nn.ModuleList(
            ImagePreparation(normalisations[each.key]) for each in folder.cameras
        )
        self.action = normalisations[folder.action.key]
        self.core = built.core

    def forward(self, observation: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return the actions and the features of each camera.

        Args:
            observation: shape (batch, n_obs_steps, n).
            *others: the noise, if the policy takes some, and the images of each camera.
        """
        noise, images = (others[0], others[1:]) if self.noisy else (None, others)
        parts = torch.split(self.from_robot(observation), self.sizes, dim=-1)
        normal = [scale(part) for scale, part in zip(self.numbers, parts, strict=True)]
        by_kind = dict(zip(self.kinds, normal, strict=True))
        observed = Observed(
            by_kind.get('STATE'),
            by_kind.get('ENV'),
            tuple(camera(each) for camera, each in zip(self.cameras, images, strict=True)),
        )
        chunk, features = self.core(observed, noise)
        return self.to_robot(self.action.inverse(chunk)), *features


def import_lerobot(path: Path, options: ImportOptions) -> ImportedPolicy:
    """Read a folder and rebuild its policy.

    Raises:
        PolicyImportError: a file is missing or damaged, or something is not said that must be.
    """
    folder = read_folder(path)
    if not folder.numbers:
        raise PolicyImportError(
            f'{path}: the policy takes no observation.state and no observation.environment_state; '
            'a base policy has an observation vector, so such a one cannot be imported'
        )
    statistics = read_statistics(folder)
    dataset = read_dataset(options.dataset) if options.dataset else NOTHING
    return _assemble(folder, statistics, dataset, build(folder, options), options)


def _assemble(
    folder: LerobotFolder,
    statistics: Statistics,
    dataset: DatasetFacts,
    built: Built,
    options: ImportOptions,
) -> ImportedPolicy:
    """Return the policy with all that surrounds its network."""
    policy_map = options.map
    cameras = [statistics.renamed.get(each.key, each.key) for each in folder.cameras]
    policy_map.check_cameras(cameras)
    seen = [name for each in folder.numbers for name in names_of(each, dataset)]
    done = list(names_of(folder.action, dataset))
    observation = map_numbers(policy_map, 'observation', seen)
    action = map_numbers(policy_map, 'action', done)
    low, high = robot_range(action, *range_of(folder, statistics, dataset, options), done)
    images = _images(folder, [policy_map.channel(name) for name in cameras], built)
    try:
        metadata = BasePolicyMetadata(
            observation_names=observation.names,
            action_names=action.names,
            action_min=low,
            action_max=high,
            rate_hz=_rate(dataset, options),
            n_obs_steps=built.n_obs_steps,
            horizon=built.horizon,
            exec_start=built.exec_start,
            exec_steps=policy_map.exec_steps or built.exec_steps,
            kind=folder.policy_type,
            task=policy_map.task,
            inputs=images,
            noise_shape=built.noise_shape,
            noise_default=options.noise_default or built.noise_default,
            source=f'lerobot {folder.policy_type}',
        )
    except BasePolicyError as error:
        raise PolicyImportError(f'{error}; correct --map or the options') from error
    centre, spread = usual_observation(folder, statistics, observation)
    inputs = [PolicyInput('observation', centre.expand(built.n_obs_steps, -1), spread)]
    if built.noise_shape:
        inputs.append(PolicyInput('noise', torch.zeros(built.noise_shape)))
    for image in images:
        shape = (built.n_obs_steps, image.height, image.width, 3)
        inputs.append(PolicyInput(image.name, torch.zeros(shape, dtype=torch.uint8)))
    return ImportedPolicy(
        network=LerobotPolicy(folder, statistics, built, observation, action).eval(),
        metadata=metadata,
        inputs=tuple(inputs),
        outputs=('action', *(f'{image.name}{FEATURES}' for image in images)),
        remarks=(*built.remarks, *remarks_on(folder, statistics, dataset, options)),
        loop=built.loop,
    )


def _rate(dataset: DatasetFacts, options: ImportOptions) -> float:
    rate = options.map.rate_hz or dataset.rate_hz
    if not rate:
        raise PolicyImportError(
            'the checkpoint does not say its control rate; give --rate-hz, rate_hz in --map, or '
            'the dataset that it was trained on (--dataset)'
        )
    return rate


def _images(folder: LerobotFolder, channels: Sequence[str], built: Built) -> tuple[ImageInput, ...]:
    """Return the image inputs, in the order in which the network takes them."""
    return tuple(
        ImageInput(name, camera.shape[1], camera.shape[2], built.feature_names)
        for name, camera in zip(channels, folder.cameras, strict=True)
    )
