# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Robot policies on the wire and on disk: safetensors bytes with (epoch, sequence) and a digest.

A message names the kind of its policy. Nothing here can execute code: the header is JSON, the
tensors are raw numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as save_safetensors

import residual_rl_ros.residual_policy.candidate_selection
import residual_rl_ros.residual_policy.mppi
import residual_rl_ros.residual_policy.numpy_actor  # noqa: F401
from residual_rl_ros.errors import ResidualRLError, RewardError, WeightsError, shown
from residual_rl_ros.numerics import Float32
from residual_rl_ros.residual_policy.exploration import RESIDUAL, Exploration
from residual_rl_ros.residual_policy.probe import decides_numbers
from residual_rl_ros.residual_policy.robot_policy import Architecture, RobotPolicy, find_policy
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.seal import Key
from residual_rl_ros.transitions.transition import MAX_COUNT

METADATA = 'weights'
"""Name of the entry in the safetensors header that holds ours, as JSON."""


MAX_HEADER_BYTES = 2**17
"""Largest header of a weight message or file of tensors. While JSON is parsed a control loop cannot
run. The header of an actor has some kB, most of it names of observations."""
MAX_TENSORS = 1024
"""Most tensors of either; an actor with its critics has less than 100 as a rule."""
MAX_VALUES = 10**4
"""Most values in a header: names, sizes, maps and lists."""
MAX_DIMENSIONS = 8
"""Most dimensions of a tensor."""
MAX_ACTOR_BYTES = 2**28
"""Largest file of an actor; those of planners hold a model of the dynamics."""
MAX_RUN_CHARACTERS = 64
"""Longest name of a learner's run."""
DTYPES = {
    **{'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BOOL': '?'},
    **{'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': 'i1'},
    **{'U64': '<u8', 'U32': '<u4', 'U16': '<u2', 'U8': 'u1'},
}
"""Types of tensors by their names in a safetensors header."""
UNREADABLE = (
    ResidualRLError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a message that is none can raise."""


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in safetensors bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte from the beginning of the file or message."""
    end: int

    def cut(self, data: bytes | memoryview) -> npt.NDArray[Any]:
        """Return a copy of the tensor."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.begin)
        return flat.reshape(self.shape).copy()


def tensor_places(
    data: bytes | memoryview, size: int | None = None
) -> tuple[dict[str, TensorPlace], dict[str, Any]]:
    """Return where the tensors of safetensors bytes lie, by name, and the metadata.

    Size and number of entries are bounded before JSON is parsed; no tensor is touched. Every
    message and every file of tensors is read by this.

    Args:
        data: the message, or the first `8 + MAX_HEADER_BYTES` bytes of a file.
        size: size of the whole [byte]; None is that of the data.

    Raises:
        ValueError: it is something else, or too large; or `RecursionError`, `TypeError`.
    """
    size = len(data) if size is None else size
    length = int.from_bytes(data[:8], 'little')
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(
            f'the header has {length} of {size} bytes, expected 2 to {MAX_HEADER_BYTES} that are '
            'there'
        )
    text = bytes(data[8 : 8 + length])
    for what, limit, marks in (
        ('tensors', MAX_TENSORS, (b'data_offsets',)),
        ('values', MAX_VALUES, (b',', b'[', b'{')),
    ):
        count = sum(map(text.count, marks))
        if count > limit:
            raise ValueError(f'the header has {count} {what}, expected <= {limit}')
    entries = json.loads(text.decode('utf-8'))
    if not isinstance(entries, dict):
        raise ValueError('the header is no map')
    metadata = entries.pop('__metadata__', {})
    places = {name: _place(name, entry, 8 + length) for name, entry in entries.items()}
    begin = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != begin:
            raise ValueError(f'tensor {shown(name)} begins at {place.begin}, expected {begin}')
        begin = place.end
    if begin != size:
        raise ValueError(f'the tensors end at {begin}, expected {size}')
    return places, metadata


def check_tensor_file(path: Path) -> None:
    """Refuse a file of tensors whose header is none, before anything is made of it.

    Raises:
        OSError: it cannot be read.
        ValueError: see `tensor_places`.
    """
    with path.open('rb') as file:
        tensor_places(file.read(8 + MAX_HEADER_BYTES), os.fstat(file.fileno()).st_size)


def _place(name: str, entry: Any, offset: int) -> TensorPlace:
    """Return where a tensor lies by its entry in a header."""
    begin, end = entry['data_offsets']
    shape, dtype = tuple(entry['shape']), np.dtype(DTYPES[entry['dtype']])
    if not all(type(value) is int and 0 <= value <= MAX_COUNT for value in (begin, end, *shape)):
        raise ValueError(f'tensor {shown(name)} is {shown(entry)}, expected whole numbers')
    if math.prod(shape) * dtype.itemsize != end - begin or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f'tensor {shown(name)} of shape {shown(shape)} has {end - begin} bytes')
    return TensorPlace(dtype, shape, offset + begin, offset + end)


@dataclass(frozen=True)
class WeightsHeader:
    """What a weight message says besides the tensors.

    In lockstep the run is reproducible because an actor takes effect at a *count of decisions*,
    not at a time: both counts are decisions since the policy node accepted this epoch.
    """

    epoch: int
    """Grows at every start of the learner and at a rollback that an operator asks for; >= 1."""
    sequence: int
    """Grows at every publication within an epoch, the one after a guard's rollback included."""
    exploration: Exploration = RESIDUAL
    """How to act with this actor."""
    effective_from: int = 0
    """Lockstep: first decision that uses this actor."""
    next_effective_from: int = 0
    """Lockstep: first decision that must wait for the next actor."""
    rollbacks: int = 0
    """Returns to earlier networks so far; after one more the residual fades in again."""
    run: str = ''
    """Names the learner that publishes, from its start to its end; empty where there is one."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ValueError: one is violated; weight messages come from outside.
        """
        for name in ('epoch', 'sequence', 'effective_from', 'next_effective_from', 'rollbacks'):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= MAX_COUNT:
                raise ValueError(
                    f'weights header: {name} is {shown(value)}, expected a whole number from 0 to '
                    f'{MAX_COUNT}'
                )
        if type(self.run) is not str or len(self.run) > MAX_RUN_CHARACTERS:
            raise ValueError(
                f'weights header: run is {shown(self.run)}, expected <= {MAX_RUN_CHARACTERS} '
                'characters'
            )

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> WeightsHeader:
        """Read what `asdict` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        return cls(**{**values, 'exploration': Exploration(**values['exploration'])})

    @property
    def enabled(self) -> bool:
        """Whether the actor may act at all; not during warm-up."""
        return self.exploration.residual_probability > 0.0

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, sequence), the order in which weights supersede each other."""
        return self.epoch, self.sequence


def encode_weights(policy: RobotPolicy, header: WeightsHeader) -> bytes:
    """Return the weight message of a robot policy."""
    fields: dict[str, Any] = {
        'header': asdict(header),
        'kind': policy.kind,
        'architecture': policy.architecture.to_mapping(),
    }
    fields['digest'] = _digest(policy.tensors, fields)
    # One entry: safetensors writes several in an order that changes from process to process.
    return save_safetensors(dict(policy.tensors), {METADATA: json.dumps(fields)})


def decode_weights(
    message: bytes, expected: TransitionLayout | None = None
) -> tuple[WeightsHeader, RobotPolicy]:
    """Return the header and the robot policy that a message holds.

    Args:
        message: safetensors bytes.
        expected: layout of the receiver's decisions; None takes any. The hidden layers are the
            learner's choice.

    Raises:
        WeightsError: truncated, altered, of an unknown kind, for another robot, of another shape,
            not finite, of a kind that its exploration does not fit, or deciding no numbers.
    """
    try:
        places, metadata = tensor_places(message)
        tensors = {name: place.cut(message) for name, place in places.items()}
        fields = json.loads(metadata[METADATA])
        header = WeightsHeader.from_mapping(fields['header'])
        kind = fields['kind']
        policy_type, architecture_type = find_policy(kind)
        architecture: Architecture = architecture_type.from_mapping(fields['architecture'])
        intact = fields['digest'] == _digest(tensors, fields)
    except UNREADABLE as error:
        raise WeightsError(
            'malformed',
            f'weight message of {len(message)} bytes is unreadable: {error}; expected that of a '
            'topic actor, or the actor.safetensors of a run',
        ) from error
    if not intact:
        raise WeightsError('digest', f'weights {header.version}: digest does not match the content')
    if expected is not None and architecture.layout != expected:
        # The sizes may fit all the same, and the actor would do something else than it learned.
        differences = expected.differences(architecture.layout)
        raise WeightsError(
            'layout',
            f'weights {header.version} were trained with another robot, base policy, '
            f'decision_steps or residual_scale than this policy runs with: '
            f'{"; ".join(differences[:3])}'
            f'{f" and {len(differences) - 3} more" if len(differences) > 3 else ""}',
        )
    if header.exploration.full_bound_cost and not architecture.tells_cost:
        raise WeightsError(
            'malformed',
            f'weights {header.version}: exploration full_bound_cost is '
            f'{header.exploration.full_bound_cost}, expected 0 without critics to tell the cost',
        )
    _check_tensors(header, architecture, tensors)
    with np.errstate(all='ignore'):
        policy: RobotPolicy = policy_type(architecture, tensors)
    try:
        sound = decides_numbers(policy, header.exploration)
    except RewardError as error:
        raise WeightsError('overflow', f'weights {header.version}: {error}') from error
    if not sound:
        reason = 'what is no number in [-1, 1], although its tensors are finite: float32 overflows'
        layout = architecture.layout
        if layout.discrete:
            reason = (
                f'not always for one of the discrete actions {", ".join(layout.action_names)}: '
                f'kind {policy.kind} is for continuous ones, or float32 overflows'
            )
        raise WeightsError('overflow', f'weights {header.version}: the actor decides {reason}')
    return header, policy


def _check_tensors(
    header: WeightsHeader, architecture: Architecture, tensors: Mapping[str, Float32]
) -> None:
    """Refuse tensors that are missing, too many, of another shape or not finite."""
    wanted = architecture.tensor_shapes()
    for name in sorted(wanted.keys() | tensors.keys()):
        shape, dtype = wanted.get(name), np.dtype(np.float32)
        value = tensors.get(name)
        if value is None or (value.shape, value.dtype) != (shape, dtype):
            found = 'missing' if value is None else f'{value.dtype} {value.shape}'
            raise WeightsError(
                'shape',
                f'weights {header.version}: {name:.80} is {found}, the architecture needs '
                f'{"none" if shape is None else f"{dtype} {shape}"}',
            )
        if not np.isfinite(value).all():
            raise WeightsError('non_finite', f'weights {header.version}: {name} is not finite')


def _digest(tensors: Mapping[str, Float32], fields: dict[str, Any]) -> str:
    """Return the sha256 over header, kind, sizes and every tensor's name, shape and bytes."""
    sha = hashlib.sha256()
    for part in ('header', 'kind', 'architecture'):
        sha.update(json.dumps(fields[part], sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        sha.update(f'{name}{tuple(value.shape)}torch.{value.dtype}'.encode())  # The learner's name.
        sha.update(np.ascontiguousarray(value).data)
    return sha.hexdigest()


CHECKPOINTS = 'checkpoints'
"""Folder of the checkpoints in a run's folder."""
ACTOR = 'actor.safetensors'


def readable_checkpoint(directory: Path) -> Path:
    """Return the checkpoint, or the one before it if a save was killed between its renames."""
    stale = directory.with_name(directory.name + '.old')
    return stale if stale.exists() and not directory.exists() else directory


def checkpoint_exists(directory: Path) -> bool:
    """Return whether there is a checkpoint, or the one before it after a killed save."""
    return readable_checkpoint(directory).exists()


def check_actor_size(size: int) -> None:
    """Refuse a file that no actor has.

    Raises:
        WeightsError: it is larger.
    """
    if size > MAX_ACTOR_BYTES:
        raise WeightsError('size', f'it has {size} bytes, expected at most {MAX_ACTOR_BYTES}')


def read_actor(path: Path, key: Key | None = None) -> bytes:
    """Return the weight message of a run's latest checkpoint, of a checkpoint, or of a file.

    Args:
        path: of one of these.
        key: it must be sealed with this one; None accepts any.

    Raises:
        ResidualRLError: there is none, it is not sealed with the key, or it is no weight message.
    """
    latest = readable_checkpoint(path / CHECKPOINTS / 'latest')
    places = (latest / ACTOR, readable_checkpoint(path) / ACTOR, path)
    for place in places:
        if place.is_file():
            try:
                check_actor_size(place.stat().st_size)
                (key or Key()).check_file(place)
                message = place.read_bytes()
                decode_weights(message)
            except OSError as error:
                raise ResidualRLError(f'cannot read actor {str(place)!r}: {error}') from error
            except WeightsError as error:
                raise WeightsError(error.reason, f'actor {str(place)!r}: {error}') from error
            return message
    lack = 'holds no actor' if path.exists() else 'does not exist'
    raise ResidualRLError(
        f'{str(path)!r} {lack}; expected {CHECKPOINTS}/latest/{ACTOR}, {ACTOR} or such a file'
    )
