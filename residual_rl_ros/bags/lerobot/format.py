# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3.0: which files it consists of, and what our transitions are called in it.

A dataset is a folder: `meta/info.json` names the columns, `data/` holds one row for each frame,
`meta/episodes/` says which rows belong to which episode. One frame is one residual decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import ConfigError, FormatError, ResidualRLError
from residual_rl_ros.files.json_text import read_json
from residual_rl_ros.transitions.transition import TransitionLayout

Array = npt.NDArray[Any]

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
"""Which scalar or block of a transition a column holds, and as what."""
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


def features(layout: TransitionLayout) -> dict[str, dict[str, Any]]:
    """Return the entry `features` of `info.json`: dtype, shape and names of every column."""
    steps = range(layout.decision_steps)
    actions = list(layout.action_names)
    if layout.decision_steps > 1:
        actions = [f'{name}.{step}' for step in steps for name in layout.action_names]
    described = {}
    for column, (source, dtype) in COLUMNS.items():
        names: list[str] | None = None
        if source.endswith('observation'):
            names = list(layout.observation_names)
        elif source.endswith('action'):
            names = actions
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
            frames, own = int(info['total_frames']), dict(info.get(OWN) or {})
            layout = TransitionLayout.from_yaml(str(own['layout'])) if own else None
            edited = layout is None and any(name.startswith(f'{OWN}.') for name in described)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ResidualRLError(f'{file}: incomplete: {error!r}') from error
        if not (np.isfinite(fps) and fps > 0.0):
            raise ResidualRLError(f'{file}: fps is {fps}, expected a positive number')
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
            return int(width)
        except (KeyError, TypeError, ValueError) as error:
            raise ResidualRLError(
                f'{self.path / INFO}: feature {column!r} is {feature}, expected a shape of one size'
            ) from error

    def names(self, column: str) -> list[str] | None:
        """Return the names of a column's numbers, None if it has none for each."""
        names = self.features[column].get('names')
        while isinstance(names, dict) and len(names) == 1:
            (names,) = names.values()  # {'motors': [...]}: an older way to write them.
        fits = isinstance(names, list) and len(names) == self.width(column)
        return [str(name) for name in names] if fits else None

    def frames(self, columns: list[str]) -> Iterator[tuple[Path, dict[str, Array]]]:
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
        for path in files:
            try:
                with parquet.ParquetFile(path) as file:
                    missing = [c for c in columns if c not in file.schema_arrow.names]
                    if missing:
                        raise ResidualRLError(
                            f'{path}: column {", ".join(missing)} is missing, which {INFO} lists'
                        )
                    for batch in file.iter_batches(columns=columns):
                        yield (
                            path,
                            {
                                column: _numbers(batch.column(column), width, path, column)
                                for column, width in widths.items()
                            },
                        )
            except (OSError, arrow.ArrowException) as error:
                raise ResidualRLError(f'{path}: cannot be read: {error}') from error


def _numbers(values: Any, width: int, path: Path, column: str) -> Array:
    """Return an Arrow column, of scalars or of lists, as (count, width)."""
    arrow, _ = pyarrow()
    lists = (arrow.ListArray, arrow.LargeListArray, arrow.FixedSizeListArray)
    count = len(values)
    missing = values.null_count
    while isinstance(values, lists):
        values = values.flatten()
        missing += values.null_count
    numbers: Array = values.to_numpy(zero_copy_only=False)
    if missing or len(numbers) != count * width or numbers.dtype.kind not in 'bifu':
        raise ResidualRLError(
            f'{path}: column {column!r} holds {values.type} and {len(numbers)} values in {count} '
            f'frames, expected {width} numbers in each'
        )
    return numbers.reshape(count, width)
