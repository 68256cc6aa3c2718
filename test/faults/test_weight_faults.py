# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Actors that must not reach the robot: each is refused for its reason, and nothing changes."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from builders import make_actor, make_layout, mislabelled
from processes import wait_for
from simulated_robots import LAYOUT, LIMIT_S, count, goes_on, running
from std_msgs.msg import UInt8MultiArray

from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import byte_array
from residual_rl_ros.transitions.transition import TransitionLayout

pytestmark = pytest.mark.ros

MAX_BYTES = 2_000_000
REASONS = ('malformed', 'digest', 'layout', 'shape', 'non_finite', 'stale', 'oversized')


def actor(
    version: tuple[int, int],
    layout: TransitionLayout = LAYOUT,
    spoil: bool = False,
    mislabel: bool = False,
) -> bytes:
    """Return a weight message."""
    module = make_actor(layout, seed=1)
    if spoil:
        module.heads.bias.data[0] = float('nan')
    robots = module.to_numpy()
    return encode_weights(mislabelled(robots) if mislabel else robots, WeightsHeader(*version))


def judged(monitor: Monitor) -> dict[str, float]:
    """Return how many messages were accepted, and refused for each reason."""
    keys = ('accepted', *(f'refused_{reason}' for reason in REASONS))
    return {key: count(monitor, 'policy_node', f'weights_{key}') for key in keys}


def test_every_bad_actor_is_refused_for_its_reason(domain_id: int, tmp_path: Path) -> None:
    with running(domain_id, tmp_path, max_weights_bytes=MAX_BYTES) as (monitor, bringup, bystander):
        bringup.processes['learner_node'].send_signal(signal.SIGSTOP)  # It says no more.
        goes_on(monitor)
        version = tuple(int(count(monitor, 'policy_node', key)) for key in ('epoch', 'sequence'))
        epoch, sequence = version
        good = actor((epoch, sequence + 1))
        altered = bytearray(good)
        altered[-1] ^= 1
        publisher = bystander.node.create_publisher(
            UInt8MultiArray, '/learner_node/actor', qos.LATCHED
        )
        wait_for(lambda: publisher.get_subscription_count() > 0, LIMIT_S, 'connection')
        for reason, message in (
            ('malformed', good[: len(good) // 2]),
            ('digest', bytes(altered)),
            ('layout', actor((epoch, sequence + 2), make_layout())),
            ('shape', actor((epoch, sequence + 2), mislabel=True)),
            ('non_finite', actor((epoch, sequence + 3), spoil=True)),
            ('stale', actor((epoch, sequence - 1))),
            ('oversized', np.random.default_rng(0).bytes(MAX_BYTES + 1)),
        ):
            expected = judged(monitor)
            expected[f'refused_{reason}'] += 1.0
            publisher.publish(byte_array(message))
            wait_for(lambda e=expected: judged(monitor) == e, LIMIT_S, f'refusal: {reason}')
            assert count(monitor, 'policy_node', 'sequence') == sequence
        goes_on(monitor)
        publisher.publish(byte_array(good))
        wait_for(
            lambda: count(monitor, 'policy_node', 'sequence') == sequence + 1, LIMIT_S, 'the good'
        )
        goes_on(monitor)
        assert monitor.errors() == {}
        bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)
        bringup.processes['learner_node'].send_signal(signal.SIGCONT)
