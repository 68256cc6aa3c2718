# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A run begins with recorded demonstrations, or says why it cannot before it begins."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_command
from demonstration_builders import episodes
from foreign_tasks import register, write_base
from rich.console import Console

from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.demonstrations.tensor_file import write_demonstrations
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.tasks.hosting import finetune_for_environment
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.train import run_training

register()
SMALL = {
    'warmup_transitions': 5,
    'critic_only_updates': 2,
    'batch_size': 4,
    'critic_hidden_sizes': [4],
    'actor_hidden_sizes': [4],
}


def write(path: Path, action: float = 0.05) -> Path:
    """Write demonstrations of an environment whose actions are within 0.1."""
    made = episodes([6, 5], actions=np.full((6, 2), action))
    made[1] = replace(made[1], actions=made[1].actions[:5])
    names = ['state.x0', 'state.x1', 'state.x2'], ['action0', 'action1']
    write_demonstrations(path, made, *names, rate_hz=20.0)
    return path


def options(folder: Path, *paths: Path, preset: str = 'resfit', **changes: Any) -> TrainOptions:
    base = write_base(folder / 'base.onnx')
    config = finetune_for_environment('Solved-v0', base, 0.1, folder)
    config = config.with_success('solved:stop').with_preset(preset).changed(SMALL)
    config = replace(config, control_steps=24, decision_steps=2)
    return TrainOptions(
        config, 0, folder / 'out', recordings=Recordings(paths), paired_seeds=0, **changes
    )


def test_recorded_demonstrations_are_in_the_buffer_and_stay_in_the_checkpoint(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / 'd.safetensors')
    said = io.StringIO()
    run = options(tmp_path, path, demonstrations=0)
    summary = run_training(run, Console(file=said, width=1000))
    assert f'{path}: 2 demonstrations, 6 transitions' in said.getvalue()
    assert summary['run']['demonstrations'] == [0, str(path)]
    latest = tmp_path / 'out' / CHECKPOINTS / 'latest'
    assert load_checkpoint(latest).rule.memory.demonstrations == 6
    path.unlink()
    longer = replace(run, resume=True, config=replace(run.config, control_steps=36))
    run_training(longer, Console(quiet=True))
    assert load_checkpoint(latest).rule.memory.demonstrations == 6


@pytest.mark.parametrize(
    ('preset', 'action', 'said'),
    [
        ('wsrl', 0.05, "preset 'wsrl' samples no demonstrations"),
        ('resfit', 1.0, 'action action0 spans 1 to 1 in this demonstration, the robot takes -0.1'),
    ],
)
def test_demonstrations_that_cannot_be_used_end_a_run_before_it_begins(
    tmp_path: Path, preset: str, action: float, said: str
) -> None:
    path = write(tmp_path / 'd.safetensors', action)
    run = options(tmp_path, path)
    if preset == 'wsrl':
        run = replace(run, config=run.config.with_preset('wsrl'))
    with pytest.raises(ResidualRLError) as refused:
        run_training(run, Console(quiet=True))
    assert said in str(refused.value)
    assert not checkpoint_exists(tmp_path / 'out' / CHECKPOINTS / 'latest')


def test_the_command_names_what_is_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ('train', '--preset', 'resfit', '--out', str(tmp_path / 'out'))
    missing = ('--demonstrations', str(tmp_path / 'nowhere.hdf5'))
    assert run_command(*command, *missing, monkeypatch=monkeypatch) == 2
    assert "nowhere.hdf5' do not exist" in capsys.readouterr().err
    twice = ('--demonstrations', '3', '--demonstrations', '4')
    assert run_command(*command, *twice, monkeypatch=monkeypatch) == 2
    assert 'names [3, 4] episodes of the expert, expected one' in capsys.readouterr().err
