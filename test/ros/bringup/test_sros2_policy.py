# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows what the running nodes do, and nothing that they do not."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from pathlib import Path

import pytest
import rclpy
from base_policy_builders import write_classifier
from processes import wait_for
from rclpy.node import Node, NodeNameNonExistentError

from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.takeover_controls import load_takeover
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.sros2_policy import Access, policy_xml, required_access
from residual_rl_ros.ros.bringup.topology import RobotRun, reward_spec, robot_topology
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.dashboard.telemetry import Telemetry
from residual_rl_ros.ros.dashboard.view import RobotView
from residual_rl_ros.ros.tools.customise import CustomisedNode
from residual_rl_ros.ros.tools.operator import Operator, watched_nodes

pytestmark = pytest.mark.ros

LIMIT_S = 60.0
GRAPH_LIMIT_S = 20.0
CLOCK = {'/clock'}
"""The simulator publishes it; the others read it with use_sim_time."""


def test_every_node_does_exactly_what_it_is_allowed_to(domain_id: int, tmp_path: Path) -> None:
    config = quick(load_run('push_to_goal'))
    resolved = config.resolve()
    base, robot, robot_file = resolved.policy, resolved.robot, resolved.robot_file
    write_classifier(tmp_path / 'success.onnx', robot.observation_names)
    nodes = (
        *finetune_topology(config, robot_file, base.path, tmp_path, 0, 0, namespace='cell'),
        reward_spec(robot_file, tmp_path / 'success.onnx', '', 'cell'),
        NodeSpec(
            'recorder_node',
            False,
            (robot_file,),
            {'output_dir': str(tmp_path / 'bag'), 'raw': True},
            'cell',
        ),
    )
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    observer = rclpy.create_node('observer', context=context)
    try:
        with (
            Monitor(domain_id) as monitor,
            Bringup(nodes, tmp_path / 'logs', ros_environment(domain_id)),
            ExitStack() as stack,
        ):
            wait_for(
                lambda: monitor.number('cell/policy_node', 'transitions') > 3, LIMIT_S, 'motion'
            )
            stack.enter_context(Operator(monitor, 'cell', domain_id=domain_id))
            view = RobotView(monitor, *watched_nodes('cell', False))
            stack.enter_context(Telemetry([view], domain_id))
            tool = stack.enter_context(NodeHost('customise', domain_id))
            customised = [CustomisedNode(tool, name) for name in (view.policy, view.learner)]
            assert all(node.read() == ('', 1.0) for node in customised)
            accesses = required_access(robot, ['cell'])
            expected = {access.node: _what_is_allowed(access) for access in accesses}
            # The observer learns of nodes and topics one by one, on a busy machine for seconds.
            deadline = time.monotonic() + GRAPH_LIMIT_S
            found: dict[str, dict[str, set[str]]] = {}
            while found != expected and time.monotonic() < deadline:
                time.sleep(0.2)
                found = {access.node: _what_is_done(observer, access) for access in accesses}
            assert found == expected
    finally:
        observer.destroy_node()
        context.try_shutdown()


def _what_is_allowed(access: Access) -> dict[str, set[str]]:
    allowed = access.resolved()
    return {
        'publishes': set(allowed.publishes) - CLOCK,
        'subscribes': set(allowed.subscribes) - CLOCK,
        'serves': set(allowed.serves),
        'calls': set(allowed.calls),
    }


def _what_is_done(observer: Node, access: Access) -> dict[str, set[str]]:
    ways = {
        'publishes': observer.get_publisher_names_and_types_by_node,
        'subscribes': observer.get_subscriber_names_and_types_by_node,
        'serves': observer.get_service_names_and_types_by_node,
        'calls': observer.get_client_names_and_types_by_node,
    }
    namespace = f'/{access.namespace}'
    try:
        return {
            way: {name for name, _ in of(access.node, namespace)} - CLOCK
            for way, of in ways.items()
        }
    except NodeNameNonExistentError:
        return {}


