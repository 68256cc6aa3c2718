# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy node is made of: what is given and would not be used is refused."""

from __future__ import annotations

import pytest

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.nodes.policy_setup import open_base_policy


def test_a_digest_of_a_policy_that_runs_elsewhere_is_refused() -> None:
    robot, _ = load_robot('push_to_goal')
    parameters = PolicyParameters(
        base_policy='topic', base_policy_metadata='served.yaml', base_policy_sha256='ab'
    )
    with pytest.raises(ConfigError, match="base_policy_sha256 is 'ab' with base_policy topic"):
        open_base_policy(parameters, robot, lambda: 0.0, lambda reason: None)
