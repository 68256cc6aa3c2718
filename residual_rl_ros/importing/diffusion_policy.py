# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of diffusion_policy (Chi et al., arXiv 2303.04137): U-Nets, low-dim and with cameras.

A `.ckpt` holds the configuration as records of OmegaConf, and state dictionaries: the averaged
weights are `ema_model`, with the normalisation among them. What is sampled there in steps of DDPM
is denoised by DDIM here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.chunk_diffusion import chunk_diffusion
from residual_rl_ros.importing.contract import Described, named
from residual_rl_ros.importing.diffusion_policy_observations import (
    LOW_DIM,
    PREFIX,
    READERS,
    read_normalizer,
)
from residual_rl_ros.importing.mapping import DEFAULT_DDIM_STEPS, ImportOptions
from residual_rl_ros.importing.networks.ddim import (
    NoiseSchedule,
    read_noise_schedule,
)
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.importing.networks.window_encoder import Observations
from residual_rl_ros.importing.policy import ImportedPolicy, listed
from residual_rl_ros.importing.stored_config import StoredConfig, plain_config
from residual_rl_ros.importing.torch_zip import TorchZip
from residual_rl_ros.importing.weights import below, load_unet

UNET = 'model.'
UNUSED = '_dummy_variable'
"""End of the names of parameters without a meaning."""
SAMPLERS = {'DDPMScheduler': 'ddpm', 'DDIMScheduler': 'ddim'}


def is_diffusion_policy(content: Any) -> bool:
    """Return whether the content of a torch zip is such a checkpoint."""
    return isinstance(content, dict) and {'cfg', 'state_dicts'} <= content.keys()


def import_diffusion_policy(archive: TorchZip, options: ImportOptions) -> ImportedPolicy:
    """Rebuild the policy of a checkpoint.

    Raises:
        PolicyImportError: it is of another kind, or lacks something.
        FormatError: its tensors are damaged.
    """
    config = plain_config(archive.content['cfg'], 'cfg of the checkpoint')
    target = config.get('policy._target_', str)
    kind = next((each for each in READERS if target.endswith(f'.{each}')), None)
    if kind is None:
        raise PolicyImportError(
            f'policy._target_ is {shown(target)}, expected {", ".join(READERS)}; import it with '
            '--module'
        )
    tensors = _averaged(archive, config)
    observations = READERS[kind](config, tensors)
    unet = load_unet(below(tensors, UNET), _groups(config))
    actions = unet.final_conv[-1].out_channels
    assert isinstance(actions, int)
    if not config.get('policy.obs_as_global_cond', bool, kind != LOW_DIM):
        raise PolicyImportError(
            'policy.obs_as_global_cond is false, expected true: the observation is the condition'
        )
    _check_used(tensors, observations.read)
    return _assemble(config, options, tensors, observations, unet, actions)


def _assemble(
    config: StoredConfig,
    options: ImportOptions,
    tensors: Mapping[str, Tensor],
    observations: Observations,
    unet: ConditionalUnet1d,
    actions: int,
) -> ImportedPolicy:
    """Return the policy with all that surrounds its network."""
    normalizer = read_normalizer(tensors, 'action', actions)
    window = config.get('policy.n_obs_steps', int)
    executed = config.get('policy.n_action_steps', int)
    horizon = config.get('policy.horizon', int)
    # Policies with cameras have no such switch: theirs is always on.
    newest = config.find('policy.obs_dim') is None or config.flag('policy.oa_step_convention')
    start = window - 1 if newest else window
    if config.flag('policy.pred_action_steps_only'):
        horizon, start = executed, 0
    schedule, steps, remarks = _schedule(config, options)
    described = Described(
        observations.names,
        named('action', (actions,)),
        normalizer.low,
        normalizer.high,
        window,
        horizon,
        start,
        executed,
        kind='diffusion',
        source='diffusion_policy',
        task=_task(config),
        cameras=observations.cameras,
        features=observations.features,
    )
    affine = -normalizer.offset / normalizer.scale, 1.0 / normalizer.scale
    denoising = schedule, steps, (*remarks, *observations.remarks)
    return chunk_diffusion(described, observations, unet, denoising, affine, options)


def _averaged(archive: TorchZip, config: StoredConfig) -> dict[str, Tensor]:
    """Return the averaged weights, or those of the training if it did not average."""
    states = StoredConfig(archive.content, 'the checkpoint').get('state_dicts', dict)
    averages = config.get('training.use_ema', bool, 'ema_model' in states)
    name = 'ema_model' if averages else 'model'
    if name not in states:
        raise PolicyImportError(
            f'state_dicts of the checkpoint lacks {name}, it has {listed(states)}; save the '
            'checkpoint with it'
        )
    tensors = archive.tensors(states[name], f'state_dicts.{name}')
    return {key: each for key, each in tensors.items() if not key.endswith(UNUSED)}


def _check_used(tensors: Mapping[str, Tensor], read: tuple[str, ...]) -> None:
    """Refuse weights that no part of the policy has; those of the cameras begin with `read`."""
    extra = [name for name in tensors if not name.startswith((UNET, PREFIX, *read))]
    if extra:
        raise PolicyImportError(f'the checkpoint has {listed(extra)}, which fits nowhere')


def _groups(config: StoredConfig) -> int:
    where = 'policy.model' if config.find('policy.model') is not None else 'policy'
    groups = config.get(f'{where}.n_groups', int, 8)
    if not 1 <= groups <= 1024:
        raise PolicyImportError(f'{where}.n_groups is {groups}, expected 1 to 1024')
    return groups


def _task(config: StoredConfig) -> str:
    found = config.find('task_name')
    return found if isinstance(found, str) and found.isprintable() else ''


def _schedule(
    config: StoredConfig, options: ImportOptions
) -> tuple[NoiseSchedule, int, tuple[str, ...]]:
    """Return the schedule of the denoising, its number of steps, and what differs."""
    where = 'policy.noise_scheduler'
    target = config.get(f'{where}._target_', str)
    sampler = SAMPLERS.get(target.rpartition('.')[2])
    if sampler is None:
        raise PolicyImportError(
            f'{where}._target_ is {shown(target)}, expected {" or ".join(SAMPLERS)}'
        )
    schedule = read_noise_schedule(config, where, ('_target_',))
    own = config.get('policy.num_inference_steps', int, schedule.train_steps)
    if sampler == 'ddim':
        return schedule, options.ddim_steps or own, ()
    steps = options.ddim_steps or DEFAULT_DDIM_STEPS
    remark = (
        f'sampled by {steps} steps of DDIM; the original takes {own} of DDPM, so single actions '
        'differ (--ddim-steps)'
    )
    return schedule, steps, (remark,)
