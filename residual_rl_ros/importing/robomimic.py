# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of robomimic (0.3 to 0.5): behaviour cloning, recurrent or not, and diffusion.

A `.pth` holds the configuration as JSON text, shapes, statistics and weights. What robomimic draws
at each step of a mixture is drawn from the input `noise` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residual_rl_ros.base_policy.inputs import MemoryInput
from residual_rl_ros.errors import FormatError, PolicyImportError, shown
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.importing.chunk_diffusion import chunk_diffusion
from residual_rl_ros.importing.contract import Described, make_contract, named
from residual_rl_ros.importing.mapping import DEFAULT_DDIM_STEPS, ImportOptions
from residual_rl_ros.importing.networks import step_policy as heads
from residual_rl_ros.importing.networks.ddim import (
    NoiseSchedule,
    read_noise_schedule,
)
from residual_rl_ros.importing.networks.step_policy import RECURRENT, StepPolicy, Trunk
from residual_rl_ros.importing.networks.window_encoder import Observations
from residual_rl_ros.importing.policy import ImportedPolicy, PolicyInput, listed
from residual_rl_ros.importing.robomimic_observations import (
    read_affine,
    read_observations,
)
from residual_rl_ros.importing.stored_config import StoredConfig
from residual_rl_ros.importing.torch_zip import TorchZip
from residual_rl_ros.importing.weights import below, build, load_unet
from residual_rl_ros.numerics import Array

RENAMED = {
    'policy.nets.mlp._model.': 'mlp.',
    'policy.nets.decoder.nets.': 'heads.',
    'policy.nets.rnn.nets.': 'rnn.',
}
"""Beginnings of the names of weights, in robomimic and here."""
ENCODER = 'policy.nets.encoder.nets.obs.obs_nets.'
DIFFUSION_ENCODER = 'policy.obs_encoder.nets.obs.obs_nets.'
UNET = 'policy.noise_pred_net.'
PER_STEP = 'policy.nets.rnn.per_step_net.'
"""Second names of the weights of perceptron and decoder."""
MOST_LAYERS = 1000
MOST_HZ = 1e6
STATISTICS = 'action_normalization_stats'
MEMORY_NAMES = {'LSTM': ('lstm_h', 'lstm_c'), 'GRU': ('gru_h',)}


def is_robomimic(content: Any) -> bool:
    """Return whether the content of a torch zip is such a checkpoint."""
    return isinstance(content, dict) and {'algo_name', 'config', 'model'} <= content.keys()


def import_robomimic(archive: TorchZip, options: ImportOptions) -> ImportedPolicy:
    """Rebuild the policy of a checkpoint.

    Raises:
        PolicyImportError: it is of another kind, or lacks something.
        FormatError: its tensors are damaged.
    """
    checkpoint = archive.content
    algorithm = checkpoint['algo_name']
    if not isinstance(algorithm, str) or algorithm not in READERS:
        raise PolicyImportError(
            f'the checkpoint is of algorithm {shown(algorithm)}, expected one of '
            f'{", ".join(READERS)}; import it with --module'
        )
    text = checkpoint['config']
    if not isinstance(text, str):
        raise PolicyImportError(f'config of the checkpoint is {shown(text)}, expected a JSON text')
    try:
        content = parse_json(text, 'config of the checkpoint')
    except FormatError as error:
        raise PolicyImportError(str(error)) from error
    if not isinstance(content, dict):
        raise PolicyImportError('config of the checkpoint is no map')
    return READERS[algorithm](archive, StoredConfig(content, 'config of the checkpoint'), options)


