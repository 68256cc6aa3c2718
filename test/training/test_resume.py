# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and resumed, again and again, must be the uninterrupted one bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor
from command_line import run_command, run_process
from safetensors.torch import load_file

from residual_rl_ros.errors import TaskError
from residual_rl_ros.learner.checkpoint import ALGORITHM, MEMORY, RUN, STATE
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.actor_file import ACTOR
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.tasks.checked import CheckedEnvironment

SETTINGS = {
    'warmup_transitions': 60,
    'publish_interval': 20,
    'batch_size': 16,
    'utd': 0.5,
    'critic_hidden_sizes': '[16]',
    'actor_hidden_sizes': '[16]',
}
STEPS = 1800
KILLS = 6 if os.environ.get('HYPOTHESIS_PROFILE') == 'thorough' else 3
LIMIT_S = 120.0
NEVER = ('--checkpoint-steps', '1000000')


def arguments(out: Path, *more: str) -> list[str]:
    settings = [word for key, value in SETTINGS.items() for word in ('--set', f'{key}={value}')]
    return [
        *('train', '--task', 'peg_insert', '--steps', str(STEPS), '--seed', '3'),
        *('--evaluate', '0', '--out', str(out), '--checkpoint-steps', '1', *settings, *more),
    ]


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was not interrupted."""
    out = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as patch:
        assert run_command(*arguments(out, *NEVER), monkeypatch=patch) == 0
    return out


@pytest.fixture(scope='module')
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of 300 control steps."""
    out = tmp_path_factory.mktemp('short')
    with pytest.MonkeyPatch.context() as patch:
        assert run_command(*arguments(out, '--steps', '300'), monkeypatch=patch) == 0
    return out


def episodes(out: Path) -> int:
    """Return how many episodes the latest checkpoint knows; -1 while there is none."""
    try:
        text = (out / 'checkpoints' / 'latest' / STATE).read_text(encoding='utf-8')
    except OSError:
        return -1
    return len(json.loads(text)['state']['history'])


def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / 'broken'
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['residual_rl_ros.training.train'])  # Imported for all, once.
    rng = np.random.default_rng(20)
    killed = 0
    for _ in range(KILLS):
        resume = ['--resume'] if episodes(broken) >= 0 else []
        before = episodes(broken)
        process = context.Process(target=run_process, args=arguments(broken, *resume))
        process.start()
        deadline = time.monotonic() + LIMIT_S
        while episodes(broken) <= before + 2 and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0.0, 0.2)))
        killed += process.is_alive()
        process.kill()
        process.join()
    assert killed > KILLS // 2
    assert run_command(*arguments(broken, '--resume'), monkeypatch=monkeypatch) == 0
    assert_same_run(broken, whole)


def test_a_run_that_is_interrupted_saves_the_episode_in_progress_and_loses_nothing(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / 'broken'
    ingest = Learner.ingest

    def interrupted(learner: Learner, *given: Any, **options: Any) -> Any:
        if learner.control_steps == 500:
            os.kill(os.getpid(), signal.SIGINT)
        return ingest(learner, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, 'ingest', interrupted)
        assert run_command(*arguments(broken, *NEVER), monkeypatch=patch) == 130
    errors = capsys.readouterr().err
    assert f'continue with the same command and --resume --out {broken}' in ' '.join(errors.split())
    state = json.loads((broken / 'checkpoints' / 'latest' / STATE).read_text())['state']
    assert 500 <= state['control_steps'] < 600
    assert run_command(*arguments(broken, *NEVER, '--resume'), monkeypatch=monkeypatch) == 0
    assert_same_run(broken, whole)


def test_an_environment_that_fails_costs_the_episode_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, step = tmp_path / 'out', CheckedEnvironment.step

    def failing(env: CheckedEnvironment, command: Any) -> Any:
        if env._episode == 5:
            raise TaskError('the sensor is broken')
        return step(env, command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckedEnvironment, 'step', failing)
        assert run_command(*arguments(out, *NEVER), monkeypatch=patch) == 2
    errors = ' '.join(capsys.readouterr().err.split())
    assert 'error: the sensor is broken' in errors
    assert '--resume goes on with other episodes' in errors
    state = json.loads((out / 'checkpoints' / 'latest' / STATE).read_text())['state']
    assert len(state['history']) == 5
    assert run_command(*arguments(out, *NEVER, '--resume'), monkeypatch=monkeypatch) == 0
    history = json.loads((out / 'checkpoints' / 'latest' / STATE).read_text())['state']['history']
    assert len(history) > 6


def assert_same_run(broken: Path, whole: Path) -> None:
    """Check that the latest checkpoints of two runs are the same, bit for bit."""
    ours, theirs = (out / 'checkpoints' / 'latest' for out in (broken, whole))
    for name in (ALGORITHM, MEMORY.format('replay'), RUN):
        stored, expected = load_file(ours / name), load_file(theirs / name)
        assert stored.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(stored[key], value), f'{name}: {key}'
    states = [json.loads((folder / STATE).read_text())['state'] for folder in (ours, theirs)]
    assert states[0] == states[1]
    assert states[0]['updates'] > 100
    actor, expected = (
        decode_weights((folder / ACTOR).read_bytes())[1] for folder in (ours, theirs)
    )
    assert_same_actor(actor, expected)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (['--set', 'gamma=0.5'], 'trained with other numbers'),
        (['--preset', 'policy_decorator'], 'trained with other numbers'),
        (['--task', 'push_to_goal'], 'has layout'),
        (['--seed', '4'], 'is of another run: seed is 3 there and 4 here'),
        (['--add-on', 'hopper_height:reads=tool.position.z'], 'is of another run: add_ons is []'),
        (['--steps', '200'], 'is of a run of 300 control steps'),
    ],
)
def test_a_run_is_not_resumed_as_another_one(
    short: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    reason: str,
) -> None:
    command = [*arguments(short), '--steps', '300', '--resume', *change]
    assert run_command(*command, monkeypatch=monkeypatch) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert reason in errors[0]
