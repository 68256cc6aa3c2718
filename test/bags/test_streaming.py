# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags are streamed: what is kept does not grow with a recording, and it is read once."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builders import L
from raw_bag_builders import PERIOD, Live, joint_state, rebuild

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.log_order import BagFile
from residual_rl_ros.bags.rebuild.messages import NEWEST, ChannelReport
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.segment import Segment
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.bench.bags import SHAPES, make_bag
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import deserialize, labelled_array

COUNT = 6000
"""More transitions than are read at once."""


def peak_bytes(folder: Path) -> int:
    """Return the most memory that reading a bag takes if nothing is kept of it."""
    tracemalloc.start()
    try:
        count = sum(len(block.table) for block in TransitionReader(Bag(folder)).blocks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count >= COUNT
    return peak


@pytest.mark.parametrize('shape', SHAPES)
def test_reading_transitions_takes_the_same_memory_of_a_bag_of_any_size(
    shape: str, tmp_path: Path
) -> None:
    small, large = (tmp_path / name for name in ('small', 'large'))
    make_bag(small, L, COUNT, SHAPES[shape])
    make_bag(large, L, 8 * COUNT, SHAPES[shape])
    assert Bag(large).nbytes > 7 * Bag(small).nbytes
    peak_bytes(small)  # What is loaded and cached once is no matter of size.
    assert peak_bytes(large) < 1.1 * peak_bytes(small)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_raw_bag_is_summarised_in_one_reading(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = [RecordedTopic('/tool', FLOAT_ARRAY)]
    recorder = Recorder(tmp_path / 'raw', topics, RecordOptions(storage), {}, lambda: 0.0)
    for number in range(3 * COUNT):
        recorder.write('/tool', number, labelled_array([0.0] * 30, ''))
    recorder.close()
    bag, read, segments = Bag(tmp_path / 'raw'), [0, 0], Bag.segments

    def counted(self: Bag, files: Any = None) -> Iterator[tuple[BagFile, Segment]]:
        for file, segment in segments(self, files):
            read[0] += len(segment)
            yield file, segment

    def on_read(nbytes: int) -> None:
        read[1] += nbytes

    monkeypatch.setattr(Bag, 'segments', counted)
    (tool,) = summarise(bag, on_read).topics
    assert tool.messages == 3 * COUNT
    assert read[0] < 1.5 * tool.messages  # The first part was looked through for layouts.
    assert 0.8 * bag.nbytes < read[1] <= bag.nbytes


def test_a_recording_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a command, before the first one or in a pause, may be hours of images."""
    live = Live.start(tmp_path / 'bag')
    for tick in range(300):
        now = 100.0 + PERIOD * tick
        arm, tool = joint_state(now - 0.02, np.zeros(2)), labelled_array([0.0], '')
        live.recorder.write('/cell/joint_states', round((now - 0.01) * 1e9), arm)
        live.recorder.write('/tool', round((now - 0.005) * 1e9), tool)
        if 100 <= tick < 110 or tick >= 290:
            live.send_command(np.zeros(2), now)
    live.recorder.close()
    alive = most = 0

    def forget() -> None:
        nonlocal alive
        alive -= 1

    def watched(data: memoryview, kind: str) -> Any:
        nonlocal alive, most
        message = deserialize(data, kind)
        weakref.finalize(message, forget)
        alive += 1
        most = max(most, alive)
        return message

    monkeypatch.setattr('residual_rl_ros.bags.rebuild.messages.deserialize', watched)
    made, rebuilder, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    assert [t.episode for t in made if t.truncated] == [0, 1]
    assert most < 20
    assert len(rebuilder.controller.commands) == 1


def test_a_report_of_a_long_channel_stays_small() -> None:
    report = ChannelReport('arm', '/arm')
    for number in range(3 * NEWEST):
        report.add(float(number), number + (0.5 if number == 7 else 0.002))
    assert len(report.ages) == NEWEST
    assert '2.0 ms old on receipt (median, at most 500.0 ms)' in report.describe()
