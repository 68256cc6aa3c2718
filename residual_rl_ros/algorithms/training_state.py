# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a rule trains, by name: its checkpoint, its optimiser, and whether it can still learn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Built = TypeVar('Built')

DORMANT_BELOW = 0.025
"""A unit is dormant if its mean activation is below this share of its layer's average
(Sokar et al., arXiv 2302.12902)."""


def plasticity(features: Tensor) -> dict[str, float]:
    """Return metrics of the last hidden layer of critics.

    `critic_rank` is the number of singular values that hold 99 % of the features' sum (Kumar et
    al., arXiv 2010.14498), over their width, of the first critic.

    Args:
        features: activations, shape (heads, batch, width).
    """
    activity = features.abs().mean(1)
    dormant = activity <= DORMANT_BELOW * activity.mean(-1, keepdim=True)
    return {
        'critic_dormant_share': float(dormant.float().mean()),
        'critic_rank': effective_rank(features[0]) / features.shape[-1],
    }


def effective_rank(features: Tensor) -> float:
    """Return the number of singular values that hold 99 % of their sum.

    NaN where there are none to compute: a metric must not end the learner.

    Args:
        features: shape (batch, width).
    """
    try:
        singular = torch.linalg.svdvals(features)
    except RuntimeError:  # LinAlgError is one.
        return math.nan
    share = singular.cumsum(0) / singular.sum().clamp_min(1e-12)
    return float(int((share < 0.99).sum()) + 1) if bool(share.isfinite().all()) else math.nan


def seeded(build: Callable[[], Built], generator: torch.Generator) -> Built:
    """Return what a function builds of torch layers, initialised from a generator.

    torch initialises layers from its global generator: it is borrowed, and given back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return build()


class Adam(torch.optim.Adam):
    """Torch's Adam for one vector, without what `torch.compile` needs around it.

    The wrappers that this leaves out import the compiler at their first call: at the start of every
    learner that took a second or more, and 60 MB. Nothing here is compiled.

    Args:
        vector: parameters.
        learning_rate: step size.
        eps: added to the root of the mean square of gradients.
    """

    def __init__(self, vector: Tensor, learning_rate: float, eps: float = 1e-8) -> None:
        super().__init__([vector], lr=learning_rate, eps=eps, fused=True)

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class TrainingState:
    """The tensors of a rule, for checkpoints; subclasses say which there are."""

    _generator: torch.Generator
    """Source of random numbers of initialisation and updates."""
    _updates: int
    """Updates so far."""
    remark = ''
    """See `Rule`."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor needed to continue, by name, for a checkpoint."""
        tensors = {name: value.detach().clone() for name, value in self._scalars().items()}
        for name, module in self._modules().items():
            for key, value in module.state_dict().items():
                tensors[f'{name}.{key}'] = value.detach().contiguous().clone()
        for name, optimizer in self._optimizers().items():
            for index, slots in optimizer.state_dict()['state'].items():
                for key, value in slots.items():
                    tensors[f'{name}.{index}.{key}'] = torch.as_tensor(value).clone()
        tensors['updates'] = torch.tensor(self._updates)
        tensors['generator'] = self._generator.get_state()
        return {name: value.cpu() for name, value in tensors.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            RuntimeError: the tensors are of another architecture.
            KeyError: one is missing.
        """
        for name, module in self._modules().items():
            prefix = f'{name}.'
            module.load_state_dict(
                {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            )
        with torch.no_grad():
            for name, value in self._scalars().items():
                value.copy_(tensors[name])
        for name, optimizer in self._optimizers().items():
            (parameter,) = optimizer.param_groups[0]['params']
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f'{name}.'):
                    _, index, slot = key.split('.')
                    if index != '0' or (slot != 'step' and value.shape != parameter.shape):
                        raise RuntimeError(f'{key} of shape {tuple(value.shape)} fits no parameter')
                    state.setdefault(0, {})[slot] = value.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), 'state': state})
        self._updates = int(tensors['updates'])
        self._generator.set_state(tensors['generator'])

    def _modules(self) -> dict[str, torch.nn.Module]:
        """Return the networks, by name."""
        return {}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers, each of one tensor, by name."""
        return {}

    def _scalars(self) -> dict[str, Tensor]:
        """Return other tensors, by name."""
        return {}
