# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`import-base`: from a checkpoint to a file, and nothing where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lerobot_checkpoints import narrow_resnet, write_checkpoint, write_dataset
from typer.testing import CliRunner

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.cli.main import app
from residual_rl_ros.errors import PolicyImportError


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with narrow_resnet():
        yield


def test_a_checkpoint_a_dataset_and_a_map_make_a_base_policy(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / 'c', 'vqbet')
    dataset = write_dataset(tmp_path / 'd')
    (tmp_path / 'map.yaml').write_text('action: {pan: {name: joint1, unit: degrees}}')
    out = tmp_path / 'out' / 'policy.onnx'
    arguments = ['import-base', str(checkpoint), '--out', str(out), '--dataset', str(dataset)]
    arguments += ['--map', str(tmp_path / 'map.yaml'), '--exec-steps', '2', '--noise', 'zero']
    result = CliRunner().invoke(app, [*arguments, '--task', 'pick', '--rate-hz', '12.5'])
    assert result.exit_code == 0, result.output
    assert 'parity with torch' in result.stderr
    meta = OnnxBasePolicy(out).metadata
    assert meta.action_names == ('joint1', 'gripper')
    assert (meta.rate_hz, meta.exec_steps, meta.task) == (12.5, 2, 'pick')
    assert (meta.noise_default, meta.source) == ('zero', 'lerobot vqbet')
    assert meta.parity is not None


def test_a_refused_checkpoint_writes_nothing(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / 'c', 'vqbet')
    arguments = ['import-base', str(checkpoint), '--out', str(tmp_path / 'out' / 'policy.onnx')]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, PolicyImportError)
    assert 'give --rate-hz' in str(result.exception)
    assert not (tmp_path / 'out').exists()
