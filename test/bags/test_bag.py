# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag is a file, a folder, or a folder of folders; what is missing is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bag_builders import (
    L,
    encoded,
    read,
    the_file,
    write_bag,
)
from builders import random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.errors import BagError

STREAM = random_transitions(L, 300)


def test_a_missing_bag_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='does not exist'):
        Bag(tmp_path / 'nothing')
    with pytest.raises(BagError, match='holds no bag'):
        Bag(tmp_path)
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(BagError, match='no bag file'):
        Bag(tmp_path / 'notes.txt')


def test_files_and_bags_in_one_folder_are_all_read(tmp_path: Path) -> None:
    whole = [write_bag(tmp_path / 'made' / f'{part}', L, STREAM[part::3]) for part in range(3)]
    folder = tmp_path / 'bags'
    (folder / 'b').mkdir(parents=True)
    the_file(whole[0]).rename(folder / 'a.mcap')
    whole[1].rename(folder / 'run.mcap')  # A folder, whatever its name says.
    whole[2].rename(folder / 'b' / 'x²')
    rows, problems = read(folder)
    assert problems == []
    order = [STREAM[0::3], STREAM[2::3], STREAM[1::3]]
    np.testing.assert_array_equal(rows[''], encoded([t for part in order for t in part]))


def test_a_link_to_nothing_is_one_line(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    (folder / 'more.mcap').symlink_to('gone.mcap')
    rows, (problem,) = read(folder)
    assert len(rows['']) == 300
    assert problem == f'{folder / "more.mcap"}: links to gone.mcap, which is missing'


def test_a_listed_file_that_is_missing_is_reported(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    metadata = folder / 'metadata.yaml'
    text = metadata.read_text().replace('- bag.mcap', '- bag.mcap\n  - bag_1.mcap', 1)
    metadata.write_text(text)
    rows, problems = read(folder)
    assert len(rows['']) == 300
    (problem,) = problems
    assert 'lists bag_1.mcap, which is missing' in problem


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('rosbag2_bagfile_information: abc', "information is 'abc', expected a map"),
        ('- 1', 'information is None, expected a map'),
        ('rosbag2_bagfile_information: {relative_file_paths: 5}', 'is 5, expected a list'),
        ('a: [1', 'is not YAML: while parsing a flow sequence'),
    ],
)
def test_metadata_that_cannot_be_used_is_one_line(text: str, reason: str, tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, random_transitions(L, 5))
    (folder / 'metadata.yaml').write_text(text)
    rows, (problem,) = read(folder)
    assert len(rows['']) == 5
    assert problem.startswith(f'{folder / "metadata.yaml"}: ')
    assert reason in problem
    assert 'object at 0x' not in problem
    assert 'times' not in problem
