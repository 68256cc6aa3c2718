# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write messages of ROS topics to a rosbag2 recording, and which topics belong in one."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from residual_rl_ros.bags.bag import RECORDING
from residual_rl_ros.bags.transitions.reader import CUSTOMISATION, LAYOUT, TEXT, TRANSITIONS
from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.errors import BagError, OutputError
from residual_rl_ros.robot.consistency import TAKEOVER_ACTIVE
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import knows, typestore

PLUGINS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
BAG_VERSION: Literal[9] = 9
"""Of `metadata.yaml`: Jazzy and later."""
CHUNK_CRC = 1 + 8 + 3 * 8
"""Place of the CRC-32 in an MCAP chunk: after kind and length of the record, two times, a size."""
NEVER = QosTime(2147483647, 4294967295)


@dataclass(frozen=True)
class RecordedTopic:
    """A topic to record."""

    name: str
    """Absolute name."""
    type: str
    """ROS message type."""
    latched: bool = False
    """The newest messages are kept for late joiners, and repeated at the start of every split."""
    kept: int = 1
    """How many are: several nodes may publish static transforms."""
    reliable: bool = True
    """Its publishers are of this package; others may send by best effort, or keep nothing."""


@dataclass(frozen=True)
class RecordOptions:
    """How a recording is stored."""

    storage: str = 'mcap'
    """A key of `PLUGINS`."""
    max_bytes: int = 0
    """Begin a new bag when this many bytes of messages are written; 0 never does."""
    max_seconds: float = 0.0
    """Begin a new bag after this time [s]; 0 never does."""
    flush_s: float = 0.5
    """A received message reaches the file within this time [s]."""

    def __post_init__(self) -> None:
        """Check the storage."""
        if self.storage not in PLUGINS:
            raise OutputError(f'storage is {self.storage!r}, expected one of {", ".join(PLUGINS)}')


