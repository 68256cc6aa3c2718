# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Topics carry nonsense, or an operator's wish: what is unusable is refused and counted."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import random_transitions, slow_down
from processes import wait_for
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from ros_fixtures import Caller
from simulated_robots import (
    BASE,
    LAYOUT,
    LIMIT_S,
    ROBOT,
    BadJointStates,
    Bystander,
    count,
    goes_on,
    repeating,
    running,
)
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import NodeSpec
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import float_array
from residual_rl_ros.transitions.transition import Source, Success, Transition

pytestmark = pytest.mark.ros


def test_bad_observations_alone_are_none(domain_id: int, tmp_path: Path) -> None:
    """A driver goes mad: what it publishes keeps no channel fresh."""
    with (
        running(domain_id, tmp_path) as (monitor, bringup, bystander),
        repeating(BadJointStates(bystander)),
    ):
        bringup.processes['mujoco_sim_node'].send_signal(signal.SIGKILL)
        # After max_age_s, hold_limit_s and a diagnostics period, together less than 2 s.
        wait_for(lambda: 'policy_node' in monitor.errors(), LIMIT_S, 'the fault')
        assert 'held for' in monitor.errors()['policy_node']
        assert not bringup.ended('policy_node')
        np.testing.assert_array_equal(bystander.commands[-1], bystander.commands[-2])
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


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


def test_an_operator_takes_over_during_inference_and_judges(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    """The base policy is slow, so that it is at work, and late, when the operator intervenes."""
    slow = tmp_path / 'slow.onnx'
    slow_down(BASE.path, slow, 10.0 / ROBOT.control_rate_hz)
    late = {'base_policy': str(slow), 'hold_limit_s': 30.0}
    with running(domain_id, tmp_path, **late) as (monitor, bringup, bystander):
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
        goes_on(monitor)
        assert monitor.values('policy_node')['takeover'] == 'False'
        assert monitor.errors() == {}
        bringup.check()
        bystander.check_commands(int(episode()) + 1)


def judge(bystander: Bystander, call: Caller, service: str) -> Transition:
    """Have an operator begin and end an episode and return its last transition."""
    # Where the simulator, which knows nothing of this and would judge too, has just begun one.
    wait_for(bystander.early_in_an_episode, LIMIT_S, 'an episode of the simulator')
    wait_for(lambda: call(Trigger, '/policy_node/start_episode').success, 5.0, 'a start')
    made = len(bystander.transitions)

    def ends() -> list[Transition]:
        return [t for t in bystander.transitions[made:] if t.terminated or t.truncated]

    wait_for(lambda: call(Trigger, f'/policy_node/{service}').success, 5.0, service)
    wait_for(lambda: ends() != [], LIMIT_S, f'end by {service}')
    return ends()[0]


def start_by_itself(call: Caller, yes: bool) -> None:
    value = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=yes)
    parameters = [Parameter(name='auto_start', value=value)]
    call(SetParameters, '/policy_node/set_parameters', parameters=parameters)


def test_what_the_middleware_loses_is_counted(domain_id: int, tmp_path: Path) -> None:
    """A learner stands still for longer than the 1000 transitions that wait for it."""
    learner = NodeSpec('learner_node', True, (), {'output_dir': str(tmp_path / 'learner')})
    sent = [
        replace(transition, terminated=False, truncated=False)
        for transition in random_transitions(LAYOUT, 3000, episode_decisions=3000)
    ]
    bystander = Bystander(domain_id)
    create = bystander.node.create_publisher
    layouts = create(String, '/policy_node/transition_layout', qos.LATCHED)
    transitions = create(Float64MultiArray, '/policy_node/transitions', qos.TRANSITIONS)
    with (
        Monitor(domain_id) as monitor,
        Bringup([learner], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        layouts.publish(String(data=LAYOUT.to_yaml()))

        def send(some: slice) -> None:
            for transition in sent[some]:
                transitions.publish(float_array(LAYOUT.encode(transition), LAYOUT.label))

        # The bystander listens to the topic, too.
        wait_for(lambda: transitions.get_subscription_count() == 2, LIMIT_S, 'connection')
        send(slice(0, 20))
        wait_for(lambda: count(monitor, 'learner_node', 'transitions') == 20, LIMIT_S, 'a start')
        process = bringup.processes['learner_node']
        process.send_signal(signal.SIGSTOP)
        send(slice(20, 2999))
        process.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        send(slice(2999, 3000))

        def known() -> float:
            arrived, missing = (
                count(monitor, 'learner_node', key) for key in ('transitions', 'missing')
            )
            return arrived + missing

        wait_for(lambda: known() == len(sent), LIMIT_S, 'an account of every transition')
        assert count(monitor, 'learner_node', 'missing') > 500
        assert count(monitor, 'learner_node', 'malformed') == 0
        bringup.check()
    bystander.close()
