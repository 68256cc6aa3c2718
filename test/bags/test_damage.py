# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to a file, reading it ends with lines, not with a traceback."""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from bag_builders import write_bag
from hypothesis import given
from hypothesis import strategies as st
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.mcap_records import CHUNK, CHUNK_HEAD, MAGIC, RECORD, zstd
from residual_rl_ros.bags.recorder import FLAG
from residual_rl_ros.bags.sqlite_file import SEGMENT_MESSAGES
from residual_rl_ros.bags.transitions.reader import TEXT, TransitionReader
from residual_rl_ros.errors import BagError
from residual_rl_ros.robot.command import ACTION_TYPES, COMMAND_TYPES
from residual_rl_ros.robot.topics import CHANNEL_TYPES
from residual_rl_ros.transitions.cdr import STORES, typestore

L = make_layout()
STREAM = random_transitions(L, 40)
ROWS = {L.encode(t).tobytes() for t in STREAM}


class Files(dict):
    """Contents of files, with a short name in failures."""

    def __repr__(self) -> str:
        return 'files'


def compressed_copy(
    folder: Path,
    source: Path,
    mode: CompressionMode = CompressionMode.STORAGE,
    storage: StoragePlugin = StoragePlugin.MCAP,
) -> Path:
    """Write the messages of a bag into another, by default with compressed chunks."""
    bag = Bag(source)
    writer = Writer(folder, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for message in bag.messages():
            topic = message.topic
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic.name, topic.type, typestore=typestore()
                )
            writer.write(connections[topic], message.time_ns, message.data)
    return folder


