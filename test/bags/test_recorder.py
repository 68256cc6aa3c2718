# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A recording must survive the death of its recorder, and be readable by others."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_builders import open_recorder, read, the_file, write_bag, write_layout
from command_line import run
from mcap.exceptions import EndOfFile
from mcap.reader import make_reader
from mcap.records import Message
from mcap.stream_reader import StreamReader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import (
    RecordedTopic,
    Recorder,
    RecordOptions,
    absolute,
    raw_topics,
)
from residual_rl_ros.bags.transitions.reader import TRANSITIONS, TransitionReader
from residual_rl_ros.errors import BagError, OutputError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.topics import FLOAT_ARRAY

L = make_layout()
STREAM = random_transitions(L, 300)
TOPIC = '/' + TRANSITIONS
CHILD = """
import sys, time
import numpy as np
from pathlib import Path
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions.reader import LAYOUT, TEXT, TRANSITIONS
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array, serialize, typestore
from residual_rl_ros.transitions.layout import TransitionLayout
text = sys.argv[4]
layout = TransitionLayout.from_yaml(text)
options = RecordOptions(sys.argv[2], max_bytes=int(sys.argv[3]))
topics = [
    RecordedTopic('/' + LAYOUT, TEXT, latched=True), RecordedTopic('/' + TRANSITIONS, FLOAT_ARRAY)
]
recorder = Recorder(Path(sys.argv[1]), topics, options, {'robot': 'child'}, time.monotonic)
recorder.write(topics[0].name, 0, serialize(typestore().types[TEXT](data=text), TEXT))
row = np.zeros(layout.size)
for number in range(10**6):
    row[layout.columns['stamp']] = time.monotonic()
    row[layout.columns['step']] = number * layout.decision_steps
    data = labelled_array(row, layout.label)
    recorder.write(topics[1].name, number, data)
    print(row[0], flush=True)
    time.sleep(0.005)
"""


def rows_of(path: Path) -> tuple[np.ndarray, Bag]:
    bag = Bag(path)
    tables = [block.table.values for block in TransitionReader(bag).blocks()]
    return np.concatenate(tables), bag


@pytest.mark.parametrize(
    ('storage', 'max_bytes', 'life_s'),
    [
        ('mcap', 0, 0.7),
        ('mcap', 0, 1.3),
        ('mcap', 0, 1.9),
        ('mcap', 20_000, 1.6),
        ('sqlite3', 0, 0.8),
        ('sqlite3', 0, 1.7),
    ],
)
def test_a_killed_recorder_loses_at_most_a_second(
    storage: str, max_bytes: int, life_s: float, tmp_path: Path
) -> None:
    folder = tmp_path / 'bag'
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, str(folder), storage, str(max_bytes), L.to_yaml()],
        stdout=subprocess.PIPE,
        env={'PYTHONPATH': ':'.join(sys.path)},
    )
    assert child.stdout is not None
    written = [float(child.stdout.readline())]
    time.sleep(life_s)
    child.send_signal(signal.SIGKILL)
    written += [float(line) for line in child.stdout.read().splitlines()]
    child.wait(10.0)
    rows, bag = rows_of(folder)
    stamps = rows[:, 0].tolist()
    assert stamps == pytest.approx(written[: len(stamps)])
    assert written[-1] - stamps[-1] <= 1.0
    assert bag.custom_data == {'robot': 'child'}


def test_what_is_due_is_flushed_without_another_message(tmp_path: Path) -> None:
    now = [0.0]
    topics = [RecordedTopic(TOPIC, FLOAT_ARRAY)]
    recorder = Recorder(tmp_path / 'bag', topics, RecordOptions(), {}, lambda: now[0])
    recorder.write(TOPIC, 5, b'payload')
    file = tmp_path / 'bag' / 'bag.mcap'
    assert b'payload' not in file.read_bytes()
    now[0] = 0.5
    recorder.flush_when_due()
    assert b'payload' in file.read_bytes()
    recorder.close()


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_time_limit_begins_a_new_bag_with_the_layout(storage: str, tmp_path: Path) -> None:
    now = [0.0]
    topics = [
        RecordedTopic('/latched', FLOAT_ARRAY, latched=True),
        RecordedTopic(TOPIC, FLOAT_ARRAY),
    ]
    options = RecordOptions(storage, max_seconds=10.0)
    recorder = Recorder(tmp_path / 'bag', topics, options, {}, lambda: now[0])
    recorder.write('/latched', 0, b'layout')
    for second in range(25):
        now[0] = float(second)
        recorder.write(TOPIC, second, bytes([second]))
    recorder.close()
    contents = [
        [bytes(message.data) for message in Bag(tmp_path / 'bag' / f'bag_{part}').messages()]
        for part in range(3)
    ]
    assert [len(content) for content in contents] == [11, 11, 6]
    assert all(content[0] == b'layout' for content in contents)
    assert recorder.messages == 26


def test_a_new_bag_begins_with_the_static_transforms_of_every_node(tmp_path: Path) -> None:
    now = [0.0]
    topics = [RecordedTopic('/tf_static', FLOAT_ARRAY, latched=True, kept=2)]
    recorder = Recorder(
        tmp_path / 'bag', topics, RecordOptions(max_seconds=10.0), {}, lambda: now[0]
    )
    for data in (b'gone', b'arm', b'camera', b'arm'):
        recorder.write('/tf_static', 0, data)
    now[0] = 11.0
    recorder.write('/tf_static', 1, b'new')
    recorder.close()
    held = Bag(tmp_path / 'bag' / 'bag_1').messages()
    assert [bytes(message.data) for message in held] == [b'camera', b'arm', b'new']


