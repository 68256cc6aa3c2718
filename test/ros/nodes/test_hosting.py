# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any gymnasium environment with Box spaces is a robot: described, hosted, controlled over ROS."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from builders import write_onnx_policy
from processes import wait_for

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import NodeSpec
from residual_rl_ros.tasks.hosting import describe_robot, make_environment

pytestmark = pytest.mark.ros


def test_pendulum_runs_over_ros_from_its_generated_description(
    domain_id: int, tmp_path: Path
) -> None:
    robot_file = tmp_path / 'pendulum.yaml'
    robot = describe_robot('Pendulum-v1', make_environment('Pendulum-v1'))
    robot_file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': robot}}}))
    config, _ = load_robot(str(robot_file))
    metadata = BasePolicyMetadata(
        observation_names=config.observation_names,
        action_names=config.action.names,
        action_min=(-1.0,),
        action_max=(1.0,),
        rate_hz=config.control_rate_hz,
        n_obs_steps=1,
        horizon=4,
        exec_start=0,
        exec_steps=4,
    )
    model = tmp_path / 'policy.onnx'
    write_onnx_policy(model, metadata)
    policy = NodeSpec(
        'policy_node',
        True,
        (robot_file,),
        {'base_policy': str(model), 'lockstep': True, 'wait_for_actor': False},
    )
    simulator = NodeSpec(
        'mujoco_sim_node', False, (robot_file,), {'task': 'Pendulum-v1', 'control_steps': 250}
    )
    with (
        Monitor(domain_id) as monitor,
        Bringup([policy, simulator], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: bringup.ended('mujoco_sim_node'), 60.0, 'end of the run')
        bringup.check()
        # Two episodes of 200 steps: the budget ends with the second.
        wait_for(lambda: monitor.number('policy_node', 'ticks') == 400, 5.0, 'last report')
        assert monitor.number('policy_node', 'transitions') == 400
