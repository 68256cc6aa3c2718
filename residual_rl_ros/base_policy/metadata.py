# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metadata of a base policy: the JSON in `metadata_props['residual_rl']`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np

from residual_rl_ros.base_policy.inputs import (
    MAX_NUMBERS,
    MOST_WINDOW_PIXELS,
    ConstantInput,
    ImageInput,
    Input,
    MemoryInput,
    read_inputs,
    write_inputs,
)
from residual_rl_ros.errors import BasePolicyError, ConfigError, FormatError, shown
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.numerics import FLOAT32_MAX, integer
from residual_rl_ros.robot.image_encoder import FEATURES, POLICY_METADATA_KEY
from residual_rl_ros.robot.names import check_names
from residual_rl_ros.robot.prior import Prior

METADATA_KEY = POLICY_METADATA_KEY
SCHEMA_VERSION = 1
MOST_STEPS = 10_000
"""Longest chunk of actions, and longest window of observations."""
LATER_KEYS = (
    'prior',
    'inputs',
    'noise_shape',
    'noise_default',
    'source',
    'parity',
    'rounding',
    'temperature',
)
"""Keys that are left out where they say what goes without saying."""
DENSITY_OUTPUTS: dict[Prior, tuple[str, ...]] = {
    Prior.NONE: (),
    Prior.GAUSSIAN: ('mean', 'log_std'),
    Prior.SQUASHED_GAUSSIAN: ('mean', 'log_std'),
    Prior.CATEGORICAL: ('logits',),
}
"""Names of the outputs that tell a density, shape (1, horizon, m) each."""
DECISIONS_PER_S = 20.0
"""Pace of residual decisions where nobody says otherwise, as in the benchmark."""
UNUSED_RANGE = 1e-3
"""A dimension whose trained actions span less than this [command units] is one the base never
uses: a residual there would drift with nothing to bring it back."""


