# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3.0: which files it consists of, and what our transitions are called in it.

A dataset is a folder: `meta/info.json` names the columns, `data/` holds one row for each frame,
`meta/episodes/` says which rows belong to which episode. One frame is one residual decision.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual_rl_ros.errors import ConfigError, FormatError, ResidualRLError
from residual_rl_ros.files.json_text import read_json
from residual_rl_ros.files.limits import (
    FRAME_BYTES,
    FRAMES,
    MIB,
    ROW_GROUP_BYTES,
)
from residual_rl_ros.numerics import AnyArray, integer
from residual_rl_ros.transitions.layout import MAX_SIZE, TransitionLayout

SLOWEST_FPS, FASTEST_FPS = 1e-3, 1e6
BATCH_ROWS, BATCH_NUMBERS = 8192, 2**20
"""Frames that are read at once, and numbers in them."""
FOOTER_BYTES = 16 * MIB
"""Largest description of a Parquet file [byte]."""
THRIFT_LIMITS = {'thrift_string_size_limit': FOOTER_BYTES, 'thrift_container_size_limit': 100_000}

VERSION = 'v3.0'
INFO = 'meta/info.json'
STATS = 'meta/stats.json'
TASKS = 'meta/tasks.parquet'
FILE = 'chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
DATA = f'data/{FILE}'
EPISODES = f'meta/episodes/{FILE}'
FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
"""Written because readers ask for it; there are no videos."""
OWN = 'residual_rl'
"""Our key in `info.json`, and the prefix of columns that no other tool needs. LeRobot's readers
pass over keys that they do not know."""

STATE = 'observation.state'
ACTION = 'action'
REWARD = 'next.reward'
DONE = 'next.done'
SUCCESS = 'next.success'

# Names must not begin with `observation` or `action`: LeRobot's policies take all such columns.
COLUMNS = {
    STATE: ('observation', 'float32'),
    ACTION: ('executed_action', 'float32'),
    'base_action': ('base_action', 'float32'),
    'residual_action': ('residual_action', 'float32'),
    'next.observation.state': ('next_observation', 'float32'),
    'next.base_action': ('next_base_action', 'float32'),
    REWARD: ('reward', 'float32'),
    'next.terminated': ('terminated', 'bool'),
    'next.truncated': ('truncated', 'bool'),
    f'{OWN}.stamp': ('stamp', 'float64'),
    **{
        f'{OWN}.{name}': (name, 'int64')
        for name in ('epoch', 'episode', 'step', 'policy_sequence', 'source', 'success')
    },
}
"""Which scalar or block of a transition of version 1 a column holds, and as what."""
ADDED = ('prior', 'next_prior', 'proposals', 'next_proposals', 'add_on')
"""Blocks of transitions of version 2; each present one has a column of its own."""
DERIVED = {DONE: 'bool', SUCCESS: 'bool'}
"""Columns for other tools; we read what they are made of."""
FRAME_COLUMNS = {
    'timestamp': 'float32',
    'frame_index': 'int64',
    'episode_index': 'int64',
    'index': 'int64',
    'task_index': 'int64',
}
"""What every dataset has."""


def pyarrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ResidualRLError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ResidualRLError(
            "LeRobot datasets need pyarrow: pip install 'residual_rl_ros[lerobot]'"
        ) from error
    return pyarrow, parquet


def columns_of(layout: TransitionLayout) -> dict[str, tuple[str, str]]:
    """Return which scalar or block of a transition each column holds, and as what."""
    added = (name for name, at in layout.columns.items() if name in ADDED and at.stop > at.start)
    return COLUMNS | {f'{OWN}.{name}': (name, 'float32') for name in added}


def features(layout: TransitionLayout) -> dict[str, dict[str, Any]]:
    """Return the entry `features` of `info.json`: dtype, shape and names of every column."""
    steps = range(layout.decision_steps)
    actions = list(layout.action_names)
    if layout.decision_steps > 1:
        actions = [f'{name}.{step}' for step in steps for name in layout.action_names]
    described = {}
    for column, (source, dtype) in columns_of(layout).items():
        names: list[str] | None = None
        if source.endswith('observation'):
            names = list(layout.observation_names)
        elif source.endswith('action'):
            names = actions
        elif source in ADDED:
            at = layout.columns[source]
            names = [f'{source}{index}' for index in range(at.stop - at.start)]
        described[column] = _feature(dtype, names)
    for column, dtype in (DERIVED | FRAME_COLUMNS).items():
        described[column] = _feature(dtype, None)
    return described


