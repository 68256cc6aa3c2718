# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An ONNX model as the files that it consists of: what identifies it, and what it does by chance.

A model may keep weights in files beside its graph, and a base policy its metadata. All of them are
read here, once, and ONNX Runtime gets what was read: it opens no file by itself, and what changes
on the disk afterwards changes no running model.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
import onnx.utils

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.onnx_bounds import check_bounds

MAX_MODEL_BYTES = 2**31 - 1
"""Largest model with all its weights: more does not fit into a protobuf message."""
RANDOM_OPERATORS = {
    'RandomNormal',
    'RandomNormalLike',
    'RandomUniform',
    'RandomUniformLike',
    'Multinomial',
    'Bernoulli',
    'Sampling',
}
"""Operators that draw random numbers, with or without a seed: a call changes what the next gives.
"""
TRAINING_MODE_INPUTS = {
    'Dropout': 2,
    'BitmaskDropout': 2,
    'BiasDropout': 4,
    'BitmaskBiasDropout': 4,
}
"""Operators that draw random numbers if their input of this index is true."""


@dataclass(frozen=True)
class OnnxModel:
    """A model, read and checked; no file of it is read again."""

    path: Path
    content: bytes
    """The graph with all its weights, for ONNX Runtime."""
    digests: Mapping[str, str]
    """SHA-256 of every file, by its name in the folder; the graph's first."""
    size: int
    """Bytes of all files."""
    sha256: str
    """What identifies the model: the digest of its file or, of several, one over all of them."""
    metadata: Mapping[str, str]
    """The graph's `metadata_props`."""
    sidecar: bytes | None
    """Metadata beside the graph, None if there is none or the graph has its own."""
    random_operators: tuple[str, ...]
    """Operators in it that draw random numbers, by type: its output is no function of its input."""
    batch_names: tuple[str, ...]
    """What the leading dimensions of its inputs are called where they are left open."""