class Recorder:
    """Writes a recording: one bag folder, or with a limit a folder of several whole bags.

    Args:
        folder: does not exist yet.
        topics: what may be written.
        options: how it is stored.
        custom_data: what describes the recording; in `recording.yaml` from the start, and in
            `metadata.yaml` at the end.
        clock: monotonic time [s].

    Raises:
        OutputError: the folder exists or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        topics: Sequence[RecordedTopic],
        options: RecordOptions,
        custom_data: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._topics = {topic.name: topic for topic in topics}
        self._options = options
        self._custom_data = dict(custom_data)
        self._clock = clock
        self._opened = self._flushed = clock()
        self._latched: dict[str, deque[bytes]] = {
            topic.name: deque(maxlen=topic.kept) for topic in topics if topic.latched
        }
        self._split = 0
        self._writer: Writer | None = None
        self.messages = 0
        """Messages written."""
        self._open()

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Write a message.

        Args:
            topic: name of one of the recording's topics.
            time_ns: when it was received [ns].
            data: serialised message.

        Raises:
            OutputError: the disk is full or the folder has gone.
        """
        if self._full():
            self.close()
            self._split += 1
            self._open()
            for name, kept in self._latched.items():
                for each in kept:
                    self._put(name, time_ns, each)
        if (latched := self._latched.get(topic)) is not None:
            if data in latched:
                latched.remove(data)
            latched.append(data)
        self._put(topic, time_ns, data)
        self.messages += 1
        self.flush_when_due()

    def flush_when_due(self) -> None:
        """Write the messages in memory to the file; to be called some times a second."""
        now = self._clock()
        if now - self._flushed < self._options.flush_s:
            return
        self._flushed = now
        self._guarded(self._flush)

    def close(self) -> None:
        """End the bag with its index and `metadata.yaml`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._guarded(writer.close)

    def _open(self) -> None:
        self._opened = self._flushed = self._clock()
        self._bytes = 0
        self._connections: dict[str, Connection] = {}
        options = self._options
        several = options.max_bytes or options.max_seconds
        folder = self._folder / f'{self._folder.name}_{self._split}' if several else self._folder
        if self._split == 0 and self._folder.exists():
            raise OutputError(f'{str(self._folder)!r} exists already; choose another folder')
        self._guarded(lambda: self._begin(folder))

    def _begin(self, folder: Path) -> None:
        plugin = PLUGINS[self._options.storage]
        writer = Writer(folder, version=BAG_VERSION, storage_plugin=plugin)
        writer.open()
        text = yaml.safe_dump(self._custom_data, sort_keys=False)
        (folder / RECORDING).write_text(text, encoding='utf-8')
        if isinstance(writer.storage, McapWriter):
            add_checksums(writer.storage)
        for key, value in self._custom_data.items():
            writer.set_custom_data(key, value)
        for topic in self._topics.values():
            if not knows(topic.type):
                raise BagError(
                    f'{topic.name}: message type {topic.type!r} is not known; give its codec a '
                    'definition, or record transitions alone'
                )
            self._connections[topic.name] = writer.add_connection(
                topic.name, topic.type, typestore=typestore(), offered_qos_profiles=[_qos(topic)]
            )
        self._writer = writer
        self._flush()

    def _put(self, topic: str, time_ns: int, data: bytes) -> None:
        writer = self._writer
        if writer is None:
            raise OutputError(f'{str(self._folder)!r} is closed')
        connection = self._connections[topic]
        self._guarded(lambda: writer.write(connection, time_ns, data))
        self._bytes += len(data)

    def _full(self) -> bool:
        options = self._options
        too_large = bool(options.max_bytes) and self._bytes >= options.max_bytes
        age = self._clock() - self._opened
        return too_large or (bool(options.max_seconds) and age >= options.max_seconds)

    def _flush(self) -> None:
        storage = self._writer.storage if self._writer is not None else None
        if isinstance(storage, McapWriter):
            if storage.chunk.msgs:
                storage.close_chunk()
            storage.bio.flush()
        elif isinstance(storage, Sqlite3Writer):
            storage.conn.commit()

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except (OSError, sqlite3.Error, WriterError) as error:
            raise OutputError(
                f'cannot write {str(self._folder)!r}: {error}; free space or choose another folder'
            ) from error


def add_checksums(storage: McapWriter) -> None:
    """Let the chunks of a file have the CRC-32 that rosbags leaves out: damage is found by it."""
    plain = storage.close_chunk

    def close_chunk() -> None:
        checksum = zlib.crc32(storage.chunk.bio.getbuffer())
        begin = storage.bio.tell()
        plain()
        end = storage.bio.tell()
        storage.bio.seek(begin + CHUNK_CRC)
        storage.bio.write(struct.pack('<I', checksum))
        storage.bio.seek(end)

    storage.close_chunk = close_chunk  # type: ignore[method-assign]


def _qos(topic: RecordedTopic) -> Qos:
    """Return the QoS that a player must offer."""
    return Qos(
        QosHistory.KEEP_LAST,
        topic.kept if topic.latched else 1000,
        QosReliability.RELIABLE if topic.reliable or topic.latched else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if topic.latched else QosDurability.VOLATILE,
        NEVER,
        NEVER,
        QosLiveliness.AUTOMATIC,
        NEVER,
        False,
    )


FLAG = 'std_msgs/msg/Bool'


def absolute(topics: Iterable[RecordedTopic], resolve: Callable[[str], str]) -> list[RecordedTopic]:
    """Return topics under their absolute names, each once: what is observed may be the command.

    Args:
        topics: relative to the robot's namespace, or absolute.
        resolve: returns the absolute name of a topic.
    """
    by_name = {}
    for topic in topics:
        name = resolve(topic.name)
        by_name[name] = replace(topic, name=name)
    return list(by_name.values())


def transition_topics() -> tuple[RecordedTopic, ...]:
    """Return the topics that make a training set, relative to the robot's namespace."""
    return (
        RecordedTopic(LAYOUT, TEXT, latched=True),
        RecordedTopic(TRANSITIONS, FLOAT_ARRAY),
    )


def customisation_topic() -> RecordedTopic:
    """Return the topic that says what a robot is asked for beside its task."""
    return RecordedTopic(CUSTOMISATION, TEXT, latched=True)


def raw_topics(robot: RobotConfig) -> tuple[RecordedTopic, ...]:
    """Return the topics of a raw bag: observations, commands, feedback, takeovers."""
    sources = {source.topic: source for channel in robot.channels for source in channel.sources}
    return (
        *(
            RecordedTopic(each.topic, each.type, each.latched, each.depth, reliable=False)
            for each in sources.values()
        ),
        *(
            RecordedTopic(command.topic, command.type)
            for command in robot.commands
            if not command.is_action
        ),
        RecordedTopic(STEP_FEEDBACK, FLOAT_ARRAY),
        RecordedTopic(robot.takeover.topic, robot.takeover.type),
        RecordedTopic(TAKEOVER_ACTIVE, FLAG),
    )
