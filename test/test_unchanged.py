# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A rebuild changes no number: what was recorded on e8f1ba4 is computed again, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import unchanged

FIGURES: dict[str, Any] = json.loads(unchanged.FIGURES.read_text(encoding='utf-8'))


LONG = ('dawn', 'resfit')
"""Runs of minutes, in `make test-slow`."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
        for name in unchanged.RUNS
    ],
)
def test_a_training_run_leaves_the_same_tensors_and_episodes(name: str, tmp_path: Path) -> None:
    found, recorded = unchanged.train(name, tmp_path / 'run'), FIGURES['runs'][name]
    assert found['episodes'] == recorded['episodes']
    assert found['tensors'] == recorded['tensors']


@pytest.mark.ros
def test_lockstep_episodes_over_ros_send_the_same_commands(tmp_path: Path) -> None:
    assert unchanged.lockstep(tmp_path) == FIGURES['lockstep']


def test_two_recordings_hold_the_same_numbers() -> None:
    assert unchanged.decode() == FIGURES['decoded']
