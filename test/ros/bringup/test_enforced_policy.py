# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Under DDS security the nodes of a robot do their work, and nobody else commands it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec

import pytest
from base_policy_builders import write_classifier
from processes import wait_for
from rclpy._rclpy_pybind11 import RCLError
from rich.console import Console
from ros_fixtures import report_often
from std_msgs.msg import Bool, Float64MultiArray, UInt8MultiArray
from std_srvs.srv import SetBool

from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.sros2_policy import policy_xml, required_access
from residual_rl_ros.ros.bringup.topology import recorder_spec, reward_spec
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.node_host import Listener, NodeHost
from residual_rl_ros.ros.tools.customise import customise
from residual_rl_ros.ros.tools.operator import GO_ON, HOLD, Operator

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(find_spec('sros2') is None, reason='needs sros2, and DDS with security'),
]

LIMIT_S = 60.0
UNHEARD_S = 3.0
"""How long somebody is listened for who must not be heard [s]."""
TOPICS = {
    'learner_node/actor': (UInt8MultiArray, qos.LATCHED),
    'takeover/active': (Bool, qos.COMMAND),
    'takeover/command': (Float64MultiArray, qos.COMMAND),
    'step_feedback': (Float64MultiArray, qos.FEEDBACK),
    'policy_node/transitions': (Float64MultiArray, qos.TRANSITIONS),
}
"""What learner, operator, judge and policy say, and an intruder would."""


@dataclass(frozen=True)
class Cell:
    """A simulated robot behind its policy."""

    monitor: Monitor
    domain_id: int

    def number(self, node: str, key: str) -> float:
        return self.monitor.number(f'cell/{node}', key)


@pytest.fixture(scope='module')
def cell(worker_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder = tmp_path_factory.mktemp('cell')
    config = quick(load_run('push_to_goal'))
    config = replace(config, overrides={**config.overrides, 'warmup_transitions': 10})
    run = config.resolve()
    write_classifier(folder / 'success.onnx', run.robot.observation_names)
    (folder / 'policy.xml').write_text(policy_xml(required_access(run.robot, ['cell'])))
    nodes = (
        *finetune_topology(
            config, run.robot_file, run.policy.path, folder, 0, 0, lockstep=False, namespace='cell'
        ),
        reward_spec(run.robot_file, folder / 'success.onnx', '', 'cell'),
        recorder_spec(run.robot_file, 'cell', folder / 'bag', '', raw=True),
    )
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        report_often(patch)
        patch.setenv('ROS_DOMAIN_ID', str(worker_domain))
        artifacts = ('-k', str(folder / 'keys'), '-p', str(folder / 'policy.xml'))
        subprocess.run(['ros2', 'security', 'generate_artifacts', *artifacts], check=True)
        patch.setenv('ROS_SECURITY_KEYSTORE', str(folder / 'keys'))
        patch.setenv('ROS_SECURITY_ENABLE', 'true')
        patch.setenv('ROS_SECURITY_STRATEGY', 'Enforce')
        monitor = stack.enter_context(Monitor(worker_domain))
        environment = ros_environment(worker_domain)
        bringup = stack.enter_context(Bringup(nodes, folder / 'logs', environment))
        cell = Cell(monitor, worker_domain)
        wait_for(lambda: _runs(bringup, cell), LIMIT_S, 'learning')
        yield cell


def _runs(bringup: Bringup, cell: Cell) -> bool:
    bringup.check()
    return cell.number('policy_node', 'sequence') > 0 < cell.number('learner_node', 'updates')


def test_its_nodes_hear_each_other(cell: Cell) -> None:
    assert cell.number('reward_node', 'asked') > 0
    assert cell.number('recorder_node', 'messages') > 0


def test_its_operator_holds_and_customises_it(cell: Cell) -> None:
    with Operator(cell.monitor, 'cell', domain_id=cell.domain_id) as operator:
        for key in (HOLD, GO_ON):
            operator.press(key)
            wait_for(lambda key=key: _answered(operator, key), LIMIT_S, f'answer to {key}')
            assert operator.alarm() == ''
    customise('cell', False, False, None, 1.0, Console(quiet=True))


def _answered(operator: Operator, key: str) -> str:
    operator.look()
    return operator.outcome(key)


def test_nobody_without_keys_is_heard(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_SECURITY_ENABLE', 'false')
    with Listener('intruder', cell.domain_id, 'cell') as intruder:
        publishers = [
            intruder.node.create_publisher(kind, name, profile)
            for name, (kind, profile) in TOPICS.items()
        ]
        hold = intruder.node.create_client(SetBool, 'policy_node/hold')
        deadline = time.monotonic() + UNHEARD_S
        while time.monotonic() < deadline:
            assert not any(publisher.get_subscription_count() for publisher in publishers)
            assert not hold.service_is_ready()
            time.sleep(0.1)


def test_a_node_may_only_do_what_its_enclave_allows(cell: Cell) -> None:
    with NodeHost('telemetry', cell.domain_id) as tool:
        for name, (kind, profile) in TOPICS.items():
            with pytest.raises(RCLError, match='could not create data writer'):
                tool.node.create_publisher(kind, f'/cell/{name}', profile)
        with pytest.raises(RCLError):
            tool.node.create_client(SetBool, '/cell/policy_node/hold')
