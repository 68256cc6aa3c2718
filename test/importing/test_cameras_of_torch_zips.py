# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras of robomimic and diffusion_policy: names of their weights, order, crops, ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.diffusion_policy_observations import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    read_hybrid,
    read_multi_image,
)
from residual_rl_ros.importing.networks.window_encoder import (
    PARTS,
    CentreCrop,
    VisualCore,
    VisualCoreSpec,
    named_as_here,
)
from residual_rl_ros.importing.robomimic_observations import read_observations
from residual_rl_ros.importing.stored_config import StoredConfig

SPEC = VisualCoreSpec(66, 67, norm='group', crop=(64, 64), keypoints=4, features=3)


def robomimic_names(core: VisualCore) -> Iterator[tuple[str, Tensor]]:
    """Return the weights of a camera as robomimic stores them: each twice."""
    for name, tensor in core.state_dict().items():
        first, _, rest = name.partition('.')
        if first == 'backbone':
            part, _, rest = rest.partition('.')
            own = f'nets.{PARTS.index(part)}.{rest}'
            yield f'backbone.{own}', tensor
            yield f'nets.0.{own}', tensor
        elif rest == 'pos_grid':
            for prefix in ('pool', 'nets.1'):
                yield f'{prefix}.pos_x', tensor[None, :, 0]
                yield f'{prefix}.pos_y', tensor[None, :, 1]
                yield f'{prefix}.temperature', torch.ones(1)
        elif first == 'pool':
            yield f'pool.{rest}', tensor
            yield f'nets.1.{rest}', tensor
        else:
            yield f'nets.3.{rest}', tensor


@pytest.fixture(scope='module')
def core() -> VisualCore:
    torch.manual_seed(0)
    made = VisualCore(SPEC)
    made.pool.nets.weight.data.mul_(30.0)  # type: ignore[union-attr]
    return made.eval()


@pytest.fixture(scope='module')
def stored(core: VisualCore) -> dict[str, Tensor]:
    return dict(robomimic_names(core))


@pytest.fixture(scope='module')
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 2, 66, 67, 3), generator=generator, dtype=torch.uint8)


STATE = torch.arange(12.0).reshape(2, 2, 3)


def seen(core: VisualCore, images: Tensor, scale: float, offset: float) -> Tensor:
    """Return what the camera makes of each image by itself."""
    image = images.permute(0, 1, 4, 2, 3).float() / 255.0 * scale + offset
    with torch.no_grad():
        return torch.stack([core(image[:, index]) for index in range(image.shape[1])], dim=1)


def test_robomimic_concatenates_in_the_order_of_its_shapes(
    core: VisualCore, stored: dict[str, Tensor], images: Tensor
) -> None:
    arguments = {
        'pool_kwargs': {'num_kp': 4},
        'feature_dimension': 3,
        'backbone_class': 'ResNet18Conv',
    }
    rgb = {
        'core_class': 'VisualCore',
        'core_kwargs': arguments,
        'obs_randomizer_class': 'CropRandomizer',
        'obs_randomizer_kwargs': {'crop_height': 64, 'crop_width': 64},
    }
    config = StoredConfig(
        {
            'observation': {
                'modalities': {'obs': {'low_dim': ['object', 'pos'], 'rgb': ['cam']}},
                'encoder': {'rgb': rgb},
            }
        },
        'config',
    )
    shapes = {'pos': [2], 'cam': [3, 66, 67], 'object': [1]}
    checkpoint = {'shape_metadata': {'all_shapes': shapes}}
    weights = {f'cam.{name}': each for name, each in stored.items()}
    found = read_observations(config, checkpoint, weights)
    assert found.names == ('pos.0', 'pos.1', 'object')
    assert (found.size, found.features, found.cameras) == (6, {'cam': 3}, {'cam': (66, 67)})
    with torch.no_grad():
        features, (newest,) = found.encoder.eval()(STATE, [images])
    expected = torch.relu(seen(core, images, 1.0, 0.0))
    assert torch.allclose(features[..., 2:5], expected, atol=1e-6)
    assert torch.equal(features[..., [0, 1, 5]], STATE)
    assert torch.equal(newest, features[:, -1, 2:5])
    with pytest.raises(PolicyImportError, match=r'encoder of cam .* has more, which fits nowhere'):
        read_observations(config, checkpoint, {**weights, 'cam.more': torch.zeros(1)})


