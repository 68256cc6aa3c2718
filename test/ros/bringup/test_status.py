# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a node has an age, and each change is a line."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.status import Events, describe, readable, status_table

pytestmark = pytest.mark.ros


def say(monitor: Monitor, node: str, message: str = 'running', **values: object) -> None:
    """Have a monitor hear a status of a node."""
    level = DiagnosticStatus.OK if message == 'running' else DiagnosticStatus.WARN
    status = DiagnosticStatus(level=level, name=f'/{node}', message=message)
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    monitor._receive(DiagnosticArray(status=[status]))


def test_every_status_has_an_age_and_an_old_one_is_said_to_be_old() -> None:
    now = [100.0]
    monitor = Monitor(0, lambda: now[0])
    assert monitor.is_stale('policy_node')
    assert describe(monitor, 'policy_node') == 'nothing heard yet'
    say(monitor, 'policy_node', active=True, episode=3)
    now[0] += 0.5
    assert describe(monitor, 'policy_node') == 'active True, episode 3 (0.5 s ago)'
    now[0] += 12.0
    assert monitor.age('policy_node') == 12.5
    told = describe(monitor, 'policy_node')
    assert told == 'NOTHING HEARD FOR 12 s; it was: active True, episode 3'
    assert status_table(monitor, ['policy_node']).row_count == 1


def test_a_success_rate_that_nobody_knows_is_shown_as_unknown() -> None:
    assert readable('success_recent', '-1.0') == 'unknown'
    assert readable('success_recent', '0.52') == '52%'
    assert readable('phase', 'warmup') == 'warmup'


def test_without_a_terminal_each_change_is_a_line() -> None:
    now = [0.0]
    monitor = Monitor(0, lambda: now[0])
    events = Events(monitor, ['policy_node', 'learner_node'])
    assert events.news(0.0) == []
    say(monitor, 'policy_node', active=False, episode=-1)
    assert [line.split(' (')[0] for line in events.news(0.1)] == [
        'policy_node: active False, episode -1'
    ]
    say(monitor, 'policy_node', active=False, episode=-1)
    assert events.news(0.2) == []
    say(monitor, 'policy_node', active=True, episode=0)
    assert len(events.news(0.3)) == 1
    say(monitor, 'policy_node', 'the base policy is late', active=True, episode=0)
    (late,) = events.news(0.4)
    assert 'the base policy is late' in late
    for age, lines in (('0.3', 1), ('0.8', 0), ('12.8', 0)):
        say(monitor, 'policy_node', f"'arm' is {age} s old", active=True, episode=0)
        assert len(events.news(0.5)) == lines
    now[0] = 10.0
    (stale,) = events.news(10.0)
    assert 'NOTHING HEARD FOR 10 s' in stale
    assert events.news(10.2) == []
    assert len(events.news(31.0)) == 1
