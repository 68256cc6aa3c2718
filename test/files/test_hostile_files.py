# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile files of every format end with one line, soon and in little memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_files import Case, every_case

SUPPORT = Path(__file__).parents[1] / 'support'
SECONDS = 5.0
BYTES = 300 * 2**20
"""Memory above the file's size."""


def results(folder: Path, cases: list[Case]) -> list[dict[str, Any]]:
    """Write files, have another process read them, and return what became of each."""
    listed, sizes = [], []
    for number, case in enumerate(cases):
        own = folder / str(number)
        own.mkdir()
        path = case.make(own)
        listed.append([case.name, case.reader, str(path)])
        sizes.append(sum(f.lstat().st_size for f in own.rglob('*') if f.is_file()))
    names = folder / 'list.json'
    names.write_text(json.dumps(listed))
    command = [sys.executable, str(SUPPORT / 'hostile_reader.py'), str(names)]
    path = os.pathsep.join([str(SUPPORT), *sys.path])
    environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=110, check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(cases), f'{cases[len(found)].name} ended the reader: {done.stderr}'
    return [{**one, 'size': size} for one, size in zip(found, sizes, strict=True)]


def usable(case: Case) -> bool:
    """Return whether the file can be written and read: some formats need extras."""
    extras = {'dataset': 'pyarrow', 'robomimic': 'h5py', 'urdf': 'pinocchio'}
    library = extras.get(case.reader, 'numpy')
    return importlib.util.find_spec(library) is not None


def check(found: list[dict[str, Any]]) -> None:
    """Every file is refused or named, within the limits."""
    wrong = [
        f'{one["name"]}: {one["end"]}, {one["seconds"]:.1f} s, {one["memory"] / 2**20:.0f} MiB, '
        f'{one["reason"][-300:]}'
        for one in found
        if one['end'] != 'told'
        or not one['reason'].isprintable()
        or one['seconds'] > SECONDS
        or one['memory'] > BYTES + one['size']
    ]
    assert not wrong, '\n'.join(wrong)


def test_the_list_is_long() -> None:
    assert len(every_case()) >= 150


def test_hostile_files_end_with_one_line_soon_and_in_little_memory(tmp_path: Path) -> None:
    check(results(tmp_path, [case for case in every_case() if not case.slow and usable(case)]))


@pytest.mark.slow
def test_giant_hostile_files_end_with_one_line_soon_and_in_little_memory(tmp_path: Path) -> None:
    check(results(tmp_path, [case for case in every_case() if case.slow and usable(case)]))
