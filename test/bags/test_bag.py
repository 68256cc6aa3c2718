# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag is a file, a folder, or a folder of folders; what is missing is told."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
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
from transition_builders import random_transitions

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


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('second.mcap', 'is not listed in metadata.yaml; not read'),
        ('second.db3', 'is not listed in metadata.yaml; not read'),
        ('bag.mcap.zstd', 'is not read, expected .mcap or .db3'),
        ('old.bag', 'is not read, expected .mcap or .db3'),
        ('bag.mcap.active', 'is not read, expected .mcap or .db3'),
        ('gone.db3-wal', 'belongs to gone.db3, which is missing; not read'),
    ],
)
def test_a_file_that_may_hold_messages_and_is_not_read_is_named(
    name: str, reason: str, tmp_path: Path
) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    (folder / name).write_bytes(the_file(folder).read_bytes())
    rows, (problem,) = read(folder)
    np.testing.assert_array_equal(rows[''], encoded(STREAM))
    assert problem.startswith(f'{folder / name}: {reason}')


def test_a_file_that_is_named_is_read_whatever_the_metadata_lists(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    the_file(folder).rename(folder / 'other.mcap')
    rows, problems = read(folder / 'other.mcap')
    assert problems == []
    assert len(rows['']) == 300
    rows, (problem,) = read(folder)  # None of the listed files is there.
    assert len(rows['']) == 300
    assert 'lists bag.mcap, which is missing' in problem


def test_what_lies_beside_a_bag_is_a_remark(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    (folder / 'notes.txt').write_text('')
    (folder / 'metadata.yaml').unlink()
    bag = Bag(folder)
    assert bag.remarks == [
        f'{folder / "notes.txt"}: no bag file; not read',
        f'{folder}: no metadata.yaml; its files are read in order of their names',
    ]
    assert not len(bag.problems)


@pytest.mark.parametrize('end', ['-wal', '-journal'])
def test_what_is_not_yet_in_a_database_is_named(end: str, tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM, 'sqlite3')
    file = the_file(folder)
    with file.open('r+b') as stream:
        stream.seek(18)
        stream.write(b'\1\1')  # Not in the mode of write-ahead logs.
    file.with_name(file.name + end).write_bytes(bytes(5000))
    rows, (problem,) = read(folder)
    assert len(rows['']) == 300
    assert problem.startswith(f'{file}{end}: holds 5000 bytes that are not read with bag.db3')


def test_metadata_that_count_other_messages_are_named(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    metadata = folder / 'metadata.yaml'
    text = metadata.read_text()
    assert 'message_count: 301' in text
    metadata.write_text(text.replace('message_count: 301', 'message_count: 400'))
    _, (problem,) = read(folder)
    assert problem == f'{metadata}: message_count is 400, its files hold 301 messages'


def test_folders_that_link_back_end(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    (folder / 'metadata.yaml').unlink()
    for name in 'ab':
        (folder / name).symlink_to(folder, target_is_directory=True)
    rows, problems = read(folder)
    assert len(rows['']) == 300
    assert [problem.split(': ')[0] for problem in problems] == [f'{folder}/a', f'{folder}/b']


def test_a_topic_with_control_characters_is_shown_without_them(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / 'bag.db3')) as database:
        database.executescript(
            'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT);'
            'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, '
            "data BLOB); INSERT INTO topics VALUES (1, '/a' || char(27) || '[2J', 'x');"
            "INSERT INTO messages VALUES (1, 1, 1, x'00');"
        )
    (message,) = Bag(tmp_path / 'bag.db3').messages()
    assert message.topic.name == '/a\\x1b[2J'


@pytest.mark.parametrize('intact', [True, False])
def test_a_write_ahead_log_is_read_with_its_database_or_named(intact: bool, tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM, 'sqlite3')
    file = the_file(folder)
    with closing(sqlite3.connect(file)) as recorder:
        recorder.execute('PRAGMA journal_mode = WAL')
        recorder.execute('PRAGMA wal_autocheckpoint = 0')
        copied = 'topic_id, timestamp + 1000000000000, data FROM messages WHERE id = 2'
        recorder.execute(f'INSERT INTO messages(topic_id, timestamp, data) SELECT {copied}')
        recorder.commit()
        (folder / 'metadata.yaml').unlink()
        (tmp_path / 'copy').mkdir()
        for name in ('bag.db3', 'bag.db3-wal'):
            (tmp_path / 'copy' / name).write_bytes((folder / name).read_bytes())
    log = tmp_path / 'copy' / 'bag.db3-wal'
    if not intact:
        content = bytearray(log.read_bytes())
        content[16] ^= 1
        log.write_bytes(content)
    bag = Bag(tmp_path / 'copy')
    count = len(list(bag.messages()))
    assert count == (302 if intact else 301)
    assert [str(p).split(': ')[0] for p in bag.problems] == ([] if intact else [str(log)])
    assert any('read with it' in remark for remark in bag.remarks) == intact


def test_reading_a_database_leaves_no_file_beside_it(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM, 'sqlite3')
    with closing(sqlite3.connect(the_file(folder))) as recorder:
        recorder.execute('PRAGMA journal_mode = WAL')
    before = sorted(folder.iterdir())
    rows, problems = read(folder)
    assert len(rows['']) == 300
    assert problems == []
    assert sorted(folder.iterdir()) == before


def test_a_part_that_is_a_copy_of_another_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / 'bags'
    folder.mkdir()
    file = the_file(write_bag(tmp_path / 'made', L, STREAM))
    for name in ('a.mcap', 'b.mcap'):
        shutil.copy(file, folder / name)
    _, problems = read(folder)
    (problem,) = problems
    assert problem.startswith(str(folder / 'b.mcap'))
    assert 'is a copy of a.mcap: its 301 messages count twice' in problem
