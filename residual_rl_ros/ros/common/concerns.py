# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Diagnostics for people: a status per concern below a node's own, which programs read.

`/policy_node` has all values, as it always had; `/policy_node/motion` and its sisters have each a
part, without values that stand for nothing, and a level of their own. rqt_robot_monitor makes a
tree of the names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
NOTHING = {'episode': -1, 'sequence': -1, 'success_recent': -1.0}
"""Values that stand for nothing, by key; so do numbers that are not finite, and empty texts."""
SINCE_START = '_overall_'
"""In keys of statistics since the start, which are no state."""


@dataclass(frozen=True)
class Concern:
    """A part of what a node does."""

    name: str
    """Last part of the status' name."""
    keys: tuple[str, ...]
    """Patterns of the keys that belong to it; the first concern that has a key keeps it."""
    problems: tuple[str, ...] = ()
    """Patterns of counters that must not grow: a report in which one has is a warning."""


@dataclass(frozen=True)
class ConcernStatus:
    """What is said of a concern."""

    name: str
    level: bytes
    message: str
    values: dict[str, Any]


class Concerns:
    """Splits the reports of a node.

    Args:
        concerns: its concerns; the first one has the level and message of the node, unless
            another concern explains a warning.
    """

    def __init__(self, concerns: Sequence[Concern]) -> None:
        self._concerns = concerns
        self._owner: dict[str, tuple[str, bool]] = {}
        self._last: dict[str, Any] = {}

    def owner(self, key: str) -> tuple[str, bool]:
        """Return the concern of a key, empty if none has it, and whether it must not grow."""
        if key not in self._owner:
            found = (each for each in self._concerns if _matches(key, each.keys))
            concern = None if SINCE_START in key else next(found, None)
            self._owner[key] = (
                ('', False) if concern is None else (concern.name, _matches(key, concern.problems))
            )
        return self._owner[key]

    def split(
        self, level: bytes, message: str, values: Mapping[str, Any]
    ) -> Iterator[ConcernStatus]:
        """Yield a status for each concern.

        Args:
            level: of the node.
            message: of the node.
            values: all that it reports.
        """
        parts: dict[str, dict[str, Any]] = {concern.name: {} for concern in self._concerns}
        grown: dict[str, list[str]] = {concern.name: [] for concern in self._concerns}
        for key, value in values.items():
            name, must_not_grow = self.owner(key)
            if not name:
                continue
            if must_not_grow:
                more = value - self._last.get(key, 0)
                self._last[key] = value
                if more > 0:
                    grown[name].append(f'{key} +{more}')
            if not _says_nothing(key, value):
                parts[name][key] = value
        explained = level == WARN and any(grown.values())
        for index, (name, part) in enumerate(parts.items()):
            if index == 0 and level != OK and not (explained and not grown[name]):
                yield ConcernStatus(name, level, message, part)
            elif grown[name]:
                yield ConcernStatus(name, WARN, ', '.join(grown[name]), part)
            else:
                yield ConcernStatus(name, OK, message if index == 0 and level == OK else 'ok', part)


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _says_nothing(key: str, value: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return True
    return value == '' or (key in NOTHING and value == NOTHING[key])
