# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A long command says how far it is and how long it will take, wherever its output goes."""

from __future__ import annotations

import io

from rich.console import Console

from residual_rl_ros.evaluation.progress import LINE_EVERY_S, progress, say


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    now, out = [0.0], io.StringIO()
    console = Console(file=out, width=40)
    with progress(
        console, 'a/name/[that]/is_longer_than_the_console', 200, 100, lambda: now[0]
    ) as show:
        show(110)
        assert out.getvalue() == ''
        now[0] = LINE_EVERY_S
        show(125)
        show(126)
        now[0] = 3 * LINE_EVERY_S
        show(175, 'another')
    # From 100 on: 25 in 30 s leave 75, then 75 in 90 s leave 25.
    assert out.getvalue().splitlines() == [
        'a/name/[that]/is_longer_than_the_console: 62%, 0:00:30 gone, about 0:01:30 left',
        'another: 88%, 0:01:30 gone, about 0:00:30 left',
    ]


def test_on_a_terminal_there_is_a_bar_with_an_estimate() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with progress(console, 'runs [a]', 10) as show:
        show(5)
    shown = out.getvalue()
    assert 'runs [a]' in shown
    assert '━' in shown
    assert '50%' in shown
    assert 'left' in shown


def test_a_name_that_is_to_be_typed_is_printed_whole() -> None:
    out = io.StringIO()
    say(Console(file=out, width=20), 'results are in runs/a[b]/a_name_longer_than_twenty')
    assert out.getvalue() == 'results are in runs/a[b]/a_name_longer_than_twenty\n'
