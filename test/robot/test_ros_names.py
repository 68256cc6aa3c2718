# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names are resolved as ROS does."""

from __future__ import annotations

import pytest

from residual_rl_ros.robot.names import full_name


@pytest.mark.parametrize(
    ('name', 'namespace', 'full'),
    [
        ('image', 'left', '/left/image'),
        ('image', '/left/', '/left/image'),
        ('image', '', '/image'),
        ('image', '/', '/image'),
        ('/image', 'left', '/image'),
        ('camera/image', 'cell/left', '/cell/left/camera/image'),
        ('~/hold', 'left', '/left/policy_node/hold'),
        ('~/hold', '', '/policy_node/hold'),
    ],
)
def test_a_name_is_resolved_in_its_namespace(name: str, namespace: str, full: str) -> None:
    assert full_name(name, namespace, 'policy_node') == full