def _feature(dtype: str, names: list[str] | None) -> dict[str, Any]:
    return {'dtype': dtype, 'shape': [1 if names is None else len(names)], 'names': names}


@dataclass(frozen=True)
class LeRobotDataset:
    """A dataset on disk, as far as `info.json` describes it."""

    path: Path
    fps: float
    """Frames per second."""
    features: Mapping[str, Any]
    """dtype, shape and names of every column."""
    total_frames: int
    layout: TransitionLayout | None
    """Layout of the transitions it was made of; None if another tool made it."""
    robot: str
    """Namespace of the robot whose transitions they are."""
    edited: bool
    """We exported it, and another tool wrote it anew without the layout."""

    @classmethod
    def open(cls, path: Path) -> LeRobotDataset:
        """Read `meta/info.json`.

        Raises:
            ResidualRLError: there is none, or it describes something else.
        """
        file = path / INFO
        if not file.is_file():
            raise ResidualRLError(
                f'{str(path)!r} is no LeRobot dataset: {INFO} is missing; give the folder that '
                'holds meta/ and data/ (an export that was interrupted has no such file)'
            )
        try:
            info = read_json(file)
        except FormatError as error:
            raise ResidualRLError(f'{file}: cannot be read: {error}') from error
        if not isinstance(info, dict):
            raise ResidualRLError(f'{file}: is a {type(info).__name__}, expected an object')
        version = str(info.get('codebase_version'))
        if not version.startswith('v3.'):
            raise ResidualRLError(
                f'{file}: codebase_version is {version!r}, expected {VERSION!r}; convert v2.1 with '
                "LeRobot's convert_dataset_v21_to_v30"
            )
        if info.get('storage_format', 'parquet') != 'parquet':
            raise ResidualRLError(
                f'{file}: storage_format is {info["storage_format"]!r}, expected Parquet'
            )
        try:
            fps, described = float(info['fps']), dict(info['features'])
            frames, own = integer(info['total_frames']), dict(info.get(OWN) or {})
            layout = TransitionLayout.from_yaml(str(own['layout'])) if own else None
            edited = layout is None and any(name.startswith(f'{OWN}.') for name in described)
        except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
            raise ResidualRLError(f'{file}: incomplete: {error!r}') from error
        if not SLOWEST_FPS <= fps <= FASTEST_FPS:
            raise ResidualRLError(
                f'{file}: fps is {fps}, expected {SLOWEST_FPS:g} to {FASTEST_FPS:g}'
            )
        for name, feature in described.items():
            if not isinstance(feature, dict):
                raise ResidualRLError(f'{file}: feature {name!r} is {feature!r}, expected a map')
        return cls(path, fps, described, frames, layout, str(own.get('robot', '')), edited)

    def width(self, column: str) -> int:
        """Return how many numbers a frame has in a column.

        Raises:
            ResidualRLError: there is no such column, or it holds no vector of numbers.
        """
        feature = self.features.get(column)
        if feature is None:
            raise ResidualRLError(
                f'{self.path / INFO}: feature {column!r} is missing; it has '
                f'{", ".join(self.features)}'
            )
        try:
            (width,) = feature['shape']
            width = integer(width)
            if not 1 <= width <= MAX_SIZE:
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ResidualRLError(
                f'{self.path / INFO}: feature {column!r} is {feature}, expected a shape of one '
                f'size, 1 to {MAX_SIZE}'
            ) from error
        return width

    def unread(self, columns: Collection[str]) -> list[str]:
        """Return what it has besides some columns and those of every dataset, such as cameras."""
        known = {*columns, *DERIVED, *FRAME_COLUMNS}
        return [
            f'{name} ({feature.get("dtype")})'
            for name, feature in self.features.items()
            if name not in known
        ]

    def names(self, column: str) -> list[str] | None:
        """Return the names of a column's numbers, None if it has none for each."""
        names = self.features[column].get('names')
        while isinstance(names, dict) and len(names) == 1:
            (names,) = names.values()  # {'motors': [...]}: an older way to write them.
        fits = isinstance(names, list) and len(names) == self.width(column)
        return [str(name) for name in names] if fits else None

    def frames(self, columns: list[str]) -> Iterator[tuple[Path, dict[str, AnyArray]]]:
        """Yield the frames in order, thousands at a time: the file, and (count, width) a column.

        Raises:
            ResidualRLError: no file, a damaged one, or one without a column.
        """
        arrow, parquet = pyarrow()
        widths = {column: self.width(column) for column in columns}
        files = sorted((self.path / 'data').glob('*/*.parquet'))
        if not files:
            raise ResidualRLError(
                f'{self.path / "data"} holds no */*.parquet; is it all downloaded?'
            )
        left = FRAMES + sum(_size(path) for path in files) // FRAME_BYTES
        batch_rows = max(1, min(BATCH_ROWS, BATCH_NUMBERS // sum(widths.values())))
        for path in files:
            try:
                with parquet.ParquetFile(path, **THRIFT_LIMITS) as file:
                    left -= file.metadata.num_rows
                    if left < 0:
                        raise ResidualRLError(
                            f'{path}: the dataset has more than {FRAMES} frames, and less than '
                            f'{FRAME_BYTES} bytes for each: not to be unpacked'
                        )
                    _check_columns(file, widths, path)
                    for batch in file.iter_batches(batch_rows, columns=columns):
                        yield (
                            path,
                            {
                                column: _numbers(batch.column(column), width, path, column)
                                for column, width in widths.items()
                            },
                        )
            except (OSError, MemoryError, arrow.ArrowException) as error:
                raise ResidualRLError(f'{path}: cannot be read: {error}') from error


def _size(path: Path) -> int:
    """Return the size of a file [byte].

    Raises:
        ResidualRLError: it is no regular file, or the part that describes it is too long.
    """
    try:
        with path.open('rb') if path.is_file() else nullcontext() as file:
            if file is None:
                raise ResidualRLError(f'{path} is no regular file')
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            footer = int.from_bytes(file.read(4), 'little')
    except OSError as error:
        raise ResidualRLError(f'{path}: cannot be read: {error.strerror}') from error
    if footer > FOOTER_BYTES:
        raise ResidualRLError(f'{path}: cannot be read: a footer of {footer} bytes')
    return size


def _check_columns(file: Any, widths: Mapping[str, int], path: Path) -> None:
    """Refuse columns that are missing, hold no numbers, or unpack to more than they should.

    Raises:
        ResidualRLError: one is.
    """
    arrow, _ = pyarrow()
    missing = [column for column in widths if column not in file.schema_arrow.names]
    if missing:
        raise ResidualRLError(f'{path}: column {", ".join(missing)} is missing, which {INFO} lists')
    for column in widths:
        kind = file.schema_arrow.field(column).type
        inner = getattr(kind, 'value_type', kind)
        numbers = arrow.types.is_integer, arrow.types.is_floating, arrow.types.is_boolean
        if not any(is_kind(inner) for is_kind in numbers):
            raise ResidualRLError(f'{path}: column {column!r} holds {kind}, expected numbers')
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        nbytes = 0
        for chunk in map(group.column, range(group.num_columns)):
            name = chunk.path_in_schema.removesuffix('.list.element').removesuffix('.list.item')
            if name not in widths:
                continue
            nbytes += chunk.total_uncompressed_size
            if chunk.num_values > group.num_rows * widths[name]:
                raise ResidualRLError(
                    f'{path}: column {name!r} has {chunk.num_values} numbers in {group.num_rows} '
                    f'frames, expected {widths[name]} in each'
                )
        if nbytes > ROW_GROUP_BYTES:
            raise ResidualRLError(
                f'{path}: a row group unpacks to {nbytes} bytes, expected <= {ROW_GROUP_BYTES}'
            )


def _numbers(values: Any, width: int, path: Path, column: str) -> AnyArray:
    """Return an Arrow column, of scalars or of lists, as (count, width)."""
    arrow, _ = pyarrow()
    lists = (arrow.ListArray, arrow.LargeListArray, arrow.FixedSizeListArray)
    count = len(values)
    missing = values.null_count
    while isinstance(values, lists):
        values = values.flatten()
        missing += values.null_count
    numbers: AnyArray = values.to_numpy(zero_copy_only=False)
    if missing or len(numbers) != count * width or numbers.dtype.kind not in 'bifu':
        raise ResidualRLError(
            f'{path}: column {column!r} holds {values.type} and {len(numbers)} values in {count} '
            f'frames, expected {width} numbers in each'
        )
    return numbers.reshape(count, width)
