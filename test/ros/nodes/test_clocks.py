# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A control timer follows the time of its owner: the simulator's, or none that can be set."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.clock import ClockType
from rclpy.parameter import Parameter

from residual_rl_ros.ros.common.managed_node import control_clock

pytestmark = pytest.mark.ros


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
