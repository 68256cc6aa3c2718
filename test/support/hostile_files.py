# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small programs that write hostile files: every kind of excess, in every format that is read.

Each case writes below a folder of its own and returns what is to be read. Nothing is random.
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
from actor_builders import make_actor
from bag_builders import write_bag
from hostile_checkpoints import checkpoint_cases
from hostile_demonstrations import demonstration_cases
from hostile_texts import (
    LAYOUTS,
    MIB,
    Case,
    L,
    Make,
    bag_with,
    json_cases,
    layout_cases,
    link_to,
    pipe,
    robot_cases,
    text_file,
    urdf_cases,
    yaml_cases,
)
from safetensors.numpy import save
from transition_builders import random_transitions

from residual_rl_ros.bags.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    DATA_END,
    MAGIC,
    MESSAGE,
    MESSAGE_HEAD,
    RECORD,
    SCHEMA,
    zstd,
)
from residual_rl_ros.bags.transitions.reader import LAYOUT, TEXT, TRANSITIONS
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array, serialize, typestore


def every_case() -> list[Case]:
    """Return the list."""
    made = [*yaml_cases(), *json_cases(), *robot_cases(), *layout_cases(), *_mcap_cases()]
    made += [*_sqlite_cases(), *_folder_cases(), *_parquet_cases(), *_tensor_cases()]
    made += [*demonstration_cases(), *checkpoint_cases(), *urdf_cases()]
    names = [case.name for case in made]
    assert len(set(names)) == len(names)
    return made


# --- MCAP


def _layout_records(text: str) -> bytes:
    message = serialize(typestore().types[TEXT](data=text), TEXT)
    return (
        _declared(0, LAYOUT, TEXT)
        + _declared(1, TRANSITIONS, FLOAT_ARRAY)
        + _message(0, message)
        + _message(1, labelled_array([0.0], 'x'))
    )


def _record(opcode: int, content: bytes) -> bytes:
    return RECORD.pack(opcode, len(content)) + content


