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
from actor_builders import make_actor
from command_line import run_command
from hypothesis import given
from hypothesis import strategies as st
from transition_builders import make_layout

from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.control.composition import residual_scale
from residual_rl_ros.evaluation import paired
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.evaluation.paired import evaluate_blind
from residual_rl_ros.residual_policy.exploration import RESIDUAL, WARM_UP, Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights


def test_who_only_plays_episodes_loads_neither_torch_nor_matplotlib() -> None:
    """Processes that evaluate start in a third of a second instead of three."""
    script = (
        'import sys\n'
        'from residual_rl_ros.config.run import load_run\n'
        'from residual_rl_ros.evaluation.paired import _Worker\n'
        "_Worker(load_run('peg_insert'), [None])\n"
        "raise SystemExit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_the_order_is_blind_and_every_seed_meets_both_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play_all(config: Any, jobs: Any, messages: Any, workers: int) -> Iterator[Episode]:
        assert messages == [None, b'actor']
        for policy, seed in jobs:
            yield Episode(seed, bool(policy), 1, 0.0)

    monkeypatch.setattr(paired, '_play_all', play_all)
    config = load_run('peg_insert')
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


def zero_actor(config: RunConfig, path: Path, exploration: Exploration = RESIDUAL) -> None:
    """Write an actor without effect, for what a configuration makes."""
    controller = config.resolve().evaluation_controller(None)
    actor = make_actor(controller.layout, exploration_std=0.1)  # Its heads start at zero.
    controller.queue.close()
    path.write_bytes(encode_weights(actor.to_numpy(), WeightsHeader(1, 1, exploration)))


@pytest.mark.parametrize('exploration', [WARM_UP, RESIDUAL], ids=['warm-up', 'online'])
def test_an_actor_that_is_not_used_yet_is_said_to_be_none(
    exploration: Exploration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zero_actor(load_run('peg_insert'), tmp_path / 'actor.safetensors', exploration)

    def play_none(config: RunConfig, seeds: range, message: bytes, rng: object) -> list[Any]:
        return [(on, Episode(seed, on, 1, 0.0)) for on in (False, True) for seed in seeds]

    monkeypatch.setattr(paired, 'evaluate_blind', play_none)
    command = ('evaluate', str(tmp_path), '--task', 'peg_insert', '--episodes', '2')
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    said = 'the run ended in its warm-up: the residual is off' in capsys.readouterr().err
    assert said is (exploration is WARM_UP)


@pytest.mark.parametrize(
    'changes',
    [
        {'residual_scale': 0.01, 'decision_steps': 2},
        {'residual_scale': [0.1, 0.0, 0.07, 1 / 3, 0.29, 0.123456789, 1.1 * 2 / 3]},
        {},
    ],
    ids=str,
)
def test_an_actor_is_evaluated_with_the_numbers_it_was_trained_with(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero_actor(load_run('peg_insert').changed(changes), tmp_path / 'actor.safetensors')
    evaluated: list[RunConfig] = []

    def play_none(config: RunConfig, seeds: range, message: bytes, rng: object) -> list[Any]:
        config.resolve().evaluation_controller(message).queue.close()
        evaluated.append(config)
        return [(on, Episode(seed, on, 1, 0.0)) for on in (False, True) for seed in seeds]

    monkeypatch.setattr(paired, 'evaluate_blind', play_none)
    command = ('evaluate', str(tmp_path), '--task', 'peg_insert', '--episodes', '2')
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    (config,) = evaluated
    assert config.decision_steps == changes.get('decision_steps', 4)
    scale = np.broadcast_to(changes.get('residual_scale', config.residual_scale), 7)
    np.testing.assert_allclose(config.residual_scale, scale, rtol=1e-15)


def test_the_command_tells_success_and_returns_apart_of_an_add_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zero_actor(load_run('peg_insert'), tmp_path / 'actor.safetensors')

    def play_none(config: RunConfig, seeds: range, message: bytes, rng: object) -> list[Any]:
        assert config.add_ons.to_list() == [{'weight': 1.0, **speed}]
        return [(on, Episode(seed, on, 1, 0.5, seed % 2)) for on in (False, True) for seed in seeds]

    monkeypatch.setattr(paired, 'evaluate_blind', play_none)
    speed = {'name': 'speed_limit', 'velocities': ['arm.velocity.joint1'], 'limit': 0.5}
    option = 'speed_limit:velocities=[arm.velocity.joint1],limit=0.5'
    command = ('evaluate', str(tmp_path), '--task', 'peg_insert', '--episodes', '2')
    assert run_command(*command, '--add-on', option, monkeypatch=monkeypatch) == 0
    base, final, pair = capsys.readouterr().out.splitlines()
    assert base.startswith('base            0% [')
    assert final.startswith('base + residual 100% [')
    assert 'return: basic 0.5 [0.5, 0.5], add-on 0.5 [' in final
    assert 'difference of the returns: basic 0 [0, 0], add-on 0 [0, 0], total 0' in pair
    wrong = option.replace('joint1', 'joint9')
    assert run_command(*command, '--add-on', wrong, monkeypatch=monkeypatch) == 2
    assert "no observation 'arm.velocity.joint9'" in capsys.readouterr().err


@given(st.floats(1e-6, 10.0), st.floats(-10.0, 10.0), st.floats(1e-3, 10.0))
def test_every_scale_comes_back_from_its_bound(scale: float, low: float, width: float) -> None:
    high = low + width
    half_range = (high - low) / 2.0
    bound = scale * half_range
    layout = make_layout(
        action_names=('x',), action_min=(low,), action_max=(high,), residual_bound=(bound,)
    )
    assert residual_scale(layout)[0] * half_range == bound


@pytest.mark.parametrize('task', ['push_to_goal', 'fetch_pick_and_place'])
def test_an_actor_of_another_task_is_not_evaluated(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zero_actor(load_run(task), tmp_path / 'actor.safetensors')
    command = ('evaluate', str(tmp_path), '--task', 'peg_insert', '--episodes', '2')
    assert run_command(*command, monkeypatch=monkeypatch) == 2
    assert "task 'peg_insert' has actions" in capsys.readouterr().err


def test_the_command_finds_no_difference_where_the_residual_is_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zero_actor(load_run('peg_insert'), tmp_path / 'actor.safetensors')
    command = ('evaluate', str(tmp_path), '--json', '--task', 'peg_insert', '--episodes', '8')
    assert run_command(*command, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['base'] == found['final']
    assert found['base']['episodes'] == 8
    assert (found['fixed'], found['broken'], found['paired_p_value']) == (0, 0, 1.0)
