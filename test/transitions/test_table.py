# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A table must accept exactly what decoding one message accepts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import layouts, transitions
from transition_builders import make_layout, random_transitions

from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.transitions.table import TransitionTable

LAYOUT = make_layout()
ODD = (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, np.nan, np.inf, 1e6, 1.01e6, 1e10, -1e39, 2.0**53)


@given(st.data())
def test_columns_hold_what_was_encoded(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    drawn = data.draw(st.lists(transitions(layout), min_size=1, max_size=3))
    table = TransitionTable(layout, np.stack([layout.encode(t) for t in drawn]))
    assert table.valid().all()
    for row, transition in enumerate(drawn):
        for name in layout.columns:
            value = getattr(transition, name)
            column = table.block(name) if np.ndim(value) else table.header(name)
            np.testing.assert_array_equal(column[row], value, err_msg=name)


@given(st.integers(0, LAYOUT.size - 1), st.sampled_from(ODD))
def test_a_row_is_valid_exactly_if_decoding_accepts_it(column: int, value: float) -> None:
    row = LAYOUT.encode(random_transitions(LAYOUT, 1)[0])
    row[column] = value
    try:
        LAYOUT.decode(row, LAYOUT.label)
        accepted = True
    except MalformedTransitionError:
        accepted = False
    assert TransitionTable(LAYOUT, row[None]).valid().tolist() == [accepted]


def test_a_transition_follows_only_without_a_gap_and_within_its_episode() -> None:
    stream = random_transitions(LAYOUT, 8, episode_decisions=4)
    kept = [*stream[:2], *stream[3:]]
    table = TransitionTable(LAYOUT, np.stack([LAYOUT.encode(t) for t in kept]))
    assert table.follows().tolist() == [True, False, False, True, True, True]
    assert table.done.tolist() == [False, False, True, False, False, False, True]


def test_a_table_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(MalformedTransitionError, match=rf'expected \(count, {LAYOUT.size}\)'):
        TransitionTable(LAYOUT, np.zeros((2, 3)))
