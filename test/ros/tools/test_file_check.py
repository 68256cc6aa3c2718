# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What check-robot calls usable starts: the nodes' own parser reads the same in the file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from residual_rl_ros.cli.robots import check_robot
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.resources import find_base_policy, resource_path
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.processes import ros_environment
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.tools.file_check import check_file

pytestmark = pytest.mark.ros

PEG = resource_path('config', 'robots', 'peg_insert.yaml').read_text(encoding='utf-8')
TOY = """\
/**:
  ros__parameters:
    robot:
      name: toy
      control_rate_hz: 20.0
      command: {topic: cmd, type: std_msgs/msg/Float64MultiArray}
      action:
        names: [u, v]
        lower: [-2.0, -2.0]
        upper: [2.0, 2.0]
        max_velocity: [8.0, 8.0]
      observation:
        channels: [arm]
        arm:
          topic: joint_states
          type: sensor_msgs/msg/JointState
          fields: [position]
          joints: [j1, j2]
          max_age_s: 0.2
"""
ANCHOR = TOY.replace('[2.0, 2.0]', '&up [2.0, 2.0]').replace('[8.0, 8.0]', '*up')
HAND = """\
        hand:
          type: tf
          source_frame: hand
          target_frame: base
          fields: [position.x]
          max_age_s: 0.2
"""
STOP = """\
      stop_inputs:
        estop: {{topic: estop, type: {}, field: {}, bad: ['3']}}
"""


def problems_of(
    text: str, folder: Path, namespace: str = '', base_policy: str | None = None
) -> list[str]:
    path = folder / 'robot.yaml'
    path.write_text(text, encoding='utf-8')
    load_robot(str(path))  # The tools can read it.
    report = InspectionReport('robot')
    before = dict(os.environ)
    check_file(path, report, namespace, base_policy)
    assert dict(os.environ) == before
    assert report.remarks == []
    return report.problems


@pytest.mark.parametrize(
    'text',
    [
        TOY,
        PEG,
        TOY.replace('20.0', '20'),
        TOY.replace('[-2.0, -2.0]', '[-2, -2]'),
        TOY + STOP.format('std_msgs/msg/Int32', 'data'),
        TOY + '    decision_steps: 4\ncamera_node:\n  ros__parameters:\n    rate: 10\n',
    ],
)
def test_a_file_that_both_parsers_read_alike_has_no_problem(tmp_path: Path, text: str) -> None:
    assert problems_of(text, tmp_path) == []


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (TOY.replace('[-2.0, -2.0]', '[-2, -1.5]'), 'the nodes cannot read it: Sequence should be'),
        (ANCHOR, 'knows no anchors'),
        (TOY.replace('cmd,', 'cmd, <<: {hold: last},'), 'robot.command.<< is unknown'),
        (TOY.replace('[j1, j2]', '[y, n]'), 'joints is [True, False], expected a non-empty list'),
        (
            TOY.replace('[8.0, 8.0]', '[8.0, 8.0]\n        measured_by: []'),
            'leave it out (robot.action.measured_by)',
        ),
        (TOY + '      stop_inputs: {}\n', 'stop_inputs'),
        (
            TOY + 'policy_node:\n  ros__parameters:\n    robot:\n      control_rate_hz: 10.0\n',
            'policy_node reads robot.control_rate_hz as 10.0, the tools as 20.0',
        ),
        (
            TOY + STOP.format('std_msgs/msg/Int32', 'dada'),
            "stop_inputs.estop.field is 'dada'",
        ),
        (TOY + STOP.format('my_msgs/msg/None', 'data'), 'needs the package my_msgs, which is not'),
        (
            TOY.replace('[arm]', '[arm, hand]') + HAND,
            'robot.observation.hand.type: tf2_msgs/msg/TFMessage needs the package tf2_msgs, which',
        ),
        (TOY + '    decision_steps: -1\n', "'decision_steps' is -1, expected a whole number >= 0"),
        (TOY + 'camera:\n  rate: 10.0\n', 'Cannot have a value before ros__parameters'),
    ],
)
def test_what_stops_the_nodes_is_a_problem(
    tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'tf2_msgs.msg', None)  # As if it were not installed.
    message_class.cache_clear()
    problems = problems_of(text, tmp_path)
    assert problems
    assert message in problems[0]
    assert '\n' not in problems[0]


def test_sections_apply_by_namespace(tmp_path: Path) -> None:
    text = TOY + '/left/policy_node:\n  ros__parameters:\n    robot:\n      name: lefty\n'
    assert problems_of(text, tmp_path) == []
    (problem,) = problems_of(text, tmp_path, '/left')
    assert "policy_node reads robot.name as 'lefty', the tools as 'toy'" in problem


def test_the_pin_in_a_file_is_compared_with_the_base_policy(tmp_path: Path) -> None:
    digest = hashlib.sha256(find_base_policy('peg_insert').read_bytes()).hexdigest()
    pinned = f'{PEG}\n    base_policy_sha256: {{}}\n'
    assert problems_of(pinned.format(digest), tmp_path, '', 'peg_insert') == []
    (problem,) = problems_of(pinned.format('ab' * 32), tmp_path, '', 'peg_insert')
    assert f'has sha256 {digest}, expected {"ab" * 32}' in problem


def test_the_command_asks_the_parser_of_the_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'robot.yaml'
    path.write_text(TOY)
    check_robot(str(path))
    path.write_text(TOY.replace('[-2.0, -2.0]', '[-2, -1.5]'))
    with pytest.raises(typer.Exit):
        check_robot(str(path))
    assert 'the nodes cannot read it' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (TOY.replace('[-2.0, -2.0]', '[-2, -1.5]'), 'a parameter file cannot be read: Sequence'),
        (TOY.replace('[8.0, 8.0]', '[]'), 'reward_node cannot start: a parameter has no value'),
    ],
)
def test_a_node_says_in_one_line_that_it_cannot_read_its_file(
    tmp_path: Path, domain_id: int, text: str, message: str
) -> None:
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    command = [sys.executable, '-m', 'residual_rl_ros.ros.nodes.reward_node']
    done = subprocess.run(
        [*command, '--ros-args', '--params-file', str(path)],
        env=ros_environment(domain_id),
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert f'error: {message}' in done.stderr


def test_every_message_type_that_is_missing_is_named_once(tmp_path: Path) -> None:
    stops = STOP.format('ur_msgs/msg/None', 'data')
    stops += "        other: {topic: other, type: no_msgs/msg/None, field: data, bad: ['3']}\n"
    first, second = problems_of(TOY + stops, tmp_path)
    assert 'stop_inputs.estop.type: ur_msgs/msg/None needs the package ur_msgs' in first
    assert 'stop_inputs.other.type: no_msgs/msg/None needs the package no_msgs' in second
