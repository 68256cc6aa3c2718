# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of topics, services and nodes as ROS resolves them, and lists of names."""

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


def full_name(name: str, namespace: str, node: str = '') -> str:
    """Return the full name of a topic, service or node.

    Args:
        name: one that begins with `/` is full already; `~` is the node itself.
        namespace: of the node, with or without `/` around it.
        node: the node's own name.
    """
    if name.startswith('/'):
        return name
    root = f'/{namespace.strip("/")}'.rstrip('/')
    return f'{root}/{node}{name[1:]}' if name.startswith('~') else f'{root}/{name}'
