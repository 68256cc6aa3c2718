# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a run in one process cannot write costs what it says, and never the run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ConfigError, OutputError, ResidualRLError
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.training.curve import PROGRESS
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.train import _Training, run_training


def options(out: Path) -> TrainOptions:
    config = replace(quick(load_run('peg_insert')), control_steps=300)
    return TrainOptions(config, 4, out, curve_steps=200, curve_seeds=2, paired_seeds=0)


def test_evaluations_that_cannot_be_written_are_said_and_kept_in_the_summary(
    tmp_path: Path,
) -> None:
    (tmp_path / PROGRESS).mkdir()
    said = io.StringIO()
    summary = run_training(options(tmp_path), Console(file=said, width=1000))
    assert f'{PROGRESS}' in said.getvalue()
    assert 'cannot be written: Is a directory' in said.getvalue()
    assert len(summary['evaluations']['points']) >= 2


def test_a_residual_that_did_worse_than_the_base_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(
        training: object, seeds: range, message: bytes | None, what: str = ''
    ) -> list[Episode]:
        return [Episode(seed, message is None or seed % 2 == 0, 10, 1.0) for seed in seeds]

    monkeypatch.setattr(_Training, '_play', play)
    said = io.StringIO()
    run = replace(options(tmp_path), paired_seeds=4)
    run_training(run, Console(file=said, width=1000))
    for part in ('base            100% [51%', '2 broken', 'did worse than the base: do not deploy'):
        assert part in said.getvalue()


def test_what_is_in_the_way_of_a_run_is_named_before_it_begins(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    (tmp_path / 'tensorboard').write_text('in the way')
    with pytest.raises(OutputError, match='no metrics can be written in'):
        run_training(options(tmp_path), quiet)
    (tmp_path / 'tensorboard').unlink()
    run_training(options(tmp_path), quiet)
    (tmp_path / PROGRESS).write_text('{"base": [0, ')
    with pytest.raises(ResidualRLError, match=r'progress\.json.* cannot be read: .*; remove it'):
        run_training(replace(options(tmp_path), resume=True), quiet)


def test_a_folder_with_nothing_to_resume_is_refused_and_not_made(tmp_path: Path) -> None:
    mistyped = replace(options(tmp_path / 'none'), resume=True)
    with pytest.raises(OutputError, match='holds no checkpoint to resume; correct --out'):
        run_training(mistyped, Console(quiet=True))
    assert not (tmp_path / 'none').exists()


def test_an_add_on_that_the_preset_does_not_learn_is_said_to_be_measured_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / 'out').write_text('in the way')
    said = io.StringIO()
    run = options(tmp_path / 'out')
    run = replace(run, config=run.config.with_add_ons(['hopper_height:reads=tool.position.z']))
    with pytest.raises(OutputError):
        run_training(run, Console(file=said, width=1000))
    assert (
        'best_of_n learns from the reward of the task alone: the add-on is measured'
        in said.getvalue()
    )


@pytest.mark.parametrize(
    ('task', 'preset', 'told'),
    [
        ('cart_pole', 'residual_soft_q', 'learns from an add-on reward, and there is none'),
        ('push_to_goal', 'q_remix', 'and proposals is 1: set it to 8'),
        ('push_to_goal', 'choose_and_edit', 'and proposals is 1: set it to 8'),
        ('cart_pole', 'best_of_n', 'those of this robot are discrete: use residual_soft_q'),
    ],
)
def test_a_run_that_could_change_nothing_is_refused(
    task: str, preset: str, told: str, tmp_path: Path
) -> None:
    run = TrainOptions(replace(load_run(task), preset=preset, overrides={}), 0, tmp_path / 'run')
    with pytest.raises(ConfigError, match=told):
        run_training(run, Console(file=io.StringIO()))
