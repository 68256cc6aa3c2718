# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One mechanism checks every configuration: it names all that is wrong, and converts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.files.limits import TEXT_BYTES
from residual_rl_ros.schema import from_mapping, leaves, parameter, read_yaml


@dataclass(frozen=True)
class Inner:
    rate: float = parameter(20.0, 'a rate [Hz]', above=0.0)


@dataclass(frozen=True)
class Example:
    name: str = parameter(MISSING, 'a name', filled=True)
    count: int = parameter(1, 'a count', 1, 9)
    flag: bool = parameter(False, 'a flag')
    sizes: tuple[int, ...] = parameter((), 'sizes', 1)
    kind: str = parameter('one', 'a kind', choices=('one', 'two'))
    kinds: tuple[str, ...] = parameter((), 'kinds', choices=('one', 'two'))
    extra: dict[str, Any] = field(default_factory=dict)
    maps: tuple[dict[str, Any], ...] = parameter((), 'maps')
    inner: Inner = field(default_factory=Inner)
    inners: tuple[Inner, ...] = parameter((), 'a list of them', filled=True)
    topic: str = parameter('', 'a topic', ros_name=True)

    def problems(self) -> Iterator[str]:
        if self.flag and not self.sizes:
            yield 'flag is true and sizes empty'


def problems(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Example, {'name': 'x', **values}, 'file')
    return caught.value.problems


def test_what_a_map_lacks_is_a_default_and_whole_numbers_pass_as_floats() -> None:
    values = {'name': 'x', 'count': 2.0, 'sizes': [3], 'maps': [{'a': 1}], 'inner': {'rate': 5}}
    made = from_mapping(Example, {**values, 'inners': [{}, {'rate': 3}]}, 'file')
    inners = (Inner(20.0), Inner(3.0))
    assert made == Example('x', 2, sizes=(3,), maps=({'a': 1},), inner=Inner(5.0), inners=inners)
    assert isinstance(made.inner.rate, float)
    assert isinstance(made.count, int)


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [
        ('name', '', "name is '', expected a non-empty string"),
        ('count', 0, 'count is 0, expected a whole number >= 1 and <= 9'),
        ('count', 10, 'count is 10, expected a whole number >= 1 and <= 9'),
        ('count', True, 'count is True, expected a whole number >= 1 and <= 9'),
        ('count', '3', "count is '3', expected a whole number >= 1 and <= 9"),
        ('count', float('inf'), 'count is inf, expected a whole number >= 1 and <= 9'),
        ('flag', 1, 'flag is 1, expected true or false'),
        ('sizes', 3, 'sizes is 3, expected a list of whole numbers >= 1'),
        ('sizes', [3, 0], 'sizes is [3, 0], expected a list of whole numbers >= 1'),
        ('kind', 'three', "kind is 'three', expected one of one, two"),
        ('kinds', ['one', 'three'], "kinds is ['one', 'three'], expected a list of one, two"),
        ('extra', [1], 'extra is [1], expected a map'),
        ('maps', {'a': 1}, "maps is {'a': 1}, expected a list of maps"),
        ('maps', [{'a': 1}, 2], "maps is [{'a': 1}, 2], expected a list of maps"),
        ('inner', 3, 'inner is 3, expected a map'),
        ('inners', {'rate': 1}, "inners is {'rate': 1}, expected a non-empty list of maps"),
        ('inners', [], 'inners is [], expected a non-empty list of maps'),
        ('inners', [{}, 3], 'inners[1] is 3, expected a map'),
        ('inners', [{}, {'rate': 0}], 'inners[1].rate is 0, expected a number > 0.0'),
        ('inners', [{'rat': 1}], 'inners[0].rat is unknown; did you mean rate?'),
        ('inner', {'rate': 0}, 'inner.rate is 0, expected a number > 0.0'),
        ('inner', {'rate': float('nan')}, 'inner.rate is nan, expected a number > 0.0'),
        *(
            (
                'inner',
                {'rate': text},
                f'inner.rate is {text!r}, expected a number > 0.0; to YAML {text} is a string: '
                f'write {written}',
            )
            for text, written in (('1e9', '1.0e+9'), ('-1.5E3', '-1.5e+3'), ('.5e3', '.5e+3'))
        ),
        ('inner', {'rat': 1.0}, 'inner.rat is unknown; did you mean rate?'),
        (
            *('zzz', 3),
            'zzz is unknown; known are count, extra, flag, inner, inners, kind, kinds, maps, name, '
            'sizes, topic',
        ),
        *(
            (
                'topic',
                name,
                f'topic is {name!r}, expected a ROS name: words of letters, digits and _, / '
                'between them, no digit first',
            )
            for name in ('joint states!', '/a//b', 'a/', '1a', '~a', '/', 'é')
        ),
        ('flag', True, 'flag is true and sizes empty'),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(
    key: str, value: object, expected: str
) -> None:
    assert problems(**{key: value}) == (expected,)


@pytest.mark.parametrize('name', ['', 'a', '/a/b_1', '~/a'])
def test_a_ros_name_passes(name: str) -> None:
    assert from_mapping(Example, {'name': 'x', 'topic': name}, 'file').topic == name


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Example, {'count': 0, 'inner': {'rate': -1}, 'cont': 1}, 'my.yaml')
    assert caught.value.problems == (
        'cont is unknown; did you mean count?',
        'name is missing, expected a non-empty string',
        'count is 0, expected a whole number >= 1 and <= 9',
        'inner.rate is -1, expected a number > 0.0',
    )
    assert str(caught.value) == f'my.yaml: {"; ".join(caught.value.problems)}'


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_no_value_passes_unchecked_or_raises_anything_else(value: object) -> None:
    for name in ('count', 'sizes', 'kind', 'flag', 'inner'):
        try:
            made = from_mapping(Example, {'name': 'x', name: value}, 'file')
        except ConfigError:
            continue
        assert 1 <= made.count <= 9
        assert all(type(size) is int and size >= 1 for size in made.sizes)
        assert made.kind in ('one', 'two')


@pytest.mark.parametrize('content', [b'\xff\xfe', b'{', b'a: ' + b'x' * TEXT_BYTES])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'my.yaml').write_bytes(content)
    with pytest.raises(ConfigError, match=r'my\.yaml: '):
        read_yaml(tmp_path / 'my.yaml', 'preset')
    with pytest.raises(ConfigError, match=r'none\.yaml: cannot read preset'):
        read_yaml(tmp_path / 'none.yaml', 'preset')


def test_a_reference_can_list_every_key() -> None:
    names = [name for name, _, _ in leaves(Example)]
    assert names == [
        'name',
        'count',
        'flag',
        'sizes',
        'kind',
        'kinds',
        'extra',
        'maps',
        'inner.rate',
        'inners',
        'topic',
    ]
