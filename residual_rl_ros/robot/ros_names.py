# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of topics, services and nodes, as ROS resolves them."""

from __future__ import annotations


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
