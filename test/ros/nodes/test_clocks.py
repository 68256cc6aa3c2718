# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Control steps follow the time of their owner: the simulator's, or none that can be set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import rclpy
from own_nodes import own_nodes
from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from residual_rl_ros.config.run import load_run
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology, takeover_spec
from residual_rl_ros.ros.common.managed_node import WARN, ManagedNode, control_clock
from residual_rl_ros.ros.nodes.policy_node import PolicyNode
from residual_rl_ros.ros.nodes.takeover_node import TakeoverNode

pytestmark = pytest.mark.ros

RESOLVED = load_run('push_to_goal').resolve()


@pytest.mark.parametrize(
    ('simulated', 'expected'), [(False, ClockType.STEADY_TIME), (True, ClockType.ROS_TIME)]
)
def test_a_wall_clock_that_is_set_back_stops_no_control_timer(
    simulated: bool, expected: ClockType, domain_id: int
) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    time_of = [Parameter('use_sim_time', value=simulated)]
    node = rclpy.create_node('robot', context=context, parameter_overrides=time_of)
    timer = node.create_timer(1.0, lambda: None, clock=control_clock(node))
    assert timer.clock.clock_type == expected
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def make(domain_id: int) -> Iterator[Callable[..., Any]]:
    """Make a node of this process that is active."""
    with own_nodes() as made:

        def create(kind: type[ManagedNode], spec: NodeSpec, **parameters: Any) -> ManagedNode:
            spec = replace(spec, parameters={**spec.parameters, **parameters})
            rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
            made.append(kind())
            made[-1].trigger_configure()
            made[-1].trigger_activate()
            assert made[-1].active, made[-1].failure
            return made[-1]

        yield create


def policy() -> NodeSpec:
    """Return a policy node without privileges."""
    (spec,) = robot_topology(RobotRun(RESOLVED.robot_file, RESOLVED.policy.path, None))
    plain = {'realtime_priority': 0, 'lock_memory': False, 'hold_limit_s': 0.3}
    return replace(spec, parameters={**spec.parameters, **plain})


def test_a_ros_time_that_stands_still_while_control_steps_come_is_a_fault(make: Any) -> None:
    node = make(PolicyNode, policy())
    node._now = lambda: 7.0
    executor, deadline = SingleThreadedExecutor(), time.monotonic() + 30.0
    executor.add_node(node)
    while node.active and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    assert not node.active
    assert node._fault_reason.startswith('ROS time has stood still at 7.000 s for 0.')


def test_a_policy_that_waits_for_a_clock_in_vain_says_so_and_does_not_fail(make: Any) -> None:
    node = make(PolicyNode, policy(), use_sim_time=True)
    node._steps._clock = lambda: time.monotonic() + 5.0
    level, message, _ = node._report()
    assert level == WARN
    assert message.startswith('no control step for 5.')
    assert node.active


def test_the_clock_of_a_node_by_which_an_operator_moves_a_robot_stays(make: Any) -> None:
    _, path = load_robot('ur_forward_position')
    (spec,) = takeover_spec(path, 'spacemouse', [''])
    node = make(TakeoverNode, spec)
    (result,) = node.set_parameters([Parameter('use_sim_time', value=True)])
    assert not result.successful
    assert 'use_sim_time of takeover_node is False' in result.reason