def _prefixed(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return struct.pack('<I', len(content)) + content


def _declared(key: int, topic: str | bytes, kind: str | bytes) -> bytes:
    schema = struct.pack('<H', key + 1) + _prefixed(kind) + _prefixed('ros2msg') + _prefixed('')
    channel = struct.pack('<HH', key, key + 1) + _prefixed(topic) + _prefixed('cdr')
    return _record(SCHEMA, schema) + _record(CHANNEL, channel + _prefixed(''))


def _message(key: int, data: bytes, time_ns: int = 10**18) -> bytes:
    return _record(MESSAGE, MESSAGE_HEAD.pack(key, 0, time_ns, time_ns) + data)


def _chunk(
    stored: bytes, size: int, compression: str = '', times: tuple[int, int] = (0, 0)
) -> bytes:
    head = CHUNK_HEAD.pack(*times, size, 0) + _prefixed(compression)
    return _record(CHUNK, head + struct.pack('<Q', len(stored)) + stored)


def _zstd_chunk(records: bytes, times: tuple[int, int] = (0, 0)) -> bytes:
    return _chunk(zstd.compress(records), len(records), 'zstd', times)


def _mcap(records: bytes, name: str = 'bag.mcap') -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(MAGIC + records + _record(DATA_END, bytes(4)) + MAGIC)
        return folder / name

    return make


def _late(build: Callable[[], bytes]) -> Make:
    """Build large contents only when they are written."""
    return lambda folder: _mcap(build())(folder)


def _empty_records(count: int) -> bytes:
    return _record(0x80, b'') * count


def _tiny_messages(count: int) -> bytes:
    return _declared(0, '/a', TEXT) + _message(0, b'') * count


def _overlapping(chunks: int, nbytes: int) -> bytes:
    blob = bytes(nbytes)
    messages = [_message(0, blob, 10**18), _message(0, blob, 2 * 10**18)]
    whole = _zstd_chunk(_declared(0, '/a', TEXT) + b''.join(messages), (10**18, 2 * 10**18))
    return whole * chunks


MCAPS: dict[str, Callable[[], bytes]] = {
    'zeros in a chunk': lambda: _zstd_chunk(bytes(60 * MIB)),
    'a chunk of 2 GiB': lambda: _chunk(zstd.compress(bytes(MIB)), 2**31, 'zstd'),
    'a chunk of 2^63': lambda: _chunk(b'x' * 100, 2**63, 'lz4'),
    'lz4 zeros': lambda: _chunk(lz4.frame.compress(bytes(60 * MIB)), 60 * MIB, 'lz4'),
    'chunks of zeros': lambda: _zstd_chunk(_record(0x80, bytes(60 * MIB))) * 200,
    'empty records': lambda: _empty_records(400_000),
    'empty records in chunks': lambda: _zstd_chunk(_empty_records(1_500_000)) * 4,
    'empty messages in chunks': lambda: _zstd_chunk(_tiny_messages(600_000)) * 4,
    'channels without end': lambda: b''.join(_declared(k, f'/{k}', TEXT) for k in range(30_000)),
    'a message of every channel': lambda: _zstd_chunk(
        b''.join(_declared(k, f'/{k}', TEXT) for k in range(4000))
        + b''.join(_message(k, b'') for k in range(4000)) * 60
    ),
    'a channel declared twice': lambda: (
        _declared(0, '/a', TEXT) + _message(0, b'') + _declared(0, '/b', TEXT)
    ),
    'a giant name': lambda: _zstd_chunk(_declared(0, b'/' * (20 * MIB), TEXT) + _message(0, b'')),
    'a name with escapes': lambda: _declared(0, '/a\x1b[2J\nb', '\x07') + _message(0, b'x'),
    'damaged chunks': lambda: b''.join(
        _chunk(bytes([i % 256, i // 256 % 256]), 5, 'zstd') for i in range(20_000)
    ),
    'chunks that overlap': lambda: _overlapping(20, 10 * MIB),
    'times of chunks that lie': lambda: (
        _declared(0, '/a', TEXT)
        + _chunk(_message(0, b'', 50), 31, times=(10, 20))
        + _chunk(_message(0, b'', 5), 31, times=(30, 40))
    ),
    'times at the end of time': lambda: _declared(0, '/a', TEXT) + _message(0, b'', 2**64 - 1) * 9,
    'a length at the end of all': lambda: RECORD.pack(MESSAGE, 2**64 - 1),
    'another compression': lambda: _chunk(b'x', 1, 'br\x1b[31m'),
    'short records': lambda: b''.join(_record(code, b'\1') for code in range(1, 16)),
    'opcode 0': lambda: bytes(MIB),
    'a layout of 5 MB': lambda: _layout_records('x: ' + 'y' * (5 * MIB)),
    'transitions of another length': lambda: (
        _layout_records(L.to_yaml())
        + _message(1, labelled_array(np.zeros(L.size + 3), L.label))
        + _message(1, labelled_array(np.full(L.size, 1e300), L.label))
        + _message(1, struct.pack('<IIIIII', 256, 2**31, 2**31, 2**31, 2**31, 2**31))
    ),
}
SLOW_MCAPS = (
    'chunks of zeros',
    'lz4 zeros',
    'a message of every channel',
    'empty records in chunks',
    'damaged chunks',
    'chunks that overlap',
)


def _mcap_cases() -> Iterator[Case]:
    for name, text in LAYOUTS.items():
        yield Case(f'bag with layout: {name}', 'bag', _mcap(_layout_records(text)))
    for name, build in MCAPS.items():
        yield Case(f'mcap: {name}', 'bag', _late(build), name in SLOW_MCAPS)
    yield Case('mcap: nothing', 'bag', text_file('bag.mcap', b''))
    yield Case('mcap: magic alone', 'bag', text_file('bag.mcap', MAGIC))
    yield Case('mcap: noise', 'bag', text_file('bag.mcap', np.random.default_rng(0).bytes(MIB)))
    yield Case('mcap: a summary before the file', 'bag', _summary_at(2**63))
    yield Case('mcap: a summary that is the data', 'bag', _summary_at(len(MAGIC)))


def _summary_at(offset: int) -> Make:
    def make(folder: Path) -> Path:
        footer = _record(0x02, struct.pack('<QQI', offset, 0, 0))
        data = _tiny_messages(1000) + _record(DATA_END, bytes(4))
        (folder / 'bag.mcap').write_bytes(MAGIC + data + footer + MAGIC)
        return folder / 'bag.mcap'

    return make


# --- SQLite

TOPICS_TABLE = 'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT);'
MESSAGES_TABLE = (
    'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);'
)
ONE_TOPIC = f"INSERT INTO topics VALUES(1, '/a', '{TEXT}');"
ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT'
DATABASES: dict[str, str] = {
    'endless messages': f"""{TOPICS_TABLE}{ONE_TOPIC}CREATE VIEW messages AS
        {ENDLESS} i AS id, 1 AS topic_id, i AS timestamp, zeroblob(1000000) AS data FROM n;""",
    'endless topics': f"""{MESSAGES_TABLE}CREATE VIEW topics AS
        {ENDLESS} i AS id, '/' || i AS name, 'x' AS type FROM n;""",
    'endless without rows': f"""{TOPICS_TABLE}{ONE_TOPIC}CREATE VIEW messages AS
        {ENDLESS} i AS id, 1 AS topic_id, i AS timestamp, '' AS data FROM n WHERE i < 0;""",
    'a product of tables': f"""{TOPICS_TABLE}{ONE_TOPIC}CREATE TABLE t(x);
        INSERT INTO t VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9); CREATE VIEW messages AS SELECT
        1 AS id, 1 AS topic_id, 1 AS timestamp, '' AS data FROM t a, t b, t c, t d, t e, t f, t g,
        t h, t i, t j, t k, t l;""",
    'computed blobs': f"""{TOPICS_TABLE}{ONE_TOPIC}CREATE TABLE messages(
        id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER,
        data BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL);
        INSERT INTO messages(topic_id, timestamp) VALUES (1, 1), (1, 2), (1, 3);""",
    'a virtual table': f"""{TOPICS_TABLE}{ONE_TOPIC}
        CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data);""",
    'no key': f"""{TOPICS_TABLE}{ONE_TOPIC}CREATE TABLE messages(id, topic_id, timestamp, data);
        INSERT INTO messages VALUES('x', 1, 1, x'00'), (NULL, 1, 1, x'00');""",
    'text as data': f'{TOPICS_TABLE}{ONE_TOPIC}{MESSAGES_TABLE}'
    "INSERT INTO messages VALUES(1, 1, 1, 'text'), (2, 1, 2, 5), (3, 1, 3, NULL);",
    'text as time': f'{TOPICS_TABLE}{ONE_TOPIC}{MESSAGES_TABLE}'
    "INSERT INTO messages VALUES(1, 1, 'noon', x'00');",
    'time as a fraction': f'{TOPICS_TABLE}{ONE_TOPIC}{MESSAGES_TABLE}'
    "INSERT INTO messages VALUES(1, 1, 1e300, x'00');",
    'first and last id': f'{TOPICS_TABLE}{ONE_TOPIC}{MESSAGES_TABLE}INSERT INTO messages VALUES'
    "(-9223372036854775808, 1, 1, x'00'), (9223372036854775807, 1, -5, x'00');",
    'names with escapes': f'{TOPICS_TABLE}{MESSAGES_TABLE}'
    "INSERT INTO topics VALUES(1, '/' || char(27, 10, 7), char(27));"
    "INSERT INTO messages VALUES(1, 1, 1, x'00');",
    'topics without end': f"""{TOPICS_TABLE}{MESSAGES_TABLE}INSERT INTO topics
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        SELECT i, '/' || i, 'x' FROM n;""",
    'null as names': f"{TOPICS_TABLE}{MESSAGES_TABLE}INSERT INTO topics VALUES(1, NULL, x'ff');"
    "INSERT INTO messages VALUES(1, 1, 1, x'00');",
    'no tables': 'CREATE TABLE other(x);',
    'columns of other names': 'CREATE TABLE topics(a); CREATE TABLE messages(b);',
    'a trigger': f"""{TOPICS_TABLE}{ONE_TOPIC}{MESSAGES_TABLE}
        CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM topics; END;""",
}


def _database(script: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / 'bag.db3'
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.commit()
        connection.close()
        return path

    return make


def _many_tables(folder: Path) -> Path:
    tables = ''.join(f'CREATE TABLE t{i}(x);' for i in range(4000))
    return _database(f'BEGIN;{tables}{TOPICS_TABLE}{MESSAGES_TABLE}COMMIT;')(folder)


def _patched(script: str, old: str, new: str) -> Make:
    """Change the schema behind SQLite's back."""

    def make(folder: Path) -> Path:
        path = _database(script)(folder)
        connection = sqlite3.connect(path)
        connection.execute('PRAGMA writable_schema = ON')
        connection.execute('UPDATE sqlite_master SET sql = replace(sql, ?, ?)', (old, new))
        connection.commit()
        connection.close()
        return path

    return make


def _sqlite_cases() -> Iterator[Case]:
    for name, script in DATABASES.items():
        yield Case(f'sqlite: {name}', 'bag', _database(script))
    yield Case('sqlite: tables without end', 'bag', _many_tables, slow=True)
    whole = TOPICS_TABLE + ONE_TOPIC + MESSAGES_TABLE
    yield Case('sqlite: a broken schema', 'bag', _patched(whole, 'CREATE TABLE', 'CREATE \x1b'))
    yield Case('sqlite: nothing', 'bag', text_file('bag.db3', b''))
    yield Case('sqlite: noise', 'bag', text_file('bag.db3', np.random.default_rng(1).bytes(MIB)))
    header = b'SQLite format 3\0' + bytes(4080)
    yield Case('sqlite: a header alone', 'bag', text_file('bag.db3', header))


# --- folders


def _edited(old: str, new: str) -> Make:
    def make(folder: Path) -> Path:
        bag = write_bag(folder / 'bag', L, random_transitions(L, 3))
        path = bag / 'metadata.yaml'
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return bag

    return make


def _links_back(folder: Path) -> Path:
    for name in 'abc':
        (folder / name).symlink_to(folder, target_is_directory=True)
    return folder


def _deep_folders(folder: Path) -> Path:
    path = folder
    for _ in range(60):
        path = path / 'd'
    path.mkdir(parents=True)
    _mcap(_tiny_messages(1))(path)
    return folder


def _many_files(folder: Path) -> Path:
    for number in range(300):
        _mcap(b'', f'{number}.mcap')(folder)
    return folder


def _folder_cases() -> Iterator[Case]:
    for name in ('second.mcap', 'second.db3', 'bag.mcap.zst', 'old.bag', 'gone.db3-wal'):
        yield Case(f'folder: {name} beside', 'bag', bag_with(name, b'x' * 100))
    yield Case('folder: names with escapes', 'bag', bag_with('\x1b[2Jx\n.mcap', b'x'))
    yield Case('folder: links back', 'bag', _links_back)
    yield Case('folder: deep', 'bag', _deep_folders)
    yield Case('folder: many files', 'bag', _many_files)
    yield Case('folder: a pipe', 'bag', lambda folder: pipe('bag.mcap')(folder).parent)
    yield Case('folder: a device', 'bag', lambda f: link_to('bag.mcap', '/dev/zero')(f).parent)
    for name, old, new in (
        ('other count', 'message_count: 4', 'message_count: 5'),
        ('a path above', '- bag.mcap', '- ../../../etc/passwd'),
        ('names that are numbers', '- bag.mcap', '- 7'),
        ('a name with a null', '- bag.mcap', '- "a\\0b"'),
    ):
        yield Case(f'folder: metadata with {name}', 'bag', _edited(old, new))


# --- LeRobot datasets


def _info(**changes: Any) -> dict[str, Any]:
    feature = {'dtype': 'float32', 'shape': [2], 'names': ['x', 'y']}
    scalar = {'dtype': 'int64', 'shape': [1], 'names': None}
    return {
        'codebase_version': 'v3.0',
        'fps': 20,
        'total_frames': 10,
        'features': {
            'observation.state': feature,
            'action': feature,
            'episode_index': scalar,
            'frame_index': scalar,
        },
        **changes,
    }


def _dataset(info: dict[str, Any], write: Callable[[Path], None]) -> Make:
    def make(folder: Path) -> Path:
        text_file('set/meta/info.json', json.dumps(info))(folder)
        file = folder / 'set/data/chunk-000/file-000.parquet'
        file.parent.mkdir(parents=True)
        write(file)
        return folder / 'set/meta/info.json'

    return make


def _frames(count: int, groups: int = 1, width: int = 2, kind: str = 'float') -> Any:
    def write(path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        flat = pa.array(np.zeros(count * width, dtype=np.float32))
        lists = pa.FixedSizeListArray.from_arrays(flat, width)
        if kind == 'text':
            lists = pa.array(['x' * 100] * count)
        if kind == 'nulls':
            lists = pa.nulls(count, pa.list_(pa.float32(), width))
        if kind == 'ragged':
            lists = pa.array([[0.0] * (row % 5) for row in range(count)], pa.list_(pa.float32()))
        zeros = pa.array(np.zeros(count, dtype=np.int64))
        columns = ('observation.state', 'action', 'episode_index', 'frame_index')
        table = pa.table(dict(zip(columns, (lists, lists, zeros, zeros), strict=True)))
        with parquet.ParquetWriter(path, table.schema) as writer:
            for _ in range(groups):
                writer.write_table(table)

    return write


def _bytes_of(content: bytes) -> Callable[[Path], None]:
    return lambda path: text_file(path.name, content)(path.parent) and None


def _parquet_cases() -> Iterator[Case]:
    for name, write, slow in (
        ('a million constant frames', _frames(1000, 1000), False),
        ('60 million constant frames', _frames(1_000_000, 60), True),
        ('frames of a million numbers', _frames(2, width=1_000_000), False),
        ('lists that are too long', _frames(2000, width=500), False),
        ('text', _frames(10, kind='text'), False),
        ('nulls', _frames(10, kind='nulls'), False),
        ('ragged lists', _frames(10, kind='ragged'), False),
        ('noise', _bytes_of(b'PAR1' + bytes(1000) + b'PAR1'), False),
        ('a footer of 2 GiB', _bytes_of(b'PAR1' + b'\xff' * 100 + b'\xff\xff\xff\x7fPAR1'), False),
        ('nothing', _bytes_of(b''), False),
        ('a pipe', lambda path: os.mkfifo(path), False),
    ):
        yield Case(f'parquet: {name}', 'dataset', _dataset(_info(), write), slow)
    for name, changes in (
        ('endless fps', {'fps': 1e-320}),
        ('fps as text', {'fps': 'fast'}),
        ('features as a list', {'features': [1, 2]}),
        ('features of nothing', {'features': {'action': None, 'observation.state': 7}}),
        ('a giant shape', {'features': {'action': {'shape': [10**12]}, 'observation.state': {}}}),
        ('frames as a fraction', {'total_frames': 1e300}),
        ('a layout of aliases', {'residual_rl': {'layout': LAYOUTS['aliases as names']}}),
        ('a layout as a number', {'residual_rl': {'layout': 7}}),
        ('our key as text', {'residual_rl': 'x'}),
    ):
        make = _dataset(_info(**changes), _frames(10))
        yield Case(f'parquet: info with {name}', 'dataset', make)


# --- safetensors


def _tensors(header: bytes, length: int | None = None, body: bytes = b'') -> bytes:
    return struct.pack('<Q', len(header) if length is None else length) + header + body


def _weights(**changes: Any) -> bytes:
    fields: dict[str, Any] = {'header': {}, 'kind': 'gaussian', 'architecture': {}, 'digest': ''}
    return save({'a': np.zeros(1, np.float32)}, {'weights': json.dumps({**fields, **changes})})


TENSORS: dict[str, Callable[[], bytes]] = {
    'nothing': lambda: b'',
    'a header of 2^63': lambda: _tensors(b'{}', 2**63),
    'a header beyond the file': lambda: _tensors(b'{}', 1000),
    'a deep header': lambda: _tensors(b'{"a":' * 50_000),
    'a header of digits': lambda: _tensors(b'{"a":' + b'9' * 50_000 + b'}'),
    'names twice': lambda: _tensors(b'{"__metadata__":{},"__metadata__":{}}'),
    'names without end': lambda: _tensors(
        b'{'
        + b','.join(
            b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(400_000)
        )
        + b'}'
    ),
    'tensors without end': lambda: save({f'{i}': np.zeros(1, np.float32) for i in range(3000)}),
    'a giant shape': lambda: _tensors(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]},'
        b'"__metadata__":{"weights":"{}"}}'
    ),
    'metadata that are a list': lambda: _tensors(b'{"__metadata__":[]}'),
    'metadata of a deep text': lambda: save(
        {'a': np.zeros(1, np.float32)}, {'weights': '[' * 50_000}
    ),
    'metadata with NaN': lambda: save({'a': np.zeros(1, np.float32)}, {'weights': '{"a": NaN}'}),
    'an epoch of 10^39': lambda: _weights(header={'epoch': 10**39}),
    'an unknown kind': lambda: _weights(kind='\x1b[31m'),
    'a number that is none': lambda: _spoiled(np.nan),
    'noise': lambda: np.random.default_rng(2).bytes(10_000),
}


def _spoiled(value: float) -> bytes:
    message = bytearray(encode_weights(make_actor(L).to_numpy(), WeightsHeader(1, 0)))
    message[-4:] = struct.pack('<f', value)
    return bytes(message)


def _tensor_cases() -> Iterator[Case]:
    for name, build in TENSORS.items():
        yield Case(f'weights: {name}', 'weights', _written('actor.safetensors', build))
        if name not in ('an epoch of 10^39', 'an unknown kind', 'a number that is none'):
            yield Case(
                f'checkpoint tensors: {name}', 'tensors', _written('algorithm.safetensors', build)
            )


def _written(name: str, build: Callable[[], bytes]) -> Make:
    return lambda folder: text_file(name, build())(folder)
