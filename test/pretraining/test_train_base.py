# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy from a recipe: model, card and demonstrations."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.demonstrations.tensor_file import DemonstrationFile
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.evaluation.noises import Attempt
from residual_rl_ros.pretraining import model_card
from residual_rl_ros.pretraining.model_card import CARD_SEED, noise_row, train_with_card
from residual_rl_ros.pretraining.train_base import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / 'benchmarks' / 'base_policies'


def test_a_recipe_at_a_path_makes_model_card_and_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(config: RunConfig, seeds: range) -> list[Episode]:
        config.resolve()
        return [Episode(seed, seed % 2 == 0, 10 + seed - CARD_SEED, 0.0) for seed in seeds]

    monkeypatch.setattr(model_card, 'evaluate', evaluate)
    recipe = replace(load_recipe(str(RECIPES / 'fetch_push_bc.yaml')), gradient_steps=2)
    recipe = replace(recipe, demonstrations=2)
    written = {key: value for key, value in asdict(recipe).items() if key != 'task'}
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(written))
    train_with_card(str(path), tmp_path / 'out', 0, 4, Console(quiet=True))

    model, card = tmp_path / 'out' / 'mine.onnx', (tmp_path / 'out' / 'mine.md').read_text()
    policy = OnnxBasePolicy(model)
    assert policy.metadata.task == 'mine'
    assert policy.metadata.rate_hz == 25.0
    assert hashlib.sha256(model.read_bytes()).hexdigest() in card
    assert '| success | 50%' in card
    assert 'over its noise' not in card
    assert '| episodes | 11 control steps to a success, ' in card
    data = DemonstrationFile(tmp_path / 'out' / 'mine.demonstrations.safetensors')
    episodes = list(data.episodes([('observations', i) for i in range(31)], range(4)))
    assert [len(e.observations) - len(e.actions) for e in episodes] == [1, 1]
    rewards = [e.rewards for e in episodes]
    assert all(r is not None and r[-1] == 1.0 and not np.any(r[:-1]) for r in rewards)


def test_the_card_of_a_base_with_noise_says_what_the_noise_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play(config: RunConfig, starts: range, noises: int) -> list[Attempt]:
        return [
            Attempt(noise, Episode(start, noise < 4, 1, 0.0), None)
            for start in starts
            for noise in range(noises)
        ]

    monkeypatch.setattr(model_card, 'play_noises', play)
    row = noise_row(load_run('push_to_goal_operators'), 3)
    assert row.startswith('| over its noise | pass@1 50% [50%, 50%], pass@2 79% [')
    assert row.endswith('; 3 starts, seeds 30000 to 30002, with 8 noises each |\n')
    assert not noise_row(load_run('push_to_goal'), 3)
