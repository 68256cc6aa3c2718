# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile texts: YAML, JSON, robots and layouts; `hostile_files` has the other formats.

Each case writes below a folder of its own and returns what is to be read. Nothing is random.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bag_builders import write_bag
from transition_builders import make_layout, random_transitions
from urdf_builders import joint, link, mesh, two_links, urdf

from residual_rl_ros.robot.topics import FLOAT_ARRAY

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


def text_file(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def yaml_cases() -> Iterator[Case]:
    for name, text in YAML_TEXTS.items():
        for reader in ('robot', 'preset', 'run', 'marks', 'sidecar', 'recipe'):
            if reader in ('marks', 'recipe') and name in ('nothing', 'null'):
                continue  # Of these, nothing is a content.
            slow = name in SLOW_TEXTS and reader != 'preset'  # One reader reads them all.
            yield Case(f'{reader}: {name}', reader, text_file('file.yaml', text), slow)
        if isinstance(text, str) and len(text) < 2000 and text.strip():
            yield Case(f'assignment: {name}', 'assignment', text_file('value', f'nope={text}'))
        slow = name not in BAG_TEXTS
        yield Case(f'bag metadata: {name}', 'bag', bag_with('metadata.yaml', text), slow)
    yield Case('preset extends itself', 'preset', text_file('file.yaml', 'extends: file.yaml'))
    yield Case('robot: a pipe', 'robot', pipe('file.yaml'))
    yield Case('robot: a device', 'robot', link_to('file.yaml', '/dev/zero'))
    yield Case('robot: a folder', 'robot', _folder('file.yaml'))


def pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def link_to(name: str, target: str) -> Make:
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


def json_cases() -> Iterator[Case]:
    for name, text in JSON_TEXTS.items():
        if isinstance(text, str):
            yield Case(f'policy metadata: {name}', 'metadata', text_file('file.json', text))
        yield Case(f'dataset info: {name}', 'dataset', text_file('set/meta/info.json', text))
        path = 'run/checkpoints/latest/learner.json'
        yield Case(f'learner state: {name}', 'run folder', text_file(path, text))
        yield Case(f'run summary: {name}', 'summary', text_file('run/summary.json', text))
        yield Case(f'checkpoint: {name}', 'checkpoint', _checkpoint('learner.json', text))


def _checkpoint(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        text_file(f'latest/{name}', content)(folder)
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


def robot_cases() -> Iterator[Case]:
    for name, (old, new) in ROBOT_CHANGES.items():
        text = str({'/**': {'ros__parameters': {'robot': ROBOT}}}).replace("'action'", '"action"')
        assert old in text, old
        changed = text.replace(old, new, 1)
        slow = name == 'names without end'
        yield Case(f'robot: {name}', 'robot', text_file('robot.yaml', changed), slow)


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


def layout_cases() -> Iterator[Case]:
    for name, text in {**YAML_TEXTS, **LAYOUTS}.items():
        if isinstance(text, str):
            slow = name in SLOW_TEXTS
            yield Case(f'layout: {name}', 'layout', text_file('layout', text), slow)


# --- URDF

LAUGHS = ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "x" * 10}">' for i in range(10))
ARM = two_links(collision=mesh('tip.stl'))
URDFS: dict[str, str | bytes] = {
    'entities': f'<!DOCTYPE robot [{LAUGHS}]><robot name="&a9;"/>',
    'file of the computer': '<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]><robot name="&a;"/>',
    'document type elsewhere': '<!DOCTYPE robot SYSTEM "http://none.example/a.dtd"><robot/>',
    'deep': '<robot>' * 10**5,
    'wide': f'<robot>{"<link/>" * 10**5}</robot>',
    'links': urdf(*(link(f'l{i}') for i in range(10_000))),
    'attributes': f'<robot {" ".join(f"a{i}=_" for i in range(10**5))}/>'.replace('_', '""'),
    'too large': f'<robot name="{"x" * 2 * MIB}"/>',
    'chain': urdf(
        *(link(f'l{i}') for i in range(101)),
        *(joint(f'j{i}', f'l{i}', f'l{i + 1}') for i in range(100)),
    ),
    'long chain': urdf(
        *(link(f'l{i}') for i in range(500)),
        *(joint(f'j{i}', f'l{i}', f'l{i + 1}') for i in range(499)),
    ),
    'loop': urdf(link('a'), link('b'), joint('x', 'a', 'b'), joint('y', 'b', 'a')),
    'no number': ARM.replace('upper="3"', 'upper="three"'),
    'NaN': ARM.replace('upper="3"', 'upper="nan"'),
    'overflow': ARM.replace('upper="3"', 'upper="1e999"'),
    'negative shape': two_links().replace('radius="0.05"', 'radius="-1"'),
    'escapes': ARM.replace('name="tip"', 'name="\x9b31m"'),
    'xacro': ARM.replace('name="made"', 'name="$(arg name)"'),
    'sdf': '<sdf version="1.6"><model name="arm"/></sdf>',
    'list': '[]',
    'nothing': '',
    'latin-1': b'<robot name="\xe9"/>',
    'nulls': b'\0' * 1000,
}
MESHES: dict[str, bytes] = {
    'nothing': b'',
    'junk': b'\xff' * 1000,
    'claims millions of triangles': b'\0' * 80 + b'\xff' * 4 + b'\0' * 50,
    'open': b'solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0',
    'no number': b'solid x\nfacet normal x\nouter loop\nvertex 1 2\nendloop\nendfacet\n',
    'one point': b'\0' * 80 + b'\1\0\0\0' + b'\0' * 50,
}


def urdf_cases() -> Iterator[Case]:
    for name, text in URDFS.items():
        yield Case(f'urdf: {name}', 'urdf', text_file('arm.urdf', text))
    for name, content in MESHES.items():
        yield Case(f'mesh: {name}', 'urdf', _with_mesh(content))
    yield Case('urdf: a pipe', 'urdf', pipe('arm.urdf'))
    yield Case('urdf: a device', 'urdf', link_to('arm.urdf', '/dev/zero'))


def _with_mesh(content: bytes) -> Make:
    def make(folder: Path) -> Path:
        text_file('tip.stl', content)(folder)
        return text_file('arm.urdf', ARM)(folder)

    return make


def bag_with(name: str, content: str | bytes) -> Make:
    """Write a good bag, and one file more or another one."""

    def make(folder: Path) -> Path:
        bag = write_bag(folder / 'bag', L, random_transitions(L, 3))
        text_file(name, content)(bag)
        return bag

    return make
