# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets of other tools become transitions of a base policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, write_onnx_policy
from command_line import run
from prior_builders import write_prior_policy
from robot_builders import make_metadata

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.lerobot.format import LeRobotDataset
from residual_rl_ros.bags.lerobot.reader import ForeignDataset
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.findings import Findings
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.transition import Source, Success, Transition

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')

DATA = 'data/chunk-000/file-000.parquet'
META = make_metadata()
CONFIG = ControllerConfig(decision_steps=1, residual_scale=(0.05,), scheduled_actor=False)


def change_info(dataset: Path, **changes: Any) -> None:
    path = dataset / 'meta/info.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


STATES = np.random.default_rng(2).uniform(-1.0, 1.0, (11, 3)).astype(np.float32)
ACTIONS = np.random.default_rng(3).uniform(-0.5, 0.5, (11, 2)).astype(np.float32)
LENGTHS = (6, 1, 4)


def write_foreign(folder: Path, **columns: list[Any]) -> Path:
    """Write what another tool would: reversed actions, a column of its own, three episodes."""
    data = {
        'observation.state': STATES.tolist(),
        'action': ACTIONS[:, ::-1].tolist(),
        'frame_index': [frame for length in LENGTHS for frame in range(length)],
        'episode_index': np.repeat([0, 1, 2], LENGTHS).tolist(),
        **columns,
    }
    features: dict[str, Any] = {
        name: {'dtype': 'float32', 'shape': [1], 'names': None} for name in data
    }
    features['observation.state'] |= {'shape': [3], 'names': list(META.observation_names)}
    features['action'] |= {'shape': [2], 'names': {'motors': list(META.action_names[::-1])}}
    info = {'codebase_version': 'v3.0', 'fps': 20, 'total_frames': 11, 'features': features}
    (folder / DATA).parent.mkdir(parents=True)
    (folder / 'meta').mkdir()
    (folder / 'meta/info.json').write_text(json.dumps(info))
    pq.write_table(pa.table(data), folder / DATA)
    return folder


def import_foreign(
    folder: Path, config: ControllerConfig = CONFIG, **options: Any
) -> tuple[list[Transition], list[str]]:
    problems = Findings()
    foreign = ForeignDataset(LeRobotDataset.open(folder), LinearPolicy(META), config, **options)
    made = list(foreign.transitions(problems))
    return made, [str(problem) for problem in problems]


def test_frames_of_another_tool_become_transitions_by_name(tmp_path: Path) -> None:
    made, (problem,) = import_foreign(write_foreign(tmp_path / 'set'))
    assert 'episode 1: episode has one frame' in problem
    assert [t.episode for t in made] == [0] * 5 + [2] * 3
    assert [t.step for t in made] == [*range(5), *range(3)]
    frames = [0, 1, 2, 3, 4, 7, 8, 9]
    policy = LinearPolicy(META)
    first = policy.infer(STATES[:1])[META.exec_start]
    np.testing.assert_allclose(made[0].base_action, first, atol=1e-6)
    for frame, transition in zip(frames, made, strict=True):
        np.testing.assert_array_equal(transition.observation, STATES[frame])
        np.testing.assert_array_equal(transition.next_observation, STATES[frame + 1])
        np.testing.assert_array_equal(transition.executed_action, ACTIONS[frame])
        assert transition.source is Source.TAKEOVER
        assert not transition.residual_action.any()
    assert [index for index, t in enumerate(made) if t.truncated] == [4, 7]
    assert {t.success for t in made} == {Success.UNLABELLED}


def test_discrete_actions_are_taken_one_hot_or_passed_over(tmp_path: Path) -> None:
    write_prior_policy(tmp_path / 'base.onnx', Prior.CATEGORICAL)
    policy = OnnxBasePolicy(tmp_path / 'base.onnx')
    chosen = np.eye(2)[[0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1]]
    chosen[9] = 0.5
    folder = write_foreign(tmp_path / 'set', action=chosen.tolist())
    problems = Findings()
    foreign = ForeignDataset(LeRobotDataset.open(folder), policy, CONFIG, by_position=True)
    made = list(foreign.transitions(problems))
    assert [t.episode for t in made] == [0] * 5
    np.testing.assert_array_equal([t.executed_action for t in made], chosen[:5])
    assert all(t.prior.any() for t in made)
    _, problem = map(str, problems)
    assert 'has actions that are not one-hot, as discrete ones are; passed over' in problem


