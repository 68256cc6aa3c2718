# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One bad number costs one transition; what is published and saved is finite."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_builders import small_config
from safetensors.torch import load_file, save_file
from transition_builders import make_layout, random_transitions

from residual_rl_ros.errors import CheckpointError
from residual_rl_ros.learner.checkpoint import (
    ALGORITHM,
    CANDIDATE,
    GOOD,
    CheckpointFolder,
    load_checkpoint,
    save_checkpoint,
)
from residual_rl_ros.learner.folder import write_manifest
from residual_rl_ros.learner.kept_networks import not_finite
from residual_rl_ros.learner.learner import WARN_EVERY, Learner, Log
from residual_rl_ros.residual_policy.weights import decode_weights

LAYOUT = make_layout()
STREAM = random_transitions(LAYOUT, 70)


def make_learner(**overrides: Any) -> tuple[Learner, list[str]]:
    warnings: list[str] = []
    learner = Learner(small_config(**overrides), LAYOUT, seed=5, log=Log(warnings.append))
    return learner, warnings


def feed(learner: Learner, begin: int, end: int) -> list[bytes]:
    messages = [learner.ingest(transition) for transition in STREAM[begin:end]]
    return [message for message in messages if message is not None]


NOT_PLAUSIBLE: list[dict[str, Any]] = [
    {'observation': np.full(3, 1e30)},
    {'next_observation': np.array([0.0, np.nan, 0.0])},
    {'executed_action': np.array([0.0, 0.0, 1e30, 0.0])},
    {'base_action': np.full(4, -np.inf)},
    {'reward': 1e30},
    {'reward': 10**400},
    {'step': 1e30},
    {'step': 2**53},
    {'episode': 2**63},
    {'epoch': 10**39},
    {'stamp': math.inf},
    {'observation': np.zeros(2)},
    {'observation': None},
]


def test_a_transition_that_is_not_plausible_costs_itself_and_nothing_else(tmp_path: Path) -> None:
    (learner, warnings), (undisturbed, _) = make_learner(), make_learner()
    for index, transition in enumerate(STREAM[:26]):  # In the warm-up and later.
        bad = NOT_PLAUSIBLE[index % len(NOT_PLAUSIBLE)]
        assert learner.ingest(replace(transition, **bad)) is None
        assert learner.ingest(transition) == undisturbed.ingest(transition)
    assert learner.refused == 26
    assert 'transition refused (1 so far): observation[0] is 1e+30' in warnings[0]
    assert learner.state_dict() == undisturbed.state_dict()
    assert all(map(math.isfinite, learner.updates.metrics.values()))
    save_checkpoint(tmp_path / 'checkpoint', learner)
    assert load_checkpoint(tmp_path / 'checkpoint').transitions == 26


def test_a_flood_of_bad_transitions_is_told_now_and_then() -> None:
    learner, warnings = make_learner()
    for _ in range(WARN_EVERY + 1):
        learner.ingest(replace(STREAM[0], reward=math.nan))
    assert learner.refused == WARN_EVERY + 1
    assert len(warnings) == 2
    assert f'({WARN_EVERY} so far)' in warnings[1]


def test_a_bad_demonstration_is_refused_by_the_same_test() -> None:
    learner, _ = make_learner(preset='resfit')
    learner.add_demonstration(replace(STREAM[0], observation=np.full(3, 1e30)))
    learner.add_demonstration(STREAM[0])
    assert (learner.refused, learner.rule.memory.demonstrations) == (1, 1)


@pytest.mark.parametrize('value', [math.nan, math.inf, 3e38])
@pytest.mark.parametrize('name', ['critic.head.weight', 'mean_actor.heads.weight'])
def test_networks_that_break_are_replaced_by_the_latest_sound_ones(
    name: str, value: float, tmp_path: Path
) -> None:
    learner, warnings = make_learner()
    feed(learner, 0, 16)
    sound = learner.rule.state_dict()
    broken = {**sound, name: torch.full_like(sound[name], value)}
    if value == 3e38:  # Finite, and overflows in the next product.
        broken['mean_actor.body.0.bias'] = torch.full_like(sound['mean_actor.body.0.bias'], value)
    learner.rule.load_state_dict(broken)
    messages = feed(learner, 16, 22)
    assert messages
    for message in messages:
        decode_weights(message, LAYOUT)
    assert learner.updates.finite.recoveries >= 1 or name.startswith('critic')
    assert not not_finite(learner.rule.state_dict())
    assert len(warnings) == learner.updates.finite.recoveries
    assert all('going on from the latest networks that were sound' in text for text in warnings)
    CheckpointFolder(tmp_path).save(learner)
    assert load_checkpoint(tmp_path / 'latest').updates.online == learner.updates.online


