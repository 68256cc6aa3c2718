# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy is ten times too slow: the robot holds, and an operator is not kept waiting."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from base_policy_builders import slow_down
from processes import wait_for
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from ros_fixtures import Caller, report_often
from simulated_robots import (
    BASE,
    LIMIT_S,
    ROBOT,
    Bystander,
    Running,
    count,
    goes_on,
    repeating,
    running,
)
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import float_array
from residual_rl_ros.transitions.transition import Source, Success, Transition

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def robot(worker_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a robot whose inference takes ten control steps; a chunk is asked for when it is due."""
    folder = tmp_path_factory.mktemp('robot')
    slow = folder / 'slow.onnx'
    slow_down(BASE.path, slow, 10.0 / ROBOT.control_rate_hz)
    late = {'base_policy': str(slow), 'hold_limit_s': 30.0}
    with pytest.MonkeyPatch.context() as patch:
        report_often(patch)
        with running(worker_domain, folder, **late) as parts:
            yield Running(folder, *parts)


class Operator:
    """Takes a robot over, and moves it to where its joints are all zero, or as near as it may."""

    def __init__(self, bystander: Bystander) -> None:
        create = bystander.node.create_publisher
        self.active = create(Bool, '/takeover/active', qos.COMMAND)
        self.command = create(Float64MultiArray, '/takeover/command', qos.COMMAND)
        self.target = np.zeros(ROBOT.action.size).clip(ROBOT.action.lower, ROBOT.action.upper)

    def __call__(self) -> None:
        self.active.publish(Bool(data=True))
        self.command.publish(float_array(self.target))


def test_an_operator_takes_over_during_inference_and_judges(robot: Running, call: Caller) -> None:
    """The base policy is at work, and late, when the operator intervenes."""
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    operator = Operator(bystander)

    def obeyed() -> bool:
        return bool(np.allclose(bystander.commands[-1], operator.target))

    def episode() -> float:
        return count(monitor, 'policy_node', 'episode')

    wait_for(lambda: count(monitor, 'policy_node', 'late_chunks') > 5, LIMIT_S, 'lateness')
    with repeating(operator):
        wait_for(obeyed, LIMIT_S, 'obedience')
        start_by_itself(call, False)
        for service, outcome in (
            ('mark_success', Success.SUCCESS),
            ('mark_failure', Success.FAILURE),
            ('end_episode', Success.UNLABELLED),
        ):
            before = episode()
            last = judge(bystander, call, service)
            assert last.success is outcome
            assert last.source is Source.TAKEOVER
            assert last.terminated is (outcome is not Success.UNLABELLED)
            wait_for(lambda b=before: episode() > b, LIMIT_S, 'the next episode')
    start_by_itself(call, True)
    operator.active.publish(Bool(data=False))
    goes_on(monitor, transitions=2)
    assert monitor.values('policy_node')['takeover'] == 'False'
    assert monitor.errors() == {}
    bringup.check()
    # The simulator's episodes are not those that the operator begins and ends.
    bystander.check_commands(int(episode()) + bystander.ends + 1)


def judge(bystander: Bystander, call: Caller, service: str) -> Transition:
    """Have an operator begin and end an episode and return its last transition."""
    # Where the simulator, which knows nothing of this and would judge too, has just begun one.
    wait_for(bystander.early_in_an_episode, LIMIT_S, 'an episode of the simulator')
    wait_for(lambda: call(Trigger, '/policy_node/start_episode').success, LIMIT_S, 'a start')
    made = len(bystander.transitions)

    def ends() -> list[Transition]:
        return [t for t in bystander.transitions[made:] if t.terminated or t.truncated]

    wait_for(lambda: call(Trigger, f'/policy_node/{service}').success, LIMIT_S, service)
    wait_for(lambda: ends() != [], LIMIT_S, f'end by {service}')
    return ends()[0]


def start_by_itself(call: Caller, yes: bool) -> None:
    value = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=yes)
    parameters = [Parameter(name='auto_start', value=value)]
    call(SetParameters, '/policy_node/set_parameters', parameters=parameters)


def test_a_base_policy_ten_times_too_slow_is_held_for(robot: Running, call: Caller) -> None:
    """The last test of this robot, which ends with a fault."""
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    goes_on(monitor, transitions=2)
    assert count(monitor, 'policy_node', 'late_chunks') > 5
    assert 'raise prefetch_steps' in (robot.folder / 'logs' / 'policy_node.log').read_text()
    assert monitor.values('policy_node')['active'] == 'True'
    limit = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.2)
    parameters = [Parameter(name='hold_limit_s', value=limit)]
    call(SetParameters, '/policy_node/set_parameters', parameters=parameters)
    wait_for(lambda: 'policy_node' in monitor.errors(), LIMIT_S, 'the fault')
    assert 'the base policy' in monitor.errors()['policy_node']
    np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
    bringup.check()
    bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)
