# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for layouts and transitions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from residual_rl_ros.transitions.transition import Source, Success, Transition, TransitionLayout

finite = st.floats(allow_nan=False, allow_infinity=False)
float32 = st.floats(-3.4e38, 3.4e38)
names = st.text(min_size=1, max_size=6)
counts = st.integers(0, 2**31)


@st.composite
def layouts(draw: st.DrawFn) -> TransitionLayout:
    """Draw a layout of up to 4 observations, 3 actions and 3 control steps per decision."""
    actions = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    ranges = [sorted(draw(st.tuples(float32, float32))) for _ in actions]
    bounds = [abs(draw(float32)) if low < high else 0.0 for low, high in ranges]
    return TransitionLayout(
        tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True))),
        tuple(actions),
        draw(st.integers(1, 3)),
        tuple(low for low, _ in ranges),
        tuple(high for _, high in ranges),
        tuple(bounds),
    )


@st.composite
def transitions(draw: st.DrawFn, layout: TransitionLayout) -> Transition:
    """Draw any transition that the layout allows."""

    def block(size: int, values: st.SearchStrategy[float] = float32) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=size, max_size=size)))

    n, km = layout.observation_size, layout.decision_size
    return Transition(
        stamp=draw(finite),
        epoch=draw(counts),
        episode=draw(counts),
        step=draw(counts),
        policy_sequence=draw(st.integers(-1, 2**31)),
        source=draw(st.sampled_from(Source)),
        reward=draw(float32),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        success=draw(st.sampled_from(Success)),
        observation=block(n),
        base_action=block(km),
        residual_action=block(km, st.floats(-1.0, 1.0)),
        executed_action=block(km),
        next_observation=block(n),
        next_base_action=block(km),
    )
