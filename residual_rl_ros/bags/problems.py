# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a bag: one line for each thing, however often it occurs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from residual_rl_ros.errors import ResidualRLError


class BagError(ResidualRLError):
    """A bag cannot be used at all."""


@dataclass
class Problem:
    """One thing that is wrong with a bag."""

    path: Path
    """File or folder."""
    topic: str
    """Topic, empty if it is not about one."""
    place: str
    """Offset or message number where it occurred first."""
    reason: str
    count: int = 1
    """How often it occurred."""

    def __str__(self) -> str:
        """Return one line."""
        parts = [str(self.path), self.topic, self.place, self.reason]
        more = f' ({self.count} times)' if self.count > 1 else ''
        return ': '.join(' '.join(part.split()) for part in parts if part) + more


class Problems:
    """Collects problems; the same kind on the same topic of a file becomes one line."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, str, str], Problem] = {}

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        """Yield the problems in the order in which they were found."""
        return iter(self._found.values())

    def forget_after(self, count: int) -> None:
        """Drop all but the first problems, before what they are about is looked at again."""
        self._found = dict(list(self._found.items())[:count])

    def add(
        self,
        path: Path,
        reason: str,
        *,
        topic: str = '',
        place: str = '',
        kind: str = '',
        count: int = 1,
    ) -> None:
        """Take in a problem.

        Args:
            path: file or folder.
            reason: what is wrong, and what was expected.
            topic: topic that it is about.
            place: where in the file.
            kind: what makes two problems the same; default: the reason.
            count: how often it occurred.
        """
        key = (path, topic, kind or reason)
        if key in self._found:
            self._found[key].count += count
        else:
            self._found[key] = Problem(path, topic, place, reason, count)
