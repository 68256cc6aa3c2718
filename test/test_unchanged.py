# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A rebuild changes no number: what was recorded on e8f1ba4 is computed again, bit for bit.

Processors differ in how they sum, whatever they are told. What another kind computes was recorded
there with a commit that is equal to e8f1ba4 here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import unchanged

FIGURES: dict[str, Any] = json.loads(unchanged.FIGURES.read_text(encoding='utf-8'))
PROCESSORS: list[dict[str, Any]] = [FIGURES, *FIGURES['other_processors']]


SHORT = ('short_best_of_n', 'short_resfit', 'short_wsrl')
"""Runs of seconds, one of each update rule."""
LONG = tuple(name for name in unchanged.RUNS if name not in SHORT)
"""The rest, in `make test-slow`."""


@pytest.fixture(scope='module')
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the short runs leave, one after the other in one process."""
    return unchanged.train(SHORT, tmp_path_factory.mktemp('runs'))


@pytest.mark.timeout(600)
@pytest.mark.parametrize('name', SHORT)
def test_a_training_run_leaves_the_same_tensors_and_episodes(
    name: str, short_runs: dict[str, Any]
) -> None:
    check(name, short_runs[name])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('name', LONG)
def test_a_long_training_run_leaves_the_same_tensors_and_episodes(
    name: str, tmp_path: Path
) -> None:
    check(name, unchanged.train([name], tmp_path)[name])


def check(name: str, found: dict[str, Any]) -> None:
    """Compare what a run left with what was recorded."""
    everywhere = [each['runs'][name] for each in PROCESSORS if name in each['runs']]
    recorded = next((each for each in everywhere if each == found), everywhere[0])
    assert found['episodes'] == recorded['episodes']
    assert found['tensors'] == recorded['tensors']


@pytest.mark.ros
def test_lockstep_episodes_over_ros_send_the_same_commands(tmp_path: Path) -> None:
    found, everywhere = unchanged.lockstep(tmp_path), [each['lockstep'] for each in PROCESSORS]
    same = (each for each in everywhere if each['transitions'] == found['transitions'])
    recorded = dict(next(same, everywhere[0]))
    pairs = list(zip(found.pop('commands').split(), recorded.pop('commands').split(), strict=True))
    heard = [(command, wanted) for command, wanted in pairs if command != unchanged.UNHEARD]
    assert found == recorded
    assert len(heard) >= unchanged.HEARD * len(pairs)
    assert [command for command, _ in heard] == [wanted for _, wanted in heard]


def test_two_recordings_hold_the_same_numbers() -> None:
    assert unchanged.decode() == FIGURES['decoded']
