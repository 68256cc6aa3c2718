# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of robomimic.

`test/data/checkpoints/robomimic_bc_rnn_gmm.pth` was saved by robomimic 0.5.0 itself (random
weights; two LSTM layers of 6, horizon 3, a mixture of 3), and `originals.json` has what it did: the
mean of the most likely component, for eight observations in a row.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_zip_builders import write_torch_zip

from residual_rl_ros.base_policy.inputs import Context
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import PolicyImportError, ResidualRLError
from residual_rl_ros.importing.checkpoint import import_checkpoint
from residual_rl_ros.importing.export import export
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap
from residual_rl_ros.importing.networks.step_policy import MixtureHead, gumbel
from residual_rl_ros.importing.policy import ImportedPolicy
from residual_rl_ros.importing.robomimic import _schedule
from residual_rl_ros.importing.stored_config import StoredConfig

DATA = Path(__file__).parents[1] / 'data' / 'checkpoints'
ORIGINALS = json.loads((DATA / 'originals.json').read_text())
Edit = Callable[[dict[str, Any]], None]


def config() -> dict[str, Any]:
    """Return what robomimic writes of behaviour cloning, as far as it is read."""
    return {
        'observation': {
            'modalities': {
                'obs': {'low_dim': ['object', 'pos'], 'rgb': []},
                'goal': {'low_dim': []},
            },
            'encoder': {'low_dim': {'core_class': None}},
        },
        'algo': {
            'actor_layer_dims': [4, 3],
            'gaussian': {'enabled': False},
            'gmm': {'enabled': False},
            'rnn': {'enabled': False},
            'transformer': {'enabled': False},
        },
        'train': {'action_keys': ['actions'], 'action_config': {'actions': {}}},
    }


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the weights of that: 5 observations, layers of 4 and 3, 2 actions."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        'policy.nets.mlp._model.0.weight': draw(4, 5),
        'policy.nets.mlp._model.0.bias': draw(4),
        'policy.nets.mlp._model.2.weight': draw(3, 4),
        'policy.nets.mlp._model.2.bias': draw(3),
        'policy.nets.decoder.nets.action.weight': draw(2, 3),
        'policy.nets.decoder.nets.action.bias': draw(2),
    }


def checkpoint(folder: Path, edit: Edit = lambda checkpoint: None) -> Path:
    """Write a checkpoint of behaviour cloning, changed by `edit`."""
    content: dict[str, Any] = {
        'algo_name': 'bc',
        'config': config(),
        'model': weights(),
        'env_metadata': {'env_name': 'Lift', 'type': 1, 'env_kwargs': {'control_freq': 20}},
        'shape_metadata': {'ac_dim': 2, 'all_shapes': {'pos': [2], 'object': [3]}},
    }
    edit(content)
    if isinstance(content['config'], dict):
        content['config'] = json.dumps(content['config'])
    return write_torch_zip(folder / 'policy.pth', content)


def imported(path: Path, **options: Any) -> ImportedPolicy:
    return import_checkpoint(path, ImportOptions(**options))


def test_a_recurrent_mixture_does_what_the_original_did(tmp_path: Path) -> None:
    policy = imported(DATA / 'robomimic_bc_rnn_gmm.pth', noise_default='zero')
    assert export(policy, tmp_path / 'policy.onnx').error < 1e-5
    base = OnnxBasePolicy(tmp_path / 'policy.onnx')
    meta = base.metadata
    assert (meta.rate_hz, meta.task, meta.noise_default) == (20.0, 'Lift', 'zero')
    assert {each.name: each.reset_steps for each in meta.inputs} == {'lstm_c': 3, 'lstm_h': 3}  # type: ignore[union-attr]
    original = ORIGINALS['robomimic_bc_rnn_gmm']
    context = Context()
    for observation, action in zip(original['observations'], original['actions'], strict=True):
        window = np.array([observation], dtype=np.float32)
        noise = np.zeros((1, *meta.noise_shape), dtype=np.float32)
        rows = base.plan(window, noise, context)
        assert rows[0] == pytest.approx(action, abs=1e-6)


def test_behaviour_cloning_is_a_perceptron_with_tanh(tmp_path: Path) -> None:
    policy = imported(checkpoint(tmp_path))
    assert policy.metadata.observation_names == (
        'pos.0',
        'pos.1',
        'object.0',
        'object.1',
        'object.2',
    )
    assert policy.metadata.action_names == ('actions.0', 'actions.1')
    assert (policy.metadata.action_min, policy.metadata.action_max) == ((-1, -1), (1, 1))
    x = np.linspace(-1.0, 1.0, 5)
    named = {name: each.numpy() for name, each in weights().items()}
    hidden = x
    for index in (0, 2):
        layer = f'policy.nets.mlp._model.{index}'
        hidden = np.maximum(named[f'{layer}.weight'] @ hidden + named[f'{layer}.bias'], 0.0)
    last = 'policy.nets.decoder.nets.action'
    expected = np.tanh(named[f'{last}.weight'] @ hidden + named[f'{last}.bias'])
    with torch.no_grad():
        (found,) = policy.network(torch.from_numpy(x).float()[None, None])
    assert found[0, 0].numpy() == pytest.approx(expected, abs=1e-6)