def test_a_tool_without_an_enclave_is_refused_by_its_name(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ROS_SECURITY_ENABLE', 'true')
    monkeypatch.setenv('ROS_SECURITY_STRATEGY', 'Enforce')
    monkeypatch.setenv('ROS_SECURITY_KEYSTORE', str(tmp_path))
    expected = rf"in ROS domain {domain_id}: .*enclaves/cell/operator' does not exist; "
    with pytest.raises(ConfigError, match=expected), NodeHost('operator', domain_id, 'cell'):
        pass


@pytest.mark.parametrize('name', ['peg_insert', 'ur_forward_position'])
def test_the_shipped_policies_are_up_to_date(name: str) -> None:
    robot, _ = load_robot(name)
    path = resource_path('config', 'security', f'{name}.xml')
    assert path.read_text(encoding='utf-8') == policy_xml(required_access(robot))
    root = ET.parse(path).getroot()
    paths = [enclave.get('path') for enclave in root.iter('enclave')]
    nodes = ('learner_node', 'policy_node', 'reward_node', 'recorder_node', 'mujoco_sim_node')
    tools = ('monitor', 'telemetry', 'customise', 'operator')
    assert paths == [f'/{node}' for node in (*nodes, *tools)]


def test_every_node_of_a_fleet_starts_in_an_enclave_of_its_policy(tmp_path: Path) -> None:
    robot, robot_file = load_robot('peg_insert')
    root = ET.fromstring(policy_xml(required_access(robot, ['left', 'right'])))
    allowed = {enclave.get('path') for enclave in root.iter('enclave')}
    started = robot_topology(
        RobotRun(robot_file, tmp_path, tmp_path, namespaces=('left', 'right'), reward='a:b')
    )
    enclaves = {node.enclave for node in started}
    assert len(enclaves) == len(started) == 5
    assert enclaves <= allowed


def test_an_operator_with_a_pad_may_do_what_its_buttons_say() -> None:
    robot, _ = load_robot('ur_forward_position')
    pad, _ = load_takeover('spacemouse')
    accesses = required_access(robot, takeover=pad)
    hands = next(access for access in accesses if access.node == 'takeover_node').resolved()
    assert hands.calls == ('/policy_node/mark_success',)
    heard = {'/joint_states', '/spacenav/joy', '/policy_node/executed_action'}
    assert set(hands.subscribes) == {'/clock', *heard}
    assert {'/takeover/active', '/takeover/command'} <= set(hands.publishes)
    root = ET.fromstring(policy_xml(accesses))
    asked = [group for group in root.iter('services') if group.get('request') == 'ALLOW']
    assert [service.text for service in asked[0]] == ['/policy_node/mark_success']


def test_a_policy_that_moves_a_gripper_by_goals_may_be_a_client_of_its_action() -> None:
    robot, _ = load_robot('ur5e_robotiq')
    root = ET.fromstring(policy_xml(required_access(robot, ['left'])))
    groups = {
        enclave.get('path'): [action.text for action in group]
        for enclave in root.iter('enclave')
        for group in enclave.iter('actions')
        if group.get('call') == 'ALLOW'
    }
    assert groups == {'/left/policy_node': ['/left/robotiq_gripper_controller/gripper_cmd']}


def test_a_fleet_shares_one_learner() -> None:
    robot, _ = load_robot('peg_insert')
    accesses = {
        (access.namespace, access.node): access.resolved()
        for access in required_access(robot, ['left', 'right'])
    }
    learner = accesses['', 'learner_node']
    assert '/left/policy_node/transitions' in learner.subscribes
    assert '/right/policy_node/transitions' in learner.subscribes
    for side in ('left', 'right'):
        policy = accesses[side, 'policy_node']
        assert '/learner_node/actor' in policy.subscribes
        assert f'/{side}/forward_position_controller/commands' in policy.publishes
