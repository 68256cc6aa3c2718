# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints as `torch.save` does, of classes that are not installed too.

A pickle is written instruction by instruction, so that it may name what does not exist here.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STORAGES = {
    torch.float64: 'DoubleStorage',
    torch.float32: 'FloatStorage',
    torch.float16: 'HalfStorage',
    torch.int64: 'LongStorage',
}


@dataclass(frozen=True)
class Name:
    """A class or function by its name."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """What a function makes of arguments."""

    function: Name
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Instance:
    """An object of a class, with its state."""

    kind: Name
    state: Any


class Program:
    """The pickle of a value, and the storages of its tensors."""

    def __init__(self, value: Any) -> None:
        self.storages: list[torch.Tensor] = []
        self.data = b'\x80\x02' + self.of(value) + b'.'

    def of(self, value: Any) -> bytes:
        """Return the instructions that make a value."""
        match value:
            case None:
                return b'N'
            case bool():
                return b'\x88' if value else b'\x89'
            case int():
                return b'J' + struct.pack('<i', value) if abs(value) < 2**31 else self.long(value)
            case float():
                return b'G' + struct.pack('>d', value)
            case str():
                text = value.encode()
                return b'X' + struct.pack('<I', len(text)) + text
            case tuple():
                return b'(' + b''.join(map(self.of, value)) + b't'
            case list():
                return b'](' + b''.join(map(self.of, value)) + b'e'
            case dict():
                return b'}(' + b''.join(self.of(k) + self.of(v) for k, v in value.items()) + b'u'
            case Name():
                return f'c{value.module}\n{value.name}\n'.encode()
            case Call():
                return self.of(value.function) + self.of(value.arguments) + b'R'
            case Instance():
                return self.of(value.kind) + b')\x81' + self.of(value.state) + b'b'
            case torch.Tensor():
                return self.of(self.tensor(value))
            case bytes():
                return value  # Instructions as they are.
        raise TypeError(value)

    @staticmethod
    def long(value: int) -> bytes:
        """Return an integer of any size."""
        content = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
        return b'\x8b' + struct.pack('<i', len(content)) + content

    def tensor(self, value: torch.Tensor) -> Call:
        """Return the call that makes a tensor."""
        self.storages.append(value.contiguous())
        kind = Name('torch', STORAGES[value.dtype])
        identity = ('storage', kind, str(len(self.storages) - 1), 'cpu', value.numel())
        storage = self.of(identity) + b'Q'
        arguments = (storage, 0, tuple(value.shape), value.contiguous().stride(), False, {})
        return Call(Name('torch._utils', '_rebuild_tensor_v2'), arguments)


def write_torch_zip(
    path: Path,
    value: Any,
    extra: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    byteorder: str = 'little',
) -> Path:
    """Write a value as a checkpoint and return its path.

    Args:
        path: the file.
        value: plain containers, tensors, `Name`, `Call`, `Instance`; bytes are the whole pickle.
        extra: further files within it.
        compression: of the zip.
        byteorder: that it says.
    """
    program = value if isinstance(value, bytes) else None
    made = Program(None if program is not None else value)
    with zipfile.ZipFile(path, 'w', compression) as file:
        file.writestr('archive/data.pkl', made.data if program is None else program)
        file.writestr('archive/byteorder', byteorder)
        for number, storage in enumerate(made.storages):
            file.writestr(f'archive/data/{number}', storage.numpy().tobytes())
        file.writestr('archive/version', '3\n')
        for name, content in (extra or {}).items():
            file.writestr(f'archive/{name}', content)
    return path


def omegaconf(value: Any) -> Any:
    """Return a configuration as OmegaConf pickles it: nodes that know their parents' metadata."""
    metadata = Instance(
        Name('omegaconf.base', 'Metadata'),
        {
            'ref_type': Name('typing', 'Any'),
            'object_type': Call(Name('dill._dill', '_load_type'), ('dict',)),
            'flags': {},
            'resolver_cache': Call(
                Name('collections', 'defaultdict'),
                (Call(Name('dill._dill', '_load_type'), ('dict',)),),
            ),
        },
    )
    if isinstance(value, dict):
        content = {key: omegaconf(each) for key, each in value.items()}
        kind = Name('omegaconf.dictconfig', 'DictConfig')
        return Instance(kind, {'_metadata': metadata, '_parent': None, '_content': content})
    if isinstance(value, (list, tuple)):
        items = [omegaconf(each) for each in value]
        kind = Name('omegaconf.listconfig', 'ListConfig')
        return Instance(kind, {'_metadata': metadata, '_parent': None, '_content': items})
    state = {'_metadata': metadata, '_parent': None, '_val': value}
    return Instance(Name('omegaconf.nodes', 'AnyNode'), state)
