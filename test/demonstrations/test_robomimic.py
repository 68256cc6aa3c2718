# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""robomimic's HDF5 files become demonstrations; what is wrong with one is one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demonstration_builders import MAP, STEPS, episodes, read_all, write_robomimic

from residual_rl_ros.errors import DemonstrationError
from residual_rl_ros.transitions.transition import Source

h5py = pytest.importorskip('h5py')


def test_demonstrations_become_transitions_with_the_base_in_their_shadow(tmp_path: Path) -> None:
    made, said, learner = read_all(write_robomimic(tmp_path / 'd.hdf5'), observation_map=MAP)
    assert [t.episode for t in made] == [0] * 3 + [1] * 2 + [2] * 3
    assert {t.source for t in made} == {Source.TAKEOVER}
    assert [t.reward for t in made] == [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert [t.terminated for t in made] == [t.reward == 1.0 for t in made]
    first = episodes()[0]
    np.testing.assert_array_equal(made[1].observation, first.observations[2])
    np.testing.assert_array_equal(made[1].executed_action, first.actions[2:4].ravel())
    np.testing.assert_array_equal(made[2].next_observation, first.observations[-1])
    assert said == [f'{tmp_path / "d.hdf5"}: 3 demonstrations, 8 transitions']
    assert learner.rule.memory.demonstrations == 8


def test_without_next_observations_a_success_keeps_its_last_action(tmp_path: Path) -> None:
    def spoil(file: Any) -> None:
        for demo in file['data'].values():
            del demo['next_obs'], demo['rewards']

    made, said, _ = read_all(write_robomimic(tmp_path / 'd.hdf5', spoil), observation_map=MAP)
    assert len(made) == 8
    assert made[2].executed_action[:2].tolist() == episodes()[0].actions[4].tolist()
    assert '3 do not say how they ended and are taken as successes' in said[0]


def test_failed_ones_are_left_out_and_what_follows_the_end_too(tmp_path: Path) -> None:
    def spoil(file: Any) -> None:
        file['data/demo_1/rewards'][:] = 0.0
        file['data/demo_2/dones'][2] = 1
        file['data/demo_2/rewards'][:] = [0, 0, 1, 0, 0, 1]

    made, said, _ = read_all(write_robomimic(tmp_path / 'd.hdf5', spoil), observation_map=MAP)
    assert [t.episode for t in made] == [0] * 3 + [2] * 2
    assert '2 demonstrations, 5 transitions; 1 that failed are left out' in said[0]


def test_demonstrations_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    made, _, _ = read_all(
        write_robomimic(tmp_path / 'd.hdf5', demonstrations=episodes(range(1, 12))),
        observation_map=MAP,
    )
    last = [t for t in made if t.terminated]
    assert [t.step for t in last] == [2 * (steps // 2 - (steps % 2 == 0)) for steps in range(1, 12)]


def test_a_file_that_does_not_say_its_rate_is_taken_at_the_robots_aloud(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / 'd.hdf5', rate_hz=None)
    _, said, _ = read_all(path, observation_map=MAP)
    assert 'does not say its rate; it is taken to be that of the robot' in said[0]
    with pytest.raises(DemonstrationError, match='at 30 Hz, the robot runs at 20 Hz'):
        read_all(write_robomimic(tmp_path / 'e.hdf5', rate_hz=30.0), observation_map=MAP)


def test_names_that_are_missing_are_told_with_the_keys_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DemonstrationError) as refused:
        read_all(write_robomimic(tmp_path / 'd.hdf5'))
    assert 'lacks arm.position.a, arm.position.b, tool.z' in str(refused.value)
    assert 'it has arm[0..1], tool[0], tool;' in str(refused.value)


def _replaced(name: str, values: Any) -> Callable[[Any], None]:
    def spoil(file: Any) -> None:
        del file[name]
        if values is not None:
            file[name] = values

    return spoil


def _external(file: Any) -> None:
    del file['data/demo_0/obs']
    file['data/demo_0/obs'] = h5py.ExternalLink('/etc/hostname', '/')


def _virtual(file: Any) -> None:
    source = h5py.VirtualSource('elsewhere.hdf5', 'x', (STEPS[0], 2))
    layout = h5py.VirtualLayout((STEPS[0], 2), 'f4')
    layout[:] = source
    del file['data/demo_0/obs/arm']
    file['data/demo_0/obs'].create_virtual_dataset('arm', layout)


def _inflated(file: Any) -> None:
    del file['data/demo_0/obs/arm']
    file['data/demo_0/obs'].create_dataset('arm', (5, 10**8), 'f4', compression='gzip')


def _in_giant_chunks(file: Any) -> None:
    del file['data/demo_0/actions']
    chunks = {'chunks': (20_000, 2_000), 'maxshape': (None, None), 'compression': 'gzip'}
    file['data/demo_0'].create_dataset('actions', (STEPS[0], 2), 'f4', **chunks)


@pytest.mark.parametrize(
    ('spoil', 'said'),
    [
        (_in_giant_chunks, 'actions has chunks of 160000000 bytes, expected <= 67108864'),
        (_replaced('data/demo_0/dones', [0.0, 0.5] + (STEPS[0] - 2) * [1.0]), 'dones holds other'),
        (_replaced('data', None), '/data is missing; / has nothing, expected data/demo_0'),
        (_replaced('data', [1.0]), '/data is no group'),
        (_replaced('data/demo_0/obs', None), '/data/demo_0/obs is missing; /data/demo_0 has'),
        (_replaced('data/demo_1/actions', None), '/data/demo_1/actions is missing'),
        (_replaced('data/demo_1/obs/tool', None), '/data/demo_1/obs/tool is missing'),
        (_replaced('data/demo_0/actions', ['a', 'b']), '/data/demo_0/actions holds object'),
        (_replaced('data/demo_1/obs/arm', ['a'] * 4), '/data/demo_1/obs/arm holds object'),
        (_replaced('data/demo_0/actions', [1.0]), 'actions has shape (1,), expected (steps, act'),
        (_replaced('data/demo_1/actions', np.ones((4, 3))), 'has shape (4, 3), expected (steps, 2'),
        (_replaced('data/demo_1/obs/arm', np.ones((3, 2))), 'shape (3, 2), expected (4, 2)'),
        (_replaced('data/demo_1/rewards', np.ones((4, 2))), 'rewards has shape (4, 2)'),
        (_external, '/data/demo_0/obs is a link; repack the file'),
        (_virtual, '/data/demo_0/obs/arm lies in other files'),
        (_inflated, 'holds 100000001 numbers a step, expected 1 to'),
    ],
)
def test_a_damaged_file_is_one_line_that_names_the_place(
    tmp_path: Path, spoil: Callable[[Any], None], said: str
) -> None:
    path = write_robomimic(tmp_path / 'd.hdf5', spoil)
    with pytest.raises(DemonstrationError) as refused:
        read_all(path, observation_map=MAP)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_a_file_that_is_cut_off_or_none_is_one_line(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / 'd.hdf5')
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b'', b'\x89HDF\r\n\x1a\n', b'text'):
        path.write_bytes(content)
        with pytest.raises(DemonstrationError, match='cannot be read as HDF5, it is damaged or'):
            read_all(path, observation_map=MAP)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DemonstrationError, match='is no regular file'):
        read_all(path)


