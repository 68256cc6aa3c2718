# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts of `benchmarks/` that need ROS still run, on as little as they can."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType

import pytest
from benchmark_scripts import load_script

pytestmark = pytest.mark.ros


@pytest.fixture
def script(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that loads a script, which then uses the domain of this test."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))

    def load(name: str) -> ModuleType:
        module = load_script(name, monkeypatch)
        monkeypatch.setattr(module, 'claim_domain', lambda: nullcontext(domain_id))
        return module

    return load


def test_round_trips_of_the_nodes_and_of_nothing_else(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr('sys.argv', ['round_trips.py', '--steps', '200'])
    script('round_trips').main()
    figures = json.loads(capsys.readouterr().out)
    assert (figures['task'], figures['steps']) == ('peg_insert', 200)
    bare, nodes = figures['bare_round_trips_per_s'], figures['lockstep_control_steps_per_s']
    assert min(bare, nodes) > 0.0
    assert figures['ratio'] == pytest.approx(nodes / bare, abs=1e-3)


def test_a_control_step_with_one_command_and_with_two_that_are_sent_in_between(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    script('command_channels').main(turns=2, seconds=0.2)
    figures = json.loads(capsys.readouterr().out)
    for kind in ('step_wall', 'step_thread', 'period_wall', 'period_thread'):
        one, two = figures[f'{kind}_p50_us']
        ratio, low, high = figures[f'{kind}_p50_ratio']
        assert min(one, two) > 0.0
        assert low <= ratio <= high
        assert ratio == pytest.approx(two / one, rel=0.01)
    assert figures['period_wall_p50_us'] == pytest.approx([5000.0] * 2, rel=0.5)


def test_the_load_of_a_recorder(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    script('recorder_load').main(seconds=1.0)
    shown = capsys.readouterr().out
    assert shown.startswith('200 steps sent in 1 s; lost by topic {')
    share = re.search(r'; (\d+\.\d)% of a core', shown)
    assert share is not None
    assert float(share[1]) > 0.0


def test_what_a_killed_recorder_loses(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    script('recorder_load').main(kills=1)
    lost = re.fullmatch(
        r'1 kills, every bag opens; lost at most (\d\.\d\d) s\n', capsys.readouterr().out
    )
    assert lost is not None
    assert float(lost[1]) <= 1.0
