# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx extension: write the reference pages that repeat what the code says.

Before a build it writes `docs/reference/generated/` (keys of presets, runs and robots, command
line, metrics, diagnostics) and `docs/api/` (one page a room), neither of which is committed. A
metric without a meaning in `meanings.py`, or a meaning without a metric, fails the build.

`python docs/_ext/generated.py` writes the one generated page that is committed,
`docs/reference/parameters.md`.
"""

from __future__ import annotations

import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from key_tables import PACKAGE, add_ons_page, cli_page, files_page, parameters_page, presets_page
from metrics_page import metrics_page

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
ROS_PACKAGES = (
    'builtin_interfaces',
    'diagnostic_msgs',
    'geometry_msgs',
    'launch',
    'launch_ros',
    'lifecycle_msgs',
    'nav_msgs',
    'rcl_interfaces',
    'rclpy',
    'rosgraph_msgs',
    'sensor_msgs',
    'std_msgs',
    'std_srvs',
    'trajectory_msgs',
)
"""Always mocked, so that the site is the same with and without ROS."""
UNDOCUMENTED_ROOMS = ('cli',)
"""The command line has a page of its own."""


def api_pages() -> dict[str, str]:
    """Return a page for each room, by its name, and an index."""
    package = import_module(PACKAGE)
    rooms: dict[str, list[str]] = {'root': []}
    for module in pkgutil.walk_packages(package.__path__, f'{PACKAGE}.'):
        room = module.name.split('.')[1]
        if room in UNDOCUMENTED_ROOMS:
            continue
        top = module.name.count('.') == 1
        rooms.setdefault('root' if top and not module.ispkg else room, []).append(module.name)
    pages = {}
    for room, modules in rooms.items():
        title = 'Root modules' if room == 'root' else room
        parts = [f'# {title}\n']
        for name in modules:
            if name != f'{PACKAGE}.{room}':
                parts.append(f'## {name.removeprefix(f"{PACKAGE}.")}\n')
            options = '' if name == f'{PACKAGE}.{room}' else '   :members:\n   :undoc-members:\n'
            parts.append(f'```{{eval-rst}}\n.. automodule:: {name}\n{options}```\n')
        pages[room] = '\n'.join(parts)
    listed = '\n'.join(sorted(rooms))
    pages['index'] = (
        '# API\n\nMade from the docstrings, one page a room; '
        '[architecture](../architecture.md) says what is where.\n\n'
        f'```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n'
    )
    return pages


# --- Sphinx


def write(path: Path, text: str) -> None:
    """Write a page if it has changed, so that Sphinx rebuilds no more than it must."""
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')


def write_pages(app: Any) -> None:
    """Write every page that is not committed."""
    from sphinx.ext.autodoc.mock import mock

    folder = DOCS / 'reference' / 'generated'
    with mock(app.config.autodoc_mock_imports):
        try:
            write(folder / 'presets.md', presets_page())
            write(folder / 'files.md', files_page())
            write(folder / 'add_ons.md', add_ons_page())
            write(folder / 'cli.md', cli_page())
            write(folder / 'metrics.md', metrics_page())
        finally:
            # Made with mocks: autodoc imports them anew with its own.
            for name in [each for each in sys.modules if each.startswith(f'{PACKAGE}.ros')]:
                del sys.modules[name]
    for name, text in api_pages().items():
        write(DOCS / 'api' / f'{name}.md', text)


SPAN = re.compile(r'``.*?``|`[^`]*`')
SPECIAL = re.compile(r'(?<!\\)([*|])|(?<=\w)_(?!\w)')


def escape_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Mark code with two backticks, as reStructuredText does, and escape the rest of its markup."""
    del app, what, name, obj, options
    text = '\n'.join(lines)
    pieces, last = [], 0
    for span in SPAN.finditer(text):
        code = span.group() if span.group().startswith('``') else f'`{span.group()}`'
        pieces += [SPECIAL.sub(r'\\\g<0>', text[last : span.start()]), code]
        last = span.end()
    pieces.append(SPECIAL.sub(r'\\\g<0>', text[last:]))
    lines[:] = ''.join(pieces).split('\n')


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect('builder-inited', write_pages)
    app.connect('autodoc-process-docstring', escape_docstring, priority=400)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}


def main() -> None:
    """Write the committed page."""
    from sphinx.ext.autodoc.mock import mock

    sys.path.insert(0, str(ROOT))
    with mock(list(ROS_PACKAGES)):
        write(DOCS / 'reference' / 'parameters.md', parameters_page())


if __name__ == '__main__':
    main()
