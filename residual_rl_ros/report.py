# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an inspection has found: facts, problems and remarks."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass
class Report:
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
        table = Table(title=escape(self.title), show_header=False)
        for name, value in self.facts.items():
            table.add_row(escape(name), escape(value))
        return table

    def show(self, console: Console) -> None:
        """Print everything, and whether it is usable."""
        console.print(self.table())
        for problem in self.problems:
            console.print(f'[red]problem:[/] {escape(problem)}', soft_wrap=True)
        for remark in self.remarks:
            console.print(f'[yellow]remark:[/] {escape(remark)}', soft_wrap=True)
        if not self.problems:
            console.print('[green]usable[/]')