def _behaviour_cloning(
    archive: TorchZip, config: StoredConfig, options: ImportOptions
) -> ImportedPolicy:
    checkpoint = archive.content
    for kind in ('vae', 'transformer'):
        if config.flag(f'algo.{kind}.enabled'):
            raise PolicyImportError(
                f'algo.{kind} is enabled, expected a perceptron, recurrent or not; import it with '
                '--module'
            )
    model = checkpoint['model']
    nested = isinstance(model, Mapping) and isinstance(model.get('nets'), Mapping)
    tensors = archive.tensors(model['nets'] if nested else model, 'model')
    observations = read_observations(config, checkpoint, below(tensors, ENCODER))
    names, offset, scale = _read_actions(config, checkpoint)
    head = _head(config, len(names))
    weights = _trunk_weights(tensors)
    recurrent, hidden, layers, reset = _recurrence(config)
    widths = config.integers('algo.actor_layer_dims')
    if len(widths) > MOST_LAYERS:
        raise PolicyImportError(
            f'algo.actor_layer_dims has {len(widths)} layers, expected at most {MOST_LAYERS}'
        )
    trunk = build(
        lambda: Trunk(observations.size, widths, head, recurrent, hidden, layers),
        weights,
        'the network',
    )
    memories = tuple(
        MemoryInput(name, f'{name}_out', (layers, hidden), reset)
        for name in (MEMORY_NAMES[recurrent] if recurrent else ())
    )
    described = _described(
        config, checkpoint, observations, names, (offset, scale), (1, 1, 0, 1), 'bc'
    )
    contract = make_contract(
        described,
        options.map,
        memories,
        (head.noise,) if head.noise else (),
        (options.noise_default or 'normal') if head.noise else 'normal',
    )
    network = StepPolicy(
        contract.from_robot,
        observations.encoder,
        trunk,
        head,
        torch.from_numpy(scale).float(),
        torch.from_numpy(offset).float(),
        contract.to_robot,
    )
    noise = (PolicyInput('noise', torch.zeros(head.noise)),) if head.noise else ()
    remembered = tuple(PolicyInput(each.name, torch.zeros(each.shape), 0.5) for each in memories)
    remarks = []
    if isinstance(head, heads.MixtureHead):
        remarks.append(
            'the noise chooses the component of the mixture, as robomimic does at each step; with '
            '--noise zero the base action is the mean of the most likely one'
        )
    if isinstance(head, heads.GaussianHead) and not head.noise:
        remarks.append('the action is the mean; robomimic adds a noise of 0.0001 to it')
    return ImportedPolicy(
        network,
        contract.metadata,
        (
            contract.observation_input(observations.centre, observations.spread),
            *noise,
            *contract.image_inputs(),
            *remembered,
        ),
        ('action', *(each.output for each in memories), *contract.feature_outputs),
        tuple(remarks),
    )


def _diffusion(archive: TorchZip, config: StoredConfig, options: ImportOptions) -> ImportedPolicy:
    checkpoint = archive.content
    model = checkpoint['model']
    averaged = model.get('ema') if isinstance(model, Mapping) else None
    nets = model.get('nets') if isinstance(model, Mapping) else None
    state = nets if averaged is None else averaged
    tensors = archive.tensors(state, 'model')
    observations = read_observations(config, checkpoint, below(tensors, DIFFUSION_ENCODER))
    names, offset, scale = _read_actions(config, checkpoint)
    unet = load_unet(below(tensors, UNET))
    extra = [name for name in tensors if not name.startswith((DIFFUSION_ENCODER, UNET))]
    if extra:
        raise PolicyImportError(f'the checkpoint has {listed(extra)}, which fits nowhere')
    horizon = config.get('algo.horizon.prediction_horizon', int)
    window = config.get('algo.horizon.observation_horizon', int)
    executed = config.get('algo.horizon.action_horizon', int)
    described = _described(
        config,
        checkpoint,
        observations,
        names,
        (offset, scale),
        (window, horizon, window - 1, executed),
        'diffusion',
    )
    denoising = _schedule(config, options)
    return chunk_diffusion(described, observations, unet, denoising, (offset, scale), options)


READERS: dict[str, Callable[[TorchZip, StoredConfig, ImportOptions], ImportedPolicy]] = {
    'bc': _behaviour_cloning,
    'diffusion_policy': _diffusion,
}
"""By the name of the algorithm."""