def with_statistics(content: dict[str, Any]) -> None:
    content['obs_normalization_stats'] = {
        'pos': {'mean': [[1.0, 2.0]], 'std': [[2.0, 4.0]]},
        'object': {'offset': [[0.0, 0.0, 1.0]], 'scale': [[1.0, 1.0, 0.5]]},
    }
    content['action_normalization_stats'] = {
        'actions': {'offset': [[1.0, -1.0]], 'scale': [[2.0, 0.5]]}
    }


def test_observations_and_actions_are_normalised_inside(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    plain = imported(checkpoint(tmp_path))
    scaled = imported(checkpoint(tmp_path / 'a', with_statistics))
    assert scaled.metadata.action_min == (-1.0, -1.5)
    assert scaled.metadata.action_max == (3.0, -0.5)
    raw = torch.tensor([[[3.0, 6.0, 0.5, -0.5, 1.25]]])
    seen = torch.tensor([[[1.0, 1.0, 0.5, -0.5, 0.5]]])
    with torch.no_grad():
        expected = plain.network(seen)[0] * torch.tensor([2.0, 0.5]) + torch.tensor([1.0, -1.0])
        assert torch.allclose(scaled.network(raw)[0], expected, atol=1e-6)


def test_the_model_of_later_versions_is_below_nets(tmp_path: Path) -> None:
    def nest(content: dict[str, Any]) -> None:
        content['model'] = {'nets': content['model'], 'optimizers': {}, 'lr_schedulers': {}}

    assert imported(checkpoint(tmp_path, nest)).metadata.kind == 'bc'


def test_names_units_and_rate_come_from_the_map(tmp_path: Path) -> None:
    policy_map = PolicyMap(
        rate_hz=50.0,
        observation={'pos.0': {'name': 'arm', 'unit': 'degrees'}},
        action={'actions.1': 'gripper'},
    )
    policy = imported(checkpoint(tmp_path), map=policy_map)
    assert policy.metadata.rate_hz == 50.0
    assert policy.metadata.observation_names[0] == 'arm'
    assert policy.metadata.action_names == ('actions.0', 'gripper')
    plain = imported(checkpoint(tmp_path))
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    degrees = x * torch.tensor([np.degrees(1.0), 1.0, 1.0, 1.0, 1.0])
    with torch.no_grad():
        assert torch.allclose(policy.network(x)[0], plain.network(degrees.float())[0], atol=1e-5)


def test_a_mixture_draws_its_component_with_its_probability() -> None:
    head = MixtureHead(1, 3, None)
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20_000, -1)
    means = torch.atanh(torch.tensor([[-0.5, 0.0, 0.5]])).expand(20_000, -1)
    noise = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    drawn = head({'mean': means, 'scale': means, 'logits': logits}, noise)
    shares = [float((drawn - value).abs().lt(0.01).float().mean()) for value in (-0.5, 0.0, 0.5)]
    assert shares == pytest.approx(torch.softmax(logits[0], 0).tolist(), abs=0.02)
    zero = head({'mean': means, 'scale': means, 'logits': logits}, torch.zeros(20_000, 4))
    assert torch.allclose(zero, torch.tensor(0.5))
    assert bool(torch.isfinite(gumbel(torch.tensor([-50.0, 50.0]))).all())


