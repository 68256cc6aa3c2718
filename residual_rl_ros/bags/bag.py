# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag: the files of one recording, in order, whatever their storage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from residual_rl_ros.bags.mcap_file import McapFile
from residual_rl_ros.bags.segment import RawMessage, Segment
from residual_rl_ros.bags.sqlite_file import SqliteFile
from residual_rl_ros.errors import BagError
from residual_rl_ros.findings import Findings

BagFile = McapFile | SqliteFile
STORAGES: dict[str, type[McapFile] | type[SqliteFile]] = {'.mcap': McapFile, '.db3': SqliteFile}
METADATA = 'metadata.yaml'
INFORMATION = 'rosbag2_bagfile_information'
RECORDING = 'recording.yaml'
"""File in which our recorder describes a recording, written at its start."""


class Bag:
    """One bag folder, a folder of them (a recording split into several), or one file.

    Args:
        path: folder, or `.mcap` or `.db3` file.

    Raises:
        BagError: the path does not exist, or holds no bag.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems = Findings()
        """Findings so far; complete when everything was read."""
        self._read: dict[Path, dict[str, Any]] = {}
        self.files: list[BagFile] = [
            STORAGES[file.suffix](file, self.problems) for file in self._find(path)
        ]
        if not self.files:
            reasons = '; '.join(map(str, self.problems)) or (
                'expected a folder with .mcap or .db3 files, or one of these'
            )
            raise BagError(f'{str(path)!r} holds no bag: {reasons}')
        self.custom_data = self._custom_data(self.files[0].path.parent)
        """The recorder's description of the recording, or of its first part."""

    @property
    def nbytes(self) -> int:
        """Size of all files [byte]."""
        return sum(file.path.stat().st_size for file in self.files)

    def segments(self, files: Iterable[BagFile] | None = None) -> Iterator[tuple[BagFile, Segment]]:
        """Yield the messages in recorded order; unreadable files are reported.

        Args:
            files: some of the bag's; None takes all.
        """
        for file in self.files if files is None else files:
            try:
                for segment in file.segments():
                    self._check_topics(file, segment)
                    yield file, segment
            except OSError as error:
                self.problems.add(file.path, f'cannot be read: {error.strerror}')

    def _check_topics(self, file: BagFile, segment: Segment) -> None:
        """Report messages of a topic that the file does not declare."""
        undeclared = np.flatnonzero(~np.isin(segment.channel, list(file.topics)))
        if len(undeclared):
            self.problems.add(
                file.path,
                'of a topic that the file does not declare; passed over',
                place=segment.place_of(int(undeclared[0])),
                count=len(undeclared),
            )

    def messages(self, names: set[str] | None = None) -> Iterator[RawMessage]:
        """Yield messages one by one.

        Args:
            names: topics; None takes all.
        """
        for file, segment in self.segments():
            wanted = {
                key: topic
                for key, topic in file.topics.items()
                if names is None or topic.name in names
            }
            yield from segment.messages(file.path, wanted)

    def _find(self, path: Path) -> list[Path]:
        """Return the files of a path in recorded order."""
        if path.is_file():
            if path.suffix not in STORAGES:
                raise BagError(
                    f'{str(path)!r} is no bag file: expected {" or ".join(STORAGES)}; uncompress '
                    'files with ros2 bag convert'
                )
            return [] if self._compressed(path.parent) else [path]
        if not path.is_dir():
            raise BagError(f'bag {str(path)!r} does not exist')
        if self._compressed(path):
            return []
        self._check_listed(path)
        found: list[Path] = []
        for entry in self._entries(path):
            if entry.is_dir():
                found += self._find(entry)
            elif entry.suffix in STORAGES and entry.is_file():
                found.append(entry)
            elif entry.is_symlink() and not entry.exists():
                self.problems.add(entry, f'links to {entry.readlink()}, which is missing')
        return found

    def _compressed(self, folder: Path) -> bool:
        """Return whether files or messages are compressed, which is reported; chunks may be."""
        metadata = self._metadata(folder)
        mode = str(metadata.get('compression_mode') or 'none')
        if mode.lower() == 'none':
            return False
        self.problems.add(
            folder / METADATA,
            f'compression_mode is {mode} ({metadata.get("compression_format")}), expected none; '
            'uncompress the bag with ros2 bag convert',
        )
        return True

    def _entries(self, folder: Path) -> list[Path]:
        """Return the entries of a folder that are not hidden, as an unfinished bag is."""
        try:
            entries = [entry for entry in folder.iterdir() if not entry.name.startswith('.')]
        except OSError as error:
            self.problems.add(folder, f'cannot be read: {error.strerror}')
            return []
        return sorted(entries, key=_natural)

    def _check_listed(self, folder: Path) -> None:
        """Report files that the metadata lists and the folder lacks."""
        names = self._metadata(folder).get('relative_file_paths') or []
        if not isinstance(names, list):
            reason = f'relative_file_paths is {names!r}, expected a list'
            self.problems.add(folder / METADATA, reason)
            return
        for name in names:
            if not (folder / str(name)).exists():
                self.problems.add(folder, f'{METADATA} lists {name}, which is missing')

    def _metadata(self, folder: Path) -> dict[str, Any]:
        """Return the content of `metadata.yaml`, empty where a killed recorder left none."""
        if folder not in self._read:
            self._read[folder] = self._read_metadata(folder / METADATA)
        return self._read[folder]

    def _read_metadata(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            return {}
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8'))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self.problems.add(path, f'cannot be read: {error}')
            return {}
        found = content.get(INFORMATION) if isinstance(content, dict) else None
        if not isinstance(found, dict):
            self.problems.add(path, f'{INFORMATION} is {found!r}, expected a map')
            return {}
        return found

    def recorded_values(self, key: str) -> set[str]:
        """Return the recorder's values of a key, over all parts of the recording."""
        folders = {file.path.parent for file in self.files}
        return {data[key] for data in map(self._custom_data, folders) if key in data}

    def _custom_data(self, folder: Path) -> dict[str, str]:
        data = self._metadata(folder).get('custom_data')
        if not data and (folder / RECORDING).is_file():
            try:
                data = yaml.safe_load((folder / RECORDING).read_text(encoding='utf-8'))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                self.problems.add(folder / RECORDING, f'cannot be read: {error}')
        return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order `bag_10` after `bag_9`."""
    return [
        (int(part), '') if part.isdecimal() else (-1, part)
        for part in re.split(r'(\d+)', path.name)
    ]
