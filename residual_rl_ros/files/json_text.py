# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""JSON, as RFC 8259 has it: no key twice, no NaN, no infinity."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.errors import FormatError
from residual_rl_ros.files.limits import (
    DEPTH,
    DIGITS,
    JSON_VALUES,
    RESULT_BYTES,
    TEXT_BYTES,
    read_text,
)

STRING = re.compile(r'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
LONG_NUMBER = re.compile(rf'[0-9.eE+-]{{{DIGITS + 1}}}')


def parse_json(text: str, what: str, finite: bool = True) -> Any:
    """Return the content of a JSON text.

    Args:
        text: the text.
        what: what it is, for the error.
        finite: refuse NaN and infinities, which Python writes and JSON does not have.

    Raises:
        FormatError: it is none, holds a key twice, or asks for more than the limits.
    """
    try:
        _check_structure(text)
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_finite if finite else None,
            parse_constant=_finite if finite else None,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f'{what} is not JSON: {error}') from error


def read_json(path: Path, limit: int = TEXT_BYTES, finite: bool = True) -> Any:
    """Return the content of a JSON file of at most so many bytes.

    Raises:
        FormatError: as of `parse_json` and `limits.read_text`.
    """
    return parse_json(read_text(path, limit), path.name, finite)


def read_run_json(path: Path) -> Any:
    """Return the content of a JSON file that a run of ours wrote; a number in it may be NaN.

    Raises:
        FormatError: as of `read_json`.
    """
    return read_json(path, RESULT_BYTES, finite=False)


def _check_structure(text: str) -> None:
    """Count depth and values before any of them is made.

    Raises:
        ValueError: there are too many.
    """
    bare = STRING.sub('', text)
    if LONG_NUMBER.search(bare):
        raise ValueError(f'a number has more than {DIGITS} characters')
    characters = np.frombuffer(bare.encode('utf-8', 'replace'), dtype=np.uint8)
    opening = np.isin(characters, np.frombuffer(b'[{', dtype=np.uint8))
    closing = np.isin(characters, np.frombuffer(b']}', dtype=np.uint8))
    changes = opening.astype(np.int8) - closing.astype(np.int8)
    where = np.flatnonzero(changes)
    if len(where) and int(np.cumsum(changes[where], dtype=np.int64).max()) > DEPTH:
        raise ValueError(f'more than {DEPTH} lists and objects are within one another')
    values = 1 + int(np.isin(characters, np.frombuffer(b'[{,:', dtype=np.uint8)).sum())
    if values > JSON_VALUES:
        raise ValueError(f'it has more than {JSON_VALUES} values')


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f'key {twice!r} occurs twice')
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text} is no number of JSON')
    return value


def plain(value: Any) -> Any:
    """Return a value as JSON would give it back: tuples are lists, and names are texts."""
    return json.loads(json.dumps(value))
