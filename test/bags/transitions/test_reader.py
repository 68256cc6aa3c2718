# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag is a training set: every transition comes back, and damage costs only what it hit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from bag_builders import (
    START_NS,
    L,
    chunk_offsets,
    encoded,
    open_recorder,
    read,
    text_message,
    the_file,
    transition_topics,
    write_bag,
    write_layout,
    write_transitions,
)
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions.reader import LAYOUT, TEXT, TRANSITIONS, TransitionReader
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array, serialize, typestore

STREAM = random_transitions(L, 300)
STORAGES = ['mcap', 'sqlite3']


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
    assert problem.endswith('source is 7.0, expected one of (0, 1, 2, 3) (3 times)')


@pytest.mark.parametrize('value', [1e30, 1e200])
def test_a_number_that_is_not_plausible_is_one_line_and_never_stored(
    tmp_path: Path, value: float
) -> None:
    huge = L.encode(STREAM[5])
    huge[L.columns['next_observation']] = value
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    write_transitions(recorder, L, STREAM[:5])
    recorder.write('/' + TRANSITIONS, START_NS, labelled_array(huge, L.label))
    recorder.close()
    rows, (problem,) = read(tmp_path / 'bag')
    np.testing.assert_array_equal(rows[''], encoded(STREAM[:5]))
    assert f'next_observation[0] is {value}, expected -1000000 to 1000000' in problem


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


def test_another_layout_version_is_one_line(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    text = L.to_yaml().replace('version: 1', 'version: 3')
    recorder.write('/' + LAYOUT, START_NS, text_message(text))
    write_transitions(recorder, L, STREAM)
    recorder.close()
    rows, problems = read(tmp_path / 'bag')
    assert rows == {}
    (problem,) = problems
    assert 'transition layout version 3, expected 1 or 2' in problem


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
