# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag: the files of one recording, in order, whatever their storage."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.bags.log_order import BagFile, in_log_order
from residual_rl_ros.bags.mcap_file import McapFile
from residual_rl_ros.bags.segment import RawMessage, Segment
from residual_rl_ros.bags.sqlite_file import SIDECARS, SqliteFile, is_read_with
from residual_rl_ros.errors import BagError, FormatError
from residual_rl_ros.files import limits
from residual_rl_ros.files.yaml_text import read_yaml
from residual_rl_ros.findings import Findings

STORAGES: dict[str, type[McapFile] | type[SqliteFile]] = {'.mcap': McapFile, '.db3': SqliteFile}
METADATA = 'metadata.yaml'
INFORMATION = 'rosbag2_bagfile_information'
RECORDING = 'recording.yaml'
"""File in which our recorder describes a recording, written at its start."""
OTHER_STORAGES = (
    '.bag',
    '.active',
    '.db',
    '.sqlite',
    '.sqlite3',
    '.h5',
    '.hdf5',
    '.parquet',
    '.npz',
    '.pkl',
    '.zst',
    '.zstd',
    '.lz4',
    '.gz',
    '.bz2',
    '.xz',
    '.zip',
    '.tar',
    '.7z',
)
"""Ends of names of files that may hold messages, and that are not read here."""


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
        self.remarks: list[str] = []
        """What else lies there; nothing is lost without it."""
        self._read: dict[Path, dict[str, Any]] = {}
        self._seen: set[Path] = set()
        self._recordings: list[list[BagFile]] = [
            [STORAGES[file.suffix](file, self.problems) for file in files]
            for files in self._find(path, 0)
        ]
        self.files: list[BagFile] = [file for files in self._recordings for file in files]
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

    def segments(self, only: BagFile | None = None) -> Iterator[tuple[BagFile, Segment]]:
        """Yield the messages of each recording in the order of their log times.

        Args:
            only: one of the bag's files; None takes all.
        """
        counts: dict[Path, int] = {}
        spans: dict[Path, tuple[int, int, int]] = {}
        latest, before = -(2**63), 0
        for files in self._recordings if only is None else [[only]]:
            began: int | None = latest
            part = 0
            for file, segment in in_log_order(files, self.problems):
                self._check_topics(file, segment)
                folder = file.path.parent
                counts[folder] = counts.get(folder, 0) + len(segment)
                begin, end = int(segment.time_ns.min()), int(segment.time_ns.max())
                count, first, last = spans.get(file.path, (0, begin, end))
                spans[file.path] = count + len(segment), min(first, begin), max(last, end)
                if began is not None and begin < began:
                    before += 1  # This recording was made before the last one.
                began, part = None, segment.part
                latest = max(latest, end)
                yield file, replace(segment, part=before + part) if before else segment
            before += part
        if only is None:
            self._check_copies(spans)
        if only is None and not len(self.problems):
            self._check_counts(counts)

    def _check_copies(self, spans: Mapping[Path, tuple[int, int, int]]) -> None:
        """Report files that are copies of another: whatever is in them counts twice.

        Args:
            spans: number of messages of each file, and the times of the first and the last [ns].
        """
        by_span: dict[tuple[int, int, int], Path] = {}
        for path, span in spans.items():
            other = by_span.setdefault(span, path)
            if other != path and filecmp.cmp(path, other, shallow=False):
                reason = f'is a copy of {other.name}: its {span[0]} messages count twice; remove it'
                self.problems.add(path, reason)

    def _check_counts(self, counts: dict[Path, int]) -> None:
        """Report metadata that counts other messages than there are."""
        for folder, count in counts.items():
            said = self._metadata(folder).get('message_count', count)
            if folder in self._seen and said != count:
                reason = f'message_count is {said!r}, its files hold {count} messages'
                self.problems.add(folder / METADATA, reason)

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

    def _find(self, path: Path, depth: int) -> list[list[Path]]:
        """Return the files of each recording below a path, in order."""
        if path.is_file():
            if path.suffix not in STORAGES:
                raise BagError(
                    f'{str(path)!r} is no bag file: expected {" or ".join(STORAGES)}; uncompress '
                    'files with ros2 bag convert'
                )
            self._check_sidecars(path)
            return [] if self._compressed(path.parent) else [[path]]
        if not path.is_dir():
            raise BagError(f'bag {str(path)!r} does not exist')
        # A link may lead back.
        if depth > limits.FOLDER_DEPTH or path.resolve() in self._seen:
            reason = f'was read already, or is in more than {limits.FOLDER_DEPTH} folders; not read'
            self.problems.add(path, reason)
            return []
        self._seen |= {path, path.resolve()}
        if self._compressed(path):
            return []
        listed = self._listed(path)
        found: list[list[Path]] = []
        for entry in self._entries(path):
            if len(self._seen) + sum(map(len, found)) > limits.FILES:
                self.problems.add(path, f'more than {limits.FILES} files and folders; not all read')
                break
            if entry.is_dir():
                found += self._find(entry, depth + 1)
            elif self._is_bag_file(entry, listed):
                found.append([entry])
        together = [[path / name for name in listed if [path / name] in found]]
        if len(together[0]) > 1:  # The parts of one recording.
            found = [*together, *([file] for (file,) in found if file.name not in listed)]
        if found and not (path / METADATA).is_file() and any(f[0].parent == path for f in found):
            self.remarks.append(
                f'{path}: no {METADATA}; its files are read in order of their names'
            )
        return found

    def _is_bag_file(self, path: Path, listed: Sequence[str]) -> bool:
        """Return whether a file is to be read; report it if not, and if it may hold messages."""
        name = path.name
        if path.is_symlink() and not path.exists():
            self.problems.add(path, f'links to {path.readlink()}, which is missing')
        elif path.suffix in STORAGES and not path.is_file():
            self.problems.add(path, 'is no file; not read')
        elif path.suffix in STORAGES:
            if listed and name not in listed:
                reason = f'is not listed in {METADATA}; not read: name it, or run ros2 bag reindex'
                self.problems.add(path, reason)
                return False
            self._check_sidecars(path)
            return True
        elif any(name.endswith(f'{kind}{end}') for kind in STORAGES for end in SIDECARS):
            base = path.with_name(name.rsplit('-', 1)[0])
            if path.stat().st_size and not base.exists():
                self.problems.add(path, f'belongs to {base.name}, which is missing; not read')
        elif name.endswith('-shm'):
            pass  # SQLite's, with nothing in it that lasts.
        elif path.suffix.lower() in OTHER_STORAGES or any(k in name for k in STORAGES):
            kinds = ' or '.join(STORAGES)
            self.problems.add(path, f'is not read, expected {kinds}: uncompress or convert it')
        elif name not in (METADATA, RECORDING):
            self.remarks.append(f'{path}: no bag file; not read')
        return False

    def _check_sidecars(self, path: Path) -> None:
        """Report what SQLite has not yet put into a database, if it is not read with it."""
        for end in SIDECARS if path.suffix == '.db3' else ():
            beside = Path(f'{path}{end}')
            try:
                if not beside.is_file() or not beside.stat().st_size:
                    continue
                known = is_read_with(path, beside)
            except OSError as error:
                self.problems.add(beside, f'cannot be read: {error.strerror}')
                continue
            if known:
                remark = 'read with it; its recorder runs, or was killed'
                self.remarks.append(f'{beside}: {remark}')
            else:
                self.problems.add(
                    beside,
                    f'holds {beside.stat().st_size} bytes that are not read with {path.name}: '
                    'its recorder was killed, or the file is of another database',
                )

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

    def _listed(self, folder: Path) -> list[str]:
        """Return the files that the metadata lists; report those that the folder lacks."""
        names = self._metadata(folder).get('relative_file_paths') or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            reason = f'relative_file_paths is {names!r}, expected a list of names'
            self.problems.add(folder / METADATA, reason)
            return []
        found = [Path(name).name for name in names]  # Old recorders list them below the folder.
        for name, own in zip(names, found, strict=True):
            if not _exists(folder / own):
                self.problems.add(folder, f'{METADATA} lists {name}, which is missing')
        return [name for name in dict.fromkeys(found) if _exists(folder / name)]

    def _metadata(self, folder: Path) -> dict[str, Any]:
        """Return the content of `metadata.yaml`, empty where a killed recorder left none."""
        if folder not in self._read:
            self._read[folder] = self._read_metadata(folder / METADATA)
        return self._read[folder]

    def _read_metadata(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            return {}
        try:
            content = read_yaml(path)
        except FormatError as error:
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
                data = read_yaml(folder / RECORDING)
            except FormatError as error:
                self.problems.add(folder / RECORDING, f'cannot be read: {error}')
        return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}


def _exists(path: Path) -> bool:
    """Return whether there is a file; names of any kind come from outside."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order `bag_10` after `bag_9`."""
    return [
        (int(part), '') if part.isdecimal() else (-1, part)
        for part in re.split(r'(\d+)', path.name)
    ]