def read_model(
    path: Path,
    what: str,
    error_type: type[ResidualRLError],
    sha256: str = '',
    metadata_key: str = '',
) -> OnnxModel:
    """Read a model with all its files.

    Args:
        path: the `.onnx` file.
        what: what the model is, for the error.
        error_type: type of the error.
        sha256: what must identify it, in lower case; empty accepts any.
        metadata_key: if the graph has no such metadata, a YAML file of the same name holds it.

    Raises:
        ResidualRLError: of `error_type`: missing, unreadable, another model, or one that wants
            files from outside of its folder.
    """
    if not path.is_file():
        problem = 'is no file' if os.path.lexists(path) else 'does not exist'
        raise error_type(f'{what} {str(path)!r} {problem}; give the path of an .onnx file')
    try:
        content = _read(path.resolve())
        size = len(content)
        model = _parse(content)
        digests = {path.name: hashlib.sha256(content).hexdigest()}
        lines = [f'{digests[path.name]}  graph\n']
        files = _embed_weights(model, path)
        for name in sorted(files):
            digests[name] = hashlib.sha256(files[name]).hexdigest()
            lines.append(f'{digests[name]}  data {name}\n')
            size += len(files[name])
        if files:
            content = model.SerializeToString()
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        if [entry.key for entry in model.metadata_props].count(metadata_key) > 1:
            raise ValueError(f'it has the metadata {metadata_key!r} twice, expected them once')
        sidecar = None
        beside = path.with_suffix('.yaml')
        if metadata_key and metadata_key not in metadata and beside.is_file():
            sidecar = _read(beside.resolve())
            digests[beside.name] = hashlib.sha256(sidecar).hexdigest()
            lines.append(f'{digests[beside.name]}  metadata\n')
            size += len(sidecar)
        nodes, constants = list(_messages(model, onnx.NodeProto)), _constants(model)
        check_bounds(model, nodes, constants, _messages(model, onnx.SparseTensorProto))
        random = tuple(sorted(set(_random_operators(nodes, constants))))
        batch = tuple(sorted(set(_batch_names(model.graph))))
    except (OSError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise error_type(f'{str(path)!r} is no loadable ONNX model: {reason}') from error
    # One file is identified by its digest as `sha256sum` prints it.
    several = hashlib.sha256(''.join(lines).encode()).hexdigest()
    found = several if len(digests) > 1 else digests[path.name]
    if sha256 and found != sha256:
        others = list(digests)[1:]
        over = f' (over {path.name} with {", ".join(others)} beside it)' if others else ''
        raise error_type(
            f'{str(path)!r} has sha256 {found}{over}, expected {sha256}; correct the file, or the '
            'digest in the robot YAML (base_policy_sha256, encoder_sha256, classifier_sha256)'
        )
    return OnnxModel(path, content, digests, size, found, metadata, sidecar, random, batch)


def extract(model: OnnxModel, given: str, wanted: str) -> tuple[bytes, list[str]]:
    """Cut out of a graph what computes one of its outputs from one of its inputs.

    Args:
        model: the model.
        given: name of the input.
        wanted: name of the output.

    Returns:
        The part as a model, and the names of the other inputs of the graph that it would need.

    Raises:
        ValueError: there is no such input or output, or the graph is not one that can be cut.
    """
    whole = _parse(model.content)
    stored = {tensor.name for tensor in whole.graph.initializer}
    inputs = {each.name for each in whole.graph.input} - stored
    outputs = {each.name for each in whole.graph.output}
    if given not in inputs or wanted not in outputs:
        raise ValueError(
            f'it has the inputs {sorted(inputs)} and outputs {sorted(outputs)}, expected {given} '
            f'and {wanted}'
        )
    try:
        part = onnx.utils.Extractor(whole).extract_model([given], [wanted])
        content = part.SerializeToString()
    except Exception as error:  # It asserts what a foreign graph need not keep.
        raise ValueError(str(error) or type(error).__name__) from error
    used = {name for node in _messages(part, onnx.NodeProto) for name in node.input}
    needed = sorted(used & (inputs - {given}))
    return content, needed if given in used else [*needed, f'no {given}']


def _parse(content: bytes) -> Any:
    try:
        return onnx.ModelProto.FromString(content)
    except Exception as error:  # Protobuf raises its own untyped hierarchy.
        raise ValueError(str(error)) from error


def _read(path: Path) -> bytes:
    """Return the content of a regular file whose path holds no link.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is something else, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, 'rb') as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f'{path.name!r} is no file')
        if status.st_size > MAX_MODEL_BYTES:
            raise ValueError(f'{path.name!r} is larger than {MAX_MODEL_BYTES} bytes')
        return file.read()


def _embed_weights(model: Any, path: Path) -> dict[str, bytes]:
    """Put weights that are beside the graph into it; return these files by name.

    Raises:
        OSError, ValueError: one cannot be read, or may not be.
    """
    files: dict[str, bytes] = {}
    taken = 0
    for tensor in _messages(model, onnx.TensorProto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) < len(tensor.external_data):
            raise ValueError(f'tensor {tensor.name!r} says twice where its weights are')
        name = _name_beside(path, entries.get('location', ''))
        if name not in files:
            files[name] = _read(path.resolve().parent / name)
        size = len(files[name])
        offset = _whole(entries, 'offset', 0, tensor.name)
        length = _whole(entries, 'length', max(size - offset, 0), tensor.name)
        if offset + length > size:
            raise ValueError(
                f'tensor {tensor.name!r} is in the bytes {offset} to {offset + length} of '
                f'{name!r}, which has {size}'
            )
        taken += length
        if taken > sum(map(len, files.values())):
            raise ValueError(f'its tensors overlap in {", ".join(sorted(files))}')
        if taken > MAX_MODEL_BYTES:
            raise ValueError(f'its weights are larger than {MAX_MODEL_BYTES} bytes')
        tensor.raw_data = files[name][offset : offset + length]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return files


def _name_beside(path: Path, location: str) -> str:
    """Return the name, below the folder of the model, of a file that it wants weights from.

    Raises:
        OSError, ValueError: it is none, or outside of that folder, or the way to it is a link.
    """
    pure = PurePosixPath(location)
    if not pure.parts or pure.is_absolute() or '..' in pure.parts or '\0' in location:
        raise ValueError(
            f'it wants weights from {location!r}, expected a file in its own folder; save it '
            'again, with its weights there or in the model itself'
        )
    wanted = path.resolve().parent / pure
    if not wanted.exists():
        raise ValueError(f'its weights {str(pure)!r} are not beside it; copy them there')
    if wanted.resolve() != wanted:
        raise ValueError(f'its weights {str(pure)!r} are a link, expected a file in its folder')
    return str(pure)


def _whole(entries: Mapping[str, str], key: str, default: int, tensor: str) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**63))):
        raise ValueError(f'{key} of tensor {tensor!r} is {text[:40]!r}, expected bytes')
    return int(text)


def _messages(model: Any, kind: Any) -> Iterator[Any]:
    """Yield all messages of a kind: of the graph, its subgraphs, attributes and functions."""
    waiting = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, kind):
            yield message
        if isinstance(message, onnx.TensorProto):  # To list its fields would copy its numbers.
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += [value] if hasattr(value, 'ListFields') else value


def _batch_names(graph: Any) -> Iterator[str]:
    """Yield the names of leading dimensions of inputs that have no size."""
    for value in graph.input:
        for dimension in value.type.tensor_type.shape.dim[:1]:
            if dimension.WhichOneof('value') == 'dim_param':
                yield dimension.dim_param


def _constants(model: Any) -> dict[str, list[Any]]:
    """Return the tensors of all graphs and functions by their names: several may have the same."""
    constants: dict[str, list[Any]] = {}
    for graph in _messages(model, onnx.GraphProto):
        for tensor in graph.initializer:
            constants.setdefault(tensor.name, []).append(tensor)
    for node in _messages(model, onnx.NodeProto):
        if node.op_type == 'Constant' and node.output:
            tensors = [each.t for each in node.attribute if each.name == 'value']
            constants.setdefault(node.output[0], []).extend(tensors)
    return constants


def _random_operators(
    nodes: Sequence[Any], constants: Mapping[str, Sequence[Any]]
) -> Iterator[str]:
    """Yield the types of the operators that draw random numbers."""
    for node in nodes:
        if node.op_type in RANDOM_OPERATORS:
            yield node.op_type
        index = TRAINING_MODE_INPUTS.get(node.op_type)
        if index is not None and len(node.input) > index and node.input[index]:
            values = constants.get(node.input[index], [])
            if not values or any(any(v.raw_data) or any(v.int32_data) for v in values):
                yield node.op_type
