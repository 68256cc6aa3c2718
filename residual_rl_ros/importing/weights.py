# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks of the sizes that a checkpoint claims, with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.policy import build_empty, load_by_name

M = TypeVar('M', bound=nn.Module)


def build(make: Callable[[], M], tensors: Mapping[str, Tensor], what: str) -> M:
    """Return a network with its weights, in single precision.

    Args:
        make: makes the network, without memory for its numbers.
        tensors: its weights, by name.
        what: what it is, for errors.

    Raises:
        PolicyImportError: the sizes make no network, or a weight is missing, of another shape, or
            fits nowhere.
    """
    try:
        network = build_empty(make)
    except (RuntimeError, ValueError, ArithmeticError, TypeError) as error:
        raise PolicyImportError(f'{what} cannot be built: {error}') from error
    single = {
        name: each.float() if each.is_floating_point() else each for name, each in tensors.items()
    }
    load_by_name(network, single, what)
    return network


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)
    }