def spoil(path: str, value: Any) -> Edit:
    """Return what sets a value of the configuration."""

    def edit(content: dict[str, Any]) -> None:
        *above, last = path.split('.')
        place = content
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value

    return edit


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (spoil('algo_name', 'cql'), "algorithm 'cql', expected one of bc, diffusion_policy"),
        (spoil('config', 3), 'expected a JSON text'),
        (spoil('config', '{'), 'is not JSON'),
        (spoil('config', '[1]'), 'is no map'),
        (spoil('config.algo.transformer.enabled', True), 'algo.transformer is enabled'),
        (spoil('config.algo.vae', {'enabled': True}), 'algo.vae is enabled'),
        (spoil('config.algo.actor_layer_dims', 'x'), 'expected a list of integers'),
        (spoil('config.algo.actor_layer_dims', [4, 7]), r'of shape \[3, 4\], expected \[7, 4\]'),
        (spoil('config.algo.actor_layer_dims', [10**9, 10**9]), 'expected'),
        (spoil('config.algo.rnn', {'enabled': True, 'hidden_dim': 6}), 'algo.rnn.num_layers'),
        (spoil('config.algo.rnn', {'enabled': True, 'open_loop': True}), 'open_loop is true'),
        (spoil('config.algo.gmm', {'enabled': True, 'use_tanh': True}), 'use_tanh'),
        (spoil('config.observation.modalities.goal.low_dim', ['g']), 'observes goal.low_dim'),
        (spoil('config.observation.modalities.obs.depth', ['d']), 'observes obs.depth'),
        (spoil('config.observation.modalities.obs.low_dim', ['no']), 'lacks no'),
        (spoil('config.observation.encoder.low_dim.core_class', 'X'), 'core_class'),
        (spoil('shape_metadata', None), 'shape_metadata.all_shapes'),
        (spoil('shape_metadata.all_shapes.pos', ['x']), 'expected a list of sizes'),
        (spoil('shape_metadata.all_shapes.pos', [2**20]), 'up to 4096'),
        (spoil('shape_metadata.all_shapes.pos', [4096, 4096]), 'expected at most 100000'),
        (spoil('config.algo.actor_layer_dims', [4] * 5000), 'expected at most 1000'),
        (spoil('shape_metadata.ac_dim', 10**9), 'expected 1 to 10000'),
        (spoil('env_metadata', {}), 'control rate'),
        (spoil('obs_normalization_stats', {}), "lacks 'pos'"),
        (
            spoil('obs_normalization_stats', {'pos': {'mean': [[1.0]], 'std': [[1.0]]}}),
            'has 1 numbers, expected 2',
        ),
        (
            spoil('action_normalization_stats', {'actions': {'offset': [[0.0]], 'scale': [[0.0]]}}),
            'holds a 0',
        ),
        (
            spoil('model.policy.nets.extra.weight', torch.zeros(2)),
            'expected a tensor',
        ),
    ],
)
def test_what_cannot_be_imported_is_named(edit: Edit, message: str, tmp_path: Path) -> None:
    with pytest.raises(ResidualRLError, match=message):
        imported(checkpoint(tmp_path, edit))


def test_every_weight_must_fit(tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        model = content['model']
        model['policy.nets.other.weight'] = model.pop('policy.nets.decoder.nets.action.bias')

    with pytest.raises(PolicyImportError, match=r'lacks heads\.action\.bias.*policy\.nets\.other'):
        imported(checkpoint(tmp_path, rename))


def test_formats_of_actions_that_robomimic_converts_are_refused(tmp_path: Path) -> None:
    def rotate(content: dict[str, Any]) -> None:
        with_statistics(content)
        content['config']['train']['action_config']['actions'] = {'format': 'rot_6d'}

    with pytest.raises(PolicyImportError, match='rot_6d'):
        imported(checkpoint(tmp_path, rotate))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of each value within maps and lists."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


@pytest.mark.parametrize('other', [None, [[1]], 'x'], ids=repr)
def test_any_value_may_be_something_else(other: Any, tmp_path: Path) -> None:
    whole: dict[str, Any] = {}

    def keep(content: dict[str, Any]) -> None:
        with_statistics(content)
        del content['model']
        whole.update(copy.deepcopy(content))
        content['model'] = weights()

    checkpoint(tmp_path, keep)
    for path in places(whole):

        def replace(content: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            with_statistics(content)
            place: Any = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = other

        with contextlib.suppress(ResidualRLError):
            imported(checkpoint(tmp_path, replace), map=PolicyMap(rate_hz=10.0))


def denoising(**changes: Any) -> StoredConfig:
    """Return the sampler of a diffusion policy as robomimic writes it."""
    values = {
        'enabled': True,
        'num_train_timesteps': 100,
        'num_inference_timesteps': 10,
        'beta_schedule': 'squaredcos_cap_v2',
        'clip_sample': True,
        'set_alpha_to_one': True,
        'steps_offset': 0,
        'prediction_type': 'epsilon',
    }
    return StoredConfig({'algo': {'ddim': {**values, **changes}}}, 'config')


def test_a_key_of_the_noise_scheduler_is_read_or_refused() -> None:
    schedule, steps, remarks = _schedule(denoising(clip_sample_range=2.0), ImportOptions())
    assert (schedule.clip, schedule.train_steps, steps, remarks) == (2.0, 100, 10, ())
    for changes, message in (
        ({'timestep_spacing': 'linspace'}, "timestep_spacing of config is 'linspace', expected le"),
        ({'eta': 1.0}, 'algo.ddim of config has eta, which is not known'),
        ({'beta_schedule': None}, 'beta_schedule of config is None'),
    ):
        with pytest.raises(PolicyImportError, match=message):
            _schedule(denoising(**changes), ImportOptions())
