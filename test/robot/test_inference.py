# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A network must run where the robot YAML says, or not at all: a fallback would be late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from base_policy_builders import write_onnx_policy

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import BasePolicyError, ConfigError
from residual_rl_ros.robot.inference import CPU, OPTIMISATIONS, InferenceConfig
from residual_rl_ros.schema import from_mapping

CUDA = 'CUDAExecutionProvider'
WINDOW = np.ones((1, 3), dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a base policy."""
    write_onnx_policy(tmp_path / 'policy.onnx')
    return tmp_path / 'policy.onnx'


def test_without_a_section_a_policy_runs_in_one_thread_of_the_processor(path: Path) -> None:
    policy = OnnxBasePolicy(path)
    assert policy.providers == (CPU,)
    assert policy._session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize('optimisation', OPTIMISATIONS)
def test_threads_and_optimisation_reach_the_session_and_change_no_action(
    path: Path, optimisation: str
) -> None:
    policy = OnnxBasePolicy(path, inference=InferenceConfig(threads=2, optimisation=optimisation))
    options = policy._session.get_session_options()
    assert options.intra_op_num_threads == 2
    wanted = {'disable': 0, 'basic': 1, 'extended': 2, 'all': 99}[optimisation]
    assert int(options.graph_optimization_level) == wanted
    np.testing.assert_allclose(policy.infer(WINDOW), OnnxBasePolicy(path).infer(WINDOW), rtol=1e-6)


def test_a_provider_that_is_not_installed_is_refused_with_those_that_are(path: Path) -> None:
    with pytest.raises(BasePolicyError, match=rf'names {CUDA}, this ONNX Runtime has .*{CPU}'):
        OnnxBasePolicy(path, inference=InferenceConfig(providers=(CUDA, CPU)))


def test_a_provider_that_does_not_start_is_refused_instead_of_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, 'get_available_providers', lambda: [CUDA, CPU])
    with (
        pytest.warns(UserWarning, match='not in available provider'),
        pytest.raises(BasePolicyError, match=rf'{CUDA} did not start \(.* with {CPU}\)'),
    ):
        OnnxBasePolicy(path, inference=InferenceConfig(providers=(CUDA,)))


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'providers': []}, 'providers is .*, expected a non-empty list of strings'),
        ({'threads': 0}, 'threads is 0, expected a whole number >= 1'),
        ({'optimisation': 'most'}, 'expected one of disable, basic, extended, all'),
        ({'constants': {'goal': []}}, r'constants.goal is \[\], expected a list of finite'),
        ({'constants': {'goal': [1.0, 'x']}}, 'constants.goal is .* expected a list of finite'),
        ({'constants': {'goal': ['1e-1']}}, 'YAML 1e-1 is a string: write 1.0e-1'),
        ({'constants': {'goal': [float('nan')]}}, 'constants.goal is .* expected a list of finite'),
        ({'constants': {'goal': {'x': 1}}}, 'constants.goal is .* expected a list of finite'),
        ({'provider': [CPU]}, 'provider is unknown; did you mean providers'),
    ],
)
def test_a_mistake_in_the_section_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(InferenceConfig, values, 'robot.base_policy')


def test_constants_of_the_section_are_lists_of_numbers() -> None:
    values = {'constants': {'goal': [1, 2.5], 'token': 3}}
    made = from_mapping(InferenceConfig, values, 'robot.base_policy')
    assert made.numbers == {'goal': (1.0, 2.5), 'token': (3.0,)}
