# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions/s from a bag into the replay memory, n = 40, m = 7: `residual-rl bench bag`.

Every repetition reads the same file in turn: its bytes alone, with our reader, and with a loop over
`rosbags` messages that does the same work one message at a time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import Reader

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import TRANSITIONS, TransitionReader
from residual_rl_ros.bags.transitions.writer import TransitionWriter
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import typestore
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.replay_buffer import ReplayBuffer

N, M, EPISODE = 40, 7, 100
PERIOD_NS = 10**8
BYTES, OURS, PLAIN = 'the file in bytes', 'residual_rl_ros', 'plain rosbags loop'


@dataclass(frozen=True)
class Shape:
    """How a bag lies on the disk."""

    storage: str
    """`mcap` or `sqlite3`."""
    decision_rate_hz: float
    """Transitions for each second of a recorder's clock, by which chunks end."""


FAST = 1e6
"""Chunks are full before they are due."""
SHAPES: Mapping[str, Shape] = {
    'mcap': Shape('mcap', FAST),
    'mcap as recorded at 20 Hz': Shape('mcap', 20.0),
    'sqlite3': Shape('sqlite3', FAST),
}


def make_bag(folder: Path, layout: TransitionLayout, count: int, shape: Shape) -> None:
    """Write a bag of random transitions in episodes of a hundred."""
    now = 0.0
    rng = np.random.default_rng(0)
    row = np.zeros(layout.size)
    columns = layout.columns
    with TransitionWriter(folder, layout, storage=shape.storage, clock=lambda: now) as writer:
        for number in range(count):
            now = number / shape.decision_rate_hz
            row[:] = rng.uniform(-1.0, 1.0, layout.size)
            episode, step = divmod(number, EPISODE)
            row[: columns['success'].stop] = [number, 0, episode, step, -1, 0, 0, 0, 0, -1]
            row[columns['truncated']] = step == EPISODE - 1
            writer.write_values(row, number * PERIOD_NS)


def read_bytes(folder: Path, layout: TransitionLayout, count: int) -> None:
    """Read the files and look at nothing."""
    del layout, count
    for file in Bag(folder).files:
        with file.path.open('rb') as stream:
            while stream.read(1 << 20):
                pass


def read_ours(folder: Path, layout: TransitionLayout, count: int) -> None:
    """Read with this package."""
    replay = ReplayBuffer(layout, count)
    for block in TransitionReader(Bag(folder)).blocks():
        replay.extend(block.table, block.robot)
    assert len(replay) == count


def read_plain(folder: Path, layout: TransitionLayout, count: int) -> None:
    """Read message by message."""
    replay = ReplayBuffer(layout, count)
    store = typestore()
    with Reader(folder) as reader:
        chosen = [c for c in reader.connections if c.topic.endswith(TRANSITIONS)]
        for _, _, data in reader.messages(connections=chosen):
            message = store.deserialize_cdr(data, FLOAT_ARRAY)
            replay.add(layout.decode(message.data, message.layout.dim[0].label))  # type: ignore[attr-defined]
    assert len(replay) == count


READERS: Mapping[str, Callable[[Path, TransitionLayout, int], None]] = {
    BYTES: read_bytes,
    OURS: read_ours,
    PLAIN: read_plain,
}


def measure(transitions: int, repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Return transitions/s of every repetition, by shape and reader."""
    names = tuple(f'x{i}' for i in range(N)), tuple(f'a{i}' for i in range(M))
    layout = TransitionLayout(*names, 1, (-1.0,) * M, (1.0,) * M, (0.1,) * M)
    rates: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (shape, described) in enumerate(SHAPES.items()):
            bag = Path(folder) / str(number)
            make_bag(bag, layout, transitions, described)
            rates[shape] = {name: [] for name in READERS}
            for _ in range(repetitions):
                for name, read in READERS.items():
                    started = time.perf_counter()
                    read(bag, layout, transitions)
                    elapsed = time.perf_counter() - started
                    rates[shape][name].append(transitions / elapsed)
    return rates


def to_markdown(rates: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return a table of medians; the ratios are to our reader in the same repetition."""
    lines = ['| bag | reader | transitions/s | ours is |', '|---|---|---|---|']
    for shape, of_shape in rates.items():
        for name, values in of_shape.items():
            ratios = [our / value for our, value in zip(of_shape[OURS], values, strict=True)]
            ratio = statistics.median(ratios)
            lines.append(f'| {shape} | {name} | {statistics.median(values):,.0f} | {ratio:.3g} x |')
    return '\n'.join(lines) + '\n'
