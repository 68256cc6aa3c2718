# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write small checkpoints in LeRobot's three formats, with weights by chance.

The names and shapes of LeRobot's own weights are in `test/data/lerobot_0_4_4_weights.json`; here
the ResNet is narrower.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from residual_rl_ros.importing.lerobot.assembly import BUILDERS
from residual_rl_ros.importing.lerobot.folder import read_folder
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap
from residual_rl_ros.importing.networks import resnet
from residual_rl_ros.importing.policy import build_empty

GENERATIONS = ('processors', 'weights', 'shapes')
"""Where the statistics are; `shapes` are among the weights too, of 2024."""
PREPROCESSOR_STATE = 'policy_preprocessor_step_3_normalizer_processor.safetensors'
POSTPROCESSOR_STATE = 'policy_postprocessor_step_0_unnormalizer_processor.safetensors'
STATE, ENVIRONMENT, ACTION = 3, 2, 2
SIZE = (40, 33)
"""Height and width of the images."""
RATE_HZ = 20.0
MODES = {
    'act': {'VISUAL': 'MEAN_STD', 'STATE': 'MEAN_STD', 'ACTION': 'MEAN_STD'},
    'diffusion': {'VISUAL': 'MEAN_STD', 'STATE': 'MIN_MAX', 'ACTION': 'MIN_MAX'},
    'vqbet': {'VISUAL': 'IDENTITY', 'STATE': 'MIN_MAX', 'ACTION': 'MIN_MAX'},
}
CONFIGS: dict[str, dict[str, Any]] = {
    'act': {
        **{'chunk_size': 5, 'n_action_steps': 4, 'dim_model': 16, 'n_heads': 2, 'latent_dim': 4},
        **{'dim_feedforward': 12, 'n_encoder_layers': 1, 'n_decoder_layers': 1, 'use_vae': True},
        **{'temporal_ensemble_coeff': None, 'n_obs_steps': 1},
    },
    'diffusion': {
        **{'n_obs_steps': 2, 'horizon': 8, 'n_action_steps': 4, 'down_dims': [8, 16]},
        **{'diffusion_step_embed_dim': 8, 'spatial_softmax_num_keypoints': 3, 'crop_shape': None},
        **{'num_inference_steps': None, 'kernel_size': 3, 'num_train_timesteps': 50},
    },
    'vqbet': {
        **{'n_obs_steps': 2, 'n_action_pred_token': 2, 'action_chunk_size': 3},
        **{'crop_shape': [32, 33], 'spatial_softmax_num_keypoints': 3, 'gpt_n_layer': 1},
        **{'vqvae_n_embed': 4, 'vqvae_embedding_dim': 6, 'vqvae_enc_hidden_dim': 8},
        **{'gpt_block_size': 20, 'gpt_input_dim': 12, 'gpt_output_dim': 10, 'gpt_hidden_dim': 16},
        **{'gpt_n_head': 2, 'bet_softmax_temperature': 0.5},
    },
}
TRAINING_ONLY = {
    'act': {'model.vae_encoder.layers.0.linear1.weight': (12, 16)},
    'diffusion': {},
    'vqbet': {
        'vqbet.select_target_actions_indices': (3, 3),
        'vqbet.policy.transformer.h.0.attn.bias': (1, 1, 20, 20),
        'vqbet.action_head.vqvae_model.encoder.0.weight': (8, 6),
        'vqbet.action_head.vqvae_model.vq_layer.layers.0._codebook.embed_avg': (1, 4, 6),
    },
}
"""Weights that training leaves in the files and that no import needs."""


