# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy of robomimic observes: keys in the order of its checkpoint, and their encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.inputs import MAX_PIXELS
from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.contract import named
from residual_rl_ros.importing.networks.window_encoder import (
    Camera,
    Numbers,
    Observations,
    VisualCore,
    VisualCoreSpec,
    WindowEncoder,
    named_as_here,
)
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.importing.stored_config import StoredConfig
from residual_rl_ros.importing.weights import below, build
from residual_rl_ros.numerics import Array

BACKBONES = {'ResNet18Conv': 'resnet18', 'ResNet50Conv': 'resnet50'}
POOLINGS = {'SpatialSoftmax': 'SpatialSoftmax', 'None': 'none'}
COLOURS = 3
MOST_NUMBERS = 100_000
"""Numbers of a state."""
Shape = tuple[int, ...]


def read_observations(
    config: StoredConfig, checkpoint: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Observations:
    """Return what the policy observes.

    Args:
        config: of the training.
        checkpoint: whose `shape_metadata` and `obs_normalization_stats` are read.
        tensors: weights of the encoder, by key of the observation.

    Raises:
        PolicyImportError: it observes what cannot be imported, or a number is missing.
    """
    shapes = read_shapes(config, checkpoint)
    images = _keys(config, 'rgb')
    lengths = {key: math.prod(shape) for key, shape in shapes.items() if key not in images}
    statistics = checkpoint.get('obs_normalization_stats')
    offset, scale = [], []
    for key, length in lengths.items():
        mean, std = read_affine(statistics, key, length, 'obs_normalization_stats')
        offset.append(mean)
        scale.append(std)
    if statistics is not None and images:
        raise PolicyImportError(
            'hdf5_normalize_obs is on beside images, expected off; import it with --module'
        )
    parts: list[Numbers | Camera] = []
    cameras, features, used = {}, {}, set()
    place = 0
    for key, shape in shapes.items():
        if key in images:
            core = _core(config, shape, below(tensors, f'{key}.'), key)
            parts.append(Camera(core))
            cameras[key], features[key] = (shape[1], shape[2]), core.features
            used |= {name for name in tensors if name.startswith(f'{key}.')}
        else:
            parts.append(Numbers(place, place + lengths[key]))
            place += lengths[key]
    extra = [name for name in tensors if name not in used]
    if extra:
        raise PolicyImportError(f'the encoder has {listed(extra)}, which fits nowhere')
    centre = np.concatenate(offset) if offset else np.zeros(0)
    spread = np.concatenate(scale) if scale else np.ones(0)
    encoder = WindowEncoder(
        parts,
        torch.from_numpy(1.0 / spread).float(),
        torch.from_numpy(-centre / spread).float(),
        nn.ReLU(),
    )
    names = tuple(each for key in lengths for each in named(key, shapes[key]))
    return Observations(
        encoder, place + sum(features.values()), names, centre, spread, cameras, features
    )


def read_shapes(config: StoredConfig, checkpoint: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shape of each key that is observed, in the order of the checkpoint.

    Raises:
        PolicyImportError: shapes are missing, or there are goals or other modalities.
    """
    described = StoredConfig({'shape_metadata': checkpoint.get('shape_metadata')}, config.source)
    every = described.get('shape_metadata.all_shapes', dict)
    for group in ('obs', 'goal', 'subgoal'):
        modalities = config.map(f'observation.modalities.{group}')
        for kind, keys in modalities.items():
            if keys and (group != 'obs' or kind not in ('low_dim', 'rgb')):
                raise PolicyImportError(
                    f'the policy observes {group}.{kind} {shown(keys)}, expected obs.low_dim and '
                    'obs.rgb alone; import it with --module'
                )
    used = _keys(config, 'low_dim') + _keys(config, 'rgb')
    missing = [key for key in used if key not in every]
    if missing or not used:
        raise PolicyImportError(
            f'shape_metadata of {config.source} lacks {listed(missing) or "every observation"}'
        )
    shapes = {}
    for key in every:
        if key not in used:
            continue
        shape = every[key]
        is_image = key in _keys(config, 'rgb')
        sound = isinstance(shape, (list, tuple)) and all(
            type(size) is int and 0 < size <= MAX_PIXELS for size in shape
        )
        if not sound or (is_image and (len(shape) != 3 or shape[0] != COLOURS)):
            raise PolicyImportError(
                f'observation {shown(key)} has shape {shown(shape)}, expected '
                + ('[3, height, width]' if is_image else 'a list of sizes')
                + f' up to {MAX_PIXELS}'
            )
        shapes[str(key)] = tuple(shape)
    check_numbers({key: shape for key, shape in shapes.items() if key not in _keys(config, 'rgb')})
    if 'low_dim' in config.map('observation.encoder'):
        core = config.find('observation.encoder.low_dim.core_class')
        if core is not None:
            raise PolicyImportError(
                f'observation.encoder.low_dim.core_class is {shown(core)}, expected null'
            )
    return shapes


def check_numbers(shapes: Mapping[str, Shape]) -> None:
    """Refuse a state of more numbers than any robot has.

    Raises:
        PolicyImportError: it has.
    """
    count = sum(math.prod(shape) for shape in shapes.values())
    if count > MOST_NUMBERS:
        raise PolicyImportError(
            f'the observation has {count} numbers, expected at most {MOST_NUMBERS}'
        )


def read_affine(statistics: Any, key: str, length: int, where: str) -> tuple[Array, Array]:
    """Return offset and scale of a key: (x - offset) / scale is what the network sees.

    Args:
        statistics: of all keys; None: there are none.
        key: of them.
        length: numbers of the key.
        where: what they are, for the error.

    Raises:
        PolicyImportError: they are missing or no numbers.
    """
    if statistics is None:
        return np.zeros(length), np.ones(length)
    entry = statistics.get(key) if isinstance(statistics, Mapping) else None
    if not isinstance(entry, Mapping):
        raise PolicyImportError(f'{where} lacks {shown(key)}')
    # Version 0.3 says mean and std; later ones offset and scale.
    names = ('offset', 'scale') if 'offset' in entry else ('mean', 'std')
    found = []
    for name in names:
        try:
            values = np.array(entry.get(name), dtype=np.float64).ravel()
        except (TypeError, ValueError, OverflowError) as error:
            raise PolicyImportError(f'{where}.{key}.{name} are no numbers: {error}') from error
        if values.size != length or not np.isfinite(values).all():
            raise PolicyImportError(
                f'{where}.{key}.{name} has {values.size} numbers, expected {length} that are finite'
            )
        found.append(values)
    if not (found[1] != 0.0).all():
        raise PolicyImportError(f'{where}.{key}.{names[1]} holds a 0')
    return found[0], found[1]


def _keys(config: StoredConfig, modality: str) -> list[str]:
    return config.names(f'observation.modalities.obs.{modality}')


def _core(
    config: StoredConfig, shape: Shape, tensors: Mapping[str, Tensor], key: str
) -> VisualCore:
    """Return the network of a camera."""
    where = 'observation.encoder.rgb'
    core_class = config.get(f'{where}.core_class', str)
    backbone = config.find(f'{where}.core_kwargs.backbone_class') or 'ResNet18Conv'
    arguments = config.map(f'{where}.core_kwargs')
    pooling = arguments.get('pool_class', 'SpatialSoftmax')
    if core_class != 'VisualCore' or str(backbone) not in BACKBONES or str(pooling) not in POOLINGS:
        raise PolicyImportError(
            f'{where} is {shown(core_class)} of {shown(backbone)} and {shown(pooling)}, expected '
            f'VisualCore of {", ".join(BACKBONES)} and SpatialSoftmax or null; import it with '
            '--module'
        )
    for switch in ('backbone_kwargs.input_coord_conv', 'pool_kwargs.output_variance'):
        if config.flag(f'{where}.core_kwargs.{switch}'):
            raise PolicyImportError(f'{where}.core_kwargs.{switch} is true, expected false')
    features = arguments.get('feature_dimension', 64)
    if features is not None:
        features = config.get(f'{where}.core_kwargs.feature_dimension', int, 64)
    pool = config.map(f'{where}.core_kwargs.pool_kwargs')
    keypoints = None
    if pool.get('num_kp', 32) is not None:
        keypoints = config.get(f'{where}.core_kwargs.pool_kwargs.num_kp', int, 32)
    spec = VisualCoreSpec(
        height=shape[1],
        width=shape[2],
        variant=BACKBONES[str(backbone)],
        crop=_crop(config, where),
        keypoints=keypoints,
        pooling=POOLINGS[str(pooling)],
        features=features,
    )
    return build_core(spec, tensors, f'the encoder of {key}')


def build_core(spec: VisualCoreSpec, tensors: Mapping[str, Tensor], what: str) -> VisualCore:
    """Return the network of a camera with its weights, which tell normalisation and temperature.

    Raises:
        PolicyImportError: they do not fit.
    """
    temperature = tensors.get('nets.1.temperature', torch.ones(1))
    if temperature.numel() != 1 or not float(temperature) > 0.0:
        raise PolicyImportError(f'the temperature of {what} is no positive number')
    norm = 'batch' if 'nets.0.nets.1.running_mean' in tensors else 'group'
    whole = VisualCoreSpec(**{**vars(spec), 'norm': norm, 'temperature': float(temperature)})
    return build(lambda: VisualCore(whole), named_as_here(tensors, what), what)


def _crop(config: StoredConfig, where: str) -> tuple[int, int] | None:
    """Return the crop of the randomizer; at test time it is that of the centre."""
    randomizer = config.find(f'{where}.obs_randomizer_class')
    if isinstance(randomizer, list):
        randomizer = randomizer[0] if len(randomizer) == 1 else randomizer
    if randomizer in (None, 'ColorRandomizer', 'GaussianNoiseRandomizer'):
        return None  # At test time they do nothing.
    if randomizer != 'CropRandomizer' or config.flag(f'{where}.obs_randomizer_kwargs.pos_enc'):
        raise PolicyImportError(
            f'{where}.obs_randomizer_class is {shown(randomizer)}, expected CropRandomizer without '
            'pos_enc, or null'
        )
    height = config.get(f'{where}.obs_randomizer_kwargs.crop_height', int, 76)
    return height, config.get(f'{where}.obs_randomizer_kwargs.crop_width', int, 76)
