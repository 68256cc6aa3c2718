# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was skipped, and why: the last line of a run says it, so that nothing is missed silently."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any


def untested(reports: Iterable[Any]) -> str:
    """Return a line about skipped tests, empty if there are none.

    Args:
        reports: pytest's reports of tests and of modules that were skipped. Each worker reports a
            module; it is named once.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found[re.sub(r'^Skipped: ', '', reason)].add(report.nodeid)
    if not found:
        return ''
    parts = [f'{reason} ({_where(nodes)})' for reason, nodes in sorted(found.items())]
    return f'NOT TESTED HERE: {"; ".join(parts)}'


def _where(nodes: set[str]) -> str:
    """Return the module of skipped tests, or how many tests there are in how many modules."""
    modules = {node.partition('::')[0] for node in nodes}
    name = sorted(modules)[0].removeprefix('test/')
    if len(modules) > 1:
        return f'{name} and {len(modules) - 1} more'
    return f'all of {name}' if nodes == modules else f'{len(nodes)} in {name}'