def _described(
    config: StoredConfig,
    checkpoint: Mapping[str, Any],
    observations: Observations,
    names: tuple[str, ...],
    affine: tuple[Array, Array],
    steps: tuple[int, int, int, int],
    kind: str,
) -> Described:
    offset, scale = affine
    stored = StoredConfig(checkpoint, 'the checkpoint')
    rate = stored.find('env_metadata.env_kwargs.control_freq')
    task = stored.find('env_metadata.env_name')
    known = isinstance(rate, (int, float)) and 0 < rate < MOST_HZ
    return Described(
        observations.names,
        names,
        offset - np.abs(scale),
        offset + np.abs(scale),
        *steps,
        kind=kind,
        source=f'robomimic {checkpoint["algo_name"]}',
        rate_hz=float(rate) if known else 0.0,
        task=task if isinstance(task, str) and task.isprintable() else '',
        cameras=observations.cameras,
        features=observations.features,
    )


def _read_actions(
    config: StoredConfig, checkpoint: Mapping[str, Any]
) -> tuple[tuple[str, ...], Array, Array]:
    """Return names, offset and scale of the actions: scale x [-1, 1] + offset."""
    shapes = StoredConfig({'shape_metadata': checkpoint.get('shape_metadata')}, config.source)
    count = shapes.get('shape_metadata.ac_dim', int)
    statistics = checkpoint.get(STATISTICS)
    if not 1 <= count <= 10_000:
        raise PolicyImportError(f'ac_dim of the checkpoint is {count}, expected 1 to 10000')
    if statistics is None:
        return named('actions', (count,)), np.zeros(count), np.ones(count)
    keys = config.names('train.action_keys') or [*StoredConfig(checkpoint, 'it').map(STATISTICS)]
    names: list[str] = []
    offsets, scales = [], []
    for key in keys:
        if config.find(f'train.action_config.{key}.format') is not None:
            raise PolicyImportError(
                f'train.action_config.{key}.format is '
                f'{shown(config.find(f"train.action_config.{key}.format"))}, expected null: the '
                'robot is to have the actions of the network; import it with --module'
            )
        entry = statistics.get(key) if isinstance(statistics, Mapping) else None
        if not isinstance(entry, Mapping):
            raise PolicyImportError(f'action_normalization_stats lacks {shown(key)}')
        length = int(np.size(np.array(entry.get('offset'), dtype=object)))
        if isinstance(entry.get('offset'), list) and entry['offset']:
            first = entry['offset'][0]
            length = len(first) if isinstance(first, list) else len(entry['offset'])
        offset, scale = read_affine(statistics, key, length, 'action_normalization_stats')
        names += named(str(key), (length,))
        offsets.append(offset)
        scales.append(scale)
    if len(names) != count:
        raise PolicyImportError(
            f'action_normalization_stats has {len(names)} actions, expected ac_dim {count}'
        )
    return tuple(names), np.concatenate(offsets), np.concatenate(scales)


def _head(config: StoredConfig, actions: int) -> heads.Head:
    """Return what makes an action of the outputs."""
    for kind in ('gaussian', 'gmm'):
        if config.flag(f'algo.{kind}.enabled') and config.flag(f'algo.{kind}.use_tanh'):
            raise PolicyImportError(f'algo.{kind}.use_tanh is true, expected false')
    if config.flag('algo.gaussian.enabled'):
        return heads.GaussianHead(actions, _gaussian_std(config))
    if not config.flag('algo.gmm.enabled'):
        return heads.TanhHead(actions)
    std = None
    if not config.get('algo.gmm.low_noise_eval', bool, True):
        least = config.get('algo.gmm.min_std', float, 0.01)
        std = heads.shifted(_std_activation(config, 'gmm'), least)
    modes = config.get('algo.gmm.num_modes', int, 5)
    if not 1 <= modes <= 10_000:
        raise PolicyImportError(f'algo.gmm.num_modes is {modes}, expected 1 to 10000')
    return heads.MixtureHead(actions, modes, std)


