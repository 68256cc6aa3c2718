# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Presets, update rules and learners for tests."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from transition_builders import make_layout

from residual_rl_ros.algorithms.config import ActorCriticConfig
from residual_rl_ros.config.preset import LearnerConfig, load_preset, preset_names
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

SMALL: dict[str, Any] = {
    'batch_size': 8,
    'critic_hidden_sizes': [8],
    'actor_hidden_sizes': [8],
}
"""Numbers of a learner that is asked whether it learns, and not how well."""


@functools.cache
def residual_presets() -> list[str]:
    """Return the presets that learn the actor of a bounded residual, and its critics, by trial."""
    rules = {name: load_preset(name).rule for name in preset_names()}
    return [
        name
        for name, rule in rules.items()
        if isinstance(rule, ActorCriticConfig) and name != 'supervised'
    ]


def small_config(preset: str = 'best_of_n', **overrides: Any) -> LearnerConfig:
    """Return a preset, shrunk so that an update takes about a millisecond."""
    small: dict[str, Any] = {
        'warmup_transitions': 10,
        'replay_capacity': 200,
        'batch_size': 8,
        'utd': 1.0,
        'publish_interval': 5,
        'critic_hidden_sizes': [8, 8],
        'actor_hidden_sizes': [8, 8],
    }
    if preset == 'choose_and_edit':
        small |= {'residual_candidates': 1}
    if preset == 'wsrl':
        small |= {'offline_updates': 7, 'policy_warmup_transitions': 12, 'actor_batch_size': 16}
    elif preset == 'resfit':
        small |= {'critic_only_updates': 7}
    return load_preset(preset, {**small, **overrides})


def make_rule(
    preset: str = 'best_of_n',
    layout: TransitionLayout | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Any:
    """Return the update rule of a small preset, with an empty memory."""
    config = small_config(preset, **overrides)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    return config.make_rule(layout or make_layout(), generator, rng)


def fill(rule: Any, transitions: Iterable[Transition]) -> None:
    """Let a rule observe transitions."""
    for transition in transitions:
        rule.observe(transition)


def learned_bytes(learner: Any, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return every tensor of a learner's rule as bytes, but those whose names have such a part."""
    return {
        name: value.numpy().tobytes()
        for name, value in learner.rule.state_dict().items()
        if not any(part in name for part in without)
    }
