# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small real bags that several test modules write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions.reader import LAYOUT, TEXT, TRANSITIONS, TransitionReader
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array, serialize, typestore
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

START_NS = 1_700_000_000 * 10**9

L = make_layout()
"""n = 3, m = 2 and k = 2."""


def text_message(text: str) -> bytes:
    return serialize(typestore().types[TEXT](data=text), TEXT)


def transition_topics(robot: str = '') -> list[RecordedTopic]:
    prefix = f'/{robot}/' if robot else '/'
    return [
        RecordedTopic(prefix + LAYOUT, TEXT, latched=True),
        RecordedTopic(prefix + TRANSITIONS, FLOAT_ARRAY),
    ]


def open_recorder(
    folder: Path, *robots: str, storage: str = 'mcap', max_bytes: int = 0
) -> Recorder:
    """Return a recorder of the transitions of robots, without a clock."""
    topics = [topic for robot in robots or ('',) for topic in transition_topics(robot)]
    options = RecordOptions(storage=storage, max_bytes=max_bytes)
    return Recorder(folder, topics, options, {'robot': 'a test'}, lambda: 0.0)


def write_layout(recorder: Recorder, layout: TransitionLayout, robot: str = '') -> None:
    name = transition_topics(robot)[0].name
    recorder.write(name, START_NS, text_message(layout.to_yaml()))


def write_transitions(
    recorder: Recorder,
    layout: TransitionLayout,
    transitions: Iterable[Transition],
    robot: str = '',
) -> None:
    """Write transitions as the policy node sends them, 0.1 s apart."""
    name = transition_topics(robot)[1].name
    for transition in transitions:
        data = labelled_array(layout.encode(transition), layout.label)
        recorder.write(name, START_NS + recorder.messages * 10**8, data)


def write_bag(
    folder: Path,
    layout: TransitionLayout,
    transitions: Iterable[Transition],
    storage: str = 'mcap',
    max_bytes: int = 0,
) -> Path:
    """Write a bag of one robot and return its folder."""
    recorder = open_recorder(folder, storage=storage, max_bytes=max_bytes)
    write_layout(recorder, layout)
    write_transitions(recorder, layout, transitions)
    recorder.close()
    return folder


def stream(count: int, episode_decisions: int = 5) -> list[Transition]:
    """Return transitions of `L` in episodes, with stamps 0.2 s apart."""
    made = random_transitions(L, count, episode_decisions=episode_decisions)
    return [replace(t, stamp=100.0 + 0.2 * index) for index, t in enumerate(made)]


def read(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the rows of every robot and the problems."""
    bag = Bag(path)
    rows: dict[str, list[np.ndarray]] = {}
    for block in TransitionReader(bag).blocks():
        rows.setdefault(block.robot, []).append(block.table.values)
        assert len(block.time_ns) == len(block.table)
    return {k: np.concatenate(v) for k, v in rows.items()}, [str(p) for p in bag.problems]


def encoded(transitions: list[Transition]) -> np.ndarray:
    """Return transitions of `L` as rows."""
    return np.stack([L.encode(t) for t in transitions])


def the_file(folder: Path) -> Path:
    """Return the only file of a bag."""
    (file,) = [f for f in folder.rglob('*') if f.suffix in ('.mcap', '.db3')]
    return file


def chunk_offsets(path: Path) -> list[int]:
    """Return where the chunks of an MCAP file begin that hold messages."""
    chunks = [segment.chunk for _, segment in Bag(path).segments()]
    return np.unique(np.concatenate(chunks)).tolist()
