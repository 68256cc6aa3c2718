# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any torch module, made a base policy by a factory of the user."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from command_line import run_command

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.export import export
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap
from residual_rl_ros.importing.module import import_module

HEAD = """
    import torch
    from torch import nn

    METADATA = {
        'observation_names': ['x', 'y'], 'action_names': ['vx'], 'action_min': [-1.0],
        'action_max': [1.0], 'rate_hz': 20.0, 'n_obs_steps': 2, 'horizon': 3, 'exec_start': 0,
        'exec_steps': 2,
    }
"""
PLAIN = """
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, observation):
            return torch.tanh(self.layer(observation.flatten(1)))[:, :, None]


    def make():
        return Policy(), METADATA
"""
EVERYTHING = """
    class Policy(nn.Module):
        def forward(self, observation, noise, goal, state, top):
            features = top[:, -1].float().mean(dim=(1, 2)) / 255.0
            state = 0.5 * state + observation[:, -1, :1]
            action = state[:, None] + goal[:, None, :1] + noise.sum(1)[:, None, None]
            action = action + features.sum(1)[:, None, None] + torch.zeros(1, 3, 1)
            return action, state, features


    def make():
        inputs = {
            'goal': {'kind': 'constant', 'shape': [2], 'default': [0.5, 0.0]},
            'state': {'kind': 'memory', 'output': 'state_out', 'shape': [1]},
            'top': {'kind': 'image', 'height': 4, 'width': 6, 'features': ['r', 'g', 'b']},
        }
        return Policy(), METADATA | {
            'inputs': inputs, 'noise_shape': [5], 'noise_default': 'zero',
            'observation_mean': [3.0, 1.0], 'observation_std': [0.1, 0.1],
        }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, 'mine', raising=False)
    return tmp_path


def write(folder: Path, body: str) -> None:
    (folder / 'mine.py').write_text(dedent(HEAD) + dedent(body))


def test_a_module_of_the_current_folder_becomes_a_base_policy(here: Path) -> None:
    write(here, PLAIN)
    policy = import_module('mine:make', ImportOptions())
    parity = export(policy, here / 'policy.onnx')
    assert parity.error < 1e-6
    base = OnnxBasePolicy(here / 'policy.onnx')
    window = np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)
    with torch.no_grad():
        expected = policy.network(torch.from_numpy(window)[None])[0].numpy()
    assert base.plan(window) == pytest.approx(expected, abs=1e-6)
    assert base.metadata.source == 'module mine:make'
    assert str(here) not in sys.path


def test_noise_constants_memory_and_images_are_in_the_order_of_the_factory(here: Path) -> None:
    write(here, EVERYTHING)
    policy = import_module('mine:make', ImportOptions())
    assert [each.name for each in policy.inputs] == ['observation', 'noise', 'goal', 'state', 'top']
    assert policy.outputs == ('action', 'state_out', 'top.features')
    assert policy.inputs[0].centre.tolist() == [[3.0, 1.0]] * 2
    assert policy.metadata.noise_shape == (5,)
    assert policy.metadata.noise_default == 'zero'
    assert export(policy, here / 'policy.onnx').error < 1e-6


@pytest.mark.parametrize(
    ('name', 'body', 'message'),
    [
        ('mine', PLAIN, 'expected package.module:factory'),
        ('mine:', PLAIN, 'expected package.module:factory'),
        ('no_such_module:make', PLAIN, "No module named 'no_such_module'"),
        ('mine:other', PLAIN, "no function 'other'"),
        ('mine:make', 'def make():\n    return 3', 'returned 3, expected'),
        ('mine:make', 'def make():\n    return nn.Linear(1, 1), 4', 'metadata 4, expected a map'),
        ('mine:make', 'def make():\n    return nn.Linear(1, 1), {}', 'metadata lacks'),
        ('mine:make', 'def make():\n    return 1 / 0', 'ZeroDivisionError'),
        (
            'mine:make',
            "def make():\n    return nn.Linear(1, 1), METADATA | {'observation_mean': [1.0]}",
            r'observation_mean has shape \[1\], expected \[2\]',
        ),
        (
            'mine:make',
            "def make():\n    return nn.Linear(1, 1), METADATA | {'inputs': {'a': {'kind': 'x'}}}",
            'inputs.a.kind',
        ),
    ],
)
def test_what_is_no_factory_is_refused_by_name(
    here: Path, name: str, body: str, message: str
) -> None:
    write(here, body)
    with pytest.raises(PolicyImportError, match=message):
        import_module(name, ImportOptions())


def test_a_map_beside_a_module_is_refused(here: Path) -> None:
    write(here, PLAIN)
    with pytest.raises(PolicyImportError, match='without a map'):
        import_module('mine:make', ImportOptions(map=PolicyMap(rate_hz=10.0)))


def test_actions_of_a_wrong_shape_leave_no_file(here: Path) -> None:
    write(here, PLAIN.replace('[:, :, None]', ''))
    with pytest.raises(PolicyImportError, match='expected'):
        export(import_module('mine:make', ImportOptions()), here / 'policy.onnx')
    assert not (here / 'policy.onnx').exists()


@pytest.mark.parametrize(
    ('body', 'old', 'new', 'message'),
    [
        (PLAIN, '[:, :, None]', '[:, :, None].double()', 'action as torch.float64, expected'),
        (EVERYTHING, 'return action, state,', 'return action, state.repeat(1, 2),', r'\[5, 2\]'),
    ],
)
def test_outputs_that_no_policy_node_takes_leave_no_file(
    here: Path, body: str, old: str, new: str, message: str
) -> None:
    write(here, body.replace(old, new))
    with pytest.raises(PolicyImportError, match=message):
        export(import_module('mine:make', ImportOptions()), here / 'policy.onnx')
    assert not (here / 'policy.onnx').exists()


def test_a_factory_that_ends_the_process_is_a_failure(here: Path) -> None:
    write(here, 'def make():\n    raise SystemExit(0)')
    with pytest.raises(PolicyImportError, match='mine:make failed: SystemExit'):
        import_module('mine:make', ImportOptions())


def test_a_line_that_decides_by_a_tensor_is_remarked(here: Path) -> None:
    write(here, PLAIN)
    policy = import_module('mine:make', ImportOptions())
    assert export(policy, here / 'policy.onnx', (1,)).decided == ()
    decides = 'if observation.abs().max() > 6.0: observation = -observation\n            return'
    write(here, PLAIN.replace('return torch', f'{decides} torch'))
    del sys.modules['mine']
    policy = import_module('mine:make', ImportOptions())
    (place,) = export(policy, here / 'policy.onnx', (1,)).decided
    assert place.startswith(str(here / 'mine.py:'))


def test_the_command_takes_a_module_or_a_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, PLAIN)
    command = ['import-base', '--module', 'mine:make', '--out', 'policy.onnx']
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    assert 'module mine:make, 20 Hz, 2 of 3 actions' in capsys.readouterr().err
    assert (here / 'policy.onnx').exists()
    assert run_command('import-base', '--out', 'other.onnx', monkeypatch=monkeypatch) == 2
    assert 'give a checkpoint or --module' in capsys.readouterr().err


def test_the_example_of_the_documentation_works(here: Path) -> None:
    page = (Path(__file__).parents[2] / 'docs' / 'how-to' / 'import_policy.md').read_text()
    (block,) = re.findall(r'```python\n(# my_policy\.py\n.*?)```', page, re.DOTALL)
    (here / 'mine.py').write_text(block)
    policy = import_module('mine:make', ImportOptions())
    assert policy.metadata.noise_shape == (4,)
    assert export(policy, here / 'policy.onnx').error < 1e-6