@contextmanager
def narrow_resnet() -> Iterator[None]:
    """Have the ResNets 16 to 32 channels, so that the files are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, 'STEM', 16)
        patch.setattr(resnet, 'WIDTHS', (16, 16, 16, 32))
        yield


def options(**changes: Any) -> ImportOptions:
    """Return options that say what no checkpoint does."""
    return ImportOptions(**{'map': PolicyMap(rate_hz=RATE_HZ), 'range_std': 3.0, **changes})


def features(kind: str) -> dict[str, dict[str, Any]]:
    """Return the inputs of a policy: two cameras where it can have them."""
    made: dict[str, dict[str, Any]] = {'observation.state': {'type': 'STATE', 'shape': [STATE]}}
    if kind != 'vqbet':
        made['observation.environment_state'] = {'type': 'ENV', 'shape': [ENVIRONMENT]}
        made['observation.images.wrist'] = {'type': 'VISUAL', 'shape': [3, *SIZE]}
    made['observation.images.front'] = {'type': 'VISUAL', 'shape': [3, *SIZE]}
    return made


def statistics(kind: str) -> dict[str, dict[str, Tensor]]:
    """Return statistics of the features that are normalised."""
    generator = torch.Generator().manual_seed(3)
    made = {}
    for key, feature in [*features(kind).items(), ('action', {'shape': [ACTION], 'type': ''})]:
        if feature['type'] == 'ENV':
            continue
        visual = feature['type'] == 'VISUAL'
        shape = (3, 1, 1) if visual else tuple(feature['shape'])
        low = torch.randn(shape, generator=generator)
        span = 0.5 + torch.rand(shape, generator=generator)
        made[key] = {
            'min': low,
            'max': low + span,
            'mean': low + span / 3,
            'std': span / 4,
        }
    return made


def write_checkpoint(
    folder: Path,
    kind: str,
    generation: str = 'processors',
    weights: Mapping[str, Tensor | None] | None = None,
    **config: Any,
) -> Path:
    """Write a checkpoint; the same kind has the same weights and statistics in every generation.

    Args:
        folder: the folder, which is made.
        kind: type of the policy.
        generation: one of `GENERATIONS`.
        weights: further ones or others; None leaves one out.
        **config: keys of the configuration that differ.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inputs, outputs = features(kind), {'action': {'type': 'ACTION', 'shape': [ACTION]}}
    known = statistics(kind)
    made = {'type': kind, **CONFIGS[kind], 'normalization_mapping': MODES[kind], **config}
    made |= {'input_features': config.get('input_features', inputs), 'output_features': outputs}
    (folder / 'config.json').write_text(json.dumps(made))
    # Weights must be there to be read.
    save_file({'none': torch.zeros(1)}, folder / 'model.safetensors')
    tensors: dict[str, Tensor | None] = {**_weights(folder, kind)}
    if generation == 'processors':
        _write_processors(folder, kind, inputs, known)
    else:
        tensors |= _statistics_as_weights(kind, inputs, known)
    tensors |= weights or {}
    if generation == 'shapes':
        (folder / 'config.json').write_text(json.dumps(_config_of_2024(made)))
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / 'model.safetensors')
    return folder


def _weights(folder: Path, kind: str) -> dict[str, Tensor]:
    """Return weights by chance, with the names that LeRobot has."""
    read = read_folder(folder)
    built = build_empty(lambda: BUILDERS[kind](read, options()))
    generator = torch.Generator().manual_seed(5)
    made = {}
    for name, tensor in built.core.state_dict().items():
        values = torch.randn(tensor.shape, generator=generator)
        values *= 0.3 if tensor.dim() < 2 else tensor[0].numel() ** -0.5
        if tensor.dim() == 1 and name.endswith('.weight'):  # Of a normalisation.
            values = 1.0 + values
        if name.endswith('running_var'):
            values = 0.5 + values.abs()
        if name.endswith('pos_grid'):  # No weight: it is computed when the network is made.
            values = tensor.clone()
        made[built.prefix + name] = values if tensor.is_floating_point() else tensor.clone()
        if tensor.is_meta and not tensor.is_floating_point():
            made[built.prefix + name] = torch.ones(tensor.shape, dtype=tensor.dtype)
    for name, shape in TRAINING_ONLY[kind].items():
        made[name] = torch.zeros(shape)
    return made


