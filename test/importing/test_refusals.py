# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that cannot be imported are refused by name, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot_checkpoints import (
    POSTPROCESSOR_STATE,
    PREPROCESSOR_STATE,
    features,
    narrow_resnet,
    options,
    write_checkpoint,
    write_dataset,
)
from safetensors.torch import load_file, save_file

from residual_rl_ros.errors import ConfigError, PolicyImportError
from residual_rl_ros.importing.checkpoint import import_checkpoint
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap

Change = Callable[[Path], None]


@pytest.fixture(scope='module')
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that is sound; nothing changes it."""
    with narrow_resnet():
        return write_checkpoint(tmp_path_factory.mktemp('original'), 'act')


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy to damage."""
    with narrow_resnet():
        yield Path(shutil.copytree(original, tmp_path / 'checkpoint'))


def edited(**changes: Any) -> Change:
    """Return a change of keys of the configuration."""

    def change(folder: Path) -> None:
        path = folder / 'config.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def step(index: int, **changes: Any) -> Change:
    """Return a change of a step of the preprocessor."""

    def change(folder: Path) -> None:
        path = folder / 'policy_preprocessor.json'
        content = json.loads(path.read_text())
        content['steps'][index] |= changes
        path.write_text(json.dumps(content))

    return change


def tensors(file: str, **changes: torch.Tensor | None) -> Change:
    """Return a change of tensors; None leaves one out."""

    def change(folder: Path) -> None:
        found = {**load_file(folder / file), **changes}
        save_file({k: v for k, v in found.items() if v is not None}, folder / file)

    return change


def content(file: str, data: bytes) -> Change:
    """Return a change of a whole file."""
    return lambda folder: void((folder / file).write_bytes(data))


def void(_: object) -> None:
    """Return nothing."""


def cut(folder: Path) -> None:
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-10])


def huge_header(folder: Path) -> None:
    path = folder / 'model.safetensors'
    path.write_bytes(struct.pack('<Q', 2**40) + path.read_bytes()[8:])


def device(folder: Path) -> None:
    (folder / 'model.safetensors').unlink()
    (folder / 'model.safetensors').symlink_to('/dev/zero')


def pipe(folder: Path) -> None:
    (folder / 'model.safetensors').unlink()
    os.mkfifo(folder / 'model.safetensors')


def without(file: str) -> Change:
    """Return the loss of a file."""
    return lambda folder: (folder / file).unlink()


