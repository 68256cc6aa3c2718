# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every reader of a checkpoint returns: a torch module with the contract of a base policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import PolicyImportError

Made = TypeVar('Made')
MOST_NAMES_SHOWN = 5
"""So many keys of a checkpoint are named in an error; the others are counted."""


@dataclass(frozen=True)
class PolicyInput:
    """An input of the graph, and which numbers are usual there: parity is checked with such."""

    name: str
    centre: Tensor
    """Usual value, without the batch; its type is that of the input."""
    spread: Tensor | float = 1.0
    """Standard deviation around it. Of uint8 images and of integers it is not used."""

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return random values, shape (batch, *shape).

        Pixels are uniform, other integers the usual value.
        """
        shape = (batch, *self.centre.shape)
        if self.centre.dtype == torch.uint8:
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        values = self.centre.expand(shape)
        if not self.centre.dtype.is_floating_point:
            return values.clone()
        return values + self.spread * torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class ImportedPolicy:
    """A policy of another framework, ready to be exported.

    The network takes a tensor for each of `inputs`, in their order and with a leading batch, and
    returns one for each of `outputs`; for `action` alone it may return the tensor itself.
    Normalisation, unnormalisation and the units of the robot are inside.
    """

    network: nn.Module
    metadata: BasePolicyMetadata
    """With the `source`; the `parity` is added when it is exported."""
    inputs: tuple[PolicyInput, ...]
    """The first is `observation`."""
    outputs: tuple[str, ...] = ('action',)
    """The first is `action`."""
    remarks: tuple[str, ...] = ()
    """What the user should know: where it differs from the original, what was assumed."""
    loop: nn.Module | None = None
    """Part of the network that changes `noise` step by step, by the rows of its buffer `rows`. It
    is exported once, and repeated in the graph."""


def load_by_name(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Give a module the weights of a checkpoint; every key must fit, in both directions.

    Args:
        module: the module; its names are those of the checkpoint.
        tensors: weights and buffers by name.
        what: what is loaded, for the error.

    Raises:
        PolicyImportError: names what the checkpoint lacks, what fits nowhere, wrong shapes, and
            what is not finite.
    """
    check_fit(module, tensors, what)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise PolicyImportError(
                f'{name} of {what} holds numbers that are not finite; the training has diverged'
            )
    module.load_state_dict(dict(tensors), assign=True)


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers are finite, without as much memory again."""
    return not tensor.numel() or bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights whose names, shapes and kinds of numbers are not those of a module.

    Raises:
        PolicyImportError: see `load_by_name`.
    """
    own = module.state_dict()
    problems = []
    missing = [name for name in own if name not in tensors]
    if missing:
        problems.append(f'lacks {listed(missing)}')
    extra = [name for name in tensors if name not in own]
    if extra:
        problems.append(f'has {listed(extra)}, which fits nowhere')
    problems += [
        f'has {name} of shape {list(tensors[name].shape)}, expected {list(own[name].shape)}'
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ][:MOST_NAMES_SHOWN]
    problems += [
        f'has {name} of {tensors[name].dtype}, expected {own[name].dtype}'
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ][:MOST_NAMES_SHOWN]
    if problems:
        raise PolicyImportError(
            f'the weights of {what} do not fit its configuration: the checkpoint '
            f'{"; it ".join(problems)}; give both files of the same training run, or import it '
            'with --module'
        )


def build_empty(make: Callable[[], Made]) -> Made:
    """Return something with modules whose weights take no memory before `load_by_name`.

    So a configuration that asks for terabytes is refused by the shapes in the file. Buffers that no
    checkpoint holds must be made with `torch.from_numpy`, which is not affected.
    """
    with torch.device('meta'):
        return make()


def listed(names: Iterable[str]) -> str:
    """Return names for an error: the first few, and how many more there are."""
    known = [str(name) for name in names]
    more = len(known) - MOST_NAMES_SHOWN
    return ', '.join(known[:MOST_NAMES_SHOWN]) + (f' and {more} more' if more > 0 else '')
