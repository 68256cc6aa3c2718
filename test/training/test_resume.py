# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and resumed, again and again, must be the uninterrupted one bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import assert_same_actor
from safetensors.torch import load_file

from residual_rl_ros.learner.checkpoint import ALGORITHM, REPLAY, RUN, STATE
from residual_rl_ros.residual_policy.weights import ACTOR, decode_weights

SETTINGS = {
    'warmup_transitions': 60,
    'publish_interval': 20,
    'batch_size': 16,
    'utd': 0.5,
    'critic_hidden_sizes': '[16]',
    'actor_hidden_sizes': '[16]',
}
STEPS = 2400
KILLS = 6
LIMIT_S = 120.0
INTERRUPTED_AT_STEP_500 = """
import os, signal
from residual_rl_ros.cli.main import main
from residual_rl_ros.learner.learner import Learner

ingest = Learner.ingest

def interrupted(learner, *arguments, **options):
    if learner.control_steps == 500:
        os.kill(os.getpid(), signal.SIGINT)
    return ingest(learner, *arguments, **options)

Learner.ingest = interrupted
raise SystemExit(main())
"""


def command(out: Path, *more: str) -> list[str]:
    settings = [word for key, value in SETTINGS.items() for word in ('--set', f'{key}={value}')]
    return [
        *(sys.executable, '-m', 'residual_rl_ros.cli.main', 'train', '--task', 'peg_insert'),
        *('--steps', str(STEPS), '--seed', '3', '--evaluate', '0', '--out', str(out)),
        *('--checkpoint-steps', '1', *settings, *more),
    ]


def episodes(out: Path) -> int:
    """Return how many episodes the latest checkpoint knows; -1 while there is none."""
    try:
        text = (out / 'checkpoints' / 'latest' / STATE).read_text(encoding='utf-8')
    except OSError:
        return -1
    return len(json.loads(text)['state']['history'])


def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    subprocess.run(command(whole), check=True, timeout=LIMIT_S, capture_output=True)

    rng = np.random.default_rng(20)
    killed = 0
    for _ in range(KILLS):
        resume = ['--resume'] if episodes(broken) >= 0 else []
        before = episodes(broken)
        process = subprocess.Popen(command(broken, *resume), stderr=subprocess.PIPE)
        deadline = time.monotonic() + LIMIT_S
        while episodes(broken) <= before + 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0.0, 0.2)))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert killed >= 3
    subprocess.run(command(broken, '--resume'), check=True, timeout=LIMIT_S, capture_output=True)
    assert_same_run(broken, whole)


def test_a_run_that_is_interrupted_saves_the_episode_in_progress_and_loses_nothing(
    tmp_path: Path,
) -> None:
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    never = ['--checkpoint-steps', '1000000']
    subprocess.run(command(whole, *never), check=True, timeout=LIMIT_S, capture_output=True)
    process = subprocess.Popen(
        [sys.executable, '-c', INTERRUPTED_AT_STEP_500, *command(broken, *never)[3:]],
        stderr=subprocess.PIPE,
        text=True,
    )
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, errors
    assert f'continue with the same command and --resume --out {broken}' in ' '.join(errors.split())
    state = json.loads((broken / 'checkpoints' / 'latest' / STATE).read_text())['state']
    assert 500 <= state['control_steps'] < 600
    subprocess.run(command(broken, '--resume'), check=True, timeout=LIMIT_S, capture_output=True)
    assert_same_run(broken, whole)


def assert_same_run(broken: Path, whole: Path) -> None:
    """Check that the latest checkpoints of two runs are the same, bit for bit."""
    ours, theirs = (out / 'checkpoints' / 'latest' for out in (broken, whole))
    for name in (ALGORITHM, REPLAY, RUN):
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
        (['--steps', '200'], 'is of a run of 300 control steps'),
    ],
)
def test_a_run_is_not_resumed_as_another_one(
    tmp_path: Path, change: list[str], reason: str
) -> None:
    short = [*command(tmp_path / 'run'), '--steps', '300']
    subprocess.run(short, check=True, timeout=LIMIT_S, capture_output=True)
    result = subprocess.run(
        [*short, '--resume', *change], check=False, timeout=LIMIT_S, capture_output=True, text=True
    )
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert reason in errors[0]
