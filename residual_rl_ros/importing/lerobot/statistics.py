# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Normalisation as LeRobot does it: by statistics of the dataset, a mode for a kind of feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import FormatError, PolicyImportError, shown
from residual_rl_ros.files.json_text import read_json
from residual_rl_ros.importing.checkpoint import CONFIG
from residual_rl_ros.importing.lerobot.folder import Feature, LerobotFolder
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.importing.weights import read_tensors

MODES: dict[str, tuple[str, ...]] = {
    'IDENTITY': (),
    'MEAN_STD': ('mean', 'std'),
    'MIN_MAX': ('min', 'max'),
    'QUANTILES': ('q01', 'q99'),
    'QUANTILE10': ('q10', 'q90'),
}
"""Modes, and the statistics that they need."""
EPSILON = 1e-8
PREPROCESSOR, POSTPROCESSOR = 'policy_preprocessor.json', 'policy_postprocessor.json'
NORMALIZER, UNNORMALIZER = 'normalizer_processor', 'unnormalizer_processor'
RENAME = 'rename_observations_processor'
HARMLESS = (RENAME, NORMALIZER, UNNORMALIZER, 'to_batch_processor', 'device_processor')
"""Steps of a processor that change no number, or that are rebuilt here."""
IN_WEIGHTS = ('normalize_inputs.', 'normalize_targets.', 'unnormalize_outputs.')
"""Beginnings of the names of statistics among the weights."""


