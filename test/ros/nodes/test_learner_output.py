# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A new learner begins with the demonstrations that its node names; a resumed one has them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from base_policy_builders import write_onnx_policy
from demonstration_builders import LAYOUT, episodes
from raw_bag_builders import DESCRIPTION
from robot_builders import ACTIONS, OBSERVATIONS
from yaml import safe_dump

from residual_rl_ros.demonstrations.tensor_file import write_demonstrations
from residual_rl_ros.deployment.export import ExportOptions, export_run
from residual_rl_ros.errors import BasePolicyError, ConfigError, DemonstrationError
from residual_rl_ros.learner.learner import Learner, Log
from residual_rl_ros.ros.common.node_parameters import LearnerParameters
from residual_rl_ros.ros.nodes.learner_output import LearnerOutput
from residual_rl_ros.transitions.seal import Key

SMALL = {
    'replay_capacity': 100,
    'warmup_transitions': 10,
    'critic_hidden_sizes': [4],
    'actor_hidden_sizes': [4],
}
said: list[str] = []


def make(folder: Path, pulse: Any = lambda: None, **parameters: Any) -> Learner:
    """Return the learner of a node with such parameters, saved."""
    values = {'preset': 'resfit', 'output_dir': str(folder / 'out'), **parameters}
    output = LearnerOutput(LearnerParameters(**values), SMALL, Key.read(''), said.append)
    with closing(output):
        learner = output.make_learner(LAYOUT, pulse, Log(inform=said.append))
        output.save(learner)
    return learner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return demonstrations, beside a base policy and a robot."""
    write_onnx_policy(tmp_path / 'base.onnx')
    robot = {'/**': {'ros__parameters': {'robot': DESCRIPTION}}}
    (tmp_path / 'robot.yaml').write_text(safe_dump(robot))
    file = tmp_path / 'd.safetensors'
    write_demonstrations(file, episodes(), OBSERVATIONS, ACTIONS, 20.0)
    return file


def test_demonstrations_are_there_before_the_first_message_and_after_a_resume(path: Path) -> None:
    folder, pulses = path.parent, []
    learner = make(
        folder,
        lambda: pulses.append(1),
        demonstrations=('', str(path)),
        base_policy=str(folder / 'base.onnx'),
        robot_file=str(folder / 'robot.yaml'),
    )
    assert learner.rule.memory.demonstrations == 8
    assert len(pulses) == 3
    assert said[-1] == f'{path}: 3 demonstrations, 8 transitions'
    path.unlink()
    again = make(folder, demonstrations=(str(path),), resume=True)
    assert again.rule.memory.demonstrations == 8


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'demonstrations': ('nowhere',)}, "demonstrations 'nowhere' do not exist"),
        ({'preset': 'best_of_n'}, "preset 'best_of_n' samples no demonstrations"),
        ({}, 'holds no base actions; give the base policy'),
        ({'base_policy': 'nothing.onnx'}, 'nothing'),
        ({'observation_map': ('what',)}, 'neither NAME=KEY'),
    ],
)
def test_what_cannot_be_used_ends_the_learner(
    path: Path, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(DemonstrationError, match=message):
        make(path.parent, **{'demonstrations': (str(path),), **parameters})


def test_a_run_of_the_nodes_says_to_export_of_which_robot_and_base_policy_it_is(path: Path) -> None:
    folder, told = path.parent, []
    base, robot = folder / 'base.onnx', folder / 'robot.yaml'
    make(folder, base_policy=str(base), robot_file=str(robot), prefetch_steps=-1)
    options = ExportOptions(folder / 'out', folder / 'fused.onnx', batch=1)
    with pytest.raises(ConfigError, match='the actor is of a warm-up'):  # All else fits.
        export_run(options, told.append)
    assert 'the run has prefetch_steps auto' in told[0]
    write_onnx_policy(base, gain=2.0)
    with pytest.raises(BasePolicyError, match='trained with a base policy of sha256'):
        export_run(options, told.append)
