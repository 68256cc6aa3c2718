# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Damage to a file costs what it hit, and is told with its place."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from bag_builders import (
    L,
    chunk_offsets,
    encoded,
    read,
    the_file,
    transition_topics,
    write_bag,
    write_layout,
    write_transitions,
)
from transition_builders import random_transitions

from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions.reader import LAYOUT, TEXT, TRANSITIONS
from residual_rl_ros.robot.topics import FLOAT_ARRAY

STREAM = random_transitions(L, 300)


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
    assert any(f'offset {offset}: ' in problem for problem in problems)
    assert any(f'going on at offset {following}' in problem for problem in problems)
