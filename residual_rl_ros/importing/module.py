# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any torch module as a base policy: a factory of the user's returns it with its metadata.

The factory is called without arguments and returns `(module, metadata)`. The module takes

1. `observation`, float32 (batch, n_obs_steps, n),
2. `noise`, float32 (batch, *noise_shape), if the metadata has `noise_shape`,
3. each input of the metadata's `inputs`, in the order of that map,

and returns the action, float32 (batch, horizon, m), or a tuple of it and

1. `mean` and `log_std`, or `logits`, if the metadata has a `prior`,
2. in the order of `inputs`: the next memory of each memory, the features of each image that has
   some.

The metadata are the keys of docs/reference/onnx_contract.md, and optionally `observation_mean` and
`observation_std`, n numbers each: around these the graph is compared with the module.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.inputs import (
    ConstantInput,
    ImageInput,
    Input,
    MemoryInput,
    read_inputs,
)
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, PolicyImportError, ResidualRLError, shown
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap
from residual_rl_ros.importing.policy import ImportedPolicy, PolicyInput
from residual_rl_ros.resources import current_folder
from residual_rl_ros.robot.image_encoder import FEATURES
from residual_rl_ros.robot.prior import Prior

PRIOR_OUTPUTS = {
    Prior.NONE: (),
    Prior.GAUSSIAN: ('mean', 'log_std'),
    Prior.SQUASHED_GAUSSIAN: ('mean', 'log_std'),
    Prior.CATEGORICAL: ('logits',),
}
"""Outputs that tell the density."""
USUAL = ('observation_mean', 'observation_std')
MEMORY_SPREAD = 0.5
"""Standard deviation of a memory when graph and module are compared."""


def import_module(name: str, options: ImportOptions) -> ImportedPolicy:
    """Return the policy that a factory makes.

    Args:
        name: `package.module:factory`; the current folder is searched too. Its code is executed.
        options: of which the map must be empty: the factory says names and units.

    Raises:
        PolicyImportError: there is no such factory, it fails, or it returns something else.
    """
    if options.map != PolicyMap():
        raise PolicyImportError(
            '--module goes without a map or a rate: the factory says names, units and rate in its '
            'metadata'
        )
    made = _call(name)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise PolicyImportError(
            f'{name} returned {shown(made)}, expected (torch.nn.Module, metadata map)'
        )
    network, mapping = made
    if not isinstance(mapping, Mapping):
        raise PolicyImportError(f'{name} returned metadata {shown(mapping)}, expected a map')
    try:
        return _policy(name, network, mapping, options)
    except BasePolicyError as error:
        raise PolicyImportError(f'{name}: {error}') from error


def _policy(
    name: str, network: nn.Module, mapping: Mapping[str, Any], options: ImportOptions
) -> ImportedPolicy:
    noisy = 'noise_shape' in mapping
    values = {key: value for key, value in mapping.items() if key not in USUAL}
    values.setdefault('source', f'module {name}')
    if options.noise_default is not None:
        values['noise_default'] = options.noise_default
    metadata = BasePolicyMetadata.from_mapping(values)
    # Those of the metadata are sorted by name.
    others = read_inputs(mapping.get('inputs', {}))
    inputs = [_observation(name, mapping, metadata)]
    if noisy:
        shape = metadata.noise_shape or (metadata.horizon, len(metadata.action_names))
        inputs.append(PolicyInput('noise', torch.zeros(shape)))
    inputs += [_example(each, metadata.n_obs_steps) for each in others]
    outputs = ['action', *PRIOR_OUTPUTS[metadata.prior]]
    for each in others:
        if isinstance(each, MemoryInput):
            outputs.append(each.output)
        elif isinstance(each, ImageInput) and each.features:
            outputs.append(f'{each.name}{FEATURES}')
    return ImportedPolicy(network.float().eval(), metadata, tuple(inputs), tuple(outputs))


def _observation(
    name: str, mapping: Mapping[str, Any], metadata: BasePolicyMetadata
) -> PolicyInput:
    count = len(metadata.observation_names)
    found = []
    for key, default in zip(USUAL, (0.0, 1.0), strict=True):
        try:
            values = np.array(mapping.get(key, [default] * count), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise PolicyImportError(f'{name}: metadata {key} are no numbers: {error}') from error
        if values.shape != (count,) or not np.isfinite(values).all():
            raise PolicyImportError(
                f'{name}: metadata {key} has shape {list(values.shape)}, expected [{count}] with '
                'finite numbers, one for each observation'
            )
        found.append(torch.from_numpy(values))
    return PolicyInput('observation', found[0].expand(metadata.n_obs_steps, -1), found[1])


def _example(each: Input, steps: int) -> PolicyInput:
    """Return an input as the comparison draws it."""
    centre: Tensor
    if isinstance(each, ImageInput):
        centre = torch.zeros((steps, each.height, each.width, 3), dtype=torch.uint8)
        return PolicyInput(each.name, centre)
    if isinstance(each, ConstantInput):
        if each.default:
            centre = torch.from_numpy(each.array(each.default)[0])
        else:
            centre = torch.zeros(each.shape, dtype=getattr(torch, each.type))
        return PolicyInput(each.name, centre)
    return PolicyInput(each.name, torch.zeros(each.shape), MEMORY_SPREAD)


def _call(name: str) -> Any:
    """Import the factory and call it."""
    package, colon, attribute = name.partition(':')
    if not (colon and package and attribute.isidentifier()):
        raise PolicyImportError(
            f'module is {name!r}, expected package.module:factory, such as my_policy:make'
        )
    try:
        with current_folder():
            factory = getattr(importlib.import_module(package), attribute, None)
            if not callable(factory):
                raise PolicyImportError(f'{package} has no function {attribute!r}')
            return factory()
    except ResidualRLError:
        raise
    except (Exception, SystemExit) as error:  # Whatever the user's code raises.
        raise PolicyImportError(f'{name} failed: {type(error).__name__}: {error}') from error
