# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The transitions of bags that were read before, found again by the bytes of their files.

Only bags without a problem are kept: a problem is reported at every reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import Block, TransitionReader
from residual_rl_ros.errors import BagError, ResidualRLError
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import TransitionLayout

INDEX = 'index.json'
VERSION = 3
CHUNK_BYTES = 2**20
RUN_TRANSITIONS = 2**14
"""Transitions that are handed out at once, at most."""
VALUES, TIMES = '<f8', '<i8'


def cache_folder() -> Path:
    """Return where caches belong: `$XDG_CACHE_HOME` or `~/.cache`, and the package's name."""
    base = os.environ.get('XDG_CACHE_HOME') or str(Path.home() / '.cache')
    return Path(base) / 'residual_rl_ros' / 'bags'


def content_key(bag: Bag) -> str:
    """Return the sha256 over the bytes of a bag's files, in order; their names do not matter."""
    sha = hashlib.sha256(f'{VERSION}'.encode())
    for file in bag.files:
        sha.update(f'{file.path.suffix}{file.path.stat().st_size}'.encode())
        with file.path.open('rb') as stream:
            while chunk := stream.read(CHUNK_BYTES):
                sha.update(chunk)
    return sha.hexdigest()


class TransitionCache:
    """Reads transition bags, the second time from arrays.

    Args:
        folder: where entries are kept; delete what is not wanted any more.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.hits = 0
        """Bags that were found."""

    def blocks(self, bag: Bag) -> Iterator[Block]:
        """Yield the transitions of a bag in recorded order.

        Raises:
            BagError: the cache cannot be read or written.
        """
        try:
            key = content_key(bag)
        except OSError:  # Of the bag: the reader says so and goes on with its other files.
            yield from TransitionReader(bag).blocks()
            return
        try:
            entry = self._folder / key
            if (entry / INDEX).is_file():
                self.hits += 1
                yield from _load(entry)
            else:
                yield from self._read_and_store(bag, entry)
        except OSError as error:
            raise BagError(
                f'cache {str(self._folder)!r}: {error.strerror or error}; free space, or read '
                'without the cache'
            ) from error

    def _read_and_store(self, bag: Bag, entry: Path) -> Iterator[Block]:
        """Yield a bag's transitions; keep them if all of them were read and nothing was wrong."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f'{entry.name}.', dir=self._folder))
        try:
            with ExitStack() as files:
                writer = _EntryWriter(fresh, files)
                for block in TransitionReader(bag).blocks():
                    writer.add(block)
                    yield block
            if not len(bag.problems):
                (fresh / INDEX).write_text(json.dumps(writer.index), encoding='utf-8')
                try:
                    fresh.rename(entry)
                except OSError:
                    if not entry.exists():  # Else another process has kept it meanwhile.
                        raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


class _EntryWriter:
    """Writes an entry: two files of numbers for each robot and layout, and in which order.

    Args:
        folder: exists.
        files: closes the files.
    """

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._files = files
        self._streams: dict[tuple[str, str], tuple[int, BinaryIO, BinaryIO]] = {}
        self.index: dict[str, list[Any]] = {'streams': [], 'runs': []}
        """Robot and layout of every stream; number of a stream and of transitions of every run."""

    def add(self, block: Block) -> None:
        """Append a block; the many small ones of a bag with other topics become one run."""
        key = block.robot, block.table.layout.label
        if key not in self._streams:
            number = len(self._streams)
            opened = [(self._folder / name).open('wb') for name in _names(number)]
            for file in opened:
                self._files.enter_context(file)
            self._streams[key] = number, opened[0], opened[1]
            layout = block.table.layout.to_yaml()
            self.index['streams'].append({'robot': block.robot, 'layout': layout})
        number, values, times = self._streams[key]
        values.write(np.ascontiguousarray(block.table.values, dtype=VALUES).tobytes())
        times.write(np.ascontiguousarray(block.time_ns, dtype=TIMES).tobytes())
        runs, count = self.index['runs'], len(block.table)
        if runs and runs[-1][0] == number and runs[-1][1] + count <= RUN_TRANSITIONS:
            runs[-1][1] += count
        else:
            runs.append([number, count])


def _names(number: int) -> tuple[str, str]:
    """Return the files of a stream: its transitions and their times."""
    return f'{number}.values', f'{number}.times'


def _load(entry: Path) -> Iterator[Block]:
    try:
        index = json.loads((entry / INDEX).read_text(encoding='utf-8'))
        with ExitStack() as files:
            streams = [
                (
                    str(stream['robot']),
                    TransitionLayout.from_yaml(stream['layout']),
                    *(files.enter_context((entry / name).open('rb')) for name in _names(number)),
                )
                for number, stream in enumerate(index['streams'])
            ]
            for number, count in index['runs']:
                robot, layout, values_file, times_file = streams[number]
                values = _read(values_file, VALUES, count * layout.size)
                table = TransitionTable(layout, values.reshape(count, layout.size))
                yield Block(robot, table, _read(times_file, TIMES, count))
    except (ValueError, KeyError, TypeError, IndexError, ResidualRLError) as error:
        raise BagError(f'cache entry {str(entry)!r} is damaged: {error}; delete it') from error


def _read(file: BinaryIO, kind: str, count: int) -> npt.NDArray[Any]:
    """Return the next numbers of a file, shape (count,)."""
    numbers = np.fromfile(file, kind, count)
    if len(numbers) < count:
        raise ValueError(f'{file.name} is cut off')
    return numbers
