# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that `torch.save` wrote: a zip of one pickle, and of the tensors' numbers beside it.

This is the one place of the package that reads a pickle. It neither uses `torch.load` nor Python's
unpickler: `pickle_program` runs the few instructions that make containers, and nothing that the
file names is imported or called. What may be named is in `TENSOR_CALLS` and `INERT` below.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch

from residual_rl_ros.errors import FormatError, shown
from residual_rl_ros.files.limits import (
    CHECKPOINT_BYTES,
    CHECKPOINT_ENTRIES,
    DIRECTORY_BYTES,
    PICKLE_BYTES,
    TENSOR_DIMENSIONS,
    open_regular,
)
from residual_rl_ros.importing.pickle_program import Calls, Label, Record, read_program

STORAGE_TYPES = {
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.LongStorage': torch.int64,
    'torch.IntStorage': torch.int32,
    'torch.ShortStorage': torch.int16,
    'torch.CharStorage': torch.int8,
    'torch.ByteStorage': torch.uint8,
    'torch.BoolStorage': torch.bool,
}
INERT = frozenset(
    f'{module}.{name}'
    for module, names in {
        # What OmegaConf, the configuration of diffusion_policy, is made of.
        'omegaconf.dictconfig': 'DictConfig',
        'omegaconf.listconfig': 'ListConfig',
        'omegaconf.base': 'ContainerMetadata Metadata',
        'omegaconf.nodes': 'AnyNode BooleanNode FloatNode IntegerNode PathNode StringNode',
        'dill._dill': '_load_type',
        'typing': 'Any Dict List Optional Union',
        'builtins': 'bool dict float int list object str tuple',
        '__builtin__': 'bool dict float int list object str tuple',
        # Numbers among the records of a run, which nobody reads.
        'numpy': 'dtype ndarray',
        'numpy.core.multiarray': '_reconstruct scalar',
        'numpy._core.multiarray': '_reconstruct scalar',
        'torch': 'device float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool',
    }.items()
    for name in names.split()
) | frozenset(STORAGE_TYPES)
"""Classes whose objects may be in a checkpoint; they become records that do nothing."""
END = struct.Struct('<4s4H2LH')
END_64 = struct.Struct('<4sQ2H2L4Q')
LOCATOR_64 = struct.Struct('<4sLQL')