def test_success_and_reward_of_the_last_frame_count(tmp_path: Path) -> None:
    succeeded = [False] * 5 + [True] + [False] * 5
    made, _ = import_foreign(write_foreign(tmp_path / 'a', **{'next.success': succeeded}))
    ends = [made[4], made[7]]
    assert [(t.terminated, t.truncated) for t in ends] == [(True, False), (False, True)]
    assert [t.success for t in ends] == [Success.SUCCESS, Success.FAILURE]
    assert [t.reward for t in made] == [0.0] * 4 + [1.0] + [0.0] * 3

    sparse = [float(value) for value in succeeded]
    made, _ = import_foreign(write_foreign(tmp_path / 'b', **{'next.reward': sparse}))
    assert [made[4].success, made[7].success] == [Success.SUCCESS, Success.FAILURE]
    assert [t.reward for t in made] == [0.0] * 4 + [1.0] + [0.0] * 3

    shaped = [0.5] * 11
    made, _ = import_foreign(write_foreign(tmp_path / 'c', **{'next.reward': shaped}))
    assert made[4].success is Success.UNLABELLED
    assert made[4].reward == 1.0


def test_decisions_may_take_several_frames(tmp_path: Path) -> None:
    config = replace(CONFIG, decision_steps=2)
    made, _ = import_foreign(write_foreign(tmp_path / 'set'), config)
    assert [(t.episode, t.step) for t in made] == [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2)]
    np.testing.assert_array_equal(made[1].executed_action, ACTIONS[2:4].ravel())


def test_what_the_base_policy_would_have_done_has_its_source(tmp_path: Path) -> None:
    made, _ = import_foreign(write_foreign(tmp_path / 'a'))
    actions = ACTIONS.copy()
    actions[[0, 1, 2, 3, 4, 7, 8, 9]] = [t.base_action for t in made]
    folder = write_foreign(tmp_path / 'b', action=actions[:, ::-1].tolist())
    made, _ = import_foreign(folder)
    assert {t.source for t in made} == {Source.BASE}


def test_other_names_and_rates_are_refused(tmp_path: Path) -> None:
    folder = write_foreign(tmp_path / 'set')
    info = json.loads((folder / 'meta/info.json').read_text())
    info['features']['observation.state']['names'] = ['x', 'y', 'z']
    change_info(folder, features=info['features'])
    with pytest.raises(
        ResidualRLError, match=r'lacks arm.position.a, .* has x, y, z; .*by-position'
    ):
        import_foreign(folder)
    info['features']['action']['names'] = None
    change_info(folder, features=info['features'])
    made, _ = import_foreign(folder, by_position=True)
    np.testing.assert_array_equal(made[0].executed_action, ACTIONS[0, ::-1])
    change_info(folder, fps=30)
    with pytest.raises(ResidualRLError, match='fps is 30, the base policy was trained at 20 Hz'):
        import_foreign(folder, by_position=True)
    del info['features']['observation.state']
    change_info(folder, features=info['features'])
    with pytest.raises(ResidualRLError, match=r"'observation.state' is missing"):
        import_foreign(folder)


def test_the_command_needs_the_base_policy_of_another_tools_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_foreign(tmp_path / 'set'))
    arguments = ('import', folder, '--out', str(tmp_path / 'bag'))
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    assert 'give the base policy with --base' in capsys.readouterr().err
    write_onnx_policy(tmp_path / 'base.onnx')
    base = ('--base', str(tmp_path / 'base.onnx'), '--robot', 'cell')
    assert run(*arguments, *base, monkeypatch=monkeypatch) == 1
    assert 'problem:' in capsys.readouterr().err
    (block,) = TransitionReader(Bag(tmp_path / 'bag')).blocks()
    assert (block.robot, len(block.table)) == ('cell', 8)


def test_cameras_and_other_columns_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_foreign(tmp_path / 'set')
    info = json.loads((dataset / 'meta/info.json').read_text())
    camera = {'dtype': 'video', 'shape': [480, 640, 3], 'names': ['height', 'width', 'channels']}
    change_info(dataset, features={**info['features'], 'observation.images.wrist': camera})
    write_onnx_policy(tmp_path / 'p.onnx', META)
    arguments = ('--base', str(tmp_path / 'p.onnx'), '--out', str(tmp_path / 'bag'))
    run('import', str(dataset), *arguments, monkeypatch=monkeypatch)
    said = ' '.join(capsys.readouterr().err.split())
    assert 'not imported: observation.images.wrist (video)' in said
