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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
from bag_builders import write_bag
from builders import make_actor, make_layout, random_transitions
from safetensors.numpy import save

from residual_rl_ros.bags.mcap_file import (
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
from residual_rl_ros.robot.description import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array, serialize, typestore

Make = Callable[[Path], Path]
L = make_layout()
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One hostile file."""

    name: str
    reader: str
    """Which reader of `hostile_reader` takes it."""
    make: Make
    """Writes it below a folder and returns its path."""
    slow: bool = False
    """It takes long to write or to read."""


def every_case() -> list[Case]:
    """Return the list."""
    made = [*_yaml_cases(), *_json_cases(), *_robot_cases(), *_layout_cases(), *_mcap_cases()]
    made += [*_sqlite_cases(), *_folder_cases(), *_parquet_cases(), *_tensor_cases()]
    names = [case.name for case in made]
    assert len(set(names)) == len(names)
    return made


# --- YAML


def _laughs(wide: int = 10, deep: int = 9) -> str:
    lines = [f'a0: &a0 [{", ".join(["x"] * wide)}]']
    lines += [f'a{i + 1}: &a{i + 1} [{", ".join([f"*a{i}"] * wide)}]' for i in range(deep)]
    return '\n'.join(lines)


def _merges(deep: int = 9) -> str:
    lines = ['a0: &a0 {x: 1}']
    lines += [f'a{i + 1}: &a{i + 1} {{<<: [{", ".join([f"*a{i}"] * 10)}]}}' for i in range(deep)]
    return '\n'.join(lines)


YAML_TEXTS: dict[str, str | bytes] = {
    'aliases': _laughs(),
    'merges': _merges(),
    'long alias': 'a: &a "' + 'x' * 10**5 + '"\nb: [' + '*a,' * 10**4 + ']',
    'itself': '&a [*a]',
    'deep lists': '[' * 10**5,
    'deep blocks': '- ' * 10**5,
    'deep maps': '{a: ' * 10**5,
    'wide': '[' + '1,' * 10**5 + ']',
    'digits': 'name: ' + '9' * 10**5,
    'hexadecimal digits': 'name: 0x' + 'f' * 10**5,
    'no date': 'name: 2001-99-99',
    'no bool': 'name: !!bool x',
    'no int': 'name: !!int x',
    'python': 'name: !!python/object/apply:os.system ["true"]',
    'binary': 'name: !!binary "%%%"',
    'keys twice': 'name: 1\nname: 2',
    'list as a key': '? [a]\n: 1',
    'two documents': 'a: 1\n---\nb: 2',
    'no alias': '*a',
    'open': 'a: [1',
    'nothing': '',
    'null': 'null',
    'number': '12',
    'list': '- 1\n- 2',
    'utf-16': 'a: 1'.encode('utf-16'),
    'latin-1': b'a: \xe9',
    'nulls': b'\0' * 1000,
    'escapes': 'a\\x1b[31m: "\\x1b]0;owned\\x07"\n"\\e[2J": {"\\x07": 1}',
    'too large': '#' * (2 * MIB),
    'config null': 'config: null\nrobot: null\noverrides: null',
}


SLOW_TEXTS = ('wide', 'deep lists')
BAG_TEXTS = ('aliases', 'merges', 'digits', 'keys twice', 'escapes', 'utf-16', 'null', 'too large')
"""Bags take longer."""


def _text(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def _yaml_cases() -> Iterator[Case]:
    for name, text in YAML_TEXTS.items():
        for reader in ('robot', 'preset', 'run', 'marks', 'sidecar', 'recipe'):
            if reader in ('marks', 'recipe') and name in ('nothing', 'null'):
                continue  # Of these, nothing is a content.
            slow = name in SLOW_TEXTS and reader != 'preset'  # One reader reads them all.
            yield Case(f'{reader}: {name}', reader, _text('file.yaml', text), slow)
        if isinstance(text, str) and len(text) < 2000 and text.strip():
            yield Case(f'assignment: {name}', 'assignment', _text('value', f'nope={text}'))
        slow = name not in BAG_TEXTS
        yield Case(f'bag metadata: {name}', 'bag', _bag_with('metadata.yaml', text), slow)
    yield Case('preset extends itself', 'preset', _text('file.yaml', 'extends: file.yaml'))
    yield Case('robot: a pipe', 'robot', _pipe('file.yaml'))
    yield Case('robot: a device', 'robot', _link('file.yaml', '/dev/zero'))
    yield Case('robot: a folder', 'robot', _folder('file.yaml'))


def _pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _link(name: str, target: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _folder(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


# --- JSON

JSON_TEXTS: dict[str, str | bytes] = {
    'deep lists': '[' * 10**5 + ']' * 10**5,
    'deep objects': '{"a":' * 10**5,
    'digits': '{"a":' + '9' * 10**5 + '}',
    'NaN': '{"horizon": NaN, "fps": NaN, "total_frames": NaN}',
    'infinity': '{"horizon": 1e999, "fps": -Infinity}',
    'keys twice': '{"horizon": 1, "horizon": 2}',
    'values': '[' + '[],' * (2 * 10**6) + '0]',
    'quotes': '"' + '\\"' * 10**6,
    'null': 'null',
    'list': '[]',
    'text': '"x"',
    'cut': '{"a": [1,',
    'nothing': '',
    'latin-1': b'{"a": "\xe9"}',
    'surrogate': '{"\\ud800": "\\udfff"}',
    'escapes': '{"\\u001b[31m": "\\u0007"}',
}


def _json_cases() -> Iterator[Case]:
    for name, text in JSON_TEXTS.items():
        if isinstance(text, str):
            yield Case(f'policy metadata: {name}', 'metadata', _text('file.json', text))
        yield Case(f'dataset info: {name}', 'dataset', _text('set/meta/info.json', text))
        path = 'run/checkpoints/latest/learner.json'
        yield Case(f'learner state: {name}', 'run folder', _text(path, text))
        yield Case(f'run summary: {name}', 'summary', _text('run/summary.json', text))
        yield Case(f'checkpoint: {name}', 'checkpoint', _checkpoint('learner.json', text))


def _checkpoint(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        _text(f'latest/{name}', content)(folder)
        return folder / 'latest'

    return make


# --- robots and layouts

ROBOT = {
    'name': 'toy',
    'control_rate_hz': 20.0,
    'command': {'topic': 'command', 'type': FLOAT_ARRAY},
    'action': {'names': ['a'], 'lower': [-1.0], 'upper': [1.0], 'max_velocity': [1.0]},
    'observation': {
        'channels': ['arm'],
        'arm': {'topic': 'arm', 'type': FLOAT_ARRAY, 'fields': ['x'], 'max_age_s': 0.2},
    },
}
ROBOT_CHANGES: dict[str, tuple[str, str]] = {
    'infinite limit': ('[-1.0]', '[-.inf]'),
    'NaN as a limit': ('[-1.0]', '[.nan]'),
    'overflow as a limit': ('[-1.0]', '[-1.0e+999]'),
    'infinite rate': ('20.0', '.inf'),
    'endless rate': ('20.0', '1.0e-320'),
    'date as a rate': ('20.0', '2001-01-01'),
    'sexagesimal rate': ('20.0', '1:30'),
    'octal rate': ('20.0', '017'),
    'action twice': ('"action"', '"action": {}, "action"'),
    'name with escapes': ("['a']", '["\\x1b[31m"]'),
    'names without end': ("['a']", '[' + ','.join(f'n{i}' for i in range(40_000)) + ']'),
    'aliases as names': ("['a']", '[&a [x,x,x,x,x,x,x,x,x,x],' + '*a,' * 2000 + ']'),
    'boolean rate': ('20.0', 'yes'),
    'text as a list': ("['arm']", '"arm"'),
    'number as a topic': ("'topic': 'arm'", "'topic': 7"),
}


def _robot_cases() -> Iterator[Case]:
    for name, (old, new) in ROBOT_CHANGES.items():
        text = str({'/**': {'ros__parameters': {'robot': ROBOT}}}).replace("'action'", '"action"')
        assert old in text, old
        changed = text.replace(old, new, 1)
        slow = name == 'names without end'
        yield Case(f'robot: {name}', 'robot', _text('robot.yaml', changed), slow)


LAYOUTS: dict[str, str] = {
    'aliases as names': f'{_laughs(9, 8)}\nversion: 1\nobservation_names: *a8\n',
    'merged names': f'{_merges(8)}\nversion: 1\nobservation_names: *a8\n',
    'giant': L.to_yaml().replace('decision_steps: 2', 'decision_steps: 1000000000'),
    'large decisions': str({**L.to_mapping(), 'decision_steps': 1000, 'action_names': [
        f'a{i}' for i in range(100)], 'action_min': [-1.0] * 100, 'action_max': [1.0] * 100,
        'residual_bound': [0.1] * 100}),
    'infinite bound': str({**L.to_mapping(), 'residual_bound': 'X'}).replace("'X'", '[.inf, 1]'),
    'escapes': L.to_yaml().replace('observation_names:', 'observation_names:\n- "\\e[31m"'),
    'version twice': L.to_yaml() + 'version: 1\n',
    'list': '[]',
    'numbers as names': str({**L.to_mapping(), 'observation_names': [1, 2, 3]}),
}  # fmt: skip


def _layout_cases() -> Iterator[Case]:
    for name, text in {**YAML_TEXTS, **LAYOUTS}.items():
        if isinstance(text, str):
            slow = name in SLOW_TEXTS
            yield Case(f'layout: {name}', 'layout', _text('layout', text), slow)
        if name in LAYOUTS and isinstance(text, str):
            yield Case(f'bag with layout: {name}', 'bag', _mcap(_layout_records(text)))


def _layout_records(text: str) -> bytes:
    message = serialize(typestore().types[TEXT](data=text), TEXT)
    return (
        _declared(0, LAYOUT, TEXT)
        + _declared(1, TRANSITIONS, FLOAT_ARRAY)
        + _message(0, message)
        + _message(1, labelled_array([0.0], 'x'))
    )


# --- MCAP


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
    *('chunks of zeros', 'lz4 zeros', 'a message of every channel', 'empty records in chunks'),
    *('damaged chunks', 'chunks that overlap'),
)


def _mcap_cases() -> Iterator[Case]:
    for name, build in MCAPS.items():
        yield Case(f'mcap: {name}', 'bag', _late(build), name in SLOW_MCAPS)
    yield Case('mcap: nothing', 'bag', _text('bag.mcap', b''))
    yield Case('mcap: magic alone', 'bag', _text('bag.mcap', MAGIC))
    yield Case('mcap: noise', 'bag', _text('bag.mcap', np.random.default_rng(0).bytes(MIB)))
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
    yield Case('sqlite: nothing', 'bag', _text('bag.db3', b''))
    yield Case('sqlite: noise', 'bag', _text('bag.db3', np.random.default_rng(1).bytes(MIB)))
    header = b'SQLite format 3\0' + bytes(4080)
    yield Case('sqlite: a header alone', 'bag', _text('bag.db3', header))


# --- folders


def _bag_with(name: str, content: str | bytes) -> Make:
    """Write a good bag, and one file more or another one."""

    def make(folder: Path) -> Path:
        bag = write_bag(folder / 'bag', L, random_transitions(L, 3))
        _text(name, content)(bag)
        return bag

    return make


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
        yield Case(f'folder: {name} beside', 'bag', _bag_with(name, b'x' * 100))
    yield Case('folder: names with escapes', 'bag', _bag_with('\x1b[2Jx\n.mcap', b'x'))
    yield Case('folder: links back', 'bag', _links_back)
    yield Case('folder: deep', 'bag', _deep_folders)
    yield Case('folder: many files', 'bag', _many_files)
    yield Case('folder: a pipe', 'bag', lambda folder: _pipe('bag.mcap')(folder).parent)
    yield Case('folder: a device', 'bag', lambda f: _link('bag.mcap', '/dev/zero')(f).parent)
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
        _text('set/meta/info.json', json.dumps(info))(folder)
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
    return lambda path: _text(path.name, content)(path.parent) and None


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
    return lambda folder: _text(name, build())(folder)
