# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The bench of the learner must still fit the learner that it measures."""

from __future__ import annotations

import re
import subprocess

import pytest
from command_line import run_command

from residual_rl_ros.bench import learner
from residual_rl_ros.bench.learner import LIBRARIES, MISSING, limit, measure, ours, to_markdown
from residual_rl_ros.errors import ResidualRLError


def test_the_learner_and_its_limit_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, 'WARM_UP', 1)
    monkeypatch.setattr(learner, 'STORED', 300)
    assert ours(1, 2) > 0.0
    assert limit(1, 2) > 0.0


def test_the_command_measures_every_library_or_says_that_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ('bench', 'learner', '--threads', '1', '--repetitions', '1', '--updates', '5')
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[1] for row in rows] == list(LIBRARIES)
    for name, row in zip(LIBRARIES, rows, strict=True):
        figures = re.fullmatch(rf'\| {name} \| \d+ \| \d+\.\d\d \|', row)
        assert figures or (name in MISSING and MISSING[name][1] in row), row


def test_a_library_that_fails_is_an_error_and_one_that_is_missing_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {
        'sb3': "ModuleNotFoundError: No module named 'stable_baselines3'",
        'gpu': 'ConfigError: device is cuda, but torch finds no GPU here',
        'sbx': '',
        'ours': '',
    }

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        error = said.get(command[3], '')
        return subprocess.CompletedProcess(command, bool(error), '' if error else '100.0', error)

    monkeypatch.setattr(subprocess, 'run', run)
    assert measure(1, 2) == {
        'ours': [100.0] * 2,
        'gpu': [],
        'sb3': [],
        'sbx': [100.0] * 2,
        'limit': [100.0] * 2,
    }
    for name, error in (
        ('sbx', 'RuntimeError: no device'),
        ('ours', "ModuleNotFoundError: No module named 'torch'"),
    ):
        said[name] = error
        with pytest.raises(ResidualRLError, match=f'{name}: {error}'):
            measure(1, 1)


def test_ratios_are_within_a_repetition() -> None:
    table = to_markdown({'ours': [100.0, 200.0], 'sbx': [], 'limit': [200.0, 800.0]})
    assert table.splitlines()[2:] == [
        '| ours | 150 | 1.00 |',
        "| sbx | not installed: pip install 'residual_rl_ros[bench]' | |",
        '| limit | 500 | 0.38 |',
    ]
