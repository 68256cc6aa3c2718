# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write checkpoints with LeRobot itself, and what its policies do: a program, see `SITE`.

Run as `python lerobot_original.py OUT`, in a process of its own: LeRobot wants other versions of
packages than we do. Each case is a folder with the checkpoint, and in `reference.safetensors` what
the policy was given and what it answered, in units of the dataset.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SITE = 'RESIDUAL_RL_LEROBOT_SITE'
"""Environment variable with the folder that LeRobot is in, as `pip install --target` makes it.

`lerobot_requirements.txt` lists what is in it, and how it is made. Version 0.4.4 has processors;
with 0.3.3 in its place the statistics are among the weights.
"""
BATCH = 4
STATE, ACTION = 6, 5


def statistics(generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """Return statistics of a data set as training makes them."""

    def of(*shape: int) -> dict[str, Tensor]:
        low = torch.randn(*shape, generator=generator)
        span = 0.5 + torch.rand(*shape, generator=generator)
        return {
            'min': low,
            'max': low + span,
            'mean': low + 0.4 * span,
            'std': 0.3 * span,
            'q01': low + 0.01 * span,
            'q99': low + 0.98 * span,
            'q10': low + 0.1 * span,
            'q90': low + 0.9 * span,
        }

    made = {'observation.state': of(STATE), 'action': of(ACTION)}
    for camera in ('front', 'wrist'):
        made[f'observation.images.{camera}'] = {
            'mean': torch.rand(3, 1, 1, generator=generator),
            'std': 0.2 + torch.rand(3, 1, 1, generator=generator),
            'min': torch.zeros(3, 1, 1),
            'max': torch.ones(3, 1, 1),
        }
    return made


def features(cameras: tuple[str, ...], size: tuple[int, int]) -> dict[str, Any]:
    """Return the features of a configuration."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {'observation.state': PolicyFeature(FeatureType.STATE, (STATE,))}
    for camera in cameras:
        inputs[f'observation.images.{camera}'] = PolicyFeature(FeatureType.VISUAL, (3, *size))
    return {
        'input_features': inputs,
        'output_features': {'action': PolicyFeature(FeatureType.ACTION, (ACTION,))},
        'device': 'cpu',
    }


def modes(**kinds: str) -> dict[str, Any]:
    """Return the normalisation of a configuration."""
    from lerobot.configs.types import NormalizationMode

    if not kinds:
        return {}
    return {'normalization_mapping': {key: NormalizationMode[mode] for key, mode in kinds.items()}}


def cases_of(processors: bool) -> list[str]:
    """Return the names of the cases.

    Args:
        processors: whether this LeRobot has processors, and the modes that came with them.
    """
    return [name for name, (_, _, new) in _CASES.items() if processors or not new]


_ACT = {
    **{'dim_model': 32, 'n_heads': 4, 'dim_feedforward': 48, 'n_encoder_layers': 2},
    **{'chunk_size': 7, 'n_action_steps': 5, 'latent_dim': 8, 'n_vae_encoder_layers': 1},
    'pretrained_backbone_weights': None,
}
_UNET = {
    **{'down_dims': (16, 32), 'diffusion_step_embed_dim': 16, 'horizon': 8},
    **{'n_action_steps': 4, 'spatial_softmax_num_keypoints': 6, 'crop_shape': None},
    **{'noise_scheduler_type': 'DDIM', 'num_inference_steps': 5},
}
_BET = {
    **{'gpt_n_layer': 2, 'gpt_n_head': 2, 'gpt_hidden_dim': 32, 'gpt_input_dim': 24},
    **{'gpt_output_dim': 20, 'gpt_block_size': 50, 'vqvae_n_embed': 5, 'crop_shape': (40, 42)},
    **{'vqvae_embedding_dim': 12, 'vqvae_enc_hidden_dim': 16, 'spatial_softmax_num_keypoints': 6},
}
_BOTH, _ONE = ('front', 'wrist'), ('front',)
_CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], bool]] = {
    'act': (_ACT, _BOTH, False),
    'act_pre_norm': (
        {
            **{**_ACT, 'pre_norm': True, 'n_decoder_layers': 2, 'feedforward_activation': 'gelu'},
            **{'vision_backbone': 'resnet50', 'replace_final_stride_with_dilation': True},
            'modes': {'VISUAL': 'IDENTITY', 'STATE': 'MIN_MAX', 'ACTION': 'MIN_MAX'},
        },
        _ONE,
        False,
    ),
    'act_without_latent': ({**_ACT, 'use_vae': False}, _ONE, False),
    'act_quantiles': (
        {
            **_ACT,
            'modes': {'VISUAL': 'MEAN_STD', 'STATE': 'QUANTILES', 'ACTION': 'QUANTILE10'},
        },
        _ONE,
        True,
    ),
    'diffusion': ({**_UNET, 'crop_shape': (45, 60)}, _BOTH, False),
    'diffusion_separate': (
        {
            **{**_UNET, 'use_separate_rgb_encoder_per_camera': True, 'use_group_norm': False},
            **{'prediction_type': 'sample', 'use_film_scale_modulation': False},
            'clip_sample_range': 0.8,
        },
        _BOTH,
        False,
    ),
    'diffusion_resized': (
        {**_UNET, 'resize_shape': (36, 44), 'crop_ratio': 0.9, 'beta_schedule': 'linear'},
        _BOTH,
        True,
    ),
    'vqbet': (_BET, _ONE, False),
    'vqbet_sequential': (
        {**_BET, 'sequentially_select': True, 'action_chunk_size': 3},
        _ONE,
        False,
    ),
}
"""Configuration, cameras, and whether it needs processors."""
SIZE = (48, 64)


def config_of(case: str) -> tuple[str, dict[str, Any]]:
    """Return type and configuration of a case."""
    config, cameras, _ = _CASES[case]
    made = {**config, **features(cameras, SIZE)}
    return case.partition('_')[0], made | modes(**made.pop('modes', {}))


def main(out: Path) -> None:
    """Write every case below a folder."""
    from lerobot import __version__

    processors = not __version__.startswith('0.3')
    keys = {}
    for index, name in enumerate(cases_of(processors)):
        torch.manual_seed(index)
        drawing = torch.randn, torch.multinomial
        keys[name] = write_case(out / name, *config_of(name), processors)
        torch.randn, torch.multinomial = drawing
    (out / 'keys.json').write_text(json.dumps(keys))


def write_case(folder: Path, kind: str, config: dict[str, Any], processors: bool) -> Any:
    """Write a checkpoint and its reference; return the shapes of its weights."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(7)
    stats = statistics(generator)
    policy = make_policy(kind, config, stats, processors)
    policy.eval()
    policy.save_pretrained(folder)
    settings = policy.config
    steps = settings.n_obs_steps
    given: dict[str, Tensor] = {
        'observation': stats['observation.state']['mean']
        + torch.randn(BATCH, steps, STATE, generator=generator)
    }
    for key, feature in settings.image_features.items():
        shape = (BATCH, steps, *feature.shape[1:], 3)
        given[key.rsplit('.', 1)[-1]] = torch.randint(
            0, 256, shape, generator=generator, dtype=torch.uint8
        )
    noise = noise_of(kind, settings, generator)
    if noise is not None:
        given['noise'] = noise
    action = act(policy, kind, given, stats, folder if processors else None)
    save_file({**given, 'action': action.contiguous()}, folder / 'reference.safetensors')
    return {name: list(tensor.shape) for name, tensor in policy.state_dict().items()}


def make_policy(kind: str, config: dict[str, Any], stats: Any, processors: bool) -> Any:
    """Return a policy with weights by chance, also where training begins with zeros."""
    from lerobot.policies.factory import get_policy_class, make_policy_config

    made = make_policy_config(kind, **config)
    policy_class = get_policy_class(kind)
    policy = policy_class(made) if processors else policy_class(made, dataset_stats=stats)
    with torch.no_grad():
        for name, tensor in [*policy.named_parameters(), *policy.named_buffers()]:
            if 'running_var' in name:
                tensor.uniform_(0.5, 1.5)
            elif 'running_mean' in name or (name.endswith('.bias') and tensor.dim() == 1):
                tensor.normal_(0.0, 0.1)
    return policy


def noise_of(kind: str, settings: Any, generator: torch.Generator) -> Tensor | None:
    """Return noise as our import takes it."""
    if kind == 'act':
        # Zero, as LeRobot has it at inference.
        return torch.zeros(BATCH, settings.latent_dim) if settings.use_vae else None
    shape = (settings.horizon, ACTION) if kind == 'diffusion' else (2, settings.vqvae_n_embed)
    return torch.randn(BATCH, *shape, generator=generator)


def act(
    policy: Any, kind: str, given: dict[str, Tensor], stats: Any, folder: Path | None
) -> Tensor:
    """Return what the policy does, all of its chunk, in units of the dataset."""
    batch = {'observation.state': given['observation']}
    for key in policy.config.image_features:
        pixels = given[key.rsplit('.', 1)[-1]]
        batch[key] = pixels.permute(0, 1, 4, 2, 3).float() / 255.0
    if folder is None:
        batch = policy.normalize_inputs(batch)

        def after(action: Tensor) -> Tensor:
            return policy.unnormalize_outputs({'action': action})['action']

    else:
        from lerobot.policies.factory import make_pre_post_processors

        before, post = make_pre_post_processors(policy.config, dataset_stats=stats)
        before.save_pretrained(folder)
        post.save_pretrained(folder)
        batch, after = before(batch), post
    images = [batch[key] for key in policy.config.image_features]
    with torch.no_grad():
        if kind == 'act':
            now = {key: value[:, -1] for key, value in batch.items() if torch.is_tensor(value)}
            now['observation.images'] = [image[:, -1] for image in images]
            return after(policy.model(now)[0])
        seen = {
            'observation.state': batch['observation.state'],
            'observation.images': torch.stack(images, dim=2),
        }
        if kind == 'diffusion':
            model = policy.diffusion
            condition = model._prepare_global_conditioning(seen)
            torch.randn = lambda *_, **__: given['noise']
            return after(model.conditional_sample(BATCH, global_cond=condition))
        torch.multinomial = drawn_with(policy, given['noise'])
        return after(policy.vqbet(seen, rollout=True))


def drawn_with(policy: Any, noise: Tensor) -> Any:
    """Return what draws as our noise says where the policy draws what runs."""
    places = policy.config.n_obs_steps + policy.config.n_action_pred_token - 1
    newest = policy.config.n_obs_steps - 1
    uniform = torch.distributions.Normal(0.0, 1.0).cdf(noise)
    gumbel = -torch.log(-torch.log(uniform))
    sequential = policy.config.sequentially_select
    calls = iter(range(2))

    def draw(share: Tensor, num_samples: int) -> Tensor:
        books = gumbel[:, next(calls)][:, None] if sequential else gumbel
        table = torch.zeros(BATCH, places, *books.shape[1:])
        table[:, newest] = books
        return (share.log() + table.reshape(share.shape)).argmax(dim=-1, keepdim=True)

    return draw


if __name__ == '__main__':
    os.environ['HF_HUB_OFFLINE'] = '1'
    sys.path[0] = os.environ[SITE]
    # torchvision from PyPI cannot load its compiled operators beside a torch for CPUs.
    for operator in ('nms', 'qnms'):
        torch.library.define(f'torchvision::{operator}', '(Tensor a, Tensor b, float c) -> Tensor')
    main(Path(sys.argv[1]))
