# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a training run, as its checkpoint has it: looked up by path and type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.files.limits import DEPTH
from residual_rl_ros.importing.pickle_program import Record

T = TypeVar('T')
MOST_NODES = 50_000
"""Values of a configuration."""
CONTAINERS = ('omegaconf.dictconfig.DictConfig', 'omegaconf.listconfig.ListConfig')
NODES = 'omegaconf.nodes.'


@dataclass(frozen=True)
class StoredConfig:
    """A configuration: maps within maps."""

    content: Mapping[str, Any]
    source: str
    """Where it is from, for errors."""

    def get(self, path: str, kind: type[T], default: T | None = None) -> T:
        """Return the value at a path such as `algo.rnn.horizon`.

        Args:
            path: keys, with a dot between them.
            kind: its type; an integer is a float too.
            default: value if it is missing; None: it must not be.

        Raises:
            PolicyImportError: it is missing or of another type.
        """
        value = self.find(path)
        if value is None and default is not None:
            return default
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise PolicyImportError(
                f'{path} of {self.source} is {shown(value)}, expected {_named(kind)}'
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise PolicyImportError(f'{path} of {self.source} is {value}, expected a finite number')
        return value

    def find(self, path: str) -> Any:
        """Return the value at a path, None if there is none."""
        value: Any = self.content
        for key in path.split('.'):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def integers(self, path: str, least: int = 1) -> tuple[int, ...]:
        """Return a list of integers.

        Raises:
            PolicyImportError: it is none, or one is smaller than `least`.
        """
        value = self.find(path)
        if not isinstance(value, (list, tuple)) or not all(
            type(each) is int and each >= least for each in value
        ):
            raise PolicyImportError(
                f'{path} of {self.source} is {shown(value)}, expected a list of integers >= {least}'
            )
        return tuple(value)

    def map(self, path: str) -> Mapping[str, Any]:
        """Return a map; one that is missing or null is empty.

        Raises:
            PolicyImportError: there is something else.
        """
        return self.get(path, dict, {})

    def names(self, path: str) -> list[str]:
        """Return a list of texts; one that is missing or null is empty.

        Raises:
            PolicyImportError: there is something else.
        """
        found = self.find(path) or []
        if not isinstance(found, (list, tuple)) or not all(isinstance(key, str) for key in found):
            raise PolicyImportError(
                f'{path} of {self.source} is {shown(found)}, expected a list of names'
            )
        return list(found)

    def flag(self, path: str) -> bool:
        """Return whether a switch is on; one that is missing is off.

        Raises:
            PolicyImportError: it is no switch.
        """
        return self.get(path, bool, False)


def _named(kind: type) -> str:
    return {int: 'an integer', float: 'a number', str: 'a text', bool: 'true or false'}.get(
        kind, 'a map' if issubclass(kind, Mapping) else f'a {kind.__name__}'
    )


def plain_config(record: Any, source: str) -> StoredConfig:
    """Return the configuration that records of OmegaConf describe.

    Args:
        record: the record of the whole.
        source: where it is from, for errors.

    Raises:
        PolicyImportError: it is none, or larger than the limits.
    """
    reader = _RecordReader(source)
    content = reader.plain(record, 0)
    if not isinstance(content, dict):
        raise PolicyImportError(
            f'the configuration of {source} is {shown(content)}, expected a map'
        )
    return StoredConfig(content, source)


class _RecordReader:
    """Makes plain values of records, and counts them."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0

    def plain(self, value: Any, depth: int) -> Any:
        """Return maps, lists, texts and numbers; what is missing (`???`) stays that text."""
        self._count += 1
        if depth > DEPTH or self._count > MOST_NODES:
            raise PolicyImportError(
                f'the configuration of {self._source} has more than {MOST_NODES} values or a '
                f'depth of more than {DEPTH}'
            )
        if isinstance(value, Record):
            state = value.state if isinstance(value.state, Mapping) else {}
            if value.name in CONTAINERS:
                return self.plain(state.get('_content'), depth)
            if value.name.startswith(NODES):
                return self.plain(state.get('_val'), depth)
            raise PolicyImportError(
                f'the configuration of {self._source} holds a {value.name}, expected texts, '
                'numbers, lists and maps'
            )
        if isinstance(value, dict):
            return {str(key): self.plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(each, depth + 1) for each in value]
        if value is None or isinstance(value, (str, int, float)):
            return value
        raise PolicyImportError(
            f'the configuration of {self._source} holds {shown(value)}, expected texts, numbers, '
            'lists and maps'
        )
