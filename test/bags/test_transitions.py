# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag is a training set: every transition comes back, and damage costs only what it hit."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from bag_builders import (
    START_NS,
    open_recorder,
    text_message,
    transition_topics,
    write_bag,
    write_layout,
    write_transitions,
)
from builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.cdr import labelled_array, serialize, typestore
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions import LAYOUT, TEXT, TRANSITIONS, TransitionReader
from residual_rl_ros.robot import FLOAT_ARRAY
from residual_rl_ros.transition import Transition

L = make_layout()
STREAM = random_transitions(L, 300)
STORAGES = ['mcap', 'sqlite3']


def read(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the rows of every robot and the problems."""
    bag = Bag(path)
    rows: dict[str, list[np.ndarray]] = {}
    for block in TransitionReader(bag).blocks():
        rows.setdefault(block.robot, []).append(block.table.values)
        assert len(block.time_ns) == len(block.table)
    return {k: np.concatenate(v) for k, v in rows.items()}, [str(p) for p in bag.problems]


def encoded(transitions: list[Transition]) -> np.ndarray:
    return np.stack([L.encode(t) for t in transitions])


def the_file(folder: Path) -> Path:
    (file,) = [f for f in folder.rglob('*') if f.suffix in ('.mcap', '.db3')]
    return file


def write_rows(recorder: Recorder, rows: Iterable[np.ndarray]) -> None:
    for row in rows:
        recorder.write('/' + TRANSITIONS, START_NS, labelled_array(row, L.label))


@pytest.mark.parametrize('storage', STORAGES)
def test_every_number_comes_back(storage: str, tmp_path: Path) -> None:
    rows, problems = read(write_bag(tmp_path / 'bag', L, STREAM, storage))
    assert problems == []
    np.testing.assert_array_equal(rows[''], encoded(STREAM))


@pytest.mark.parametrize('storage', STORAGES)
def test_one_file_is_enough(storage: str, tmp_path: Path) -> None:
    rows, problems = read(the_file(write_bag(tmp_path / 'bag', L, STREAM, storage)))
    assert problems == []
    np.testing.assert_array_equal(rows[''], encoded(STREAM))


def test_a_recording_in_several_bags_is_read_as_one(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM, max_bytes=8_000)
    assert len(list(folder.iterdir())) > 10
    rows, problems = read(folder)
    assert problems == []
    np.testing.assert_array_equal(rows[''], encoded(STREAM))


def test_every_part_of_a_recording_stands_alone(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, STREAM, max_bytes=8_000)
    rows, problems = read(folder / 'bag_3')
    assert problems == []
    assert len(rows['']) > 0


def test_robots_are_told_apart_by_their_namespace(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag', 'left', 'right')
    for robot in ('left', 'right'):
        write_layout(recorder, L, robot)
    for begin in range(0, 300, 10):
        for robot, share in (('left', slice(0, 3)), ('right', slice(3, 10))):
            write_transitions(recorder, L, STREAM[begin : begin + 10][share], robot)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert problems == []
    number = np.arange(300) % 10
    np.testing.assert_array_equal(rows['left'], encoded(STREAM)[number < 3])
    np.testing.assert_array_equal(rows['right'], encoded(STREAM)[number >= 3])


def test_a_layout_recorded_after_the_transitions_still_decodes_them(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    write_transitions(recorder, L, STREAM)
    write_layout(recorder, L)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert problems == []
    np.testing.assert_array_equal(rows[''], encoded(STREAM))


def test_padding_and_a_second_dimension_do_not_matter(tmp_path: Path) -> None:
    types = typestore().types
    dimension = types['std_msgs/msg/MultiArrayDimension']
    layout = types['std_msgs/msg/MultiArrayLayout'](
        dim=[dimension(L.label, 1, 99), dimension('', 1, 1)], data_offset=0
    )
    one, two = encoded(STREAM[:2])
    other = serialize(types[FLOAT_ARRAY](layout=layout, data=one), FLOAT_ARRAY)
    padded = bytearray(labelled_array(two, L.label))
    padded[3] = 7  # Encapsulation options.
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    for data in (other, bytes(padded)):
        recorder.write('/' + TRANSITIONS, START_NS, data)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert problems == []
    np.testing.assert_array_equal(rows[''], encoded(STREAM[:2]))


def test_malformed_messages_are_one_line_and_cost_only_themselves(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    write_transitions(recorder, L, STREAM[:5])
    spoiled = L.encode(STREAM[5])
    spoiled[L.columns['source']] = 7.0
    for _ in range(3):
        recorder.write('/' + TRANSITIONS, START_NS, labelled_array(spoiled, L.label))
    write_transitions(recorder, L, STREAM[5:])
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], encoded(STREAM))
    (problem,) = problems
    assert f'{the_file(tmp_path / "bag")}: /{TRANSITIONS}: message 6 in the chunk at' in problem
    assert problem.endswith('source is 7.0, expected one of (0, 1, 2) (3 times)')


def test_a_number_beyond_float32_is_one_line_and_never_infinite(tmp_path: Path) -> None:
    huge = L.encode(STREAM[5])
    huge[L.columns['next_observation']] = 1e200
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    write_transitions(recorder, L, STREAM[:5])
    recorder.write('/' + TRANSITIONS, START_NS, labelled_array(huge, L.label))
    recorder.close()
    rows, (problem,) = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], encoded(STREAM[:5]))
    assert 'next_observation[0] is 1e+200, expected a float32' in problem


@pytest.mark.parametrize('storage', STORAGES)
def test_noise_instead_of_a_message_is_reported(storage: str, tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag', storage=storage)
    write_layout(recorder, L)
    recorder.write('/' + TRANSITIONS, START_NS, b'\x00\x01\x00\x00\xff\xff\xff\xff')
    recorder.write('/' + TRANSITIONS, START_NS, b'')
    write_transitions(recorder, L, STREAM)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], encoded(STREAM))
    (problem,) = problems
    assert 'message 1' in problem
    assert 'no std_msgs/msg/Float64MultiArray' in problem


@pytest.mark.parametrize('kept', [0.0, 0.001, 0.3, 0.7, 0.99])
def test_a_truncated_mcap_yields_what_precedes_the_cut(kept: float, tmp_path: Path) -> None:
    folder = tmp_path / 'bag'
    ticks = iter(range(10**6))
    topics = [
        RecordedTopic('/' + LAYOUT, TEXT, latched=True),
        RecordedTopic('/' + TRANSITIONS, FLOAT_ARRAY),
    ]
    options = RecordOptions(flush_s=10.0)  # A chunk every few messages.
    recorder = Recorder(folder, topics, options, {}, lambda: float(next(ticks)))
    write_layout(recorder, L)
    write_transitions(recorder, L, STREAM)
    recorder.close()
    file = the_file(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    rows, problems = read(folder)
    found = rows.get('', encoded(STREAM)[:0])
    np.testing.assert_array_equal(found, encoded(STREAM)[: len(found)])
    assert len(found) >= 300 * (kept - 0.2)
    (problem,) = problems
    assert problem.startswith(f'{file}: offset ')


def test_a_corrupt_chunk_is_passed_over(tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    topics = [
        RecordedTopic('/' + LAYOUT, TEXT, latched=True),
        RecordedTopic('/' + TRANSITIONS, FLOAT_ARRAY),
    ]
    folder = tmp_path / 'bag'
    recorder = Recorder(folder, topics, RecordOptions(flush_s=30.0), {}, lambda: float(next(ticks)))
    write_layout(recorder, L)
    write_transitions(recorder, L, STREAM)
    recorder.close()
    file = the_file(folder)
    content = bytearray(file.read_bytes())
    offset = 8
    chunks = []
    while content[offset] != 0x0F:
        opcode, length = struct.unpack_from('<BQ', content, offset)
        if opcode == 0x06:
            chunks.append(offset)
        offset += 9 + length
    assert len(chunks) > 5
    begin = chunks[3] + 9 + 28 + 4 + 8
    content[begin + 1 : begin + 9] = b'\xff' * 8  # The length of its first message.
    file.write_bytes(content)
    rows, problems = read(folder)
    assert 200 < len(rows['']) < 300
    (problem,) = problems
    assert f'offset {chunks[3]}: damaged chunk' in problem


def test_a_damaged_database_yields_what_precedes_the_damage(tmp_path: Path) -> None:
    stream = random_transitions(L, 5000)
    file = the_file(write_bag(tmp_path / 'bag', L, stream, 'sqlite3'))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b'\xa5' * 4096
    file.write_bytes(content)
    rows, problems = read(file)
    assert 0 < len(rows['']) < 5000
    np.testing.assert_array_equal(rows[''], encoded(stream)[: len(rows[''])])
    (problem,) = problems
    assert 'sqlite3' in problem


@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3'])
def test_a_file_of_noise_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b'noise' * 100)
    rows, problems = read(tmp_path / name)
    assert rows == {}
    (problem,) = problems
    assert name in problem


def test_another_layout_version_is_one_line(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    text = L.to_yaml().replace('version: 1', 'version: 2')
    recorder.write('/' + LAYOUT, START_NS, text_message(text))
    write_transitions(recorder, L, STREAM)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert rows == {}
    (problem,) = problems
    assert 'transition layout version 2, expected 1' in problem


def test_transitions_of_an_unrecorded_layout_are_one_line(tmp_path: Path) -> None:
    other = make_layout(residual_bound=(0.2, 0.2))
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    write_transitions(recorder, other, STREAM[:4])
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert rows == {}
    (problem,) = problems
    assert f"label '{other.label}', expected '{L.label}'" in problem
    assert problem.endswith('(4 times)')


def test_a_robot_restarted_with_another_layout_gives_both(tmp_path: Path) -> None:
    other = make_layout(residual_bound=(0.2, 0.2))
    recorder = open_recorder(tmp_path / 'bag')
    for layout, part in ((L, STREAM[:4]), (other, STREAM[4:6])):
        write_layout(recorder, layout)
        write_transitions(recorder, layout, part)
    recorder.close()
    bag = Bag(tmp_path / 'bag')
    counts = {b.table.layout: len(b.table) for b in TransitionReader(bag).blocks()}
    assert counts == {L: 4, other: 2}
    assert not len(bag.problems)


def test_layouts_in_one_chunk_come_as_they_were_recorded(tmp_path: Path) -> None:
    """So that a clock is judged, and a replay filled, in the order in which the robot acted."""
    other = make_layout(residual_bound=(0.2, 0.2))
    parts = [(L, 0, 4), (other, 4, 6), (L, 6, 7), (other, 7, 20)]
    values = encoded(random_transitions(L, 20, episode_decisions=20))
    values[:, 0] = np.arange(20)
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, other)
    write_layout(recorder, L)
    for layout, begin, end in parts:
        for row in values[begin:end]:
            recorder.write('/' + TRANSITIONS, START_NS, labelled_array(row, layout.label))
    recorder.close()
    bag = Bag(tmp_path / 'bag')
    blocks = list(TransitionReader(bag).blocks())
    assert [block.table.layout for block in blocks] == [layout for layout, _, _ in parts]
    np.testing.assert_array_equal(np.concatenate([b.table.values for b in blocks]), values)
    assert list(bag.problems) == []


def test_a_wrong_schema_is_one_line(tmp_path: Path) -> None:
    topics = [
        RecordedTopic('/' + LAYOUT, TEXT),
        RecordedTopic('/' + TRANSITIONS, TEXT),
    ]
    recorder = Recorder(tmp_path / 'bag', topics, RecordOptions(), {}, lambda: 0.0)
    write_layout(recorder, L)
    recorder.write('/' + TRANSITIONS, START_NS, text_message('hello'))
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert rows == {}
    (problem,) = problems
    assert f"type is '{TEXT}', expected '{FLOAT_ARRAY}'" in problem


def test_a_bag_without_transitions_says_so(tmp_path: Path) -> None:
    rows, problems = read(write_bag(tmp_path / 'bag', L, []))
    assert rows == {}
    (problem,) = problems
    assert f'no message on a topic .../{TRANSITIONS}' in problem


def test_transitions_without_a_layout_say_what_to_record(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    write_transitions(recorder, L, STREAM)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert rows == {}
    (problem,) = problems
    assert f'no layout on /{LAYOUT}; record it' in problem
    assert problem.endswith('(300 times)')


def test_a_clock_that_jumps_back_is_reported_and_its_transitions_kept(tmp_path: Path) -> None:
    stream = random_transitions(L, 20, episode_decisions=10)
    values = encoded(stream)
    values[:, 0] = np.arange(20)
    values[6:, 0] -= 3.5
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    write_rows(recorder, values)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], values)
    (problem,) = problems
    assert 'the clock goes back by 2.500 s within an episode' in problem
    assert 'message 7' in problem


@pytest.mark.parametrize('flush_s', [0.5, 100.0])
def test_a_clock_that_jumps_ahead_is_reported_and_a_hold_is_not(
    flush_s: float, tmp_path: Path
) -> None:
    values = encoded(random_transitions(L, 40, episode_decisions=20))
    values[:, 0] = 0.1 * np.arange(40)
    values[8:, 0] += 3.0
    values[15:20, L.columns['step']] += 1.0  # A hold has cut a decision short.
    values[15:, 0] += 60.0
    values[20:, 0] += 600.0  # Between two episodes.
    now = [0.0]
    options = RecordOptions(flush_s=flush_s)
    recorder = Recorder(tmp_path / 'bag', transition_topics(), options, {}, lambda: now[0])
    write_layout(recorder, L)
    for row in values:
        now[0] += 0.1
        write_rows(recorder, [row])
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], values)
    (problem,) = problems
    assert f'/{TRANSITIONS}: message 9 ' in problem
    assert 'jumps ahead by 3.100 s between two decisions of an episode, which take 0.100' in problem


def test_a_repeated_transition_is_dropped_and_reported(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    for index, row in enumerate(encoded(STREAM[:20])):
        write_rows(recorder, [row] * (3 if index in (6, 9) else 1))  # The seventh ends an episode.
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], encoded(STREAM[:20]))
    (problem,) = problems
    assert f'/{TRANSITIONS}: message 8 ' in problem
    assert problem.endswith('repeats the transition before it; dropped (4 times)')


def chunk_offsets(path: Path) -> list[int]:
    chunks = [segment.chunk for _, segment in Bag(path).segments()]
    return np.unique(np.concatenate(chunks)).tolist()


@pytest.mark.parametrize(
    ('byte', 'value'), [(0, 0), (0, 250), (1, 0), (1, 250), (2, 1), (2, 250), (7, 1)]
)
def test_a_damaged_record_length_costs_one_chunk(byte: int, value: int, tmp_path: Path) -> None:
    now = [0.0]
    recorder = Recorder(tmp_path / 'bag', transition_topics(), RecordOptions(), {}, lambda: now[0])
    write_layout(recorder, L)
    for transition in STREAM:
        now[0] += 0.05
        write_transitions(recorder, L, [transition])
    recorder.close()
    path = the_file(tmp_path / 'bag')
    content = bytearray(path.read_bytes())
    offset, following = chunk_offsets(path)[5:7]
    assert content[offset] == 0x06
    content[offset + 1 + byte] = value
    path.write_bytes(content)
    rows, problems = read(path)
    assert 285 <= len(rows['']) < 300
    assert f'offset {offset}: ' in problems[0]
    assert f'going on at offset {following}' in problems[-1]


def test_the_small_chunks_of_a_recorder_are_handed_out_together(tmp_path: Path) -> None:
    now = [0.0]
    recorder = Recorder(tmp_path / 'bag', transition_topics(), RecordOptions(), {}, lambda: now[0])
    write_layout(recorder, L)
    for transition in STREAM:
        now[0] += 0.05
        write_transitions(recorder, L, [transition])
    recorder.close()
    assert len(chunk_offsets(tmp_path / 'bag')) > 20
    assert [len(segment) for _, segment in Bag(tmp_path / 'bag').segments()] == [301]
    (block,) = TransitionReader(Bag(tmp_path / 'bag')).blocks()
    np.testing.assert_array_equal(block.table.values, encoded(STREAM))


def test_a_robot_of_a_later_file_may_have_its_layout_after_its_transitions(tmp_path: Path) -> None:
    write_bag(tmp_path / 'bags' / 'bag_0', L, STREAM[:10])
    now, topics = [0.0], transition_topics('b')
    folder = tmp_path / 'bags' / 'bag_1'
    recorder = Recorder(folder, topics, RecordOptions(), {}, lambda: now[0])
    write_transitions(recorder, L, STREAM[:10], 'b')
    now[0] = 1.0
    recorder.flush_when_due()
    write_layout(recorder, L, 'b')
    recorder.close()
    rows, problems = read(tmp_path / 'bags')
    assert problems == []
    assert {robot: len(values) for robot, values in rows.items()} == {'': 10, 'b': 10}


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
        ('a: [1', 'cannot be read: while parsing a flow sequence'),
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
