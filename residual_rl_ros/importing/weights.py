# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks of the sizes that a checkpoint claims, built only if its weights have these sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.policy import load_by_name

M = TypeVar('M', bound=nn.Module)
SPARE_NUMBERS = 2**20
"""So many more numbers than the checkpoint has may a network hold (constants such as grids)."""


def build(make: Callable[[], M], tensors: Mapping[str, Tensor], what: str) -> M:
    """Return a network with its weights.

    Args:
        make: makes the network; called twice, first without memory for its numbers.
        tensors: its weights, by name.
        what: what it is, for errors.

    Raises:
        PolicyImportError: the sizes make no network, or a weight is missing, of another shape, or
            fits nowhere.
    """
    try:
        with torch.device('meta'):
            wanted = sum(each.numel() for each in make().state_dict().values())
        given = sum(each.numel() for each in tensors.values())
        if wanted > given + SPARE_NUMBERS:
            raise PolicyImportError(
                f'{what} should have {wanted} numbers by its configuration, the checkpoint has '
                f'{given}'
            )
        network = make()
    except (RuntimeError, ValueError, ArithmeticError, TypeError) as error:
        raise PolicyImportError(f'{what} cannot be built: {error}') from error
    floats = {
        name: each.float() if each.is_floating_point() else each for name, each in tensors.items()
    }
    load_by_name(network, floats, what)
    return network


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): each
        for name, each in tensors.items()
        if name.startswith(prefix)
    }