def _write_processors(
    folder: Path, kind: str, inputs: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    flat = {f'{key}.{name}': value for key, of in known.items() for name, value in of.items()}
    output = {'action': {'type': 'ACTION', 'shape': [ACTION]}}
    config = {'eps': 1e-8, 'features': {**inputs, **output}, 'norm_map': MODES[kind]}
    before = [
        {'registry_name': 'rename_observations_processor', 'config': {'rename_map': {}}},
        {'registry_name': 'to_batch_processor', 'config': {}},
        {'registry_name': 'device_processor', 'config': {'device': 'cuda', 'float_dtype': None}},
        {
            'registry_name': 'normalizer_processor',
            'config': config,
            'state_file': PREPROCESSOR_STATE,
        },
    ]
    after = [
        {
            'registry_name': 'unnormalizer_processor',
            'config': {**config, 'features': output},
            'state_file': POSTPROCESSOR_STATE,
        },
        {'registry_name': 'device_processor', 'config': {'device': 'cpu', 'float_dtype': None}},
    ]
    for name, steps, file in (
        ('policy_preprocessor', before, PREPROCESSOR_STATE),
        ('policy_postprocessor', after, POSTPROCESSOR_STATE),
    ):
        (folder / f'{name}.json').write_text(json.dumps({'name': name, 'steps': steps}))
        save_file(flat, folder / file)


def _statistics_as_weights(
    kind: str, inputs: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the statistics that the modes need, by the names that they had among the weights."""
    needed = {'MEAN_STD': ('mean', 'std'), 'MIN_MAX': ('min', 'max'), 'IDENTITY': ()}
    made = {}
    for key, of in known.items():
        feature = inputs.get(key, {'type': 'ACTION'})['type']
        prefixes = ('normalize_targets', 'unnormalize_outputs')
        for prefix in prefixes if key == 'action' else ('normalize_inputs',):
            for name in needed[MODES[kind][feature]]:
                made[f'{prefix}.buffer_{key.replace(".", "_")}.{name}'] = of[name].clone()
    return made


def _config_of_2024(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as it was before features had types."""
    modes = config['normalization_mapping']
    made = {key: value for key, value in config.items() if not key.endswith('_features')}
    del made['type'], made['normalization_mapping']
    for name in ('input', 'output'):
        of = config[f'{name}_features']
        made[f'{name}_shapes'] = {key: feature['shape'] for key, feature in of.items()}
        made[f'{name}_normalization_modes'] = {
            key: modes[feature['type']].lower()
            for key, feature in of.items()
            if feature['type'] in modes
        }
    return made


def write_dataset(folder: Path, version: str = 'v3.0') -> Path:
    """Write the folder `meta` of a dataset: names, rate and the range of the actions."""
    names = {
        'observation.state': {'names': ['pan.pos', 'lift.pos', 'gripper.pos'], 'shape': [3]},
        'action': {'names': {'motors': ['pan', 'gripper']}, 'shape': [2]},
        'observation.images.front': {'names': ['height', 'width', 'channels']},
    }
    (folder / 'meta').mkdir(parents=True)
    info = {'codebase_version': version, 'fps': 25, 'features': names}
    (folder / 'meta' / 'info.json').write_text(json.dumps(info))
    ranges = [{'min': [-1.0, 0.5], 'max': [0.5, 2.0]}, {'min': [-0.5, 0.0], 'max': [1.0, 1.0]}]
    if version == 'v2.1':
        lines = [json.dumps({'episode_index': 0, 'stats': {'action': each}}) for each in ranges]
        (folder / 'meta' / 'episodes_stats.jsonl').write_text('\n'.join(lines))
    else:
        whole = {'action': {'min': [-1.0, 0.0], 'max': [1.0, 2.0]}}
        (folder / 'meta' / 'stats.json').write_text(json.dumps(whole))
    return folder
