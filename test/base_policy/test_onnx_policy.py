# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model that is off the contract must be refused when it is loaded, not when the robot moves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from base_policy_builders import write_onnx_policy
from prior_builders import write_prior_policy
from robot_builders import make_metadata

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.prior import Prior


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
    with pytest.raises(BasePolicyError, match=r'is no file'):
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
    path.with_suffix('.yaml').write_text(yaml.safe_dump(json.loads(metadata.to_json())))
    assert OnnxBasePolicy(path).metadata == metadata


@pytest.mark.parametrize(('text', 'message'), [('{', r'is not YAML'), ('- 1', r'is of type list')])
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


KNOWN = [prior for prior in Prior if prior is not Prior.NONE]
WINDOW = np.array([[0.4, -0.2, 0.1]], dtype=np.float32)


def test_a_file_without_density_says_nothing_of_it() -> None:
    assert '"prior"' not in make_metadata().to_json()
    assert '"prior": "gaussian"' in make_metadata(prior=Prior.GAUSSIAN).to_json()


@pytest.mark.parametrize('prior', KNOWN)
def test_density_and_proposals_stand_beside_the_action(path: Path, prior: Prior) -> None:
    write_prior_policy(path, prior)
    policy = OnnxBasePolicy(path)
    noises = np.random.default_rng(0).standard_normal((4, 6, 2), dtype=np.float32)
    rows = policy.plan(WINDOW, noises)
    width = 2 + prior.size(2)
    assert rows.shape == (6, width + 3 * 2)
    assert rows[:, :2].tobytes() == policy.infer(WINDOW, noises[0]).tobytes()
    for index in range(3):
        other = rows[:, width + 2 * index : width + 2 * index + 2]
        np.testing.assert_allclose(other, policy.infer(WINDOW, noises[1 + index]), atol=1e-6)
    if prior is Prior.CATEGORICAL:
        assert set(np.unique(rows[:, :2])) == {0.0, 1.0}
    else:
        np.testing.assert_array_equal(rows[:, 4:6], np.float32(-1.0))


def test_proposals_of_a_fixed_batch_come_one_by_one(path: Path, tmp_path: Path) -> None:
    write_prior_policy(path, Prior.GAUSSIAN, batch=1)
    write_prior_policy(tmp_path / 'any.onnx', Prior.GAUSSIAN)
    noises = np.random.default_rng(0).standard_normal((4, 6, 2), dtype=np.float32)
    rows = [OnnxBasePolicy(each).plan(WINDOW, noises) for each in (path, tmp_path / 'any.onnx')]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert rows[0][:, :2].tobytes() == rows[1][:, :2].tobytes()


def test_a_density_that_is_promised_and_not_there_is_refused(path: Path) -> None:
    write_prior_policy(path, Prior.GAUSSIAN, without='log_std')
    with pytest.raises(BasePolicyError, match=r'lacks log_std, .*prior gaussian; export them'):
        OnnxBasePolicy(path)


def test_a_density_that_is_no_number_is_refused_by_name(path: Path) -> None:
    write_prior_policy(path, Prior.GAUSSIAN, log_std=float('-inf'))
    policy = OnnxBasePolicy(path)
    with pytest.raises(BasePolicyError, match=r"returned -inf for log_std of action 'a"):
        policy.plan(WINDOW, np.zeros((1, 6, 2), dtype=np.float32))


def test_discrete_actions_that_are_not_one_hot_are_refused(path: Path) -> None:
    write_prior_policy(path, Prior.CATEGORICAL, offset=0.5)
    policy = OnnxBasePolicy(path)
    with pytest.raises(BasePolicyError, match=r'actions that are not one-hot'):
        policy.plan(WINDOW, np.zeros((1, 6, 2), dtype=np.float32))


def test_an_unknown_prior_is_refused(path: Path) -> None:
    write_onnx_policy(path, embed=False)
    values = {**json.loads(make_metadata().to_json()), 'prior': 'beta'}
    path.with_suffix('.yaml').write_text(yaml.safe_dump(values))
    with pytest.raises(BasePolicyError, match=r"prior is 'beta', expected one of none, gaussian"):
        OnnxBasePolicy(path)
