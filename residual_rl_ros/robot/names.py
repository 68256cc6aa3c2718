# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lists of names: none is empty, and none is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from residual_rl_ros.errors import ConfigError, shown


def check_names(kind: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        ConfigError: there are none, one is empty or one is repeated.
    """
    if not names:
        raise ConfigError(f'{kind} names are empty; list at least one')
    for name in names:
        if not name or not isinstance(name, str):
            # Nested aliases of a YAML file would write out gigabytes.
            raise ConfigError(f'{kind} name {shown(name)} is not a non-empty string')
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ConfigError(f'{kind} names are repeated: {repeated}; each must be unique')
    return tuple(names)
