# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What runs beside a robot starts quickly and is small: it loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

SIMULATION = ('mujoco', 'gymnasium', 'scipy', 'matplotlib')
LEARNING = ('torch', 'tensorboard', *SIMULATION)


@pytest.mark.parametrize(
    ('node', 'needless'),
    [
        ('policy_node', LEARNING),
        ('reward_node', LEARNING),
        ('recorder_node', LEARNING),
        ('takeover_node', LEARNING),
        ('learner_node', SIMULATION),
    ],
)
def test_a_node_loads_no_library_that_it_does_not_need(
    node: str, needless: tuple[str, ...]
) -> None:
    code = (
        f'import sys, residual_rl_ros.ros.nodes.{node}\n'
        f'print([name for name in {needless!r} if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
