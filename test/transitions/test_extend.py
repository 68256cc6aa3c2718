# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Many transitions at once must be remembered as if they had come one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transition_builders import make_layout, random_transitions

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.transitions.replay_buffer import ReplayBuffer
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Transition

LAYOUT = make_layout()


def table(transitions: list[Transition]) -> TransitionTable:
    return TransitionTable(LAYOUT, np.stack([LAYOUT.encode(t) for t in transitions]))


@st.composite
def bursts(draw: st.DrawFn) -> list[tuple[str, list[Transition]]]:
    """Draw bursts of transitions of two robots, with losses and episodes of several lengths."""
    streams = {
        robot: random_transitions(LAYOUT, 60, seed, draw(st.integers(1, 9)))
        for seed, robot in enumerate(('left', 'right'))
    }
    for robot, stream in streams.items():
        lost = draw(st.sets(st.integers(0, 59), max_size=8))
        streams[robot] = [t for index, t in enumerate(stream) if index not in lost]
    cuts: list[tuple[str, list[Transition]]] = []
    for _ in range(draw(st.integers(1, 8))):
        robot = draw(st.sampled_from(sorted(streams)))
        count = draw(st.integers(1, 25))
        burst, streams[robot] = streams[robot][:count], streams[robot][count:]
        if burst:
            cuts.append((robot, burst))
    return cuts


@given(bursts(), st.integers(1, 40))
def test_a_burst_is_stored_as_if_added_one_by_one(
    cuts: list[tuple[str, list[Transition]]], capacity: int
) -> None:
    single, many = ReplayBuffer(LAYOUT, capacity), ReplayBuffer(LAYOUT, capacity)
    for robot, burst in cuts:
        for transition in burst:
            single.add(transition, robot)
        many.extend(table(burst), robot)
        expected, found = single.export(), many.export()
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_an_empty_table_changes_nothing() -> None:
    buffer = ReplayBuffer(LAYOUT, 4)
    buffer.extend(TransitionTable(LAYOUT, np.empty((0, LAYOUT.size))))
    assert len(buffer) == 0


def test_a_table_of_another_layout_is_refused() -> None:
    other = make_layout(decision_steps=3)
    with pytest.raises(ResidualRLError, match='do not fit'):
        ReplayBuffer(LAYOUT, 4).extend(TransitionTable(other, np.zeros((1, other.size))))