def test_more_steps_than_a_file_of_its_size_may_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_robomimic(tmp_path / 'd.hdf5')
    module = sys.modules['residual_rl_ros.demonstrations.robomimic']
    monkeypatch.setattr(module, 'FRAMES', 3)
    monkeypatch.setattr(module, 'FRAME_BYTES', 10**9)
    with pytest.raises(DemonstrationError, match='more than 3 steps'):
        read_all(path, observation_map=MAP)
    monkeypatch.undo()
    monkeypatch.setattr(module, 'EPISODE_BYTES', 100)
    with pytest.raises(DemonstrationError, match=r'unpacks to .* 100'):
        read_all(path, observation_map=MAP)


def test_a_missing_library_is_told_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_robomimic(tmp_path / 'd.hdf5')
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(DemonstrationError, match=r"pip install 'residual_rl_ros\[robomimic\]'"):
        read_all(path)


def test_other_action_limits_are_refused_with_file_and_demonstration(tmp_path: Path) -> None:
    wild = [replace(episode, actions=episode.actions * 100.0) for episode in episodes()]
    path = write_robomimic(tmp_path / 'd.hdf5', demonstrations=wild)
    with pytest.raises(DemonstrationError, match=r'd.hdf5: demo_0, step 0: action a.position .*'):
        read_all(path, observation_map=MAP)
