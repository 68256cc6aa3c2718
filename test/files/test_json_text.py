# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""JSON within limits, without what JSON does not have."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.json_text import parse_json, read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_what_was_dumped_is_read_again(value: Any) -> None:
    assert parse_json(json.dumps(value), 'text') == value


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{"a": {"b": 1, "b": 2}}', "key 'b' occurs twice"),
        ('[NaN]', 'NaN is no number'),
        ('{"a": -Infinity}', '-Infinity is no number'),
        ('[1e999]', '1e999 is no number'),
        ('[' * 100_000 + ']' * 100_000, 'more than 64 lists and objects'),
        ('[' * 100_000, 'more than 64 lists and objects'),
        ('{"a":' * 100_000, 'more than 64 lists and objects'),
        (f'[{"1" * 101}]', 'a number has more than 100 characters'),
        ('[' + '0,' * 2_000_000 + '0]', 'it has more than 2000000 values'),
        ('"' + '\\"' * 100_000, 'Unterminated string'),
        ('[1,', 'Expecting value'),
    ],
)
def test_what_is_refused_is_named(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=f'^text is not JSON: {re.escape(reason)}'):
        parse_json(text, 'text')


def test_brackets_in_texts_do_not_count() -> None:
    text = json.dumps(['[{' * 1000, '\\"[' * 100, ']' * 1000])
    assert parse_json(text, 'text') == json.loads(text)


def test_results_may_hold_a_number_that_is_none() -> None:
    assert math.isnan(parse_json('NaN', 'text', finite=False))


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_text('[' + ' ' * 100 + ']')
    assert read_json(tmp_path / 'a.json', 102) == []
    with pytest.raises(FormatError, match='larger than 101 bytes'):
        read_json(tmp_path / 'a.json', 101)