def test_a_command_that_is_observed_is_recorded_once() -> None:
    robot, _ = load_robot('peg_insert')
    observed = replace(robot.channels[0], topic='/command', type=FLOAT_ARRAY)
    robot = replace(
        robot,
        channels=(observed, *robot.channels[1:]),
        commands=(replace(robot.commands[0], topic='command', type=FLOAT_ARRAY),),
    )
    topics = absolute(raw_topics(robot), lambda name: name if name[0] == '/' else f'/{name}')
    (command,) = [topic for topic in topics if topic.name == '/command']
    assert command.reliable


def test_the_command_becomes_the_recorder_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def execv(program: str, arguments: list[str]) -> None:
        started.extend(arguments)
        raise SystemExit(0)

    monkeypatch.setattr('os.execv', execv)
    out = tmp_path / 'bag'
    assert run('record', '--out', str(out), '--raw', monkeypatch=monkeypatch) == 2
    assert started == []
    options = ('--raw', '--robot', 'peg_insert', '--namespace', 'left', '--max-bytes', '9')
    assert run('record', '--out', str(out), *options, monkeypatch=monkeypatch) == 0
    assert started[1:3] == ['-m', 'residual_rl_ros.ros.nodes.recorder_node']
    assert {f'output_dir:={out}', 'raw:=true', 'max_bytes:=9', '__ns:=/left'} <= set(started)


def test_metadata_says_where_a_recording_comes_from(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    information = yaml.safe_load((folder / 'metadata.yaml').read_text())
    information = information['rosbag2_bagfile_information']
    assert information['custom_data'] == {'robot': 'a test'}
    assert information['message_count'] == 301
    latched = information['topics_with_message_count'][0]['topic_metadata']
    assert latched['offered_qos_profiles'][0]['durability'] == 'transient_local'
    assert Bag(folder).custom_data == {'robot': 'a test'}


def test_an_existing_folder_and_an_unknown_storage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match='exists already'):
        open_recorder(tmp_path)
    with pytest.raises(OutputError, match=r'expected one of mcap, sqlite3'):
        RecordOptions('tape')
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='cannot write'):
        open_recorder(tmp_path / 'file' / 'bag')


def test_the_mcap_library_reads_the_same_numbers(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM)
    with (folder / 'bag.mcap').open('rb') as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        messages = [
            (m.layout.dim[0].label, list(m.data))
            for _, _, _, m in reader.iter_decoded_messages(topics=[TOPIC])
        ]
    assert {label for label, _ in messages} == {L.label}
    np.testing.assert_array_equal([data for _, data in messages], rows_of(folder)[0])


def test_the_mcap_library_reads_an_unfinished_file_too(tmp_path: Path) -> None:
    now = [0.0]
    recorder = Recorder(
        tmp_path / 'bag', [RecordedTopic(TOPIC, FLOAT_ARRAY)], RecordOptions(), {}, lambda: now[0]
    )
    for second in range(20):
        now[0] = float(second)
        recorder.write(TOPIC, second, bytes(100))
    found = []
    with (tmp_path / 'bag' / 'bag.mcap').open('rb') as file:
        records = StreamReader(file).records
        with pytest.raises(EndOfFile):
            found.extend(isinstance(record, Message) for record in records)
    recorder.close()
    assert sum(found) == 20


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_rosbags_reads_the_same_numbers(storage: str, tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM, storage)
    with AnyReader([folder]) as reader:
        chosen = [c for c in reader.connections if c.topic == TOPIC]
        data = [
            reader.deserialize(raw, connection.msgtype).data
            for connection, _, raw in reader.messages(connections=chosen)
        ]
    np.testing.assert_array_equal(data, rows_of(folder)[0])


def test_a_humble_database_is_read(tmp_path: Path) -> None:
    """Humble's tables lack what later ones have: definitions and type hashes."""
    new = write_bag(tmp_path / 'new', L, STREAM, 'sqlite3')
    old = tmp_path / 'old_0.db3'
    with sqlite3.connect(old) as database:
        database.executescript(
            'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
            ' serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);'
            'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp'
            ' INTEGER NOT NULL, data BLOB NOT NULL);'
        )
        database.execute('ATTACH ? AS new', [str(new / 'new.db3')])
        database.execute("INSERT INTO topics SELECT id, name, type, 'cdr', '' FROM new.topics")
        database.execute('INSERT INTO messages SELECT * FROM new.messages')
    np.testing.assert_array_equal(rows_of(old)[0], rows_of(new)[0])


def test_a_closed_recorder_writes_no_more(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    recorder.close()
    with pytest.raises(OutputError, match='closed'):
        write_layout(recorder, L)


def test_a_flipped_bit_of_a_recording_is_found(tmp_path: Path) -> None:
    layout = make_layout()
    folder = write_bag(tmp_path / 'bag', layout, random_transitions(layout, 50))
    whole, _ = read(folder)
    file = the_file(folder)
    sound = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(sound), size=200).tolist():
        spoilt = bytearray(sound)
        spoilt[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(spoilt)
        try:
            rows, problems = read(folder)
        except BagError:
            continue
        same = rows.keys() == whole.keys() and np.array_equal(rows[''], whole[''])
        assert same or problems, f'byte {place}'