@pytest.fixture(scope='module')
def originals(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return the bytes of a whole file of every kind."""
    folder = tmp_path_factory.mktemp('whole')
    plain = write_bag(folder / 'plain', L, STREAM)
    sqlite = write_bag(folder / 'sqlite', L, STREAM, 'sqlite3')
    packed = compressed_copy(folder / 'packed', plain)
    return Files(
        {
            'plain.mcap': (plain / 'plain.mcap').read_bytes(),
            'packed.mcap': (packed / 'packed.mcap').read_bytes(),
            'sqlite.db3': (sqlite / 'sqlite.db3').read_bytes(),
        }
    )


def read(path: Path) -> tuple[list[np.ndarray], list[str]]:
    bag = Bag(path)
    rows = [row for block in TransitionReader(bag).blocks() for row in block.table.values]
    return rows, [str(problem) for problem in bag.problems]


@pytest.mark.parametrize('name', ['plain.mcap', 'packed.mcap', 'sqlite.db3'])
def test_whole_files_are_read(name: str, originals: Files, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(originals[name])
    rows, problems = read(tmp_path / name)
    assert problems == []
    assert [row.tobytes() for row in rows] == [L.encode(t).tobytes() for t in STREAM]


@pytest.mark.parametrize('name', ['plain.mcap', 'packed.mcap', 'sqlite.db3'])
@given(data=st.data())
def test_damaged_files_end_with_one_line_each_problem(
    name: str,
    originals: Files,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    content = bytearray(originals[name])
    places = st.integers(0, len(content) - 1)
    changed = data.draw(st.lists(places, max_size=6), label='changed bytes')
    for place in changed:
        content[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(content)), places), label='bytes kept')
    path = tmp_path_factory.mktemp('damaged') / name
    path.write_bytes(content[:keep])
    rows, problems = read(path)
    assert len(rows) <= len(STREAM) + 1
    assert all('\n' not in problem and name in problem for problem in problems)
    # Without checksums a changed byte can hide a message; lost steps still show in a summary.
    assert changed or len(rows) == len(STREAM) or problems


def test_every_row_of_a_truncated_file_is_one_that_was_written(
    originals: Files, tmp_path: Path
) -> None:
    for kept in range(0, len(originals['plain.mcap']), 997):
        path = tmp_path / f'{kept}.mcap'
        path.write_bytes(originals['plain.mcap'][:kept])
        rows, problems = read(path)
        assert {row.tobytes() for row in rows} <= ROWS
        assert len(problems) == 1


def test_reading_does_not_stop_a_recorder(originals: Files, tmp_path: Path) -> None:
    path = tmp_path / 'sqlite.db3'
    path.write_bytes(originals['sqlite.db3'])
    with closing(sqlite3.connect(path)) as recorder:
        recorder.executemany(
            'INSERT INTO messages (topic_id, timestamp, data) VALUES (1, 0, ?)',
            [(b'\0' * 100,)] * 3 * SEGMENT_MESSAGES,
        )
        recorder.commit()
        recorder.execute('PRAGMA busy_timeout = 0')
        sizes = []
        for _, segment in Bag(path).segments():
            sizes.append(len(segment))
            recorder.execute('UPDATE messages SET timestamp = 1 WHERE id = 1')
            recorder.commit()
    assert len(sizes) > 3
    assert sum(sizes) == 3 * SEGMENT_MESSAGES + len(STREAM) + 1


def test_a_message_of_an_undeclared_topic_is_one_line(originals: Files, tmp_path: Path) -> None:
    path = tmp_path / 'sqlite.db3'
    path.write_bytes(originals['sqlite.db3'])
    with sqlite3.connect(path) as database:
        database.execute('UPDATE messages SET topic_id = 99 WHERE id IN (4, 5)')
    rows, problems = read(path)
    assert len(rows) == len(STREAM) - 2
    (problem,) = problems
    assert 'message 3: of a topic that the file does not declare' in problem
    assert problem.endswith('(2 times)')


@pytest.mark.parametrize(
    ('compression', 'pack'), [('zstd', zstd.compress), ('lz4', lz4.frame.compress)]
)
@pytest.mark.parametrize('claimed', [10, 10**6])
def test_a_chunk_that_lies_about_its_size_is_passed_over(
    compression: str, pack: Callable[[bytes], bytes], claimed: int, tmp_path: Path
) -> None:
    stored, name = pack(bytes(10**5)), compression.encode()
    head = CHUNK_HEAD.pack(0, 0, claimed, 0) + struct.pack('<I', len(name)) + name
    body = head + struct.pack('<Q', len(stored)) + stored
    path = tmp_path / 'bag.mcap'
    path.write_bytes(MAGIC + RECORD.pack(CHUNK, len(body)) + body)
    _, (_, problem) = read(path)
    assert 'offset 8: damaged chunk' in problem
    assert f'uncompressed, expected {claimed}' in problem


@pytest.mark.parametrize(
    ('mode', 'storage'),
    [
        (CompressionMode.MESSAGE, StoragePlugin.MCAP),
        (CompressionMode.MESSAGE, StoragePlugin.SQLITE3),
        (CompressionMode.FILE, StoragePlugin.SQLITE3),
    ],
)
def test_compressed_files_and_messages_are_named_once(
    mode: CompressionMode, storage: StoragePlugin, tmp_path: Path
) -> None:
    plain = write_bag(tmp_path / 'plain', L, STREAM)
    packed = compressed_copy(tmp_path / 'bags' / 'packed', plain, mode, storage)
    reason = f'compression_mode is {mode.name.lower()} (zstd), expected none; uncompress'
    with pytest.raises(BagError, match=re.escape(reason)):
        Bag(packed)
    plain.rename(tmp_path / 'bags' / 'plain')
    rows, (problem,) = read(tmp_path / 'bags')
    assert len(rows) == len(STREAM)
    assert problem.startswith(f'{packed / "metadata.yaml"}: {reason}')


@pytest.mark.parametrize('distribution', STORES)
@pytest.mark.parametrize(
    'kind', sorted({*CHANNEL_TYPES, *COMMAND_TYPES, TEXT, FLAG} - {*ACTION_TYPES})
)
def test_messages_are_the_same_in_every_distribution(distribution: str, kind: str) -> None:
    """So that bags of all of them are read with the definitions of one."""
    store = typestore(distribution)
    assert store.generate_msgdef(kind) == typestore().generate_msgdef(kind)