def normalizers(*keys: str) -> dict[str, Tensor]:
    """Return normalisation as diffusion_policy has it: images to [-1, 1], others as they are."""
    made = {}
    for key in keys:
        values = (2.0, -1.0) if key.startswith('cam') else (1.0, 0.0)
        count = 1 if key.startswith('cam') else 3
        made[f'normalizer.params_dict.{key}.scale'] = torch.full((count,), values[0])
        made[f'normalizer.params_dict.{key}.offset'] = torch.full((count,), values[1])
    return made


def policy_config(**values: Any) -> StoredConfig:
    shapes = {
        'state': {'shape': [3]},
        'cam': {'shape': [3, 66, 67], 'type': 'rgb'},
    }
    return StoredConfig({'policy': {'shape_meta': {'obs': shapes}, **values}}, 'cfg')


def test_the_hybrid_policy_has_the_camera_of_robomimic(
    core: VisualCore, stored: dict[str, Tensor], images: Tensor
) -> None:
    tensors = {f'obs_encoder.obs_nets.cam.{name}': each for name, each in stored.items()}
    config = policy_config(crop_shape=[64, 64], eval_fixed_crop=True)
    found = read_hybrid(config, tensors | normalizers('cam', 'state'))
    assert found.remarks == ()
    assert found.read == ('obs_encoder.obs_nets.cam.',)
    with torch.no_grad():
        features, _ = found.encoder.eval()(STATE, [images])
    # 1.5 pixels at the left: torchvision rounds to 2, robomimic down to 1.
    shifted = VisualCore(VisualCoreSpec(**{**vars(SPEC), 'crop_rounds': True})).eval()
    shifted.load_state_dict(core.state_dict())
    assert torch.equal(features[..., :3], STATE)
    expected = torch.relu(seen(shifted, images, 2.0, -1.0))
    assert torch.allclose(features[..., 3:], expected, atol=1e-6)
    assert not torch.allclose(expected, torch.relu(seen(core, images, 2.0, -1.0)))
    random = read_hybrid(policy_config(crop_shape=[64, 64]), tensors | normalizers('cam', 'state'))
    assert 'crops at random' in random.remarks[0]


def test_the_image_policy_has_cameras_first_and_one_network_if_shared(images: Tensor) -> None:
    shared = VisualCore(VisualCoreSpec(64, 64, norm='group', pooling='mean', features=None)).eval()
    tensors = {
        f'obs_encoder.key_model_map.rgb.{name.removeprefix("backbone.")}': each
        for name, each in shared.state_dict().items()
    }
    encoder = {
        'share_rgb_model': True,
        'rgb_model': {'name': 'resnet18'},
        'crop_shape': [64, 64],
        'imagenet_norm': True,
    }
    config = policy_config(obs_encoder=encoder)
    found = read_multi_image(config, tensors | normalizers('cam', 'state'))
    assert found.read == ('obs_encoder.key_model_map.rgb.',)
    with torch.no_grad():
        features, _ = found.encoder.eval()(STATE, [images])
    image = images.permute(0, 1, 4, 2, 3).float().flatten(0, 1) / 255.0 * 2.0 - 1.0
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    cropped = image[:, :, 1:65, 2:66]
    with torch.no_grad():
        expected = shared((cropped - mean) / std).unflatten(0, (2, 2))
    assert torch.allclose(features[..., :512], expected, atol=1e-5)
    assert torch.equal(features[..., 512:], STATE)


def test_a_weight_that_differs_from_its_second_name_is_refused(stored: dict[str, Tensor]) -> None:
    spoiled = {**stored, 'nets.1.nets.weight': stored['nets.1.nets.weight'] + 1.0}
    with pytest.raises(PolicyImportError, match='should be the same weight'):
        named_as_here(spoiled, 'cam')


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(PolicyImportError, match='larger than the image'):
        CentreCrop(VisualCoreSpec(20, 20, crop=(21, 20)))
