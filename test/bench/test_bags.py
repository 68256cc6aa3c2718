# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The measured readers must all do the work that is measured."""

from __future__ import annotations

import pytest
from command_line import run_command

from residual_rl_ros.bench.bags import READERS, SHAPES


def test_every_shape_and_reader_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ('bench', 'bag', '--transitions', '1000', '--repetitions', '1')
    assert run_command(*arguments, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert text.count('\n') == 2 + len(SHAPES) * len(READERS)
    own = [row for row in text.splitlines() if '| residual_rl_ros |' in row]
    assert len(own) == len(SHAPES)
    assert all(row.endswith('| 1 x |') for row in own)
    assert all(f'| {shape} | {reader} |' in text for shape in SHAPES for reader in READERS)
