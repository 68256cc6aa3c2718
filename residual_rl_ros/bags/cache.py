# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The transitions of bags that were read before, found again by the bytes of their files.

Only bags without a problem are kept: what is wrong with a bag is said at every reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.transitions import Block, TransitionReader
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.transition import TransitionLayout
from residual_rl_ros.transition_table import TransitionTable

INDEX = 'index.json'
VERSION = 1
CHUNK_BYTES = 2**20


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
            entry = self._folder / content_key(bag)
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
        fresh = entry.with_name(f'{entry.name}.{os.getpid()}')
        fresh.mkdir(parents=True)
        index = []
        try:
            for number, block in enumerate(TransitionReader(bag).blocks()):
                np.save(fresh / f'{number}.values.npy', block.table.values)
                np.save(fresh / f'{number}.time.npy', block.time_ns)
                index.append({'robot': block.robot, 'layout': block.table.layout.to_yaml()})
                yield block
            if not len(bag.problems):
                (fresh / INDEX).write_text(json.dumps(index), encoding='utf-8')
                if not entry.exists():
                    fresh.rename(entry)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _load(entry: Path) -> Iterator[Block]:
    try:
        index = json.loads((entry / INDEX).read_text(encoding='utf-8'))
        for number, item in enumerate(index):
            values = np.load(entry / f'{number}.values.npy', allow_pickle=False)
            time_ns = np.load(entry / f'{number}.time.npy', allow_pickle=False)
            layout = TransitionLayout.from_yaml(item['layout'])
            yield Block(str(item['robot']), TransitionTable(layout, values), time_ns)
    except (ValueError, KeyError, TypeError, EOFError, ResidualRLError) as error:
        raise BagError(f'cache entry {str(entry)!r} is damaged: {error}; delete it') from error
