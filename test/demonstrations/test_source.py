# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any recording is recognised by what it is; what is none is refused before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from demonstration_builders import Robot, episodes, read_all
from robot_builders import ACTIONS, OBSERVATIONS

from residual_rl_ros.demonstrations.source import Recordings, read_demonstrations
from residual_rl_ros.demonstrations.tensor_file import write_demonstrations
from residual_rl_ros.errors import ResidualRLError


def test_a_number_is_episodes_of_the_expert_and_anything_else_a_path() -> None:
    assert read_demonstrations([], []) == (0, Recordings())
    assert read_demonstrations(['7'], []) == (7, Recordings())
    paths = (Path('a.hdf5'), Path('bag'))
    assert read_demonstrations(['a.hdf5', 'bag'], ['x=y[0]']) == (
        0,
        Recordings(paths, {'x': 'y[0]'}),
    )
    assert read_demonstrations(['a.hdf5', '3', 'bag'], []) == (3, Recordings(paths))
    with pytest.raises(ResidualRLError, match=r'names \[3, 4\] episodes of the expert'):
        read_demonstrations(['3', '4'], [])


@pytest.mark.parametrize('name', ['d.pkl', 'd.pt', 'd.npz', 'd'])
def test_files_of_other_kinds_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'\x80\x04.')
    with pytest.raises(ResidualRLError, match='of no known kind: a bag, a LeRobot dataset'):
        read_all(tmp_path / name)


def test_what_is_of_no_use_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ResidualRLError, match=r"nowhere.hdf5' do not exist"):
        Recordings((tmp_path / 'nowhere.hdf5',)).check('resfit', samples=True)
    with pytest.raises(ResidualRLError, match="preset 'best_of_n' samples no demonstrations"):
        Recordings((tmp_path,)).check('best_of_n', samples=False)
    Recordings().check('best_of_n', samples=False)


def test_several_recordings_go_into_one_buffer_each_apart(tmp_path: Path) -> None:
    path = tmp_path / 'd.safetensors'
    write_demonstrations(path, episodes(), OBSERVATIONS, ACTIONS, 20.0)
    made, said, learner = read_all(path, path)
    assert len(made) == learner.rule.memory.demonstrations == 16
    assert len(said) == 2


def test_recordings_of_failures_alone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'd.safetensors'
    failed = episodes([4], rewards=np.zeros(4))
    write_demonstrations(path, failed, OBSERVATIONS, ACTIONS, 20.0)
    with pytest.raises(ResidualRLError, match='holds no usable demonstration: 1 failed ones'):
        read_all(path)


def test_an_action_that_no_layout_allows_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the limits of the robot are not known."""
    path = tmp_path / 'd.safetensors'
    far = episodes([4], actions=np.full((4, 2), 9e5))
    write_demonstrations(path, far, OBSERVATIONS, ACTIONS, 20.0)
    monkeypatch.setattr(Robot, 'action', None)
    with pytest.raises(ResidualRLError) as refused:
        read_all(path)
    assert f'{path}: episode 0, step 0: executed_action[0] is 900000.0' in str(refused.value)


def test_a_map_of_names_without_demonstrations_is_refused() -> None:
    with pytest.raises(ResidualRLError, match='observation_map is given, but no demonstrations'):
        Recordings(observation_map={'x': 'y[0]'}).check('rlpd', samples=True)
