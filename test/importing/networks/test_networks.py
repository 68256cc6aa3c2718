# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks of imported policies against torch's own, and against arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.lerobot.act import image_places
from residual_rl_ros.importing.lerobot.core import CenterCrop, MultiheadAttention, Resize
from residual_rl_ros.importing.lerobot.vqbet import gumbel
from residual_rl_ros.importing.networks.ddim import DenoisingLoop, NoiseSchedule, ddim_steps
from residual_rl_ros.importing.networks.resnet import FrozenBatchNorm, ResNet, feature_map_size
from residual_rl_ros.importing.networks.unet_1d import ConvBlock
from residual_rl_ros.importing.networks.window_encoder import SpatialSoftmax


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    ours = MultiheadAttention(12, 3)
    ours.load_state_dict(theirs.state_dict())
    query, key = torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(query, key, key), theirs(query, key, key)[0])


def test_frozen_batch_norm_is_batch_norm_that_does_not_learn() -> None:
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(5).eval()
    for tensor in (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 1.5)
    ours = FrozenBatchNorm(5)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k.count('_') < 2})
    image = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(ours(image), theirs(image))


@pytest.mark.parametrize('dilate', [False, True])
@pytest.mark.parametrize('size', [(33, 40), (64, 97)])
def test_the_size_of_a_feature_map_is_known_before_it_is_made(
    size: tuple[int, int], dilate: bool
) -> None:
    with torch.device('meta'):
        network = ResNet('resnet50' if dilate else 'resnet18', 'batch', dilate)
        found = network(torch.empty(1, 3, *size)).shape
    assert tuple(found) == (1, network.channels, *feature_map_size(*size, dilate))


@pytest.mark.parametrize(
    ('variant', 'dilate', 'message'),
    [
        ('vgg16', False, 'expected one of resnet18'),
        ('resnet18', True, 'resnet18, which has no dilation'),
    ],
)
def test_a_backbone_that_does_not_exist_is_named(variant: str, dilate: bool, message: str) -> None:
    with pytest.raises(PolicyImportError, match=message):
        ResNet(variant, 'batch', dilate)


def test_a_keypoint_is_where_its_channel_is_bright() -> None:
    softmax = SpatialSoftmax(2, 3, 5)
    image = torch.zeros(1, 2, 3, 5)
    image[0, 0, 0, 4] = 100.0
    image[0, 1, 2, 2] = 100.0
    torch.testing.assert_close(softmax(image), torch.tensor([[[1.0, -1.0], [0.0, 1.0]]]))


@pytest.mark.parametrize(('before', 'after'), [((12, 17), (7, 9)), ((8, 8), (11, 8))])
def test_resizing_by_products_is_that_of_torch(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    image = torch.rand(2, 3, *before)
    expected = nn.functional.interpolate(
        image, size=after, mode='bilinear', antialias=True, align_corners=False
    )
    torch.testing.assert_close(Resize(before, after)(image), expected)


def test_the_middle_of_an_image_is_cut_out() -> None:
    image = torch.arange(20.0).reshape(1, 4, 5).expand(3, 4, 5)[None]
    # (4 - 2) / 2 rows are above; half of 5 - 2 columns rounds to the even 2.
    torch.testing.assert_close(CenterCrop((4, 5), (2, 2))(image), image[..., 1:3, 2:4])
    with pytest.raises(PolicyImportError, match=r'crop_shape is \[5, 5\]'):
        CenterCrop((4, 5), (5, 5))


def test_places_of_a_feature_map_tell_rows_then_columns() -> None:
    places = image_places(2, 3, 8).reshape(2, 3, 8)
    turn = 2 * math.pi
    np.testing.assert_allclose(places[0, 2, 0], math.sin(turn / 2), atol=1e-5)
    np.testing.assert_allclose(places[0, 1, 4], math.sin(turn * 2 / 3), atol=1e-5)
    np.testing.assert_allclose(places[0, 1, 5], math.cos(turn * 2 / 3), atol=1e-5)
    assert (places[0, 0, :4] == places[0, 2, :4]).all()
    assert (places[0, 1, 4:] == places[1, 1, 4:]).all()


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_a_batch_is_convolved_at_once_and_its_rows_do_not_mix(kernel_size: int) -> None:
    block, x = ConvBlock(3, 8, kernel_size), torch.randn(4, 3, 6)
    torch.testing.assert_close(block(x), block.block(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('prediction', ['epsilon', 'sample', 'v_prediction'])
@pytest.mark.parametrize('count', [1, 4])
def test_a_network_that_knows_the_chunk_denoises_to_it(prediction: str, count: int) -> None:
    schedule = NoiseSchedule(train_steps=20, prediction=prediction)
    signal = schedule.signal()
    chunk = 0.9 * (2 * torch.rand(3, 4, 2) - 1)

    def predict(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        share = signal[int(step[0])]
        noise = (x - math.sqrt(share) * chunk) / math.sqrt(1 - share)
        speed = math.sqrt(share) * noise - math.sqrt(1 - share) * chunk
        return {'epsilon': noise, 'sample': chunk, 'v_prediction': speed}[prediction]

    found = DenoisingLoop(schedule, count)(predict, torch.randn(3, 4, 2))
    torch.testing.assert_close(found, chunk, atol=1e-4, rtol=1e-4)


def test_the_steps_of_ddim_are_those_of_diffusers() -> None:
    """`leading` spacing: 100 // 10 apart, from 90 to 0; the last ends without noise."""
    steps = ddim_steps(NoiseSchedule(), 10)
    assert [each.step for each in steps] == list(range(90, -1, -10))
    assert steps[-1].target == 1.0
    assert all(now.target == after.signal for now, after in pairwise(steps))


@pytest.mark.parametrize(
    ('change', 'count', 'message'),
    [
        ({}, 101, 'ddim_steps is 101, expected 1 to 100'),
        ({'beta_schedule': 'sigmoid'}, 5, "beta_schedule is 'sigmoid', expected squared"),
        ({'prediction': 'score'}, 5, "prediction_type is 'score', expected one of"),
        ({'steps_offset': 10}, 10, 'steps_offset is 10: .* from 10 to 100, expected 0 to 99'),
        ({'steps_offset': -1}, 10, 'steps_offset is -1: .* from -1 to 89, expected 0 to 99'),
        ({'beta_schedule': 'linear', 'beta_end': 1.5}, 5, 'beta_end 1.5, expected numbers above 0'),
        ({'beta_schedule': 'linear', 'beta_start': -0.1}, 5, 'beta_start is -0.1'),
        ({'beta_schedule': 'scaled_linear', 'beta_start': -0.1}, 5, 'beta_start is -0.1'),
    ],
)
def test_a_schedule_that_does_not_exist_is_named(
    change: dict[str, Any], count: int, message: str
) -> None:
    with pytest.raises(PolicyImportError, match=message):
        ddim_steps(NoiseSchedule(**change), count)


def test_gumbel_noise_draws_with_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([0.5, -1.0, 1.2, 0.0])
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))
    drawn = (logits + gumbel(noise)).argmax(dim=1)
    shares = torch.bincount(drawn, minlength=4) / len(noise)
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.01, rtol=0.0)


def test_zero_noise_takes_the_largest_and_extreme_noise_is_finite() -> None:
    assert len(set(gumbel(torch.zeros(4)).tolist())) == 1
    assert torch.isfinite(gumbel(torch.tensor([-20.0, 20.0]))).all()