@pytest.mark.parametrize('preset', ['best_of_n', 'resfit', 'wsrl', 'policy_decorator'])
def test_a_learner_that_diverges_at_once_publishes_and_saves_what_is_finite(
    preset: str, tmp_path: Path
) -> None:
    rates = {'actor_learning_rate': 1e30, 'critic_learning_rate': 1e30}
    learner, warnings = make_learner(preset=preset, **rates)
    for message in [learner.first_message(), *feed(learner, 0, 26)]:
        decode_weights(message, LAYOUT)
    decode_weights(learner.current_message(), LAYOUT)
    assert learner.updates.finite.recoveries == len(warnings) > 0
    with np.errstate(all='raise'):
        folder = CheckpointFolder(tmp_path)
        folder.save(learner)
    assert not not_finite(load_file(folder.latest / ALGORITHM))
    load_checkpoint(folder.latest)


def test_a_divergence_before_the_residual_acts_keeps_what_was_fitted_to_the_warm_up() -> None:
    learner, warnings = make_learner(preset='resfit', critic_learning_rate=1e30)
    feed(learner, 0, 10)
    assert learner.updates.finite.recoveries == 1
    assert warnings[0].startswith('after 7 updates on the warm-up critic.')
    observations = learner.rule.memory.observations()
    torch.testing.assert_close(learner.rule.actor.normalizer.mean, observations.mean(0))
    torch.testing.assert_close(learner.rule.mean_actor.normalizer.std, observations.std(0))
    assert float(learner.rule.state_dict()['episode_decisions']) > 0.0


def test_a_learner_without_an_anchor_says_so_once() -> None:
    learner, warnings = make_learner(
        preset='self_scaling', warmup_transitions=10, warmup_episodes=0, anchor_updates=5
    )
    for transition in STREAM[:40]:
        learner.ingest(replace(transition, reward=5.0, terminated=False))
    assert [text for text in warnings if 'anchor_updates is 5' in text] == warnings[:1]


def test_a_rollback_returns_to_finite_networks_only() -> None:
    learner, _ = make_learner()
    feed(learner, 0, 12)
    tensors = learner.rule.state_dict()
    name = 'critic.head.weight'
    learner.rule.load_state_dict({**tensors, name: torch.full_like(tensors[name], math.nan)})
    for _ in range(60):
        learner.judge.best.rate(True, [], learner.updates.finite_networks, learner.transitions)
    learner.roll_back('asked for')
    assert not not_finite(learner.rule.state_dict())
    assert not not_finite(learner.judge.best.candidate)


@pytest.mark.parametrize('part', [ALGORITHM, GOOD, CANDIDATE, 'memory.replay.safetensors'])
def test_a_save_that_is_not_finite_is_refused_and_the_one_before_stays(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = make_learner()
    feed(learner, 0, 12)
    save_checkpoint(tmp_path / 'latest', learner)
    feed(learner, 12, 14)
    rule = learner.rule
    if part == ALGORITHM:
        tensors = {**rule.state_dict(), 'more': torch.tensor([math.nan])}
        monkeypatch.setattr(rule, 'state_dict', lambda: tensors)
        monkeypatch.setattr(learner.updates, 'recover', lambda: None)
    elif part == GOOD:
        learner.judge.best.good = {'more': torch.tensor([math.nan])}
    elif part == CANDIDATE:
        learner.judge.best.candidate = {'more': torch.tensor([math.nan])}
    else:
        rule.memory.replay._table[3, 0] = math.inf
    with pytest.raises(CheckpointError, match=f'in {part} is not finite'):
        save_checkpoint(tmp_path / 'latest', learner)
    assert load_checkpoint(tmp_path / 'latest').transitions == 12
    assert [path.name for path in tmp_path.iterdir()] == ['latest']


@pytest.mark.parametrize('part', [ALGORITHM, GOOD, CANDIDATE])
def test_a_checkpoint_that_is_not_finite_is_refused_by_name(tmp_path: Path, part: str) -> None:
    learner, _ = make_learner()
    feed(learner, 0, 12)
    save_checkpoint(tmp_path / 'latest', learner)
    tensors = load_file(tmp_path / 'latest' / part)
    tensors['critic.head.weight'][:] = math.inf
    save_file(tensors, tmp_path / 'latest' / part)
    write_manifest(tmp_path / 'latest')
    with pytest.raises(CheckpointError, match=rf'critic\.head\.weight in {part} is not finite'):
        load_checkpoint(tmp_path / 'latest')


def test_a_sound_learner_never_goes_back() -> None:
    learner, warnings = make_learner()
    feed(learner, 0, 70)
    assert (learner.updates.finite.recoveries, learner.refused, warnings) == (0, 0, [])
    json.dumps(learner.updates.metrics, allow_nan=False)
