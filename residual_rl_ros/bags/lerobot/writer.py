# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writes episodes of transitions as a LeRobotDataset v3.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.bags.lerobot.format import (
    DATA,
    DATA_FILE_MB,
    DONE,
    EPISODES,
    FILES_PER_CHUNK,
    INFO,
    OWN,
    STATS,
    SUCCESS,
    TASKS,
    VERSION,
    VIDEO_FILE_MB,
    columns_of,
    features,
    pyarrow,
)
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.numerics import AnyArray
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Success


class LeRobotWriter:
    """A context that leaves a whole dataset; `info.json` comes last, so that a torn one shows.

    Args:
        folder: does not exist yet.
        layout: of all transitions.
        fps: decisions per second.
        task: what the robot does, in words.
        robot: namespace of the robot.

    Raises:
        ResidualRLError: the folder exists, or pyarrow is missing.
    """

    def __init__(
        self, folder: Path, layout: TransitionLayout, fps: float, task: str, robot: str
    ) -> None:
        self._arrow, self._parquet = pyarrow()
        self._folder = folder
        self._layout = layout
        self._fps = int(fps) if fps == int(fps) else fps
        self._task = task
        self._robot = robot
        self._features = features(layout)
        self._schema = self._arrow.schema(
            [(name, self._arrow_type(feature)) for name, feature in self._features.items()]
        )
        self._writer: Any = None
        self._file = -1
        self._file_bytes = 0
        self._episodes: list[dict[str, Any]] = []
        self._stats: dict[str, dict[str, AnyArray]] = {}
        self.frames = 0
        """Frames written."""
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise ResidualRLError(
                f'{str(folder)!r} exists already; choose another --out'
            ) from error

    def __enter__(self) -> LeRobotWriter:
        """Return itself."""
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Write what describes the dataset, unless something went wrong."""
        if self._writer is not None:
            self._writer.close()
        if kind is None:
            self._finish()

    def write(self, episode: TransitionTable) -> None:
        """Append an episode."""
        columns = self._columns(episode)
        table = self._arrow.table(
            [self._column(columns[name], feature) for name, feature in self._features.items()],
            schema=self._schema,
        )
        if self._writer is None or self._file_bytes + table.nbytes > DATA_FILE_MB * 2**20:
            self._next_file()
        self._writer.write_table(table)  # One row group an episode, as LeRobot writes them.
        self._file_bytes += table.nbytes
        stats = {name: _statistics(values) for name, values in columns.items()}
        self._stats = {
            name: _merged(self._stats[name], new) if self._stats else new
            for name, new in stats.items()
        }
        self._episodes.append(
            {
                'episode_index': len(self._episodes),
                'tasks': [self._task],
                'length': len(episode),
                **self._place('data'),
                'dataset_from_index': self.frames,
                'dataset_to_index': self.frames + len(episode),
                'meta/episodes/chunk_index': 0,
                'meta/episodes/file_index': 0,
                **{
                    f'stats/{name}/{key}': value.tolist()
                    for name, group in stats.items()
                    for key, value in group.items()
                },
            }
        )
        self.frames += len(episode)

    def _columns(self, episode: TransitionTable) -> dict[str, AnyArray]:
        """Return every column, shape (count, width)."""
        count = len(episode)
        columns: dict[str, AnyArray] = {}
        for name, (source, dtype) in columns_of(self._layout).items():
            columns[name] = episode.block(source).astype(dtype)
        frame = np.arange(count)
        columns[DONE] = episode.done
        columns[SUCCESS] = episode.header('success') == Success.SUCCESS
        columns['timestamp'] = (frame / self._fps).astype(np.float32)
        columns['frame_index'] = frame
        columns['episode_index'] = np.full(count, len(self._episodes))
        columns['index'] = self.frames + frame
        columns['task_index'] = np.zeros(count, dtype=np.int64)
        return {name: values.reshape(count, -1) for name, values in columns.items()}

    def _arrow_type(self, feature: dict[str, Any]) -> Any:
        """Return the type of a column; LeRobot writes a shape of one number as a scalar."""
        kind = self._arrow.from_numpy_dtype(np.dtype(feature['dtype']))
        (width,) = feature['shape']
        return kind if width == 1 else self._arrow.list_(kind, width)

    def _column(self, values: AnyArray, feature: dict[str, Any]) -> Any:
        flat = self._arrow.array(values.ravel())
        (width,) = feature['shape']
        return flat if width == 1 else self._arrow.FixedSizeListArray.from_arrays(flat, width)

    def _place(self, kind: str) -> dict[str, int]:
        chunk, file = divmod(self._file, FILES_PER_CHUNK)
        return {f'{kind}/chunk_index': chunk, f'{kind}/file_index': file}

    def _next_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file += 1
        self._file_bytes = 0
        chunk, file = divmod(self._file, FILES_PER_CHUNK)
        path = self._path(DATA.format(chunk_index=chunk, file_index=file))
        self._writer = self._parquet.ParquetWriter(path, self._schema)

    def _path(self, relative: str) -> Path:
        path = self._folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _finish(self) -> None:
        if not self._episodes:
            raise ResidualRLError(f'{str(self._folder)!r} would be empty: no episode was written')
        episodes = self._arrow.Table.from_pylist(self._episodes)
        path = self._path(EPISODES.format(chunk_index=0, file_index=0))
        self._parquet.write_table(episodes, path)
        self._parquet.write_table(self._tasks(), self._path(TASKS))
        stats = {
            name: {key: value.tolist() for key, value in group.items()}
            for name, group in self._stats.items()
        }
        self._write_json(STATS, stats)
        self._write_json(INFO, self._info())

    def _tasks(self) -> Any:
        """Return the table of tasks; pandas reads the text as its index."""
        described = {
            'index_columns': ['task'],
            'column_indexes': [],
            'columns': [
                {
                    'name': name,
                    'field_name': name,
                    'pandas_type': kind,
                    'numpy_type': numpy_type,
                    'metadata': None,
                }
                for name, kind, numpy_type in (
                    ('task_index', 'int64', 'int64'),
                    ('task', 'unicode', 'object'),
                )
            ],
            'creator': {'library': 'pyarrow', 'version': self._arrow.__version__},
            'pandas_version': '2.0.0',
        }
        table = self._arrow.table({'task_index': [0], 'task': [self._task]})
        return table.replace_schema_metadata({'pandas': json.dumps(described)})

    def _info(self) -> dict[str, Any]:
        return {
            'codebase_version': VERSION,
            'robot_type': self._robot or None,
            'total_episodes': len(self._episodes),
            'total_frames': self.frames,
            'total_tasks': 1,
            'chunks_size': FILES_PER_CHUNK,
            'data_files_size_in_mb': DATA_FILE_MB,
            'video_files_size_in_mb': VIDEO_FILE_MB,
            'fps': self._fps,
            'splits': {'train': f'0:{len(self._episodes)}'},
            'data_path': DATA,
            'video_path': None,
            'features': self._features,
            OWN: {'layout': self._layout.to_yaml(), 'robot': self._robot},
        }

    def _write_json(self, relative: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=4, ensure_ascii=False)
        self._path(relative).write_text(text, encoding='utf-8')


def _statistics(values: AnyArray) -> dict[str, AnyArray]:
    """Return what LeRobot normalises with, each of shape (width,), of (count, width) numbers."""
    numbers = values.astype(np.float64)
    return {
        'min': numbers.min(axis=0),
        'max': numbers.max(axis=0),
        'mean': numbers.mean(axis=0),
        'std': numbers.std(axis=0),
        'count': np.array([len(numbers)]),
    }


def _merged(one: dict[str, AnyArray], other: dict[str, AnyArray]) -> dict[str, AnyArray]:
    """Return the statistics of two groups together (Chan et al. 1979)."""
    count = one['count'] + other['count']
    share = other['count'] / count
    shift = other['mean'] - one['mean']
    variance = (1.0 - share) * one['std'] ** 2 + share * other['std'] ** 2
    return {
        'min': np.minimum(one['min'], other['min']),
        'max': np.maximum(one['max'], other['max']),
        'mean': one['mean'] + share * shift,
        'std': np.sqrt(variance + share * (1.0 - share) * shift**2),
        'count': count,
    }
