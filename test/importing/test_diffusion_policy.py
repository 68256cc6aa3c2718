# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of diffusion_policy.

`test/data/checkpoints/diffusion_policy_lowdim.ckpt` was saved by diffusion_policy itself (random
weights; widths 8 and 16, dill and OmegaConf as they are), and `originals.json` has what it did with
the DDIM sampler of diffusers, 4 steps, for three windows and noises.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_zip_builders import Call, Name, omegaconf, write_torch_zip

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.importing.checkpoint import import_checkpoint
from residual_rl_ros.importing.export import export
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap
from residual_rl_ros.importing.policy import ImportedPolicy
from residual_rl_ros.importing.stored_config import plain_config
from residual_rl_ros.importing.torch_zip import TorchZip

DATA = Path(__file__).parents[1] / 'data' / 'checkpoints'
ORIGINAL = DATA / 'diffusion_policy_lowdim.ckpt'
Content = dict[str, Any]


def imported(path: Path, rate_hz: float = 10.0, **options: Any) -> ImportedPolicy:
    return import_checkpoint(path, ImportOptions(map=PolicyMap(rate_hz=rate_hz), **options))


@pytest.fixture(scope='module')
def original() -> Content:
    """Return configuration and averaged weights of the original."""
    with TorchZip(ORIGINAL) as file:
        config = plain_config(file.content['cfg'], 'cfg').content
        return {
            'cfg': dict(config),
            'ema': file.tensors(file.content['state_dicts']['ema_model'], 'ema'),
        }


@pytest.fixture
def rewritten(original: Content, tmp_path: Path) -> Callable[..., Path]:
    """Return what writes the original again, changed."""

    def write(edit: Callable[[Content, dict[str, torch.Tensor]], None] = lambda c, t: None) -> Path:
        config, tensors = json.loads(json.dumps(original['cfg'])), dict(original['ema'])
        edit(config, tensors)
        content = {'cfg': omegaconf(config), 'state_dicts': {'ema_model': tensors}}
        return write_torch_zip(tmp_path / 'policy.ckpt', content)

    return write


def test_the_graph_does_what_the_original_did(tmp_path: Path) -> None:
    policy = imported(ORIGINAL, ddim_steps=4)
    assert export(policy, tmp_path / 'policy.onnx').error < 1e-5
    base = OnnxBasePolicy(tmp_path / 'policy.onnx')
    meta = base.metadata
    assert (meta.n_obs_steps, meta.horizon, meta.exec_start, meta.exec_steps) == (2, 8, 1, 4)
    assert meta.observation_names == ('obs.0', 'obs.1', 'obs.2')
    assert meta.action_names == ('action.0', 'action.1')
    what = json.loads((DATA / 'originals.json').read_text())['diffusion_policy_lowdim']
    span = np.array(meta.action_max) - np.array(meta.action_min)
    for window, noise, action in zip(
        what['observations'], what['noise'], what['actions'], strict=True
    ):
        rows = base.plan(np.array(window, np.float32), np.array([noise], np.float32))
        assert np.abs((rows - np.array(action)) / (span / 2)).max() < 1e-5


def test_the_range_of_the_actions_is_that_of_the_training_data(original: Content) -> None:
    policy = imported(ORIGINAL)
    low = original['ema']['normalizer.params_dict.action.input_stats.min']
    assert policy.metadata.action_min == pytest.approx(low.tolist())
    assert policy.inputs[0].centre.shape == (2, 3)
    assert 'sampled by 10 steps of DDIM' in policy.remarks[0]


def test_a_sampler_of_ddim_keeps_its_steps(rewritten: Callable[..., Path]) -> None:
    def ddim(config: Content, _: Any) -> None:
        config['policy']['noise_scheduler']['_target_'] = 'diffusers.DDIMScheduler'
        config['policy']['num_inference_steps'] = 3

    policy = imported(rewritten(ddim))
    assert policy.remarks == ()
    assert len(policy.network.loop.rows) == 3  # type: ignore[arg-type]


def test_the_scheduler_of_the_checkpoint_clips_to_its_range(rewritten: Callable[..., Path]) -> None:
    def clip(config: Content, _: Any) -> None:
        values = {'clip_sample_range': 2.5, 'thresholding': False, 'trained_betas': None}
        config['policy']['noise_scheduler'] |= values

    assert imported(rewritten(clip)).network.loop.schedule.clip == 2.5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [('oa_step_convention', False, (8, 2)), ('pred_action_steps_only', True, (4, 0))],
)
def test_the_chunk_begins_where_the_configuration_says(
    key: str, value: bool, expected: tuple[int, int], rewritten: Callable[..., Path]
) -> None:
    def edit(config: Content, _: Any) -> None:
        config['policy'][key] = value

    meta = imported(rewritten(edit)).metadata
    assert (meta.horizon, meta.exec_start) == expected


