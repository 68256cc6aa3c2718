# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Robot policies on the wire and on disk: safetensors bytes with (epoch, sequence) and a digest.

A message names the kind of its policy. Nothing here can execute code: the header is JSON, the
tensors are raw numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save as save_safetensors

from residual_rl_ros.errors import ResidualRLError, RewardError, WeightsError, shown
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.files.tensor_file import tensor_places
from residual_rl_ros.numerics import Float32
from residual_rl_ros.residual_policy.exploration import RESIDUAL, Exploration
from residual_rl_ros.residual_policy.probe import decides_numbers
from residual_rl_ros.residual_policy.robot_policy import Architecture, RobotPolicy, find_policy
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import MAX_COUNT

METADATA = 'weights'
"""Name of the entry in the safetensors header that holds ours, as JSON."""


MAX_RUN_CHARACTERS = 64
"""Longest name of a learner's run."""
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
        fields = parse_json(metadata[METADATA], METADATA)
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
