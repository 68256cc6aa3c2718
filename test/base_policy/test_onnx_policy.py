# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model that is off the contract must be refused when it is loaded, not when the robot moves."""

from __future__ import annotations

import json
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import make_metadata, write_onnx_policy

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import BasePolicyError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test writes its model."""
    return tmp_path / 'policy.onnx'


def test_a_deterministic_policy_is_the_function_that_was_exported(path: Path) -> None:
    metadata = make_metadata(n_obs_steps=2)
    weights = write_onnx_policy(path, metadata)
    policy = OnnxBasePolicy(path)
    assert policy.metadata == metadata
    assert not policy.stochastic
    window = np.random.default_rng(0).standard_normal((2, 3), dtype=np.float32)
    chunk = policy.infer(window)
    np.testing.assert_allclose(chunk, (window.ravel() @ weights).reshape(6, 2), rtol=1e-5)
    assert chunk.dtype == np.float32


def test_noise_is_an_input_of_a_stochastic_policy(path: Path) -> None:
    write_onnx_policy(path, stochastic=True)
    policy = OnnxBasePolicy(path)
    assert policy.stochastic
    assert policy.noise_shape == (6, 2)
    noise = np.random.default_rng(0).standard_normal((6, 2), dtype=np.float32)
    window = np.zeros((1, 3), dtype=np.float32)
    np.testing.assert_array_equal(policy.infer(window, noise), noise)


def test_a_stochastic_policy_refuses_to_run_without_noise(path: Path) -> None:
    write_onnx_policy(path, stochastic=True)
    with pytest.raises(BasePolicyError, match=r'policy.onnx is stochastic and needs noise'):
        OnnxBasePolicy(path).infer(np.zeros((1, 3), dtype=np.float32))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_non_finite_action_is_refused_by_name_and_step(path: Path, value: float) -> None:
    bias = np.zeros((6, 2))
    bias[3, 1] = value
    write_onnx_policy(path, bias=bias)
    policy = OnnxBasePolicy(path)
    with pytest.raises(
        BasePolicyError, match=rf"returned {value} for action 'b.position' at chunk step 3"
    ):
        policy.infer(np.zeros((1, 3), dtype=np.float32))


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(BasePolicyError, match=r"policy.onnx' does not exist"):
        OnnxBasePolicy(path)


def test_only_the_pinned_file_is_accepted(path: Path) -> None:
    write_onnx_policy(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert OnnxBasePolicy(path, sha256=digest.upper()).metadata == OnnxBasePolicy(path).metadata
    write_onnx_policy(path, bias=np.ones((6, 2)))
    with pytest.raises(BasePolicyError, match=f'expected {digest}; correct the file'):
        OnnxBasePolicy(path, sha256=digest)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BasePolicyError, match=r'does not exist'):
        OnnxBasePolicy(tmp_path)


@pytest.mark.parametrize('content', [b'', b'not a model', bytes(range(256)) * 8])
def test_a_garbage_file_is_refused_in_one_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BasePolicyError) as error:
        OnnxBasePolicy(path)
    assert 'policy.onnx' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_truncated_model_is_refused(path: Path) -> None:
    write_onnx_policy(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BasePolicyError, match=r'policy.onnx'):
        OnnxBasePolicy(path)


def test_a_model_without_metadata_asks_for_a_sidecar(path: Path) -> None:
    write_onnx_policy(path, embed=False)
    with pytest.raises(BasePolicyError, match=r'there is no sidecar policy.yaml; write one'):
        OnnxBasePolicy(path)


def test_a_sidecar_supplies_the_metadata(path: Path) -> None:
    metadata = make_metadata()
    write_onnx_policy(path, embed=False)
    values = {
        key: list(v) if isinstance(v, tuple) else v for key, v in metadata.to_mapping().items()
    }
    path.with_suffix('.yaml').write_text(yaml.safe_dump(values))
    assert OnnxBasePolicy(path).metadata == metadata


@pytest.mark.parametrize(('text', 'message'), [('{', r'is not YAML'), ('- 1', r'is a list')])
def test_a_broken_sidecar_is_refused(path: Path, text: str, message: str) -> None:
    write_onnx_policy(path, embed=False)
    path.with_suffix('.yaml').write_text(text)
    with pytest.raises(BasePolicyError, match=message):
        OnnxBasePolicy(path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'input_name': 'obs'}, r"has inputs \['obs'\], expected observation"),
        ({'output_name': 'actions'}, r"has outputs \['actions'\], expected one named action"),
        ({'observation_shape': (1, 3)}, r'observation has shape \[1, 3\], .* says \[1, 1, 3\]'),
        ({'observation_shape': (1, 3, 1)}, r'observation has shape \[1, 3, 1\], the metadata'),
    ],
)
def test_a_signature_off_the_contract_is_refused(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    write_onnx_policy(path, **changes)
    with pytest.raises(BasePolicyError, match=message):
        OnnxBasePolicy(path)


@pytest.mark.parametrize('changes', [{'horizon': 7}, {'action_names': ('a',)}])
def test_an_output_of_another_size_than_the_metadata_is_refused(
    path: Path, changes: dict[str, Any]
) -> None:
    write_onnx_policy(path, embed=False)
    m = len(changes.get('action_names', 'ab'))
    other = make_metadata(action_min=(0.0,) * m, action_max=(1.0,) * m, **changes)
    path.with_suffix('.yaml').write_text(yaml.safe_dump(json.loads(other.to_json())))
    with pytest.raises(
        BasePolicyError,
        match=rf'action has shape \[1, 6, 2\], the metadata says \[1, {other.horizon}, {m}\]',
    ):
        OnnxBasePolicy(path)


def test_a_symbolic_dimension_is_accepted(path: Path) -> None:
    write_onnx_policy(path, observation_shape=('batch', 1, 3), action_shape=('batch', 6, 2))
    assert OnnxBasePolicy(path).infer(np.zeros((1, 3), dtype=np.float32)).shape == (6, 2)


def test_a_symbolic_dimension_that_turns_out_wrong_is_refused(path: Path) -> None:
    write_onnx_policy(path, action_shape=(1, 'horizon', 2), kept_actions=3)
    policy = OnnxBasePolicy(path)
    with pytest.raises(BasePolicyError, match=r'3.*6'):
        policy.infer(np.zeros((1, 3), dtype=np.float32))


def test_a_failure_of_the_runtime_is_one_of_the_policy(path: Path) -> None:
    write_onnx_policy(path)
    policy = OnnxBasePolicy(path)
    with pytest.raises(BasePolicyError, match=r'policy.onnx failed: .*'):
        policy.infer(np.zeros((2, 3), dtype=np.float32))
