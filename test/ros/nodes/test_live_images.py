# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy that sees images runs in real time."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import wait_for

from residual_rl_ros.resources import resource_path
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment

pytestmark = pytest.mark.ros
TASK = 'pick_place_camera'


def test_images_are_read_beside_the_control_loop(domain_id: int, tmp_path: Path) -> None:
    files = (resource_path('config', 'robots', f'{TASK}.yaml'),)
    policy = NodeSpec(
        'policy_node',
        True,
        files,
        {'base_policy': TASK, 'lockstep': False, 'auto_start': True, 'prefetch_steps': 1},
    )
    simulator = NodeSpec('mujoco_sim_node', False, files, {'task': TASK, 'lockstep': False})
    with (
        Monitor(domain_id) as monitor,
        Bringup([policy, simulator], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: monitor.number('policy_node', 'transitions') >= 10, 60.0, 'decisions')
        bringup.check()
        assert monitor.number('policy_node', 'refused_observations') == 0
