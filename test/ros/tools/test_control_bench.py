# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`bench control` measures the real nodes: they run, learn, and lose nothing."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import run_command
from learner_builders import SMALL

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.tools import control_bench

pytestmark = pytest.mark.ros


@pytest.mark.timeout(300)
def test_the_figures_are_those_of_a_running_robot(
    domain_id: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control_bench, 'claim_domain', lambda: nullcontext(domain_id))
    monkeypatch.setattr(control_bench, 'WEIGHTS_MESSAGES', 6)
    learner = {**control_bench.LEARNER, **SMALL, 'warmup_transitions': 20}
    monkeypatch.setattr(control_bench, 'LEARNER', learner)
    monkeypatch.setattr(control_bench, 'JOIN_S', 0.5)
    measure, figures = control_bench.measure, {}

    def measured(rate: float, seconds: float, console: Any, inference_s: float) -> dict[str, float]:
        assert (rate, seconds, inference_s) == (50.0, 5.0, 0.03)
        figures.update(
            measure(rate, 2.0, console, inference_s)
        )  # The command takes no less than five seconds.
        return figures

    monkeypatch.setattr(control_bench, 'measure', measured)
    command = ('bench', 'control', '--rate', '50', '--seconds', '5', '--inference', '0.03')
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    assert figures['ticks'] > 0
    assert figures['updates_per_s'] > 0.0
    assert 0.0 < figures['reaction_p50_us'] <= figures['tick_p50_us'] <= figures['tick_p99_us']
    assert 0.0 < figures['bare_p50_us'] <= figures['bare_p99_us']
    assert figures['received'] > 50
    assert figures['inference_p50_us'] > 2e4
    assert figures['prefetch_steps'] >= 2
    assert figures['first_chunk_holds'] + figures['late_chunks'] <= figures['holds']
    assert figures['missing'] <= figures['holds']
    assert figures['weights_bytes'] >= 1e6
    assert figures['weights_sent'] == 6
    assert figures['weights_used'] >= 1  # A busy machine may skip some.
    assert 0.0 < figures['weights_p50_ms'] <= figures['weights_p99_ms']
    assert '| transitions missing |' in capsys.readouterr().out


def test_a_robot_that_stopped_is_not_measured() -> None:
    bringup, said = SimpleNamespace(check=lambda: None), {'learner_node': 'slow'}
    monitor: Any = SimpleNamespace(errors=lambda: said)
    control_bench._check(monitor, bringup)  # type: ignore[arg-type]
    said['policy_node'] = 'fault: held for 1.00 s'
    with pytest.raises(ResidualRLError, match=r'the robot stopped \(fault: held .*free this comp'):
        control_bench._check(monitor, bringup)  # type: ignore[arg-type]
