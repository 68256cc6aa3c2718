# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Presets are compared on environments of others, and no outcome is guessed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from base_policy_builders import write_onnx_policy
from command_line import run_command
from foreign_tasks import register, write_base
from rich.console import Console
from robot_builders import make_metadata

from residual_rl_ros.comparison.compare import CompareOptions, Variant, run_comparison
from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.evaluation import paired
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.tasks.hosting import finetune_for_environment

register()
SMALL = (
    'best_of_n:warmup_transitions=20:batch_size=8:critic_hidden_sizes=[8]:actor_hidden_sizes=[8]'
)


def compare(task: str, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    """Return the exit code of a small comparison of one run."""
    base = write_base(out.with_suffix('.onnx'))
    command = ('compare', '--env', task, '--base', str(base), '--presets', SMALL, '--seeds', '0')
    small = ('--steps', '40', '--evaluate', '3', '--jobs', '1', '--out', str(out))
    return run_command(*command, *small, *more, monkeypatch=monkeypatch)


def base_of(out: Path) -> dict[str, float | None]:
    """Return what the base of the run came to."""
    (summary,) = out.rglob('summary.json')
    return dict(json.loads(summary.read_text())['base'])


def test_where_every_episode_falls_with_a_reward_there_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare('Falls-v0', tmp_path / 'out', monkeypatch) == 0
    printed = capsys.readouterr()
    assert 'Falls-v0 has no success criterion' in printed.err
    assert '| 1 | 8 | 8 | +0 | 8 | 0 (0) | 0 |' in printed.out
    found = base_of(tmp_path / 'out')
    assert (found['success'], found['return'], found['unlabelled']) == (None, 8.0, 3)
    history = json.loads(next(tmp_path.rglob('learner.json')).read_text())['state']['history']
    assert {record['success'] for record in history} == {None}


def test_a_task_without_success_and_without_returns_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare('Unpaid-v0', tmp_path / 'out', monkeypatch) == 2
    said = capsys.readouterr().err
    assert 'Unpaid-v0 tells no success, and the return of 20 episodes of the base is 0' in said
    assert not list(tmp_path.rglob('checkpoints'))
    # What tells success needs no reward.
    assert compare('Hidden-v0', tmp_path / 'told', monkeypatch, '--success', 'solved:end') == 0


def test_returns_have_a_curve_an_area_and_a_worst_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare('Falls-v0', tmp_path / 'out', monkeypatch) == 0
    report = json.loads((tmp_path / 'out' / 'compare.json').read_text())
    ((found,),) = (methods.values() for methods in report['tasks'].values())
    assert (found['measure'], found['area']['point'], found['curve']['mean']) == (
        *('return', 8.0),
        [8.0, 8.0],
    )
    assert found['steps_to_level'] is None
    assert found['worst_below_base'] == {'mean': 0.0, 'worst_seed': 0.0}


def test_with_an_add_on_returns_come_apart_and_a_run_with_another_one_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    side = 'side_preference:position=state.x0,side=high'
    assert compare('Falls-v0', out, monkeypatch, '--add-on', side) == 0
    # Eight decisions of one step, which end at 0.01, 0.02, ... 0.08.
    printed = capsys.readouterr().out
    row = '| 1 | 8.36 | 8.36 | +0 | 8.36 | 0 (0) | 0 | 8 | 0.36 | 8.36 | 8 | 0.36 | 8.36 | +0 |'
    assert row in printed
    assert '| base return, basic | base return, add-on | base return, total |' in printed
    found = base_of(out)
    assert (found['success'], found['return']) == (None, 8.0)
    assert (found['add_on_return'], found['total_return']) == pytest.approx((0.36, 8.36))
    (summary,) = out.rglob('summary.json')
    stored = json.loads(summary.read_text())
    assert stored['run']['add_ons'] == [
        {'name': 'side_preference', 'weight': 1.0, 'position': 'state.x0', 'side': 'high'}
    ]
    assert stored['scenes']['returns']['final']['basic'] == [8.0] * 3
    for other in ([], ['--add-on', f'{side},weight=2']):
        assert compare('Falls-v0', out, monkeypatch, *other) == 2
        assert 'is of another run: add_ons is [{' in capsys.readouterr().err
    assert compare('Falls-v0', out, monkeypatch, '--add-on', 'side_preference:position=x') == 2
    assert "add-on 'side_preference'" in capsys.readouterr().err


def test_any_environment_is_trained_resumed_and_evaluated_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = str(tmp_path / 'out'), str(write_base(tmp_path / 'base.onnx'))
    told = ('--env', 'Falls-v0', '--base', base, '--success', 'return')
    side = ('--add-on', 'side_preference:position=state.x0,side=high')
    small = [word for change in SMALL.split(':')[1:] for word in ('--set', change)]
    train = ('train', *told, *side, '--out', out, '--evaluate', '2', *small)
    assert run_command(*train, '--steps', '40', monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().err
    assert 'self_scaling learns from the reward of the task alone: the add-on is measured' in said
    assert 'the residual is up to 0.03 for action0, 0.03 for action1' in said
    for who in ('base            ', 'base + residual '):
        assert f'{who}return: basic 8 ' in said
    assert run_command(*train, '--steps', '48', '--resume', monkeypatch=monkeypatch) == 0

    def play(config: RunConfig, seeds: range, message: bytes, rng: object) -> list[Any]:
        run = config.resolve()  # Its robot is still there.
        run.evaluation_controller(message).queue.close()
        assert run.add_on is not None
        assert (config.task, config.residual_scale) == ('Falls-v0', (0.3, 0.3))
        return [(on, Episode(seed, None, 8, 8.0, 0.48)) for on in (False, True) for seed in seeds]

    monkeypatch.setattr(paired, 'evaluate_blind', play)
    evaluate = ('evaluate', out, *told, *side, '--episodes', '2')
    assert run_command(*evaluate, monkeypatch=monkeypatch) == 0
    assert 'base + residual return: basic 8 [8, 8], add-on 0.48 [' in capsys.readouterr().out
    # A run says of which task it is.
    assert run_command('evaluate', out, '--episodes', '2', monkeypatch=monkeypatch) == 0
    assert 'base + residual return: basic 8 [8, 8], add-on 0.48 [' in capsys.readouterr().out
    export = ('export', out, '--out', str(tmp_path / 'fused.onnx'))
    assert run_command(*export, monkeypatch=monkeypatch) == 2
    assert 'base.onnx has a fixed batch of 1' in capsys.readouterr().err  # It is found.
    for command in (
        ('train', '--env', 'Falls-v0', '--out', out),
        ('train', '--task', 'peg_insert', '--env', 'Falls-v0', '--base', 'base.onnx'),
        ('evaluate', '--task', 'peg_insert', '--env', 'Falls-v0', '--base', 'base.onnx'),
    ):
        assert run_command(*command, monkeypatch=monkeypatch) == 2
        assert 'give either --task, or --env together with --base' in capsys.readouterr().err


def test_a_success_along_the_way_counts_and_commands_stay_inside_float64_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare('Along-v0', tmp_path / 'out', monkeypatch) == 0
    said = capsys.readouterr().err
    assert "Along-v0 tells success by info['success'] at any step" in said
    found = base_of(tmp_path / 'out')
    assert (found['success'], found['high_95'], found['return']) == (1.0, 1.0, 12.0)
    assert compare('Along-v0', tmp_path / 'out', monkeypatch, '--success', 'success:end') == 2
    assert 'success is success:once there and success:end in this' in capsys.readouterr().err


def test_an_environment_that_breaks_is_one_line_and_exit_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare('Broken-v0', tmp_path / 'out', monkeypatch, '--success', 'return') == 2
    *_, last = capsys.readouterr().err.splitlines()
    reason = r'^error: 1 of 1 runs failed: .*seed0: Broken-v0, episode 0 .* step 5: reward is nan'
    assert re.search(reason, last)


MORTAL = """
import os, signal
import gymnasium
from foreign_tasks import Foreign


class Mortal(Foreign):
    def step(self, action):
        if self.np_random_seed == 10_000_000 and self.count == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


gymnasium.register('Mortal-v0', Mortal, max_episode_steps=12)
"""


@pytest.mark.timeout(240)
def test_a_run_that_dies_costs_that_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mortal_task.py').write_text(MORTAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    base = write_base(tmp_path / 'base.onnx')
    config = finetune_for_environment('mortal_task:Mortal-v0', base, 0.1, tmp_path)
    options = CompareOptions(
        [replace(config, control_steps=40, success='return')],
        [Variant.parse(SMALL)],
        (0, 1),
        tmp_path / 'out',
        workers=2,
        curve_steps=0,
        paired_seeds=2,
    )
    reason = (
        r'1 of 2 runs failed: .*seed0: its process ended with signal 9; the report in .* others'
    )
    with pytest.raises(ResidualRLError, match=reason):
        run_comparison(options, Console(quiet=True))
    assert [path.parent.name for path in tmp_path.rglob('summary.json')] == ['seed1']


@pytest.mark.parametrize(
    ('executed', 'rate_hz', 'steps'),
    [(4, 20.0, 1), (8, 80.0, 4), (1, 500.0, 1), (6, 100.0, 6), (50, 500.0, 25), (8, 5.0, 1)],
)
def test_decisions_divide_what_the_base_executes_and_are_near_twenty_a_second(
    executed: int, rate_hz: float, steps: int
) -> None:
    metadata = make_metadata(horizon=64, exec_steps=executed, rate_hz=rate_hz)
    assert metadata.decision_steps == steps


def test_the_bound_is_said_and_a_base_of_another_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare('Falls-v0', tmp_path / 'out', monkeypatch) == 0
    assert 'Falls-v0: the residual is up to ' in capsys.readouterr().err
    other = tmp_path / 'other.onnx'
    write_onnx_policy(other, make_metadata(observation_names=('a', 'b', 'c', 'd', 'e')))
    command = ('compare', '--env', 'Falls-v0', '--base', str(other), '--out', str(tmp_path / 'o'))
    assert run_command(*command, monkeypatch=monkeypatch) == 2
    assert 'observations, and other.onnx was made for 5' in capsys.readouterr().err
