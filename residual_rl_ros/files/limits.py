# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How much a file or a text may ask of its reader, and files read within these limits.

A file of a few bytes can ask for gigabytes or hours: by aliases, nesting, compression, counts.
Every reader stops at these limits with one line that names the limit, within about five seconds and
300 MiB more than the file's size.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from residual_rl_ros.errors import FormatError

MIB = 2**20

# Texts: YAML, JSON, layouts.
TEXT_BYTES = MIB
"""Largest text that people write or nodes send: configuration, metadata, layouts [byte]."""
RESULT_BYTES = 64 * MIB
"""Largest JSON that a run writes, such as the history of its episodes [byte]."""
DEPTH = 64
"""Lists and maps within one another."""
YAML_NODES = 50_000
"""Values in a YAML text, aliases counted as often as they are used."""
JSON_VALUES = 2_000_000
"""Values in a JSON text."""
DIGITS = 100
"""Longest number [character]."""

# Robot descriptions (URDF) and their meshes.
XML_ELEMENTS = 20_000
"""Elements of an XML text."""
LINKS = 500
"""Links of a robot: its readers call themselves for each link that hangs on another."""
JOINTS = 100
"""Joints that move: pinocchio keeps their third power in memory."""
MESH_BYTES = 16 * MIB
"""Largest mesh of a link's collision geometry [byte]."""

# Bags.
MESSAGE_BYTES = 64 * MIB
"""Largest chunk or message that is taken into memory [byte]."""
INFLATED_BYTES = 256 * MIB
INFLATION = 64
"""A file may unpack to this many bytes, and to this many times its size more."""
CHUNK_RECORDS = 2**18
"""A file may hold so many records within chunks, and one for each two of its bytes more."""
LOOSE_RECORDS = 2**17
"""A file may hold so many records outside of chunks, and one for each 24 of its bytes more."""
TOPICS = 4096
"""Topics of one file."""
OVERLAP_BYTES = 128 * MIB
"""Messages kept in memory to put them in the order of their times [byte]."""
OVERLAP_MESSAGES = 2**20
"""The same as a count."""
SQL_STEPS = 10_000_000
"""Instructions of SQLite's machine for one statement."""
FILES = 10_000
FOLDER_DEPTH = 16
"""Files of one bag, and folders within one another."""
FINDINGS = 1000
"""Lines of findings about one thing; the others are counted."""

# LeRobot datasets (Parquet).
FRAMES = 50_000
FRAME_BYTES = 16
"""A dataset may hold so many frames, and one for each so many bytes of its files more."""
ROW_GROUP_BYTES = 128 * MIB
"""Largest row group, unpacked [byte]."""

# Demonstrations (HDF5, safetensors); frames are limited as those of LeRobot datasets.
EPISODES = 10_000
"""Demonstrations of one file."""
EPISODE_BYTES = 128 * MIB
"""Largest demonstration, as far as it is read, unpacked [byte]."""
CHUNK_BYTES = 64 * MIB
"""Largest chunk of an HDF5 data set, unpacked: HDF5 unpacks whole ones [byte]."""
DEMONSTRATION_BYTES = 256 * MIB
"""Largest file of demonstrations that is read at once [byte]."""

# Checkpoints of other frameworks.
CHECKPOINT_BYTES = 2**31 - 1
"""Largest file of weights: more does not fit into an ONNX file [byte]."""
HEADER_BYTES = 8 * MIB
HEADER_TENSORS = 20_000
"""Largest header of a file of weights [byte], and how many tensors it may name."""
CHECKPOINT_ENTRIES = 2**16
"""Files within a checkpoint."""
DIRECTORY_BYTES = 16 * MIB
"""Largest list of the files within a checkpoint [byte]."""
PICKLE_BYTES = 32 * MIB
"""Largest pickle of a checkpoint; the tensors are beside it [byte]."""
PICKLE_STEPS = 1_000_000
"""Instructions of a pickle, and values that it may make, shared ones counted at each use."""
TENSOR_DIMENSIONS = 16
"""Dimensions of a tensor."""


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file; pipes and devices, which may never end, are refused.

    Args:
        path: the file.
        limit: largest size [byte].

    Raises:
        FormatError: it cannot be read, is no regular file or is too large.
    """
    with open_regular(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise FormatError(f'{path.name} cannot be read: {error.strerror or error}') from error
    if len(content) > limit:
        raise FormatError(f'{path.name} is larger than {limit} bytes')
    return content


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read; pipes and devices are refused.

    Raises:
        FormatError: it cannot be opened or is no regular file.
    """
    try:
        # Without this flag the opening of a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        file = os.fdopen(descriptor, 'rb')
    except (OSError, ValueError) as error:  # A name may hold a null character.
        reason = getattr(error, 'strerror', None) or error
        raise FormatError(f'{path.name} cannot be read: {reason}') from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FormatError(f'{path.name} is no regular file')
    return file


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Return the content of a text file in UTF-8.

    Raises:
        FormatError: as of `read_bytes`, or it is no such text.
    """
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f'{path.name} is no text in UTF-8: {error}') from error