@dataclass(frozen=True)
class Storage:
    """Numbers of one file within the zip.

    Args:
        key: name of the file in folder `data`.
        kind: type of the numbers.
        count: how many they are.
    """

    key: str
    kind: torch.dtype
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose numbers are still in the file.

    Args:
        storage: the numbers.
        offset: index of the first.
        shape, strides: as of torch, strides in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchZip:
    """A checkpoint: its content with `StoredTensor` for each tensor, and the tensors on demand."""

    def __init__(self, path: Path) -> None:
        """Read all but the tensors.

        Raises:
            FormatError: it is no such file, is damaged, or wants more than tensors and containers.
        """
        self._name = path.name
        self._file = open_regular(path)
        try:
            self._zip = _open_zip(self._file, self._name)
            self._entries = _check_entries(self._zip, self._file, self._name)
            self._prefix = self._find_prefix()
            self.content = self._read_content()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def tensors(self, state: Any, what: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a state dictionary.

        Args:
            state: a dictionary out of `content`.
            what: what it is, for the error.

        Raises:
            FormatError: it is none, or its numbers are damaged.
        """
        if not isinstance(state, Mapping):
            raise FormatError(f'{self._name}: {what} is {shown(state)}, expected a map of tensors')
        storages = {each.storage for each in state.values() if isinstance(each, StoredTensor)}
        size = sum(each.count * each.kind.itemsize for each in storages)
        if size > CHECKPOINT_BYTES:
            raise FormatError(
                f'{self._name}: {what} has {size} bytes, expected at most {CHECKPOINT_BYTES}: an '
                'ONNX file holds no more'
            )
        read: dict[Storage, torch.Tensor] = {}
        made = {}
        for name, stored in state.items():
            if not (isinstance(name, str) and isinstance(stored, StoredTensor)):
                raise FormatError(
                    f'{self._name}: {what} has {shown(stored)} under {shown(name)}, expected a '
                    'tensor'
                )
            if stored.storage not in read:
                read[stored.storage] = self._read_storage(stored.storage)
            numbers = read[stored.storage]
            made[name] = torch.as_strided(numbers, stored.shape, stored.strides, stored.offset)
        return made

    def _find_prefix(self) -> str:
        found = [name for name in self._entries if name.endswith('/data.pkl')]
        if len(found) != 1 or f'{found[0][:-8]}constants.pkl' in self._entries:
            raise FormatError(
                f'{self._name} is no checkpoint of torch.save: it holds {len(found)} files '
                "'data.pkl', expected 1 and no 'constants.pkl', which TorchScript has; save the "
                'state dictionary with torch.save'
            )
        return found[0][:-8]

    def _read_content(self) -> Any:
        order = f'{self._prefix}byteorder'
        if order in self._entries and self._read(order, 16) != b'little':
            raise FormatError(
                f'{self._name} was written by a big-endian computer, expected little; save it '
                'again on another computer'
            )
        program = self._read(f'{self._prefix}data.pkl', PICKLE_BYTES)
        return read_program(program, TENSOR_CALLS, INERT, self._declare_storage, self._name)

    def _declare_storage(self, identity: Any) -> Storage:
        """Return the storage that an identity of torch names: ('storage', type, key, device, n)."""
        match identity:
            case ('storage', Label(kind), str(key), str(), int(count)) if kind in STORAGE_TYPES:
                storage = Storage(key, STORAGE_TYPES[kind], count)
            case _:
                raise ValueError(f'{shown(identity)} is no storage of numbers')
        entry = self._entries.get(f'{self._prefix}data/{key}')
        if entry is None:
            raise ValueError(f'storage {shown(key)} is not in the file')
        if entry.file_size != count * storage.kind.itemsize:
            raise ValueError(
                f'storage {shown(key)} has {entry.file_size} bytes, expected '
                f'{count * storage.kind.itemsize}'
            )
        return storage

    def _read_storage(self, storage: Storage) -> torch.Tensor:
        if storage.count == 0:
            return torch.empty(0, dtype=storage.kind)
        content = self._read(f'{self._prefix}data/{storage.key}', CHECKPOINT_BYTES)
        return torch.frombuffer(bytearray(content), dtype=storage.kind)

    def _read(self, name: str, limit: int) -> bytes:
        entry = self._entries[name]
        if entry.file_size > limit:
            raise FormatError(
                f'{self._name}: {name} has {entry.file_size} bytes, expected at most {limit}'
            )
        try:
            return self._zip.read(entry)
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            ValueError,
            struct.error,
        ) as error:
            raise FormatError(f'{self._name} is damaged: {name}: {error}') from error


def _open_zip(file: BinaryIO, name: str) -> zipfile.ZipFile:
    """Open the zip after its list of files is known to be of sensible length."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(4)
    if head != b'PK\x03\x04':
        raise FormatError(
            f'{name} is no zip file; checkpoints of torch before 1.6 are none: load it there and '
            'save it with a newer torch'
        )
    length = END_64.size + LOCATOR_64.size + END.size
    file.seek(max(0, size - length))
    tail = file.read().rjust(length, b'\0')
    end = END.unpack(tail[-END.size :])
    entries, directory = end[4], end[5]
    locator = LOCATOR_64.unpack_from(tail, END_64.size)
    if locator[0] == b'PK\x06\x07':
        end_64 = END_64.unpack_from(tail)
        if end_64[0] != b'PK\x06\x06' or locator[2] != size - length:
            raise FormatError(f'{name} is damaged: the end of its zip is not where it should be')
        entries, directory = end_64[7], end_64[8]
    if end[0] != b'PK\x05\x06' or end[-1] != 0:
        raise FormatError(f'{name} is damaged: the end of its zip is missing')
    if entries > CHECKPOINT_ENTRIES or directory > DIRECTORY_BYTES:
        raise FormatError(
            f'{name} holds {entries} files in a list of {directory} bytes, expected at most '
            f'{CHECKPOINT_ENTRIES} and {DIRECTORY_BYTES}'
        )
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise FormatError(f'{name} is damaged: {error}') from error


def _check_entries(
    archive: zipfile.ZipFile, file: BinaryIO, name: str
) -> dict[str, zipfile.ZipInfo]:
    """Return the files by name; they are stored as they are, so none can be larger than the zip."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise FormatError(f'{name} is damaged: a file is in it twice')
    if len(entries) > CHECKPOINT_ENTRIES:
        raise FormatError(f'{name} holds more than {CHECKPOINT_ENTRIES} files')
    for entry in entries.values():
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.flag_bits & 1
            or entry.file_size != entry.compress_size
        ):
            raise FormatError(
                f'{name}: {shown(entry.filename)} is compressed or encrypted, which torch.save '
                'never does'
            )
    total, size = (
        sum(entry.file_size for entry in entries.values()),
        os.fstat(file.fileno()).st_size,
    )
    if total > size:
        raise FormatError(f'{name} claims {total} bytes of content and has {size}')
    return entries


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, *_: Any
) -> StoredTensor:
    """Take the place of torch._utils._rebuild_tensor_v2.

    Raises:
        ValueError: the tensor leaves its storage, or has more numbers than that.
    """
    if not (isinstance(storage, Storage) and isinstance(shape, tuple)):
        raise ValueError('a tensor has no storage or shape')
    if (
        not isinstance(strides, tuple)
        or len(strides) != len(shape)
        or len(shape) > TENSOR_DIMENSIONS
    ):
        raise ValueError(f'a tensor has shape {shown(shape)} and strides {shown(strides)}')
    if not all(type(value) is int and value >= 0 for value in (offset, *shape, *strides)):
        raise ValueError('offset, shape or strides of a tensor are no natural numbers')
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if count and (count > storage.count or last >= storage.count):
        raise ValueError(
            f'a tensor of shape {shown(shape)} leaves its storage of {storage.count} numbers'
        )
    return StoredTensor(storage, offset if count else 0, shape, strides)


def _parameter(data: Any, *_: Any) -> StoredTensor:
    """Take the place of torch._utils._rebuild_parameter."""
    if not isinstance(data, StoredTensor):
        raise ValueError('a parameter is no tensor')
    return data


def _map(*arguments: Any) -> dict[Any, Any]:
    """Take the place of OrderedDict and defaultdict, whose items follow.

    Raises:
        ValueError: they do not follow.
    """
    if not all(isinstance(argument, Record) for argument in arguments) or len(arguments) > 1:
        raise ValueError('a dictionary is made of its items, as Python 2 did')
    return {}


def _size(values: Any) -> tuple[Any, ...]:
    """Take the place of torch.Size."""
    if not isinstance(values, (list, tuple)):
        raise ValueError('a torch.Size is no list')
    return tuple(values)


def _encode(text: Any, encoding: Any) -> bytes:
    """Take the place of codecs.encode, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != 'latin1':
        raise ValueError('bytes are no text in latin1')
    return text.encode('latin1')


TENSOR_CALLS: Calls = {
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch.Size': _size,
    'collections.OrderedDict': _map,
    'collections.defaultdict': _map,
    '_codecs.encode': _encode,
}
"""What a checkpoint may call, and our function in its place."""
