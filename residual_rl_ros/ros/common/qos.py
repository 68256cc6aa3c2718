# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The QoS profiles of docs/reference/topics.md, each in one place."""

from __future__ import annotations

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)

SENSOR = qos_profile_sensor_data
"""Observation channels: best effort connects to every publisher."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Commands: only the newest counts."""

FEEDBACK = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
"""Step feedback: a lost termination would glue two episodes together."""

TRANSITIONS = QoSProfile(
    depth=1000, reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST
)
"""Transitions: deep enough for a learner that is busy for some seconds."""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Weights and layout: late joiners get the newest. Both ends must ask for it."""