@dataclass(frozen=True)
class BasePolicyMetadata:
    """The contract between a base policy and the robot it runs on.

    Numbers are stored at full precision; actions are in command units.
    """

    observation_names: tuple[str, ...]
    """Observation names in input order (n)."""
    action_names: tuple[str, ...]
    """Action names in output order (m)."""
    action_min: tuple[float, ...]
    """Smallest action in the training data, per dimension."""
    action_max: tuple[float, ...]
    """Largest action in the training data, per dimension. Half of `action_max - action_min` is
    the half range that scales the residual."""
    rate_hz: float
    """Control rate of the training data [Hz]."""
    n_obs_steps: int
    """Number of successive observations in the input."""
    horizon: int
    """Number of actions in the output chunk."""
    exec_start: int
    """Index in the chunk of the action meant for the newest observation's control step."""
    exec_steps: int
    """Number of actions of the chunk that are meant to run."""
    action_mode: str = 'absolute'
    """`absolute` (targets) or `delta` (increments)."""
    kind: str = 'bc'
    """`diffusion`, `act` or `bc`; information only."""
    task: str = ''
    """Training task; information only."""
    dataset_sha256: str = ''
    """Digest of the training data; information only."""
    schema_version: int = SCHEMA_VERSION
    prior: Prior = Prior.NONE
    """Density of the action that the model tells in further outputs."""
    inputs: tuple[Input, ...] = ()
    """Inputs beside `observation` and `noise`."""
    noise_shape: tuple[int, ...] = ()
    """Shape of the noise without its batch; empty: (horizon, m)."""
    noise_default: str = 'normal'
    """`normal`: the action is drawn. `zero`: it is that of zero noise, as with the latent of ACT;
    only further proposals are drawn."""
    source: str = ''
    """What it was imported from; information only."""
    parity: float | None = None
    """Largest difference of the exported graph from the original at export, in half ranges of the
    actions; information only."""
    rounding: float | None = None
    """Where the parity is beyond 1e-5: how far the original, in single precision, is from itself
    in double; information only."""
    temperature: float | None = None
    """Of the entropy at the end of its training, where that was maximum-entropy learning: at this
    omega' the reward that it was trained on counts as it did then; information only."""

    def __post_init__(self) -> None:
        """Check that the numbers fit each other."""
        if self.schema_version != SCHEMA_VERSION:
            raise BasePolicyError(
                f'metadata schema_version is {self.schema_version}, expected {SCHEMA_VERSION}; '
                're-export the model or install a matching residual_rl_ros'
            )
        if self.prior not in tuple(Prior):
            raise BasePolicyError(
                f'metadata prior is {shown(self.prior)}, expected one of {", ".join(Prior)}'
            )
        object.__setattr__(self, 'prior', Prior(self.prior))
        inputs = tuple(sorted(self.inputs, key=lambda each: each.name))  # As in the JSON text.
        object.__setattr__(self, 'inputs', inputs)
        try:
            check_names('observation', self.observation_names)
            check_names('action', self.action_names)
        except ConfigError as error:
            raise BasePolicyError(f'metadata: {error}') from error
        for name in (*self.observation_names, *self.action_names):
            if not name.isprintable():
                raise BasePolicyError(
                    f'metadata: name {shown(name)} has characters that cannot be printed'
                )
        for label in ('action_min', 'action_max'):
            values = getattr(self, label)
            if len(values) != len(self.action_names):
                raise BasePolicyError(
                    f'metadata {label} has {len(values)} values, expected '
                    f'{len(self.action_names)} (one per action name)'
                )
        if not np.isfinite([*self.action_min, *self.action_max]).all():
            raise BasePolicyError('metadata action_min/action_max hold a non-finite number')
        for name, low, high in zip(
            self.action_names, self.action_min, self.action_max, strict=True
        ):
            if low > high:
                raise BasePolicyError(
                    f'metadata: action {name!r} has action_min {low} above action_max {high}'
                )
        if not (np.isfinite(self.rate_hz) and self.rate_hz > 0.0):
            raise BasePolicyError(f'metadata rate_hz is {self.rate_hz}, expected > 0')
        least = {'n_obs_steps': 1, 'horizon': 0, 'exec_start': 0, 'exec_steps': 1}
        for label, minimum in least.items():
            value = getattr(self, label)
            if value < minimum:
                raise BasePolicyError(f'metadata {label} is {value}, expected >= {minimum}')
            if value > MOST_STEPS:  # Arrays are made of them before the model is run.
                raise BasePolicyError(f'metadata {label} is {value}, expected <= {MOST_STEPS}')
        if self.exec_start + self.exec_steps > self.horizon:
            raise BasePolicyError(
                f'metadata: exec_start {self.exec_start} + exec_steps {self.exec_steps} exceeds '
                f'horizon {self.horizon}'
            )
        if self.action_mode not in ('absolute', 'delta'):
            raise BasePolicyError(
                f'metadata action_mode is {self.action_mode!r}, expected absolute or delta'
            )
        self._check_inputs()

    def _check_inputs(self) -> None:
        """Refuse what cannot be fed to the graph."""
        if self.noise_default not in ('normal', 'zero'):
            raise BasePolicyError(
                f'metadata noise_default is {shown(self.noise_default)}, expected normal or zero'
            )
        if any(size < 1 for size in self.noise_shape) or math.prod(self.noise_shape) > MAX_NUMBERS:
            raise BasePolicyError(
                f'metadata noise_shape is {list(self.noise_shape)}, expected sizes of 1 or more '
                f'and at most {MAX_NUMBERS} numbers'
            )
        outputs = [each.output for each in self.memories]
        for label, names in (
            ('inputs', [each.name for each in self.inputs]),
            ('outputs of its memory', outputs),
        ):
            if len(set(names)) != len(names):
                raise BasePolicyError(f'metadata has the {label} {names}, expected each name once')
        own = {'action', *(name for names in DENSITY_OUTPUTS.values() for name in names)}
        own |= {f'{each.name}{FEATURES}' for each in self.images}
        if taken := own.intersection(outputs):
            raise BasePolicyError(
                f'metadata has a memory with the output {sorted(taken)}, which tells something '
                'else; give the memory another name in the graph'
            )
        for each in self.images:
            if self.n_obs_steps * each.height * each.width > MOST_WINDOW_PIXELS:
                raise BasePolicyError(
                    f'metadata: a window of {shown(each.name)} has {self.n_obs_steps} images of '
                    f'{each.height} x {each.width} pixels, expected at most {MOST_WINDOW_PIXELS} '
                    'pixels'
                )

    @property
    def decision_steps(self) -> int:
        """Control steps of a residual decision (k) where nobody says otherwise.

        What comes nearest to `DECISIONS_PER_S`, of the numbers that divide `exec_steps`.
        """
        divisors = (k for k in range(1, self.exec_steps + 1) if self.exec_steps % k == 0)
        return min(divisors, key=lambda k: abs(k - self.rate_hz / DECISIONS_PER_S))

    @property
    def images(self) -> tuple[ImageInput, ...]:
        """Inputs that are images."""
        return tuple(each for each in self.inputs if isinstance(each, ImageInput))

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of the images that it wants of each camera, by its name [px]."""
        return {each.name: (each.height, each.width) for each in self.images}

    @property
    def constants(self) -> tuple[ConstantInput, ...]:
        """Inputs that stay the same."""
        return tuple(each for each in self.inputs if isinstance(each, ConstantInput))

    @property
    def memories(self) -> tuple[MemoryInput, ...]:
        """Inputs that are outputs of the inference before."""
        return tuple(each for each in self.inputs if isinstance(each, MemoryInput))

    def to_json(self) -> str:
        """Return the JSON text for `metadata_props`; keys without a value are left out."""
        values = asdict(self)
        values['inputs'] = write_inputs(self.inputs)
        for item in fields(self):
            later = item.name in LATER_KEYS
            if later and getattr(self, item.name) == item.default:
                del values[item.name]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> BasePolicyMetadata:
        """Parse the JSON text of `metadata_props`.

        Raises:
            BasePolicyError: it is not JSON or not this schema.
        """
        try:
            mapping = parse_json(text, 'metadata')
        except FormatError as error:
            raise BasePolicyError(str(error)) from error
        return cls.from_mapping(mapping)

    @classmethod
    def from_mapping(cls, mapping: Any) -> BasePolicyMetadata:
        """Build the metadata from parsed JSON or sidecar YAML.

        Raises:
            BasePolicyError: a key is missing, unknown or of the wrong type.
        """
        if not isinstance(mapping, Mapping):
            raise BasePolicyError(f'metadata is of type {type(mapping).__name__}, expected a map')
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(map(str, set(mapping) - set(known)))
        if unknown:
            raise BasePolicyError(f'metadata has unknown keys {unknown}; known: {sorted(known)}')
        values: dict[str, Any] = {}
        for key, value in mapping.items():
            kind = str(known[key].type)
            try:
                if key == 'inputs':
                    values[key] = read_inputs(value)
                elif isinstance(value, (str, Mapping)) and kind.startswith('tuple'):
                    raise TypeError
                elif kind == 'tuple[str, ...]':
                    values[key] = tuple(_text(item) for item in value)
                elif kind == 'tuple[float, ...]':
                    values[key] = tuple(_number(item) for item in value)
                elif kind == 'tuple[int, ...]':
                    values[key] = tuple(integer(item) for item in value)
                elif kind == 'float | None':
                    values[key] = None if value is None else _number(value)
                elif kind == 'float':
                    values[key] = _number(value)
                elif kind == 'int':
                    values[key] = integer(value)
                else:
                    values[key] = _text(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise BasePolicyError(f'metadata {key} is {value!r}, expected {kind}') from error
        try:
            return cls(**values)
        except TypeError as error:
            missing = sorted(
                name
                for name, field in known.items()
                if field.default is MISSING and name not in values
            )
            raise BasePolicyError(f'metadata lacks {missing}') from error


def _text(value: Any) -> str:
    """Return a text.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    """Return a number that float32 can hold, or no finite one.

    Raises:
        TypeError: it is none, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    if FLOAT32_MAX < abs(value) < math.inf:
        raise OverflowError
    return float(value)