def _gaussian_std(config: StoredConfig) -> heads.Activation | None:
    if config.get('algo.gaussian.low_noise_eval', bool, True):
        return None
    std = config.get('algo.gaussian.init_std', float, 0.3)
    if config.flag('algo.gaussian.fixed_std'):
        return heads.constant(std)
    if _std_activation(config, 'gaussian') == 'exp':
        return torch.exp
    return heads.scaled_softplus(std)


def _std_activation(config: StoredConfig, kind: str) -> str:
    found = config.get(f'algo.{kind}.std_activation', str, 'softplus')
    if found not in ('softplus', 'exp'):
        raise PolicyImportError(
            f'algo.{kind}.std_activation is {shown(found)}, expected softplus or exp'
        )
    return found


def _recurrence(config: StoredConfig) -> tuple[str | None, int, int, int]:
    """Return type, size and number of the recurrent layers, and after how many steps they reset."""
    if not config.flag('algo.rnn.enabled'):
        return None, 0, 0, 0
    for switch in ('open_loop', 'kwargs.bidirectional'):
        if config.flag(f'algo.rnn.{switch}'):
            raise PolicyImportError(
                f'algo.rnn.{switch} is true, expected false; import it with --module'
            )
    kind = config.get('algo.rnn.rnn_type', str, 'LSTM')
    if kind not in RECURRENT:
        raise PolicyImportError(f'algo.rnn.rnn_type is {shown(kind)}, expected LSTM or GRU')
    hidden = config.get('algo.rnn.hidden_dim', int)
    layers = config.get('algo.rnn.num_layers', int)
    horizon = config.get('algo.rnn.horizon', int)
    limits = {'hidden_dim': 2**16, 'num_layers': MOST_LAYERS, 'horizon': 10_000}
    for (name, most), value in zip(limits.items(), (hidden, layers, horizon), strict=True):
        if not 1 <= value <= most:
            raise PolicyImportError(f'algo.rnn.{name} is {value}, expected 1 to {most}')
    return kind, hidden, layers, horizon


def _trunk_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights behind the encoder under our names; second names must agree."""
    made = {}
    for name, tensor in tensors.items():
        if name.startswith(ENCODER):
            continue
        if name.startswith(PER_STEP):
            rest = name.removeprefix(PER_STEP)
            # A decoder alone, or perceptron 0 and decoder 1.
            twin = (
                f'policy.nets.mlp.{rest[2:]}'
                if rest.startswith('0.')
                else f'policy.nets.decoder.{rest.removeprefix("1.")}'
            )
            if twin not in tensors or not torch.equal(tensors[twin], tensor):
                raise PolicyImportError(
                    f'{name} and {twin} should be the same weight; the checkpoint is damaged'
                )
            continue
        start = next((each for each in RENAMED if name.startswith(each)), None)
        made[RENAMED[start] + name.removeprefix(start) if start else name] = tensor
    return made


def _schedule(
    config: StoredConfig, options: ImportOptions
) -> tuple[NoiseSchedule, int, tuple[str, ...]]:
    """Return the schedule of the denoising, its number of steps, and what differs."""
    kind = 'ddpm' if config.flag('algo.ddpm.enabled') else 'ddim'
    where = f'algo.{kind}'
    for key, of_kind in (('num_train_timesteps', int), ('beta_schedule', str)):
        config.get(f'{where}.{key}', of_kind)  # Always there: the defaults are those of diffusers.
    schedule = read_noise_schedule(config, where, ('enabled', 'num_inference_timesteps'))
    if kind == 'ddim':
        stored = config.get(f'{where}.num_inference_timesteps', int)
        return schedule, options.ddim_steps or stored, ()
    steps = options.ddim_steps or DEFAULT_DDIM_STEPS
    return schedule, steps, (ddpm_remark(steps),)


def ddpm_remark(steps: int) -> str:
    """Return what a policy that was tested with DDPM is here."""
    return (
        f'it denoises in {steps} steps of DDIM, the original in those of DDPM with noise at each; '
        'change --ddim-steps'
    )