MODEL = 'model.safetensors'
LATENT = 'model.encoder_latent_input_proj.bias'
CASES: dict[str, tuple[Change, str]] = {
    'unknown type': (
        edited(type='smolvla'),
        "of type 'smolvla', supported are act, diffusion, vqbet; export any other with --module",
    ),
    'no type': (edited(type=None), 'of type None, supported are'),
    'no JSON': (content('config.json', b'{'), 'config.json is not JSON'),
    'a list': (content('config.json', b'[]'), 'is no map of keys'),
    'no inputs': (edited(input_features={}), 'input_features is {}, expected a map of 1 to 64'),
    'no action': (
        edited(output_features={'velocity': {'type': 'ACTION', 'shape': [2]}}),
        'has the outputs velocity, expected action',
    ),
    'grey images': (
        edited(input_features={'observation.image': {'type': 'VISUAL', 'shape': [1, 40, 40]}}),
        r'image observation.image has shape \[1, 40, 40\], expected \[3, height, width\]',
    ),
    'a huge feature': (
        edited(input_features={'observation.state': {'type': 'STATE', 'shape': [10**9]}}),
        'expected 1 to 3 whole numbers from 1 to 4096',
    ),
    'images alone': (
        edited(input_features={'observation.image': {'type': 'VISUAL', 'shape': [3, 40, 40]}}),
        'takes no observation.state and no observation.environment_state',
    ),
    'terabytes': (edited(dim_feedforward=1_000_000), 'do not fit its configuration'),
    'a million layers': (edited(n_encoder_layers=10**6), 'n_encoder_layers is 1000000, expected'),
    'another width': (
        edited(dim_model=32),
        r'has encoder.layers.0.self_attn.in_proj_weight of shape \[48, 16\], expected \[96, 32\]',
    ),
    'heads that do not divide': (edited(n_heads=3), 'dim_model: is 16, expected a multiple'),
    'an unknown activation': (edited(feedforward_activation='glu'), 'expected one of relu, gelu'),
    'no weights': (without(MODEL), 'has no model.safetensors; copy the whole folder'),
    'a weight is missing': (
        tensors(MODEL, **{LATENT: None}),
        'the checkpoint lacks encoder_latent_input_proj.bias; give both files',
    ),
    'a weight fits nowhere': (
        tensors(MODEL, **{'model.lora_A.weight': torch.zeros(2)}),
        'the checkpoint has lora_A.weight, which fits nowhere',
    ),
    'a weight of another policy': (
        tensors(MODEL, **{'diffusion.unet.x': torch.zeros(2)}),
        'has diffusion.unet.x, which fits nowhere',
    ),
    'weights that are no numbers': (
        tensors(MODEL, **{LATENT: torch.full((16,), torch.nan)}),
        'encoder_latent_input_proj.bias of act in .* not finite; the training has diverged',
    ),
    'a truncated file': (cut, 'is no readable safetensors file: .*copy the checkpoint again'),
    'an empty file': (content(MODEL, b''), 'its header has 0 of 0 bytes'),
    'a huge header': (huge_header, 'its header has 1099511627776 of'),
    'many tensors': (
        content(MODEL, struct.pack('<Q', 480_000) + b'{"data_offsets": "data_offsets"}' * 15_000),
        'it has 30000 tensors, expected at most 20000',
    ),
    'a link to a device': (device, 'it is no regular file'),
    'a pipe': (pipe, 'it is no regular file'),
    'no statistics at all': (
        without('policy_preprocessor.json'),
        'observation.state is normalised by MEAN_STD, but the checkpoint has no mean, std of it',
    ),
    'no postprocessor': (without('policy_postprocessor.json'), 'policy_postprocessor.json cannot'),
    'no file of statistics': (without(PREPROCESSOR_STATE), 'No such file'),
    'no statistics of a camera': (
        tensors(PREPROCESSOR_STATE, **{'observation.images.front.std': None}),
        'observation.images.front is normalised by MEAN_STD, .* no std of it',
    ),
    'statistics of another robot': (
        tensors(POSTPROCESSOR_STATE, **{'action.mean': torch.zeros(7)}),
        r'mean of action has shape \[7\], expected \[2\]',
    ),
    'infinite statistics': (
        tensors(POSTPROCESSOR_STATE, **{'action.std': torch.full((2,), torch.inf)}),
        'std of action is not finite: the statistics were never filled',
    ),
    'statistics from elsewhere': (
        step(3, state_file='../../secret.safetensors'),
        "wants statistics from '../../secret.safetensors', expected a file beside it",
    ),
    'an unknown step': (
        step(1, registry_name='relative_actions_processor'),
        "has the step 'relative_actions_processor', which is not supported",
    ),
    'a step of somebody': (step(1, registry_name=['x']), r'has the step \[.x.\]'),
    'two normalizers': (
        step(1, registry_name='normalizer_processor'),
        'has two steps normalizer_processor, expected one',
    ),
    'no normalizer': (
        step(3, registry_name='to_batch_processor'),
        'has no step normalizer_processor, and config.json normalises observation.state by',
    ),
    'an unknown mode': (
        step(3, config={'norm_map': {'STATE': 'SIGMOID'}}),
        "observation.state is normalised by 'SIGMOID', expected one of IDENTITY, MEAN_STD",
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_a_damaged_checkpoint_is_refused_by_name(case: str, folder: Path) -> None:
    change, message = CASES[case]
    change(folder)
    with pytest.raises(PolicyImportError, match=message):
        import_checkpoint(folder, options())


def test_statistics_that_were_never_filled_are_refused_among_weights(tmp_path: Path) -> None:
    name = 'normalize_inputs.buffer_observation_state.mean'
    with narrow_resnet():
        never = {name: torch.full((3,), torch.inf)}
        folder = write_checkpoint(tmp_path, 'act', 'weights', weights=never)
        with pytest.raises(PolicyImportError, match=r'mean of observation\.state is not finite'):
            import_checkpoint(folder, options())


@pytest.mark.parametrize(
    ('kind', 'config', 'message'),
    [
        ('diffusion', {'horizon': 7}, 'horizon: is 7, expected a multiple of 2'),
        ('diffusion', {'down_dims': [8, 12]}, 'expected multiples of n_groups'),
        ('diffusion', {'down_dims': []}, 'down_dims: has 0 stages, expected 1 to 8'),
        ('diffusion', {'n_action_steps': 8}, 'n_action_steps: is 8, expected at most 7'),
        ('diffusion', {'beta_schedule': 'sigmoid'}, "beta_schedule is 'sigmoid'"),
        ('diffusion', {'crop_shape': [50, 50]}, r'crop_shape is \[50, 50\], expected at most'),
        ('vqbet', {'gpt_block_size': 5}, 'gpt_block_size: is 5, expected at least 6'),
        ('vqbet', {'input_features': features('act')}, 'expected one camera and observation.state'),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused(
    kind: str, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with narrow_resnet():
        folder = write_checkpoint(tmp_path, kind)
        edited(**config)(folder)
        with pytest.raises(PolicyImportError, match=message):
            import_checkpoint(folder, options())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'map': PolicyMap()}, 'does not say its control rate; give --rate-hz'),
        ({'map': PolicyMap(rate_hz=5.0, exec_steps=6)}, r'exec_steps 6 exceeds horizon 5; correct'),
        ({'map': PolicyMap(rate_hz=5.0, images={'front': 'noise'})}, 'the channel noise, which'),
        ({'dataset': Path('nowhere')}, 'is no LeRobot dataset with meta/info.json'),
    ],
)
def test_what_must_be_said_is_asked_for(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(PolicyImportError, match=message):
        import_checkpoint(folder, options(**changes))


def test_a_dataset_of_another_robot_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / 'd')
    stats = dataset / 'meta' / 'stats.json'
    stats.write_text(json.dumps({'action': {'min': [0.0], 'max': [1.0]}}))
    with narrow_resnet():
        folder = write_checkpoint(tmp_path / 'c', 'act', 'weights')
        with pytest.raises(PolicyImportError, match='has actions of 1 numbers, the checkpoint of'):
            import_checkpoint(folder, options(dataset=dataset))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda path: None, 'does not exist; give a folder of LeRobot'),
        (lambda path: path.mkdir(), 'has no config.json; expected a folder of LeRobot'),
        (lambda path: void(path.write_text('hello')), 'is no checkpoint that is known'),
        (lambda path: os.mkfifo(path), 'is no regular file'),
    ],
)
def test_a_path_that_is_no_checkpoint_is_refused(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / 'x')
    with pytest.raises(PolicyImportError, match=message):
        import_checkpoint(tmp_path / 'x', options())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [({'range_std': 0.0}, 'range_std is 0.0'), ({'noise_default': 'one'}, "noise is 'one'")],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((PolicyImportError, ConfigError), match=message):
        ImportOptions(**changes)