def change(path: str, value: Any) -> Callable[[Content, Any], None]:
    """Return what changes a value of the configuration; None removes it."""

    def edit(config: Content, _: Any) -> None:
        *above, last = path.split('.')
        place = config
        for key in above:
            place = place[key]
        place[last] = value

    return edit


def drop(name: str) -> Callable[[Content, dict[str, torch.Tensor]], None]:
    return lambda config, tensors: (tensors.pop(name), None)[1]


def add(name: str) -> Callable[[Content, dict[str, torch.Tensor]], None]:
    return lambda config, tensors: tensors.update({name: torch.zeros(2)})


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (change('policy._target_', 'a.b.BETLowdimPolicy'), 'BETLowdimPolicy.*expected'),
        (change('policy._target_', None), 'policy._target_ of cfg'),
        (change('policy.horizon', '${horizon}'), "'\\${horizon}', expected an integer"),
        (change('policy.horizon', True), 'True, expected an integer'),
        (change('policy.obs_dim', 10**9), 'expected 1 to 10000'),
        (change('policy.obs_dim', 4), 'has 3 numbers, expected 4'),
        (change('policy.n_action_steps', 40), 'exceeds horizon'),
        (change('policy.horizon', 7), 'expected a multiple of 2'),
        (change('policy.n_obs_steps', 3), 'takes 6 features.* have 9'),
        (change('policy.obs_as_global_cond', False), 'obs_as_global_cond is false'),
        (change('policy.noise_scheduler._target_', 'x.PNDM'), 'x.PNDM'),
        (change('policy.noise_scheduler.beta_schedule', 'mine'), 'mine'),
        (change('policy.noise_scheduler.num_train_timesteps', 10**9), 'expected 1 to 10000'),
        (change('policy.model.n_groups', 3), 'cannot be built'),
        (change('training.use_ema', False), 'lacks model'),
        (change('policy.noise_scheduler.trained_betas', [0.1]), r'trained_betas of cfg .*0\.1'),
        (change('policy.noise_scheduler.timestep_spacing', 'trailing'), 'timestep_spacing'),
        (change('policy.noise_scheduler.rescale_betas_zero_snr', True), 'rescale_betas_zero_snr'),
        (change('policy.noise_scheduler.variance_type', 'learned'), 'variance_type'),
        (change('policy.noise_scheduler.clip_sample_range', 0), 'clip_sample_range is 0.0'),
        (change('policy.noise_scheduler.eta', 0.5), 'has eta, which is not known'),
        (change('policy.noise_scheduler.steps_offset', -1), 'steps_offset is -1'),
        (drop('normalizer.params_dict.obs.scale'), 'before the normalizer was fitted'),
        (drop('model.final_conv.1.bias'), r'lacks final_conv\.1\.bias'),
        (drop('model.diffusion_step_encoder.3.weight'), 'has no U-Net over time'),
        (add('model.local_cond_encoder.0.weight'), 'obs_as_local_cond'),
        (add('model.more'), 'has more, which fits nowhere'),
        (add('critic.weight'), 'has critic.weight, which fits nowhere'),
        (add('obs_encoder.obs_nets.cam.a'), 'has obs_encoder.obs_nets.cam.a, which fits nowhere'),
        (add('obs_encoder.key_model_map.a.b'), 'obs_encoder.key_model_map.a.b, which fits nowhere'),
    ],
)
def test_what_cannot_be_imported_is_named(
    edit: Callable[..., None], message: str, rewritten: Callable[..., Path]
) -> None:
    with pytest.raises(ResidualRLError, match=message):
        imported(rewritten(edit))


def test_the_control_rate_must_be_given() -> None:
    with pytest.raises(ResidualRLError, match='control rate'):
        imported(ORIGINAL, rate_hz=0.0)


def test_a_file_of_neither_framework_says_what_it_has(tmp_path: Path) -> None:
    path = write_torch_zip(tmp_path / 'a.pth', {'weight': torch.zeros(2)})
    with pytest.raises(ResidualRLError, match='has weight, expected a checkpoint of robomimic'):
        imported(path)


def test_a_checkpoint_that_wants_to_call_something_leaves_no_file(tmp_path: Path) -> None:
    content = {'cfg': Call(Name('os', 'system'), ('true',)), 'state_dicts': {}}
    with pytest.raises(ResidualRLError, match=r"asks for 'os\.system'"):
        imported(write_torch_zip(tmp_path / 'a.ckpt', content))
    assert [each.name for each in tmp_path.iterdir()] == ['a.ckpt']
