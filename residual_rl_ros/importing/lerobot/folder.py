# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a LeRobot policy: configuration, weights and processors, of three generations.

- 0.4 to 0.6: `config.json`, `model.safetensors`, and the statistics in `policy_preprocessor.json`
  and `policy_postprocessor.json` with a safetensors file each.
- 2025: `config.json` with `input_features`; the statistics are among the weights.
- 2024: `config.json` with `input_shapes`, and without the type of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from residual_rl_ros.errors import FormatError, PolicyImportError, shown
from residual_rl_ros.files.json_text import read_json
from residual_rl_ros.importing.checkpoint import CONFIG
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.importing.weights import read_tensors

WEIGHTS = 'model.safetensors'
STATE, ENVIRONMENT_STATE, ACTION = 'observation.state', 'observation.environment_state', 'action'
SUPPORTED = ('act', 'diffusion', 'vqbet')
"""Types of policies that can be imported."""
KEYS_OF_2024 = {'use_vae': 'act', 'vqvae_n_embed': 'vqbet', 'down_dims': 'diffusion'}
"""Keys that tell the type in a configuration that does not name it."""
MOST_FEATURES = 64
MOST_NUMBERS = 4096
"""Numbers in one feature, and pixels of an image in height and width."""
COMPILED = '_orig_mod.'
"""What torch.compile puts into the names of weights."""


@dataclass(frozen=True)
class Feature:
    """An input or output of the policy."""

    key: str
    """Such as `observation.state`."""
    kind: str
    """`STATE`, `ENV`, `VISUAL` or `ACTION`."""
    shape: tuple[int, ...]
    """Without batch and time; of an image channels, height and width."""
    names: tuple[str, ...] = ()
    """Of its numbers, if the configuration has them."""


@dataclass(frozen=True)
class LerobotFolder:
    """What the files hold, before any network is built."""

    path: Path
    policy_type: str
    """One of `SUPPORTED`."""
    config: Mapping[str, Any]
    inputs: tuple[Feature, ...]
    """In the order of the configuration."""
    action: Feature
    weights: Mapping[str, Tensor]
    """Of the file, statistics included if they are there."""

    def first(self, kind: str, key: str = '') -> Feature | None:
        """Return the first input of a kind, or the one with that key."""
        found = [each for each in self.inputs if each.kind == kind and key in ('', each.key)]
        return found[0] if found else None

    @property
    def cameras(self) -> tuple[Feature, ...]:
        """The images, in the order in which the policy takes them."""
        return tuple(each for each in self.inputs if each.kind == 'VISUAL')

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """What the input `observation` consists of: state, then environment state."""
        found = (self.first('STATE', STATE), self.first('ENV'))
        return tuple(each for each in found if each is not None)


def read_folder(path: Path) -> LerobotFolder:
    """Read the files of a policy.

    Raises:
        PolicyImportError: one is missing or damaged, or the policy is of another type.
    """
    try:
        config = read_json(path / CONFIG)
    except FormatError as error:
        raise PolicyImportError(f'{str(path)!r}: {error}') from error
    if not isinstance(config, Mapping):
        raise PolicyImportError(f'{str(path / CONFIG)!r} is no map of keys')
    policy_type = _type_of(config, path)
    inputs, outputs = _features(config)
    action = next((each for each in outputs if each.key == ACTION), None)
    if action is None:
        raise PolicyImportError(
            f'{CONFIG} has the outputs {listed(each.key for each in outputs) or "none"}, expected '
            f'{ACTION}'
        )
    if not (path / WEIGHTS).exists():
        raise PolicyImportError(
            f'{str(path)!r} has no {WEIGHTS}; copy the whole folder pretrained_model, or merge an '
            'adapter (PEFT) into its base first'
        )
    weights = read_tensors(path / WEIGHTS)
    plain = {name.replace(COMPILED, ''): tensor for name, tensor in weights.items()}
    return LerobotFolder(path, policy_type, config, inputs, action, plain)


def _type_of(config: Mapping[str, Any], path: Path) -> str:
    found = config.get('type')
    if found is None and 'input_shapes' in config:
        found = next((kind for key, kind in KEYS_OF_2024.items() if key in config), None)
    if found not in SUPPORTED:
        raise PolicyImportError(
            f'{str(path / CONFIG)!r} is of a policy of type {shown(found)}, supported are '
            f'{", ".join(SUPPORTED)}; export any other with --module package:factory, or write the '
            'ONNX file yourself (docs/reference/onnx_contract.md)'
        )
    return str(found)


def _features(config: Mapping[str, Any]) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    """Return inputs and outputs.

    Raises:
        PolicyImportError: there are none, or one has no shape.
    """
    made = []
    for key, old_key in (('input_features', 'input_shapes'), ('output_features', 'output_shapes')):
        entries = config.get(key, config.get(old_key))
        if not isinstance(entries, Mapping) or not 1 <= len(entries) <= MOST_FEATURES:
            raise PolicyImportError(
                f'{CONFIG}: {key} is {shown(entries)}, expected a map of 1 to {MOST_FEATURES} '
                'features'
            )
        made.append(tuple(_feature(str(name), entry) for name, entry in entries.items()))
    return made[0], made[1]


def _feature(key: str, entry: Any) -> Feature:
    """Return a feature; of 2024 it is its shape alone, and its name tells its kind."""
    if isinstance(entry, Mapping):
        kind, shape, names = entry.get('type'), entry.get('shape'), entry.get('names')
    else:
        kind, shape, names = _kind_of_2024(key), entry, None
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 3
        or not all(type(size) is int and 1 <= size <= MOST_NUMBERS for size in shape)
    ):
        raise PolicyImportError(
            f'{CONFIG}: {key} has shape {shown(shape)}, expected 1 to 3 whole numbers from 1 to '
            f'{MOST_NUMBERS}'
        )
    if kind == 'VISUAL' and (len(shape) != 3 or shape[0] != 3):
        raise PolicyImportError(
            f'{CONFIG}: image {key} has shape {shape}, expected [3, height, width]; depth and grey '
            'images are not supported'
        )
    if kind in ('STATE', 'ENV', 'ACTION') and len(shape) != 1:
        raise PolicyImportError(f'{CONFIG}: {key} has shape {shape}, expected one number')
    return Feature(key, str(kind), tuple(shape), flat_names(names))


def _kind_of_2024(key: str) -> str:
    if key.startswith('observation.image'):
        return 'VISUAL'
    return {ENVIRONMENT_STATE: 'ENV', ACTION: 'ACTION'}.get(key, 'STATE')


def flat_names(names: Any) -> tuple[str, ...]:
    """Return names of numbers as LeRobot stores them: a list, or lists in a map by group."""
    if isinstance(names, Mapping):
        return tuple(name for group in names.values() for name in flat_names(group))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)
