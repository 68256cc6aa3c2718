# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for layouts and transitions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from residual_rl_ros.robot.observation import MAX_STAMP_S
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import MAX_LIMIT, TransitionLayout
from residual_rl_ros.transitions.transition import (
    MAX_COUNT,
    MAX_REWARD,
    Source,
    Success,
    Transition,
)


def up_to(limit: float) -> st.SearchStrategy[float]:
    return st.floats(-limit, limit)


names = st.text(min_size=1, max_size=6)
counts = st.integers(0, MAX_COUNT)


@st.composite
def layouts(draw: st.DrawFn) -> TransitionLayout:
    """Draw a layout of up to 4 observations, 3 actions and 3 control steps per decision."""
    actions = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    ranges = [sorted(draw(st.tuples(up_to(MAX_LIMIT), up_to(MAX_LIMIT)))) for _ in actions]
    bounds = [abs(draw(up_to(MAX_LIMIT))) if low < high else 0.0 for low, high in ranges]
    discrete = draw(st.booleans())
    if discrete:
        ranges, bounds = [[0.0, 1.0] for _ in actions], [1.0 for _ in actions]
    told = [Prior.CATEGORICAL] if discrete else [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN]
    return TransitionLayout(
        tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True))),
        tuple(actions),
        draw(st.integers(1, 3)),
        tuple(low for low, _ in ranges),
        tuple(high for _, high in ranges),
        tuple(bounds),
        prior=draw(st.sampled_from([Prior.NONE, *told])),
        proposals=draw(st.integers(1, 3)),
        customisable=draw(st.booleans()),
        discrete=discrete,
    )


@st.composite
def transitions(draw: st.DrawFn, layout: TransitionLayout) -> Transition:
    """Draw any transition that the layout allows."""

    def block(name: str) -> np.ndarray:
        low, high = (limits[layout.columns[name]] for limits in layout.limits)
        return np.array([draw(st.floats(*ends)) for ends in zip(low, high, strict=True)])

    return Transition(
        stamp=draw(up_to(MAX_STAMP_S)),
        epoch=draw(counts),
        episode=draw(counts),
        step=draw(counts),
        policy_sequence=draw(st.integers(-1, MAX_COUNT)),
        source=draw(st.sampled_from(Source)),
        reward=draw(up_to(MAX_REWARD)),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        success=draw(st.sampled_from(Success)),
        observation=block('observation'),
        base_action=block('base_action'),
        residual_action=block('residual_action'),
        executed_action=block('executed_action'),
        next_observation=block('next_observation'),
        next_base_action=block('next_base_action'),
        prior=block('prior'),
        next_prior=block('next_prior'),
        proposals=block('proposals'),
        next_proposals=block('next_proposals'),
        add_on=block('add_on'),
    )
