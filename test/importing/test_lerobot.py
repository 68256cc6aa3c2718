# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's checkpoints of three generations become base policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_checkpoints import (
    GENERATIONS,
    MODES,
    RATE_HZ,
    SIZE,
    STATE,
    narrow_resnet,
    options,
    statistics,
    write_checkpoint,
    write_dataset,
)
from safetensors.torch import load_file

from residual_rl_ros.base_policy.inputs import Context
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.importing.checkpoint import import_checkpoint
from residual_rl_ros.importing.export import export, reference
from residual_rl_ros.importing.lerobot.assembly import BUILDERS, own_weights
from residual_rl_ros.importing.lerobot.folder import LerobotFolder, read_folder
from residual_rl_ros.importing.lerobot.statistics import read_statistics
from residual_rl_ros.importing.mapping import PolicyMap
from residual_rl_ros.importing.policy import ImportedPolicy, build_empty, check_fit

KINDS = tuple(MODES)
DATA = Path(__file__).resolve().parents[1] / 'data'


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with narrow_resnet():
        yield


def samples(policy: ImportedPolicy, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [each.sample(batch, generator) for each in policy.inputs]


@pytest.mark.parametrize('kind', KINDS)
def test_a_checkpoint_becomes_a_base_policy_with_the_actions_of_torch(
    kind: str, tmp_path: Path
) -> None:
    policy = import_checkpoint(write_checkpoint(tmp_path / 'c', kind), options(ddim_steps=2))
    parity = export(policy, tmp_path / 'policy.onnx', batches=(1, 3))
    assert parity.error <= 1e-5

    made = OnnxBasePolicy(tmp_path / 'policy.onnx')
    assert made.metadata == replace(policy.metadata, parity=float(f'{parity.error:.2g}'))
    values = dict(zip([each.name for each in policy.inputs], samples(policy), strict=True))
    images = {each.name: values[each.name][0].numpy() for each in made.metadata.images}
    # Two noises for one window: a batch.
    one = [
        value[:1].expand_as(value) if name != 'noise' else value for name, value in values.items()
    ]
    expected = reference(policy, one)[0].numpy()
    rows = made.plan(
        values['observation'][0].numpy(), values['noise'].numpy(), Context(images=images)
    )
    np.testing.assert_allclose(rows[:, :2], expected[0], atol=1e-5)
    np.testing.assert_allclose(rows[:, 2:], expected[1], atol=1e-5)


def test_cameras_with_batch_normalisation_act_as_in_torch(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / 'c', 'diffusion', use_group_norm=False)
    policy = import_checkpoint(folder, options(ddim_steps=2))
    assert export(policy, tmp_path / 'policy.onnx', batches=(1, 3)).error <= 1e-5


def test_a_feature_that_the_normalizer_does_not_name_is_not_normalised(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / 'c', 'act')
    path = folder / 'policy_preprocessor.json'
    processor = json.loads(path.read_text())
    del processor['steps'][-1]['config']['features']['observation.state']
    path.write_text(json.dumps(processor))
    made = read_statistics(read_folder(folder)).normalisations
    modes = {key: each.mode for key, each in made.items()}
    assert (modes['observation.state'], modes['action']) == ('IDENTITY', 'MEAN_STD')


@pytest.mark.parametrize('kind', KINDS)
def test_all_generations_of_a_checkpoint_act_alike(kind: str, tmp_path: Path) -> None:
    policies = [
        import_checkpoint(write_checkpoint(tmp_path / each, kind, each), options(ddim_steps=2))
        for each in GENERATIONS
    ]
    values = samples(policies[0])
    first, *others = [reference(policy, values) for policy in policies]
    for other in others:
        for one, two in zip(first, other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    # The old ones do not know the range of the actions where mean and deviation scale them.
    assert {policy.metadata.kind for policy in policies} == {kind}
    assert {policy.metadata.source for policy in policies} == {f'lerobot {kind}'}


def test_the_executed_part_of_a_chunk_begins_with_the_newest_observation(tmp_path: Path) -> None:
    found = {
        kind: import_checkpoint(write_checkpoint(tmp_path / kind, kind), options()).metadata
        for kind in KINDS
    }
    assert {kind: (m.exec_start, m.exec_steps, m.horizon) for kind, m in found.items()} == {
        'act': (0, 4, 5),
        'diffusion': (1, 4, 8),
        'vqbet': (0, 3, 3),
    }
    assert {kind: m.noise_default for kind, m in found.items()} == {
        'act': 'zero',
        'diffusion': 'normal',
        'vqbet': 'normal',
    }
    assert found['act'].noise_shape == (4,)
    assert found['vqbet'].noise_shape == (2, 4)


def test_the_latent_of_act_is_its_noise_and_zero_is_the_original(tmp_path: Path) -> None:
    """Without `use_vae` LeRobot has a latent of zeros, and no other can be had."""
    with_latent = import_checkpoint(write_checkpoint(tmp_path / 'a', 'act'), options())
    without = import_checkpoint(
        write_checkpoint(tmp_path / 'b', 'act', use_vae=False), options(noise_default='normal')
    )
    assert [each.name for each in without.inputs] == ['observation', 'wrist', 'front']
    values = samples(with_latent)
    values[1] = torch.zeros_like(values[1])
    original = reference(without, [values[0], *values[2:]])[0]
    torch.testing.assert_close(reference(with_latent, values)[0], original)
    values[1] = torch.ones_like(values[1])
    assert (reference(with_latent, values)[0] - original).abs().max() > 1e-3


@pytest.mark.parametrize('kind', KINDS)
def test_features_depend_on_the_newest_image_of_their_camera_alone(
    kind: str, tmp_path: Path
) -> None:
    policy = import_checkpoint(write_checkpoint(tmp_path, kind), options(ddim_steps=1))
    assert policy.outputs[-1] == 'front.features'
    values = samples(policy)
    before = reference(policy, values)[-1]
    others = samples(policy)
    others = [torch.zeros_like(each) for each in others]
    others[-1][:, -1] = values[-1][:, -1]
    torch.testing.assert_close(reference(policy, others)[-1], before)
    others[-1][:, -1, :10] = 255 - others[-1][:, -1, :10]
    assert (reference(policy, others)[-1] - before).abs().max() > 1e-5
    names = policy.metadata.images[0].features
    assert before.shape == (2, len(names))


def test_a_map_renames_converts_and_reorders(tmp_path: Path) -> None:
    """The same policy in degrees and in radians, in another order, with a number beside."""
    folder = write_checkpoint(tmp_path, 'act')
    plain = import_checkpoint(folder, options())
    mapped = import_checkpoint(
        folder,
        options(
            map=PolicyMap(
                rate_hz=RATE_HZ,
                observation={
                    'state.0': {'name': 'pan', 'unit': 'degrees'},
                    'state.2': {'name': 'grip', 'checkpoint': [-100, 100], 'robot': [0, 0.08]},
                },
                observation_order=(
                    'grip',
                    'force',
                    'pan',
                    'state.1',
                    'environment_state.0',
                    'environment_state.1',
                ),
                action={'action.1': {'name': 'turn', 'unit': 'degrees'}},
                action_order=('turn', 'action.0'),
                images={'wrist': 'camera_wrist'},
            )
        ),
    )
    meta = mapped.metadata
    assert meta.observation_names[:3] == ('grip', 'force', 'pan')
    assert meta.action_names == ('turn', 'action.0')
    assert {each.name for each in meta.images} == {'camera_wrist', 'front'}
    assert meta.action_min[0] == pytest.approx(np.radians(plain.metadata.action_min[1]))
    values = samples(plain)
    seen = values[0]
    robot = torch.zeros(2, 1, 6)
    robot[..., 0] = (seen[..., 2] + 100) / 200 * 0.08
    robot[..., 1] = 7.0
    robot[..., 2] = torch.deg2rad(seen[..., 0])
    robot[..., 3:] = seen[..., [1, 3, 4]]
    there = reference(mapped, [robot, *values[1:]])[0]
    here = reference(plain, values)[0]
    torch.testing.assert_close(there[..., 1], here[..., 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(there[..., 0], torch.deg2rad(here[..., 1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('version', ['v3.0', 'v2.1'])
def test_a_dataset_names_the_numbers_and_says_rate_and_range(version: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / 'c', 'act', 'weights')
    dataset = write_dataset(tmp_path / 'd', version)
    meta = import_checkpoint(folder, options(map=PolicyMap(), dataset=dataset)).metadata
    assert meta.observation_names[:STATE] == ('pan.pos', 'lift.pos', 'gripper.pos')
    assert meta.observation_names[STATE:] == ('environment_state.0', 'environment_state.1')
    assert meta.action_names == ('pan', 'gripper')
    assert meta.rate_hz == 25.0
    assert (meta.action_min, meta.action_max) == ((-1.0, 0.0), (1.0, 2.0))


def test_the_range_of_the_actions_is_that_of_the_training_data(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 'act')
    known = statistics('act')['action']
    meta = import_checkpoint(folder, options()).metadata
    np.testing.assert_allclose(meta.action_min, known['min'])
    np.testing.assert_allclose(meta.action_max, known['max'])


def test_a_renamed_camera_has_the_name_that_the_robot_gives_it(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 'diffusion')
    path = folder / 'policy_preprocessor.json'
    content = json.loads(path.read_text())
    names = {'observation.images.top': 'observation.images.front'}
    content['steps'][0]['config']['rename_map'] = names
    path.write_text(json.dumps(content))
    images = import_checkpoint(folder, options()).metadata.images
    assert {each.name for each in images} == {'top', 'wrist'}
    assert {(each.height, each.width) for each in images} == {SIZE}


def test_the_folder_of_a_training_run_leads_to_its_last_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'checkpoints' / 'last' / 'pretrained_model', 'act')
    assert import_checkpoint(tmp_path, options()).metadata.kind == 'act'


def test_a_cache_of_links_is_read(tmp_path: Path) -> None:
    """The cache of Hugging Face has links to its blobs in place of files."""
    folder = write_checkpoint(tmp_path / 'blobs', 'act')
    (tmp_path / 'snapshot').mkdir()
    for file in folder.iterdir():
        (tmp_path / 'snapshot' / file.name).symlink_to(file)
    assert import_checkpoint(tmp_path / 'snapshot', options()).metadata.kind == 'act'


def test_names_that_torch_compile_has_changed_are_found(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 'diffusion')
    weights = load_file(folder / 'model.safetensors')
    changed = {name.replace('.unet.', '.unet._orig_mod.'): value for name, value in weights.items()}
    gone = {name: None for name in weights if name not in changed}
    write_checkpoint(tmp_path, 'diffusion', weights={**changed, **gone})
    assert import_checkpoint(folder, options()).metadata.kind == 'diffusion'


@pytest.mark.parametrize(
    ('kind', 'config', 'remark'),
    [
        ('diffusion', {}, 'sampled by 10 steps of DDIM; LeRobot takes 50 of DDPM'),
        ('act', {'temporal_ensemble_coeff': 0.01}, 'asks for temporal ensembling (0.01)'),
        ('act', {'use_vae': False}, 'trained without a latent'),
        ('act', {}, 'does not name the numbers of observation.state'),
        ('old act', {}, 'their mean ± 3 standard deviations'),
    ],
)
def test_what_differs_from_the_original_is_said(
    kind: str, config: dict[str, object], remark: str, tmp_path: Path
) -> None:
    age, _, kind = kind.rpartition(' ')
    generation = 'weights' if age else 'processors'
    policy = import_checkpoint(write_checkpoint(tmp_path, kind, generation, **config), options())
    assert any(remark in each for each in policy.remarks)


def test_a_checkpoint_made_for_ddim_keeps_its_number_of_steps(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path, 'diffusion', noise_scheduler_type='DDIM', num_inference_steps=3
    )
    policy = import_checkpoint(folder, options())
    assert not any('DDIM' in each for each in policy.remarks)
    assert len(policy.network.core.loop.rows) == 3


@pytest.mark.parametrize('kind', KINDS)
def test_the_names_and_shapes_that_lerobot_writes_fit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that LeRobot 0.4.4 itself wrote; nothing is left over but what the training needs."""
    monkeypatch.undo()
    recorded = json.loads((DATA / 'lerobot_0_4_4_weights.json').read_text())[kind]
    write_checkpoint(tmp_path, kind)
    (tmp_path / 'config.json').write_text(json.dumps(recorded['config']))
    weights = {
        name: torch.empty(shape, device='meta') for name, shape in recorded['weights'].items()
    }
    weights = {name: w for name, w in weights.items() if not name.endswith('discretized')} | {
        name: torch.tensor(True) for name in weights if name.endswith('discretized')
    }
    read = read_folder(tmp_path)
    folder = LerobotFolder(
        read.path, read.policy_type, read.config, read.inputs, read.action, weights
    )
    with pytest.MonkeyPatch.context() as patch:
        from residual_rl_ros.importing.networks import resnet

        patch.setattr(resnet, 'STEM', 64)
        patch.setattr(resnet, 'WIDTHS', (64, 128, 256, 512))
        built = build_empty(lambda: BUILDERS[kind](folder, options()))
    check_fit(built.core, own_weights(folder, built), kind)
