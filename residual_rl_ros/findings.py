# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an inspection finds: facts about a thing, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from residual_rl_ros.errors import one_line
from residual_rl_ros.files.limits import FINDINGS


@dataclass
class InspectionReport:
    """Findings about one thing."""

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    """What it is, in reading order."""
    problems: list[str] = field(default_factory=list)
    """Why it cannot be used; empty if it can."""
    remarks: list[str] = field(default_factory=list)
    """What its user should know."""

    def table(self) -> Table:
        """Return the facts as a table."""
        table = Table(title=escape(one_line(self.title)), show_header=False)
        for name, value in self.facts.items():
            lines = map(one_line, value.split('\n'))
            table.add_row(escape(one_line(name)), escape('\n'.join(lines)))
        return table

    def show(self, console: Console) -> None:
        """Print everything, and whether it is usable."""
        console.print(self.table())
        for problem in self.problems:
            console.print(f'[red]problem:[/] {escape(one_line(problem))}', soft_wrap=True)
        for remark in self.remarks:
            console.print(f'[yellow]remark:[/] {escape(one_line(remark))}', soft_wrap=True)
        if not self.problems:
            console.print('[green]usable[/]')


@dataclass
class Finding:
    """One thing that is wrong with a recording: a bag, a dataset, demonstrations."""

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
        return ': '.join(one_line(part) for part in parts if part) + more


class Findings:
    """Collects problems; the same kind on the same topic of a file becomes one line."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, str, str], Finding] = {}

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._found)

    def __iter__(self) -> Iterator[Finding]:
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
        if key not in self._found and len(self._found) >= FINDINGS:
            key, place = (path, '', 'more'), ''
            topic, reason = '', f'more than {FINDINGS} different problems; the others are counted'
        if key in self._found:
            self._found[key].count += count
        else:
            self._found[key] = Finding(path, topic, place, reason, count)
