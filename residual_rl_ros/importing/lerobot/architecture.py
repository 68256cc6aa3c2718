# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers of a configuration that shape a network, checked before it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from residual_rl_ros.errors import ConfigError, PolicyImportError
from residual_rl_ros.importing.checkpoint import CONFIG
from residual_rl_ros.schema import from_mapping, types_of

Kind = TypeVar('Kind')


def read_architecture(kind: type[Kind], config: Mapping[str, Any]) -> Kind:
    """Return the architecture that a configuration describes; its other keys are of the training.

    Keys that are null or missing take the default, which is what LeRobot did before there was such
    a key.

    Raises:
        PolicyImportError: a value is of another type or out of range.
    """
    wanted = types_of(kind)
    values = {}
    for item in fields(kind):  # type: ignore[arg-type]
        value = config.get(item.name)
        if value is None:
            continue
        # Older configurations write 0 and 1.
        if wanted[item.name] is bool and value in (0, 1):
            value = bool(value)
        values[item.name] = value
    try:
        return from_mapping(kind, values, CONFIG)
    except ConfigError as error:
        raise PolicyImportError(str(error)) from error