class Normalisation(nn.Module):
    """Scales one feature: `forward` into the units of the network, `inverse` out of them.

    Args:
        mode: one of `MODES`.
        statistics: those that the mode needs.
        epsilon: what keeps a constant number from a division by zero.
        added: whether epsilon is always added to the range, as before 2025-09, or replaces a range
            of zero. To a standard deviation it is always added.
    """

    offset: Tensor
    span: Tensor
    inverse_span: Tensor

    def __init__(
        self,
        mode: str,
        statistics: Mapping[str, Tensor],
        epsilon: float = EPSILON,
        added: bool = False,
    ) -> None:
        super().__init__()
        self.mode = mode
        if mode == 'IDENTITY':
            return
        low, high = (statistics[name] for name in MODES[mode])
        if mode == 'MEAN_STD':
            span, inverse = high + epsilon, high
        elif added:
            span, inverse = high - low + epsilon, high - low
        else:
            span = torch.where(high == low, torch.full_like(low, epsilon), high - low)
            inverse = span
        for name, value in (('offset', low), ('span', span), ('inverse_span', inverse)):
            self.register_buffer(name, value.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network takes."""
        if self.mode == 'IDENTITY':
            return x
        scaled = (x - self.offset) / self.span
        return scaled if self.mode == 'MEAN_STD' else 2.0 * scaled - 1.0

    def inverse(self, x: Tensor) -> Tensor:
        """Return what the network means, in the units of the dataset."""
        if self.mode == 'IDENTITY':
            return x
        scaled = x if self.mode == 'MEAN_STD' else (x + 1.0) / 2.0
        return scaled * self.inverse_span + self.offset


@dataclass(frozen=True)
class Statistics:
    """How each feature is normalised, and what is known of its numbers."""

    normalisations: Mapping[str, Normalisation]
    """By the key of the feature."""
    known: Mapping[str, Mapping[str, Tensor]]
    """All statistics that the checkpoint has, by key and name."""
    renamed: Mapping[str, str]
    """Names of features on the robot, by their keys, where they differ."""


def read_statistics(folder: LerobotFolder) -> Statistics:
    """Read the normalisation of every feature, from the processors or from the weights.

    Raises:
        PolicyImportError: statistics are missing or no numbers, or a processor has a step that is
            not supported.
    """
    if (folder.path / PREPROCESSOR).exists():
        return _of_processors(folder)
    return _of_weights(folder)


def _of_processors(folder: LerobotFolder) -> Statistics:
    before, known, renamed = _processor(folder.path, PREPROCESSOR, NORMALIZER)
    after, known_after, _ = _processor(folder.path, POSTPROCESSOR, UNNORMALIZER)
    made = {}
    for feature in folder.inputs:
        mode = _mode_of_step(folder, before, feature, PREPROCESSOR, NORMALIZER)
        made[feature.key] = _normalisation(feature, mode, known, _epsilon(before or {}))
    action = folder.action
    mode = _mode_of_step(folder, after, action, POSTPROCESSOR, UNNORMALIZER)
    made[action.key] = _normalisation(action, mode, known_after, _epsilon(after or {}))
    return Statistics(made, {**known, **known_after}, renamed)


def _mode_of_step(
    folder: LerobotFolder, step: Mapping[str, Any] | None, feature: Feature, name: str, kind: str
) -> str:
    """Return the mode of a feature: its step normalises what is among its `features`.

    Raises:
        PolicyImportError: there is no such step, although the configuration normalises the feature.
    """
    if step is None:
        if 'normalization_mapping' in folder.config:
            said = _mode(folder.config['normalization_mapping'], feature)
            if said != 'IDENTITY':
                raise PolicyImportError(
                    f'{name} has no step {kind}, and {CONFIG} normalises {feature.key} by {said}: '
                    'take both files from the same training run'
                )
        return 'IDENTITY'
    # Sets of keys that are there name the only ones that are normalised.
    for keys in (step.get('features'), step.get('normalize_observation_keys')):
        if keys is not None and feature.key not in keys and feature is not folder.action:
            return 'IDENTITY'
    return _mode(step.get('norm_map', {}), feature)


def _processor(
    path: Path, name: str, wanted: str
) -> tuple[Mapping[str, Any] | None, dict[str, dict[str, Tensor]], dict[str, str]]:
    """Return configuration and statistics of a processor's normalisation, and its renamed keys.

    Raises:
        PolicyImportError: it cannot be read, has a step that is not supported, or normalises twice.
    """
    try:
        steps = read_json(path / name)['steps']
        known: dict[str, dict[str, Tensor]] = {}
        config: Mapping[str, Any] | None = None
        renamed: dict[str, str] = {}
        for step in steps:
            kind = step.get('registry_name', step.get('class'))
            if kind not in HARMLESS:
                raise PolicyImportError(
                    f'{name} has the step {shown(kind)}, which is not supported (supported are '
                    f'{", ".join(HARMLESS)}); leave it out if the robot does it, or export the '
                    'policy with --module'
                )
            if kind == RENAME:
                pairs = step.get('config', {}).get('rename_map', {})
                renamed = {str(new): str(old) for old, new in pairs.items()}
            if kind == wanted and config is not None:
                raise PolicyImportError(
                    f'{name} has two steps {wanted}, expected one: normalising twice is not '
                    'supported; remove one of them, or export the policy with --module'
                )
            if kind == wanted:
                config = step.get('config', {})
                known = _state(path, step.get('state_file'))
    except FormatError as error:
        raise PolicyImportError(f'{str(path)!r}: {error}') from error
    except (AttributeError, KeyError, TypeError) as error:
        raise PolicyImportError(
            f'{str(path / name)!r} is no processor of LeRobot: {error!r}'
        ) from error
    return config, known, renamed


def _state(path: Path, file: Any) -> dict[str, dict[str, Tensor]]:
    """Return the statistics in the file of a step, by key and name.

    Raises:
        PolicyImportError: the file is elsewhere, missing or damaged.
    """
    if file is None:
        return {}
    if not isinstance(file, str) or PurePosixPath(file).name != file:
        raise PolicyImportError(
            f'{str(path)!r}: a processor wants statistics from {shown(file)}, expected a file '
            'beside it'
        )
    known: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path / file).items():
        key, _, statistic = name.rpartition('.')
        known.setdefault(key, {})[statistic] = tensor.float()
    return known


def _of_weights(folder: LerobotFolder) -> Statistics:
    """Return the normalisation of a checkpoint whose statistics are among the weights."""
    made: dict[str, Normalisation] = {}
    known: dict[str, dict[str, Tensor]] = {}
    for feature in (*folder.inputs, folder.action):
        prefix = 'unnormalize_outputs' if feature is folder.action else 'normalize_inputs'
        begin = f'{prefix}.buffer_{feature.key.replace(".", "_")}.'
        found = {
            name.removeprefix(begin): tensor.float()
            for name, tensor in folder.weights.items()
            if name.startswith(begin)
        }
        known[feature.key] = found
        mode = _old_mode(folder, feature)
        made[feature.key] = _normalisation(feature, mode, known, EPSILON, added=True)
    return Statistics(made, known, {})


def _old_mode(folder: LerobotFolder, feature: Feature) -> str:
    """Return the mode of a feature; of 2024 it is said for each key."""
    config = folder.config
    if 'normalization_mapping' in config:
        return _mode(config['normalization_mapping'], feature)
    kind = 'output' if feature is folder.action else 'input'
    modes = config.get(f'{kind}_normalization_modes')
    if not isinstance(modes, Mapping):
        raise PolicyImportError(
            f'{CONFIG} has neither normalization_mapping nor {kind}_normalization_modes'
        )
    return _known_mode(modes.get(feature.key, 'identity'), feature)


def _mode(mapping: Any, feature: Feature) -> str:
    """Return the mode of a kind of features; without an entry nothing is normalised."""
    if not isinstance(mapping, Mapping):
        raise PolicyImportError(f'the normalisation is {shown(mapping)}, expected a map of modes')
    return _known_mode(mapping.get(feature.kind, 'IDENTITY'), feature)


def _known_mode(mode: Any, feature: Feature) -> str:
    if not isinstance(mode, str) or mode.upper() not in MODES:
        raise PolicyImportError(
            f'{feature.key} is normalised by {shown(mode)}, expected one of {", ".join(MODES)}'
        )
    return mode.upper()


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get('eps', EPSILON)
    if not isinstance(value, float) or not 0.0 <= value < 1.0:
        raise PolicyImportError(f'eps of a normalizer is {shown(value)}, expected a small number')
    return value


def _normalisation(
    feature: Feature,
    mode: str,
    known: Mapping[str, Mapping[str, Tensor]],
    epsilon: float,
    added: bool = False,
) -> Normalisation:
    """Return the normalisation of a feature.

    Raises:
        PolicyImportError: statistics that it needs are missing, of a wrong shape or not finite.
    """
    found = known.get(feature.key, {})
    missing = [name for name in MODES[mode] if name not in found]
    if missing:
        raise PolicyImportError(
            f'{feature.key} is normalised by {mode}, but the checkpoint has no {listed(missing)} '
            f'of it: neither a file of {PREPROCESSOR} and {POSTPROCESSOR} nor '
            f'{IN_WEIGHTS[0]}* among the weights says; copy the whole folder pretrained_model'
        )
    # An image has one value for each colour.
    shape = (feature.shape[0], 1, 1) if feature.kind == 'VISUAL' else feature.shape
    statistics = {}
    for name in MODES[mode]:
        values = found[name]
        if values.numel() != feature.shape[0]:
            raise PolicyImportError(
                f'{name} of {feature.key} has shape {list(values.shape)}, expected {list(shape)}'
            )
        if not bool(torch.isfinite(values).all()):
            raise PolicyImportError(
                f'{name} of {feature.key} is not finite: the statistics were never filled'
            )
        statistics[name] = values.reshape(shape)
    return Normalisation(mode, statistics, epsilon, added)
