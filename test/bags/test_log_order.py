# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever order a recording is written in, it is read in the order of its log times."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bag_builders import L, write_bag
from bag_builders import read as read_transitions
from mcap.writer import Writer
from raw_bag_builders import Live, check_equal, rebuild
from transition_builders import random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.files import limits
from residual_rl_ros.transitions.cdr import labelled_array

Message = tuple[str, str, int, bytes]
"""Topic, type, log time [ns] and content."""
TYPE = 'std_msgs/msg/Float64MultiArray'
MS = 10**6


def recording(count: int = 100) -> list[Message]:
    """Return messages of three topics at 20 Hz, each with its number."""
    made = [
        (topic, TYPE, 10**18 + (50 * tick + delay) * MS, labelled_array([tick], ''))
        for tick in range(count)
        for topic, delay in (('/arm', 0), ('/tool', 3), ('/command', 9))
    ]
    assert all(one[2] < two[2] for one, two in pairwise(made))
    return made


def write_mcap(
    path: Path, messages: Iterable[Message], chunk: int = 2048, whole: bool = True
) -> Path:
    """Write messages in the order given; a chunk of 0 bytes writes none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('wb') as stream:
        writer = Writer(stream, chunk_size=max(1, chunk), use_chunking=chunk > 0)
        writer.start(profile='ros2')
        channels: dict[str, int] = {}
        for topic, kind, time_ns, data in messages:
            if topic not in channels:
                schema = writer.register_schema(kind, 'ros2msg', b'')
                channels[topic] = writer.register_channel(topic, 'cdr', schema)
            writer.add_message(channels[topic], time_ns, data, time_ns)
        if whole:
            writer.finish()
    return path


def write_sqlite(path: Path, messages: Iterable[Message]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids: dict[str, int] = {}
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT);'
            'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, '
            'data BLOB);'
        )
        for topic, kind, time_ns, data in messages:
            if topic not in ids:
                ids[topic] = len(ids) + 1
                database.execute('INSERT INTO topics VALUES (?, ?, ?)', (ids[topic], topic, kind))
            database.execute(
                'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
                (ids[topic], time_ns, data),
            )
        database.commit()
    return path


def write(path: Path, messages: list[Message], storage: str) -> Path:
    if storage == 'sqlite3':
        return write_sqlite(path / 'bag.db3', messages)
    sizes = {'chunks': 2048, 'one chunk': 1 << 20, 'no chunks': 0, 'no index': 2048}
    return write_mcap(path / 'bag.mcap', messages, sizes[storage], whole=storage != 'no index')


def read(path: Path) -> tuple[list[tuple[str, int, bytes]], list[str]]:
    bag = Bag(path)
    found = [(m.topic.name, m.time_ns, bytes(m.data)) for m in bag.messages()]
    return found, [str(problem) for problem in bag.problems]


def late(messages: list[Message], topic: str, by_ns: int) -> list[Message]:
    return sorted(messages, key=lambda m: m[2] + by_ns * (m[0] == topic))


WHOLE = recording()
TOPICS = ('/arm', '/tool', '/command')
STRAGGLER = [*WHOLE[:90], *WHOLE[91:150], WHOLE[90], *WHOLE[150:]]
ORDERS = {
    'as received': WHOLE,
    'one topic after the other': [m for topic in TOPICS for m in WHOLE if m[0] == topic],
    'a topic late': late(WHOLE, '/arm', 120 * MS),
    'a topic a second late': late(WHOLE, '/command', 1000 * MS),
    'one message late': STRAGGLER,
    'at random': random.Random(0).sample(WHOLE, len(WHOLE)),
    'backwards': WHOLE[::-1],
}


@pytest.mark.parametrize('storage', ['chunks', 'one chunk', 'no chunks', 'no index', 'sqlite3'])
@pytest.mark.parametrize('order', ORDERS)
def test_messages_are_read_in_the_order_of_their_log_times(
    order: str, storage: str, tmp_path: Path
) -> None:
    messages = ORDERS[order]
    path = write(tmp_path, messages, storage)
    found, problems = read(path)
    expected = [(topic, time_ns, data) for topic, _, time_ns, data in WHOLE]
    if storage == 'no index':  # What was not in a chunk is lost.
        assert len(found) > 250
        assert found == [message for message in expected if message in found]
        (problem,) = problems
        assert 'recording was cut off' in problem
        return
    assert found == expected
    assert problems == []


@pytest.mark.parametrize('storage', ['chunks', 'one chunk', 'no chunks', 'sqlite3'])
def test_halves_in_the_wrong_order_are_put_right_and_named(storage: str, tmp_path: Path) -> None:
    found, (problem,) = read(write(tmp_path, WHOLE[150:] + WHOLE[:150], storage))
    assert found == [(topic, time_ns, data) for topic, _, time_ns, data in WHOLE]
    assert 'message 150' in problem
    assert 'log times jump back by 4.959 s' in problem


def set_back(by_ns: int) -> list[Message]:
    return [(t, k, at - by_ns * (number >= 150), d) for number, (t, k, at, d) in enumerate(WHOLE)]


@pytest.mark.parametrize('storage', ['chunks', 'one chunk', 'no chunks', 'sqlite3'])
def test_a_clock_that_is_set_back_mixes_nothing(storage: str, tmp_path: Path) -> None:
    messages = set_back(1000 * MS)
    bag = Bag(write(tmp_path, messages, storage))
    found = list(bag.messages())
    assert [bytes(m.data) for m in found] == [data for *_, data in messages]
    assert [m.part for m in found] == [0] * 150 + [1] * 150
    (problem,) = map(str, bag.problems)
    assert 'log times jump back by 0.959 s, as if the clock had been set back' in problem
    again = Bag(bag.path)
    rates = {topic.name: topic.rate_hz for topic in summarise(again).topics}
    assert rates == pytest.approx(dict.fromkeys(TOPICS, 20.0))


def test_messages_from_before_the_first_clock_are_no_part_of_rates(
    tmp_path: Path,
) -> None:
    early = [(topic, kind, 0, data) for topic, kind, _, data in WHOLE[:6]]
    summary = summarise(Bag(write_mcap(tmp_path / 'bag.mcap', early + WHOLE)))
    assert summary.at_zero == 6
    assert [topic.messages for topic in summary.topics] == [102] * 3
    for topic in summary.topics:
        assert topic.rate_hz == pytest.approx(20.0)
        assert topic.silence.seconds < 0.06


def test_chunks_that_lie_about_their_times_are_named(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / 'bag.mcap', WHOLE[150:] + WHOLE[:150])
    content = bytearray(path.read_bytes())
    offset = 8
    while content[offset] != 0x0F:
        if content[offset] == 0x06:
            content[offset + 9 : offset + 25] = bytes(16)
        offset += 9 + int.from_bytes(content[offset + 1 : offset + 9], 'little')
    path.write_bytes(content)
    found, problems = read(path)
    assert len(found) == 300
    assert any('jump back' in problem for problem in problems)


@pytest.mark.parametrize('storage', ['chunks', 'sqlite3'])
def test_what_cannot_be_put_in_order_within_the_memory_is_named(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('residual_rl_ros.bags.sqlite_file.SEGMENT_MESSAGES', 20)
    path = write(tmp_path, ORDERS['at random'], storage)
    monkeypatch.setattr(limits, 'OVERLAP_BYTES', 3000)
    found, problems = read(path)
    assert 0 < len(found) < 300
    assert found == sorted(found, key=lambda message: message[1])
    (problem,) = problems
    assert 'cannot be put in order' in problem
    assert 'blocks are not read. Sort the file' in problem


def test_parts_of_a_recording_are_read_together(tmp_path: Path) -> None:
    """A topic that is late at the end of one file is in the next one."""
    messages = late(WHOLE, '/arm', 120 * MS)
    write_mcap(tmp_path / 'b_0.mcap', messages[:150])
    write_mcap(tmp_path / 'b_1.mcap', messages[150:])
    (tmp_path / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information: {relative_file_paths: [b_0.mcap, b_1.mcap], '
        'message_count: 300}'
    )
    found, problems = read(tmp_path)
    assert found == [(topic, time_ns, data) for topic, _, time_ns, data in WHOLE]
    assert problems == []


def test_transitions_that_were_written_in_another_order_are_read_in_theirs(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 40))
    messages = raw_messages(bag)
    write_mcap(tmp_path / 'bag.mcap', messages[::-1])
    rows, problems = read_transitions(tmp_path / 'bag.mcap')
    expected, _ = read_transitions(bag)
    np.testing.assert_array_equal(rows[''], expected[''])
    assert problems == []


def raw_messages(folder: Path) -> list[Message]:
    return [(m.topic.name, m.topic.type, m.time_ns, bytes(m.data)) for m in Bag(folder).messages()]


@pytest.fixture(scope='module')
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('live') / 'bag'
    made = Live.start(folder)
    for tick in range(60):
        made.step(tick)
    made.recorder.close()
    return folder


@pytest.mark.parametrize('order', ['one topic after the other', 'a topic late'])
def test_a_raw_bag_in_any_order_gives_the_same_transitions(
    order: str, live: Path, tmp_path: Path
) -> None:
    messages = raw_messages(live)
    if order == 'a topic late':
        messages = late(messages, '/cell/joint_states', 120 * MS)
    else:
        messages.sort(key=lambda message: message[0])
    write_mcap(tmp_path / 'bag.mcap', messages)
    made, _, problems = rebuild(tmp_path / 'bag.mcap')
    expected, _, _ = rebuild(live)
    assert problems == []
    check_equal(made, expected)


def test_a_raw_bag_whose_clock_was_set_back_gives_transitions_before_and_after(
    live: Path, tmp_path: Path
) -> None:
    second = tmp_path / 'second'
    made = Live.start(second)
    for tick in range(40, 100):  # Its times overlap those of the first.
        made.step(tick)
    made.recorder.close()
    write_mcap(tmp_path / 'bag.mcap', raw_messages(live) + raw_messages(second))
    found, _, problems = rebuild(tmp_path / 'bag.mcap')
    before, _, _ = rebuild(live)
    after, _, _ = rebuild(second)
    assert any('jump back by' in problem for problem in problems)
    assert len(before) + len(after) - 2 <= len(found) <= len(before) + len(after)
    check_equal(found[: len(before)], before)
    stamps = [transition.stamp for transition in found[len(before) :]]
    assert stamps == [transition.stamp for transition in after][-len(stamps) :]
