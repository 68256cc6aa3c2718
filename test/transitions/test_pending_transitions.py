# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What arrives before its layout waits, in order, and can fill neither time nor memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from residual_rl_ros.ros.common.encoders import float_array
from residual_rl_ros.transitions.feed import (
    BYTES_LIMIT,
    COUNT_LIMIT,
    PendingTransitions,
)

pytestmark = pytest.mark.ros

FEED: Any = object()
SMALL = float_array([1.0])


def test_messages_come_back_once_in_the_order_of_their_arrival() -> None:
    early, sent = PendingTransitions(), [float_array([float(number)]) for number in range(3)]
    assert all(early.keep(FEED, message) for message in sent)
    assert [message for _, message in early.take()] == sent
    assert early.take() == []


def test_there_is_room_for_so_many_messages_and_again_when_they_were_taken() -> None:
    early = PendingTransitions()
    for _ in range(2):
        assert all(early.keep(FEED, SMALL) for _ in range(COUNT_LIMIT))
        assert not early.keep(FEED, SMALL)
        assert len(early.take()) == COUNT_LIMIT


def test_there_is_room_for_so_many_bytes() -> None:
    early = PendingTransitions()
    half: Any = SimpleNamespace(data=memoryview(bytes(BYTES_LIMIT // 2)).cast('d'))
    assert early.keep(FEED, half)
    assert early.keep(FEED, half)
    assert not early.keep(FEED, SMALL)
