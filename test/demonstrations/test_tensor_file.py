# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The project's own files of demonstrations give back what was written, or one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demonstration_builders import episodes, read_all
from robot_builders import ACTIONS, OBSERVATIONS
from safetensors.numpy import save

from residual_rl_ros.demonstrations.tensor_file import (
    METADATA,
    DemonstrationFile,
    write_demonstrations,
)
from residual_rl_ros.errors import DemonstrationError, OutputError
from residual_rl_ros.pretraining.demonstrations import collect
from residual_rl_ros.tasks.hosting import control_rate_hz, environment_names
from residual_rl_ros.tasks.registry import make_task


@pytest.mark.parametrize('whole', [True, False])
def test_what_was_written_is_read_again(tmp_path: Path, whole: bool) -> None:
    path, written = tmp_path / 'd.safetensors', episodes()
    if not whole:
        written = [replace(e, observations=e.observations[:-1], rewards=None) for e in written]
    write_demonstrations(path, written, OBSERVATIONS, ACTIONS, 20.0)
    file = DemonstrationFile(path)
    assert (file.rate_hz, file.action_names) == (20.0, ACTIONS)
    observed = [file.numbers[name] for name in OBSERVATIONS]
    for one, other in zip(file.episodes(observed, [0, 1]), written, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        assert (one.rewards is None) is not whole
    made, said, _ = read_all(path)
    assert (len(made), len(said)) == (8, 1)


def test_demonstrations_of_an_expert_are_kept_with_their_rewards(tmp_path: Path) -> None:
    env = make_task('peg_insert')
    found = collect(env, 'peg_insert', 1, seed=3)
    path = tmp_path / 'peg.safetensors'
    found.save(path, *environment_names(env), control_rate_hz(env))
    file = DemonstrationFile(path)
    (episode,) = file.episodes([*file.numbers.values()], range(file.action_size))
    ((observations, actions),) = found.episodes
    assert len(episode.observations) == len(observations) + 1 == len(actions) + 1
    np.testing.assert_array_equal(episode.actions, actions)
    np.testing.assert_array_equal(episode.rewards, np.eye(len(actions))[-1])


def _file(fields: dict[str, Any] | None = None, **tensors: Any) -> bytes:
    described = {'version': 1, 'observation_names': OBSERVATIONS, 'action_names': ACTIONS}
    arrays = {
        'observations': np.zeros((4, 3), np.float32),
        'actions': np.zeros((4, 2), np.float32),
        'lengths': np.array([1, 3]),
        **tensors,
    }
    text = json.dumps({**described, 'rate_hz': 20.0, **(fields or {})})
    return save(
        {name: value for name, value in arrays.items() if value is not None}, {METADATA: text}
    )


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', 'the header has 0 of 0 bytes'),
        (_file()[:-8], 'the tensors end at'),
        (b'\x80\x04pickle' * 20, 'the header has'),
        (save({'a': np.zeros(3)}), "KeyError('demonstrations')"),
        (_file({'version': 2}), 'version is 2, expected 1'),
        (_file({'action_names': ['x', 'x']}), 'action names are repeated'),
        (_file(lengths=np.array([1, 4])), 'observations is float32 of shape (4, 3), expected'),
        (_file(lengths=np.array([4, 0])), 'whole numbers from 1 on'),
        (_file(lengths=np.array([4.0])), 'lengths has 1 values of float64'),
        (_file(lengths=np.array([2**62, 2**62, 2**62, 2**62 + 4])), 'expected float32 of shape'),
        (_file(actions=np.zeros((4, 2))), 'actions is float64 of shape (4, 2), expected float32'),
        (_file(rewards=np.zeros(3, np.float32)), 'rewards is float32 of shape (3,)'),
        (_file(actions=None), "KeyError('actions')"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / 'd.safetensors'
    path.write_bytes(content)
    with pytest.raises(DemonstrationError) as refused:
        DemonstrationFile(path)
    assert str(refused.value).startswith(f'{path}: is no file of demonstrations')
    assert said in str(refused.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / 'no').touch()
    with pytest.raises(OutputError, match=r'cannot be written: .* is no folder'):
        write_demonstrations(tmp_path / 'no/d.safetensors', episodes(), OBSERVATIONS, ACTIONS, 20.0)
