# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`bench control` measures the real nodes: they run, learn, and lose nothing."""

from __future__ import annotations

import pytest
from rich.console import Console

from residual_rl_ros.ros.tools import control_bench
from residual_rl_ros.ros.tools.control_bench import measure, to_markdown

pytestmark = pytest.mark.ros


def test_the_figures_are_those_of_a_running_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_bench, 'WEIGHTS_MESSAGES', 6)
    figures = measure(100.0, 5.0, Console(quiet=True))
    assert figures['ticks'] > 200
    assert figures['updates_per_s'] > 0.0
    assert 0.0 < figures['reaction_p50_us'] <= figures['tick_p50_us'] <= figures['tick_p99_us']
    assert 0.0 < figures['bare_p50_us'] <= figures['bare_p99_us']
    assert figures['received'] > 300
    assert figures['missing'] <= figures['holds']
    assert figures['weights_bytes'] >= 1e6
    assert figures['weights_sent'] == 6
    assert figures['weights_used'] >= 4  # A busy machine may skip one.
    assert 0.0 < figures['weights_p50_ms'] < 1000.0
    assert '| transitions missing |' in to_markdown(figures)
