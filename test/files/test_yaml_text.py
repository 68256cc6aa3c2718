# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""YAML means what its writer wrote, once, and within limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.limits import TEXT_BYTES
from residual_rl_ros.files.yaml_text import parse_yaml, read_yaml

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=['Cs', 'Cc']))
    | st.from_regex(r'[-+0-9.:eE_xXoO~=<*&]{0,8}', fullmatch=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abc'), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_was_dumped_is_read_again(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value), 'text') == value


@pytest.mark.parametrize(
    'text', ['2001-01-01', '2001-99-99', '2001-01-01 10:00:00', '1:30', '190:20:30', '017', '=']
)
def test_dates_and_odd_numbers_stay_what_was_written(text: str) -> None:
    assert parse_yaml(f'a: {text}', 'text') == {'a': text}


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('a: 1\nb: 2\na: 3', "key 'a' occurs twice (line 3)"),
        ('{1: a, 0x1: b}', "key '0x1' occurs twice"),
        ('a: &x {b: 1}\nc: {<<: *x, <<: *x}', "key '<<' occurs twice"),
        ('&a [*a]', 'alias *a is within what it stands for'),
        ('[' * 100, 'more than 64 lists and maps'),
        (f'a: {"9" * 101}', 'a number has more than 100 characters (line 1)'),
        ('a: !!python/name:os.system x', 'could not determine a constructor'),
        ('a: !!int x', "'x' is no !!int"),
        ('a: !!map [1]', 'a map is expected'),
        ('? [a]\n: 1', 'a key is no single value'),
        ('a: &a ' + 'x' * 2**19 + '\nb: [*a, *a]', 'its aliases make more than 1048576 characters'),
        ('a: &a [1, 1]\nb: [' + '*a,' * 20_000 + ']', 'more than 50000 values'),
        ('#' * (TEXT_BYTES + 1), 'expected at most 1048576'),
    ],
)
def test_what_is_refused_is_named(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=re.escape(reason)):
        parse_yaml(text, 'text')


def test_merged_keys_may_be_replaced() -> None:
    text = 'a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {y: 4, <<: [*a, {z: 5}]}'
    read = parse_yaml(text, 'text')
    assert read['b'] == {'x': 1, 'y': 3}
    assert read['c'] == {'x': 1, 'y': 4, 'z': 5}


def test_every_shipped_file_reads_as_pyyaml_reads_it() -> None:
    files = sorted((Path(__file__).parents[2] / 'config').rglob('*.yaml'))
    assert len(files) > 10
    for file in files:
        assert read_yaml(file) == yaml.safe_load(file.read_text()), file


def test_a_device_is_no_file() -> None:
    with pytest.raises(FormatError, match='no regular file'):
        read_yaml(Path('/dev/zero'))
