# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison of two policies is only as good as its pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_actor

from residual_rl_ros.evaluation import paired
from residual_rl_ros.evaluation.episodes import Episode
from residual_rl_ros.evaluation.paired import evaluate_blind, make_evaluation_controller
from residual_rl_ros.finetune import load_finetune
from residual_rl_ros.residual.weights import WeightsHeader, encode_weights


def test_the_order_is_blind_and_every_seed_meets_both_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play_all(config: Any, jobs: Any, messages: Any, workers: int) -> Iterator[Episode]:
        assert messages == [None, b'actor']
        for policy, seed in jobs:
            yield Episode(seed, success=bool(policy), steps=1)

    monkeypatch.setattr(paired, '_play_all', play_all)
    config = load_finetune('peg_insert')
    orders = [
        [
            (residual, episode.seed, episode.success)
            for residual, episode in evaluate_blind(
                config, range(50), b'actor', np.random.default_rng(order_seed)
            )
        ]
        for order_seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [(on, seed, on) for on in (False, True) for seed in range(50)]
    first_half = sum(residual for residual, _, _ in orders[0][:50])
    assert 15 < first_half < 35


@pytest.mark.slow
def test_the_command_finds_no_difference_where_the_residual_is_zero(tmp_path: Path) -> None:
    config = load_finetune('peg_insert')
    controller = make_evaluation_controller(config, None)
    actor = make_actor(controller.layout, exploration_std=0.1)  # Its heads start at zero.
    controller.queue.close()
    message = encode_weights(actor.to_numpy(), WeightsHeader(1, 1))
    (tmp_path / 'actor.safetensors').write_bytes(message)
    command = [sys.executable, '-m', 'residual_rl_ros.cli', 'evaluate', str(tmp_path), '--json']
    result = subprocess.run(
        [*command, '--task', 'peg_insert', '--episodes', '8'],
        check=False,
        capture_output=True,
        text=True,
        timeout=240.0,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found['base'] == found['final']
    assert found['base']['episodes'] == 8
    assert (found['fixed'], found['broken'], found['paired_p_value']) == (0, 0, 1.0)
