# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every topic, field, status and service that a layout names exists."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import JointState

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.layouts import FOXGLOVE, PLOTJUGGLER, RQT, layouts, write_layouts
from residual_rl_ros.ros.bringup.sros2_policy import required_access
from residual_rl_ros.ros.nodes.decision_topics import DECISION, DECISION_KEYS

ROBOT, _ = load_robot('ur_forward_position')
CASES = [('ur_forward_position', ''), ('push_to_goal', 'left')]


def of(name: str, namespace: str) -> tuple[Any, Any, dict[str, str]]:
    """Return a robot, what its policy node may do, and its layouts."""
    robot, _ = load_robot(name)
    access = next(a for a in required_access(robot, [namespace]) if a.node == 'policy_node')
    return robot, access.resolved(), layouts(robot, namespace)


def strings(tree: Any) -> list[str]:
    """Return all texts of a JSON tree, those of keys too."""
    if isinstance(tree, dict):
        return [text for pair in tree.items() for part in pair for text in strings(part)]
    if isinstance(tree, list):
        return [text for part in tree for text in strings(part)]
    return [tree] if isinstance(tree, str) else []


def test_the_fields_are_those_of_the_messages() -> None:
    assert {'name', 'position'} <= set(JointState.get_fields_and_field_types())
    assert 'status' in DiagnosticArray.get_fields_and_field_types()
    assert {'values', 'hardware_id'} <= set(DiagnosticStatus.get_fields_and_field_types())
    assert {'key', 'value'} <= set(KeyValue.get_fields_and_field_types())


@pytest.mark.parametrize(('name', 'namespace'), CASES)
def test_foxglove_names_only_what_exists(name: str, namespace: str) -> None:
    robot, access, texts = of(name, namespace)
    layout = json.loads(texts[FOXGLOVE])
    paths = [text for text in strings(layout) if text.startswith('/')]
    assert len(paths) > 2 * robot.action.size
    for path in paths:
        topic, _, rest = path.partition('.')
        assert topic in (*access.publishes, *access.serves), path
        indexed = re.fullmatch(r'position\[(\d+)\]', rest)
        keyed = re.fullmatch(r'status\[:\]\.values\[:\]\{key=="(\w+)"\}\.value', rest)
        if indexed:
            assert int(indexed[1]) < robot.action.size, path
        elif keyed:
            assert topic.endswith(f'/{DECISION}'), path
            assert keyed[1] in DECISION_KEYS, path
        else:
            assert not rest, path
    used = {text for text in strings(layout['layout']) if '!' in text}
    assert used == set(layout['configById'])


@pytest.mark.parametrize(('name', 'namespace'), CASES)
def test_plotjuggler_names_only_what_exists(name: str, namespace: str) -> None:
    robot, access, texts = of(name, namespace)
    curves = [curve.get('name') or '' for curve in ET.fromstring(texts[PLOTJUGGLER]).iter('curve')]
    assert len(curves) > 2 * robot.action.size
    for curve in curves:
        node, _, rest = curve.partition('/policy_node/')
        topic, *keys = rest.split('/')
        assert f'{node}/policy_node/{topic}' in access.publishes, curve
        if topic == DECISION:
            assert keys[:2] == [robot.name, DECISION], curve
            assert keys[2] in DECISION_KEYS, curve
        else:
            assert keys[0] in robot.action.names, curve
            assert keys[1:] == ['position'], curve


@pytest.mark.parametrize(('name', 'namespace'), CASES)
def test_rqt_names_only_what_exists(name: str, namespace: str) -> None:
    robot, access, texts = of(name, namespace)
    manager = json.loads(texts[RQT])['groups']['pluginmanager']
    running = ast.literal_eval(manager['keys']['running-plugins']['repr'])
    plugins = {f'plugin__{kind.replace("/", "__")}__{n}' for kind in running for n in running[kind]}
    assert plugins == set(manager['groups'])
    plot = manager['groups']['plugin__rqt_plot__Plot__1']['groups']['plugin']['keys']
    for path in ast.literal_eval(plot['topics']['repr']):
        topic, field, index = re.fullmatch(r'(.*)/(\w+)\[(\d+)\]', path).groups()  # type: ignore[union-attr]
        assert topic in access.publishes, path
        assert field == 'position', path
        assert int(index) < robot.action.size, path


def test_the_shipped_layouts_are_up_to_date() -> None:
    for name, text in layouts(ROBOT).items():
        path = resource_path('config', 'layouts', ROBOT.name, name)
        assert path.read_text(encoding='utf-8') == text, name


def test_layouts_that_cannot_be_written_are_refused_by_the_folders_name(tmp_path: Any) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(ResidualRLError, match='cannot write layouts to'):
        write_layouts(ROBOT, tmp_path / 'file')
