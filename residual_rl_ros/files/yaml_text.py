# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""YAML: maps, lists, strings, numbers, true, false and null; nothing else, and nothing twice.

What YAML 1.1 makes of other scalars surprises: dates, sexagesimal (`1:30` is 90) and octal numbers
(`017` is 15) stay the strings that were written, so that a checked key refuses them by name. Keys
that occur twice are refused: one of them would be lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.limits import DEPTH, DIGITS, TEXT_BYTES, YAML_NODES, read_text

TAG = 'tag:yaml.org,2002:'
MERGE = f'{TAG}merge'


def parse_yaml(text: str, what: str) -> Any:
    """Return the content of a YAML text.

    Args:
        text: one document, or nothing.
        what: what it is, for the error.

    Raises:
        FormatError: it is none, holds a key twice, or asks for more than the limits.
    """
    if len(text) > TEXT_BYTES:
        raise FormatError(f'{what} has {len(text)} characters, expected at most {TEXT_BYTES}')
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FormatError(f'{what} is not YAML: {error}') from error


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        FormatError: as of `parse_yaml` and `limits.read_text`.
    """
    return parse_yaml(read_text(path), path.name)


class _Loader(yaml.SafeLoader):
    """Counts while it composes: before anything is made of the nodes."""

    # PyYAML looks for both in the class; those of its own loaders are left alone.
    yaml_constructors: ClassVar[dict[Any, Any]] = {}
    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = self._characters = 0
        self._sizes: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; an alias counts as much as what it stands for."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise ValueError(f'alias *{event.anchor} is within what it stands for')
            self._count(*self._sizes[id(node)])
            return node
        if self._depth >= DEPTH:
            raise ValueError(f'more than {DEPTH} lists and maps are within one another')
        self._depth += 1
        before = self._nodes, self._characters
        self._count(1, len(getattr(self.peek_event(), 'value', None) or ''))  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before[0], self._characters - before[1]
        return node

    def _count(self, nodes: int, characters: int) -> None:
        self._nodes += nodes
        self._characters += characters
        if self._nodes > YAML_NODES:
            raise ValueError(f'it has more than {YAML_NODES} values, aliases counted at each use')
        if self._characters > TEXT_BYTES:
            raise ValueError(f'its aliases make more than {TEXT_BYTES} characters')

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a map whose keys are all different; what it merges (`<<`) it may replace."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f'a key is no single value{_place(key)}')
            found = MERGE if key.tag == MERGE else self.construct_object(key)
            if found in seen:
                raise ValueError(f'key {key.value!r} occurs twice{_place(key)}')
            seen.add(found)
        return node

    def map(self, node: yaml.Node) -> dict[Any, Any]:
        """Return a map."""
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f'a map is expected{_place(node)}')
        self.flatten_mapping(node)
        pairs = ((self.construct_object(key), value) for key, value in node.value)
        return {key: self.construct_object(value, True) for key, value in pairs}

    def list(self, node: yaml.Node) -> list[Any]:
        """Return a list."""
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f'a list is expected{_place(node)}')
        return [self.construct_object(value, True) for value in node.value]


def _place(node: yaml.Node) -> str:
    mark = node.start_mark
    return f' (line {mark.line + 1})' if mark is not None else ''


def _scalar(kind: str, pattern: str) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    """Register how the text of a scalar becomes a value of a tag, given or implied."""

    def add(make: Callable[[str], Any]) -> Callable[[str], Any]:
        def construct(loader: _Loader, node: yaml.Node) -> Any:
            if not isinstance(node, yaml.ScalarNode):
                raise ValueError(f'!!{kind} is for a single value{_place(node)}')
            text = str(node.value)
            if not re.fullmatch(pattern, text):
                raise ValueError(f'{text[:DIGITS]!r} is no !!{kind}{_place(node)}')
            if kind in ('int', 'float') and len(text) > DIGITS:
                raise ValueError(f'a number has more than {DIGITS} characters{_place(node)}')
            return make(text)

        _Loader.add_constructor(TAG + kind, construct)
        if kind != 'str':
            # PyYAML looks resolvers up by first character; None is any.
            _Loader.add_implicit_resolver(TAG + kind, re.compile(f'(?:{pattern})\\Z'), [None])
        return make

    return add


_Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)  # type: ignore[type-var]
_Loader.add_constructor(f'{TAG}map', _Loader.map)
_Loader.add_constructor(f'{TAG}seq', _Loader.list)
_Loader.add_implicit_resolver(MERGE, re.compile(r'<<\Z'), ['<'])


@_scalar('str', r'(?s:.*)')
def _string(text: str) -> str:
    return text


@_scalar('null', r'~|null|Null|NULL|')
def _null(text: str) -> None:
    return None


@_scalar('bool', r'(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)')
def _bool(text: str) -> bool:
    return text.lower() in ('true', 'yes', 'on')


@_scalar('int', r'[-+]?(?:0|[1-9][0-9_]*|0b[0-1_]+|0x[0-9a-fA-F_]+)')
def _int(text: str) -> int:
    return int(text.replace('_', ''), 0)


@_scalar(
    'float',
    r'[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?'
    r'|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)',
)
def _float(text: str) -> float:
    text = text.replace('_', '').lower()
    return float(text.replace('.inf', 'inf').replace('.nan', 'nan'))
