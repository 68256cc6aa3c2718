# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that read long show how far they are, on a terminal only."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_builders import L, stream, write_bag
from command_line import run


@pytest.mark.parametrize('terminal', [True, False])
def test_a_bar_shows_on_a_terminal_only(
    terminal: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if terminal:
        monkeypatch.setenv('FORCE_COLOR', '1')
    else:
        monkeypatch.delenv('FORCE_COLOR', raising=False)
    pytest.importorskip('pyarrow')
    bag, dataset = write_bag(tmp_path / 'bag', L, stream(23)), str(tmp_path / 'set')
    for bar, *command in (
        ('reading', 'info', str(bag), '--json'),
        ('reading', 'export', str(bag), '--out', dataset),
        ('transitions', 'import', dataset, '--out', str(tmp_path / 'again')),
    ):
        assert run(*command, monkeypatch=monkeypatch) == 0
        printed = capsys.readouterr()
        bars = [line for line in printed.err.splitlines() if '━' in line]
        assert bool(bars) is terminal
        assert '━' not in printed.out
        if terminal:
            assert bar in bars[-1]
            assert '100%' in bars[-1]


def test_a_bag_that_is_given_twice_is_read_once_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / 'bag', L, stream(23))
    again = str(tmp_path / 'x' / '..' / 'bag')
    (tmp_path / 'x').mkdir()
    assert run('info', str(bag), again, '--json', monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert f'{again!r} is given twice; it is read once' in printed.err + printed.out
