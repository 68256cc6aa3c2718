# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A run in one process goes on from what bags have taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from learner_builders import SMALL
from rich.console import Console

from residual_rl_ros.bags.transitions.writer import TransitionWriter
from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.errors import CheckpointError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.learner.checkpoint import CheckpointFolder, load_checkpoint, load_run_state
from residual_rl_ros.learner.learner import Phase
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.tasks.hosting import connect, make_environment
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.train import run_training
from residual_rl_ros.training.train_from_bags import TransitionUse, train_from_bags

QUIET = Console(quiet=True)


def small_config(control_steps: int) -> RunConfig:
    config = quick(load_run('peg_insert'))
    return replace(config, control_steps=control_steps, overrides={**config.overrides, **SMALL})


def base_bag(config: RunConfig, folder: Path, transitions: int) -> Path:
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    env = connect(make_environment(config.task), robot)
    controller = config.controller_config(0, explore=True, scheduled=True).build(
        policy, robot.action
    )
    with TransitionWriter(folder, controller.layout) as writer:
        seed = 0
        while writer.transitions < transitions:
            run_episode(env, controller, seed, seed, writer.write)
            seed += 1
    controller.queue.close()
    return folder


def test_a_run_begins_online_with_the_warm_critics_of_a_bag(tmp_path: Path) -> None:
    config = small_config(600)
    bag = base_bag(config, tmp_path / 'bag', 150)
    learner, intake = train_from_bags([bag], TransitionUse.BASE, config.learner_config(), seed=4)
    assert learner.phase is Phase.ONLINE
    CheckpointFolder(tmp_path / 'start' / 'checkpoints').save(learner)
    options = TrainOptions(config, 4, tmp_path / 'run', start=tmp_path / 'start', paired_seeds=0)
    summary = run_training(options, QUIET)
    after = load_checkpoint(tmp_path / 'run' / 'checkpoints' / 'latest')
    assert intake.taken >= learner.transitions == config.learner_config().warmup_transitions
    assert len(after.rule.memory) == after.transitions
    assert after.control_steps == 4 * (after.transitions - learner.transitions)
    assert after.updates.online == after.transitions - learner.transitions > 0
    assert summary['control_steps'] == after.control_steps
    assert any(record.residual for record in after.episodes.history)

    other = replace(config, overrides={**config.overrides, 'utd': 0.5})
    options = replace(options, config=other, output_dir=tmp_path / 'other')
    with pytest.raises(CheckpointError, match=r'utd is 1\.0 there, 0\.5 by the preset'):
        run_training(options, QUIET)


def test_no_message_waits_for_the_decisions_of_a_bag(tmp_path: Path) -> None:
    config = small_config(800)
    warmup = config.learner_config().warmup_transitions
    bag = base_bag(config, tmp_path / 'bag', warmup // 2)
    learner, _ = train_from_bags([bag], TransitionUse.BASE, config.learner_config(), seed=4)
    assert learner.phase is Phase.WARMUP
    CheckpointFolder(tmp_path / 'start' / 'checkpoints').save(learner)
    states = {}
    for name, start in (('scratch', None), ('short', tmp_path / 'start')):
        options = TrainOptions(config, 4, tmp_path / name, start=start, paired_seeds=0)
        run_training(options, QUIET)
        states[name] = load_run_state(tmp_path / name / 'checkpoints' / 'latest')
    assert states['short'].keys() == states['scratch'].keys()
    assert load_checkpoint(tmp_path / 'short' / 'checkpoints' / 'latest').updates.online > 0
