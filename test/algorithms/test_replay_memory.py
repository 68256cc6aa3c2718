# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A layout comes from outside: what it makes a learner take is known before it is taken."""

from __future__ import annotations

import os

import pytest
from learner_builders import small_config
from transition_builders import make_layout

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.learner.learner import Learner


@pytest.mark.parametrize('preset', ['best_of_n', 'resfit'])
def test_a_replay_that_no_memory_holds_is_refused_before_it_is_taken(preset: str) -> None:
    physical = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    layout = make_layout(decision_steps=1000)
    capacity = physical // (4 * layout.size) * 2
    with pytest.raises(ConfigError, match=rf'replay_capacity is {capacity}: .* expected at most'):
        Learner(small_config(preset, replay_capacity=capacity), layout, seed=0)
