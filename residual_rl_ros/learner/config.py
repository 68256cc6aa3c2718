# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Presets: every number of a learner in one YAML file."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import yaml

from residual_rl_ros.algorithms.dawn import DawnConfig
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.resources import ResourceError, resource_path
from residual_rl_ros.spec import integer


class PresetError(ResidualRLError):
    """A preset does not exist or a value in it is wrong."""


@dataclass(frozen=True)
class LearnerConfig(DawnConfig):
    """The update rule's numbers and those of the loop around it."""

    warmup_transitions: int
    """Base-only transitions before the first gradient step (M)."""
    replay_capacity: int
    """Transitions kept."""
    batch_size: int
    """Transitions per update."""
    utd: float
    """Updates per transition received after warm-up."""
    publish_interval: int
    """Transitions between two weight publications."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(number) for number in numbers):
                raise PresetError(f'preset: {field.name} is {value}, expected finite numbers')
            may_be_negative = field.name in ('reward_offset', 'target_entropy_per_dimension')
            if not (may_be_negative or isinstance(value, bool) or all(x > 0 for x in numbers)):
                raise PresetError(f'preset: {field.name} is {value}, expected > 0')
        for name in ('gamma', 'tau'):
            if getattr(self, name) > 1:
                raise PresetError(f'preset: {name} is {getattr(self, name)}, expected <= 1')
        if self.warmup_transitions > self.replay_capacity:
            raise PresetError(
                f'preset: warmup_transitions {self.warmup_transitions} exceeds replay_capacity '
                f'{self.replay_capacity}'
            )


def load_preset(
    name: str, overrides: Mapping[str, Any] = types.MappingProxyType({})
) -> LearnerConfig:
    """Read `config/presets/<name>.yaml`.

    Args:
        name: preset name.
        overrides: values that replace those of the file.

    Raises:
        PresetError: unknown preset, unknown or missing key, or a value of the wrong type.
    """
    folder = resource_path('config', 'presets')
    try:
        path = resource_path('config', 'presets', f'{name}.yaml')
    except ResourceError as error:
        known = sorted(file.stem for file in folder.glob('*.yaml'))
        raise PresetError(f'unknown preset {name!r}; known: {", ".join(known)}') from error
    values: dict[str, Any] = {**yaml.safe_load(path.read_text(encoding='utf-8')), **overrides}
    types_by_name = get_type_hints(LearnerConfig)
    names = {field.name for field in fields(LearnerConfig)}
    if set(values) != names:
        raise PresetError(
            f'preset {name!r}: unknown keys {sorted(map(str, set(values) - names))}, missing keys '
            f'{sorted(names - set(values))}'
        )
    return LearnerConfig(
        **{key: _convert(key, value, types_by_name[key]) for key, value in values.items()}
    )


def _convert(key: str, value: Any, kind: Any) -> Any:
    """Return a YAML value as the type of its field."""
    wanted = 'a list of whole numbers' if kind == tuple[int, ...] else kind.__name__
    try:
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int:
            return integer(value)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if kind == tuple[int, ...] and not isinstance(value, str):
            return tuple(integer(item) for item in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise PresetError(f'preset: {key} is {value!r}, expected {wanted}') from error
    raise PresetError(f'preset: {key} is {value!r}, expected {wanted}')
