# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Each concern of a node has a status for people, and no value that stands for nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from loop_builders import real_time

from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.common.concerns import Concern, Concerns
from residual_rl_ros.ros.nodes.learner_values import LEARNER_CONCERNS
from residual_rl_ros.ros.nodes.policy_values import POLICY_CONCERNS, policy_values

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
TWO = (Concern('motion', ('episode', 'ticks')), Concern('inference', ('late*',), ('late*',)))


def said(concerns: Concerns, level: bytes, message: str, **values: object) -> dict[str, tuple]:
    return {
        part.name: (part.level, part.message, part.values)
        for part in concerns.split(level, message, values)
    }


def test_a_counter_that_has_grown_warns_of_its_concern_once() -> None:
    concerns = Concerns(TWO)
    said(concerns, OK, 'running', late_chunks=0)
    slow = said(concerns, WARN, 'the base is late', ticks=9, late_chunks=3)
    assert slow['inference'] == (WARN, 'late_chunks +3', {'late_chunks': 3})
    assert slow['motion'] == (OK, 'ok', {'ticks': 9})
    again = said(concerns, OK, 'running', ticks=12, late_chunks=3)
    assert again['inference'][:2] == (OK, 'ok')
    assert again['motion'][:2] == (OK, 'running')


def test_a_fault_and_a_warning_that_no_counter_explains_are_of_the_first_concern() -> None:
    concerns = Concerns(TWO)
    assert said(concerns, WARN, 'the clock jumped', late=0)['motion'][:2] == (
        WARN,
        'the clock jumped',
    )
    both = said(concerns, ERROR, 'fault: held for 1 s', late=1)
    assert both['motion'][:2] == (ERROR, 'fault: held for 1 s')
    assert both['inference'][:2] == (WARN, 'late +1')


def test_what_stands_for_nothing_is_left_out() -> None:
    concerns = Concerns((Concern('all', ('*',)),))
    values = {'episode': -1, 'sequence': 4, 'stops': '', 'age_s': np.inf, 'share': np.nan, 'x': -1}
    assert said(concerns, OK, 'running', **values)['all'][2] == {'sequence': 4, 'x': -1}


def test_every_value_of_policy_and_learner_belongs_to_a_concern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / 'docs' / '_ext'))
    import meanings

    policy, learner = Concerns(POLICY_CONCERNS), Concerns(LEARNER_CONCERNS)
    loop, _ = real_time(LinearPolicy())
    reported = policy_values(loop, 20.0)
    described = [*meanings.DIAGNOSTICS['policy_node'], 'gripper_goals_refused']
    assert len(reported) > 50
    for key in (*reported, *described):
        assert policy.owner(key)[0] or '_overall_' in key, key
    for key in meanings.DIAGNOSTICS['learner_node']:
        assert learner.owner(key)[0] not in ('', 'networks'), key
    assert learner.owner('q_base')[0] == 'networks'
    sys.modules.pop('meanings')


def test_a_monitor_takes_a_nodes_own_status_and_not_those_of_its_concerns() -> None:
    monitor = Monitor(0)
    names = ('/left/policy_node', '/left/policy_node/motion', '/right/policy_node')
    statuses = [DiagnosticStatus(name=name, level=WARN, message=name) for name in names]
    monitor._receive(DiagnosticArray(status=statuses))
    assert set(monitor.warnings()) == {'left/policy_node', 'right/policy_node'}
