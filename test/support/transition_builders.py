# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts and transitions for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from robot_builders import ACTIONS, OBSERVATIONS

from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Success, Transition


def make_layout(**changes: Any) -> TransitionLayout:
    """Return a layout with n = 3, m = 2 and k = 2."""
    layout = TransitionLayout(OBSERVATIONS, ACTIONS, 2, (-1.0, -0.5), (1.0, 0.5), (0.1, 0.05))
    return replace(layout, **changes)


def make_transition(layout: TransitionLayout, **changes: Any) -> Transition:
    """Return a transition of distinct, representable values."""
    n, km = layout.observation_size, layout.decision_size
    transition = Transition(
        stamp=12.5,
        epoch=1,
        episode=3,
        step=4,
        policy_sequence=2,
        source=Source.RESIDUAL,
        reward=0.25,
        terminated=False,
        truncated=False,
        success=Success.UNLABELLED,
        observation=np.arange(n) + 0.5,
        base_action=np.linspace(-0.4, 0.4, km),
        residual_action=np.linspace(-1.0, 1.0, km),
        executed_action=np.linspace(-0.5, 0.5, km),
        next_observation=np.arange(n) + 1.5,
        next_base_action=np.linspace(-0.3, 0.3, km),
        prior=np.arange(layout.prior_size) + 0.5,
        next_prior=np.arange(layout.prior_size) + 0.75,
        proposals=np.linspace(-0.2, 0.2, (layout.proposals - 1) * km),
        next_proposals=np.linspace(-0.1, 0.1, (layout.proposals - 1) * km),
        add_on=np.array([-0.5, 2.0])[: 2 * layout.customisable],
    )
    return replace(transition, **changes)


def random_transitions(
    layout: TransitionLayout, count: int, seed: int = 0, episode_decisions: int = 7
) -> list[Transition]:
    """Return a reproducible stream of transitions in episodes of a fixed length."""
    rng = np.random.default_rng(seed)
    n, km = layout.observation_size, layout.decision_size
    stream = []
    for index in range(count):
        episode, decision = divmod(index, episode_decisions)
        last = decision == episode_decisions - 1
        terminated = last and episode % 2 == 0
        stream.append(
            make_transition(
                layout,
                episode=episode,
                step=decision * layout.decision_steps,
                reward=float(terminated),
                terminated=terminated,
                truncated=last and not terminated,
                success=Success(int(terminated)) if last else Success.UNLABELLED,
                observation=rng.normal(2.0, 3.0, n),
                base_action=rng.uniform(-0.5, 0.5, km),
                executed_action=rng.uniform(-0.5, 0.5, km),
                next_observation=rng.normal(2.0, 3.0, n),
                next_base_action=rng.uniform(-0.5, 0.5, km),
            )
        )
    return stream
