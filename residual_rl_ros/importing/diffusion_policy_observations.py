# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy of diffusion_policy observes, in three ways, and how that is normalised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

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
)
from residual_rl_ros.importing.robomimic_observations import build_core, check_numbers
from residual_rl_ros.importing.stored_config import StoredConfig
from residual_rl_ros.importing.weights import below, build
from residual_rl_ros.numerics import Array

PREFIX = 'normalizer.params_dict.'
STATISTICS = ('min', 'max', 'mean', 'std')


@dataclass(frozen=True)
class KeyNormalizer:
    """Normalisation of one key."""

    scale: Array
    """Shape (n,), nowhere 0."""
    offset: Array
    statistics: Mapping[str, Array] = field(default_factory=dict)
    """Of the training data: `STATISTICS`, as far as the checkpoint has them."""

    @property
    def low(self) -> Array:
        """Return the smallest value of the training data, or what -1 or 1 stands for."""
        return self.statistics.get('min', np.minimum(*self._ends()))

    @property
    def high(self) -> Array:
        """Return the largest likewise."""
        return self.statistics.get('max', np.maximum(*self._ends()))

    @property
    def centre(self) -> Array:
        """Return the usual value."""
        return self.statistics.get('mean', -self.offset / self.scale)

    @property
    def spread(self) -> Array:
        """Return the standard deviation around it."""
        return self.statistics.get('std', 0.5 / np.abs(self.scale))

    def _ends(self) -> tuple[Array, Array]:
        return (-1.0 - self.offset) / self.scale, (1.0 - self.offset) / self.scale


def read_normalizer(tensors: Mapping[str, Tensor], key: str, count: int) -> KeyNormalizer:
    """Return the normalisation of a key.

    Args:
        tensors: all weights of the policy.
        key: of the observations, or `action`.
        count: its numbers.

    Raises:
        PolicyImportError: it is missing, of another size, not finite or 0.
    """
    entry = below(tensors, f'{PREFIX}{key}.')
    found: dict[str, Array] = {}
    for name in ('scale', 'offset', *(f'input_stats.{each}' for each in STATISTICS)):
        if name not in entry:
            if name in ('scale', 'offset'):
                raise PolicyImportError(
                    f'the checkpoint has no {PREFIX}{key}.{name}: it was saved before the '
                    'normalizer was fitted'
                )
            continue
        values = entry[name].double().numpy().ravel()
        if values.size != count or not np.isfinite(values).all():
            raise PolicyImportError(
                f'{PREFIX}{key}.{name} has {values.size} numbers, expected {count} that are finite'
            )
        found[name] = values
    if not (found['scale'] != 0.0).all():
        raise PolicyImportError(f'{PREFIX}{shown(key)}.scale holds a 0')
    statistics = {
        name: found[f'input_stats.{name}'] for name in STATISTICS if f'input_stats.{name}' in found
    }
    return KeyNormalizer(found['scale'], found['offset'], statistics)


COLOURS = 3
ENCODER = 'obs_encoder.'
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Shape = tuple[int, ...]


def read_vector(config: StoredConfig, tensors: Mapping[str, Tensor]) -> Observations:
    """Return the one vector of a low-dim policy.

    Raises:
        PolicyImportError: its normalisation is missing.
    """
    count = config.get('policy.obs_dim', int)
    if not 1 <= count <= 10_000:
        raise PolicyImportError(f'policy.obs_dim is {count}, expected 1 to 10000')
    normalizer = read_normalizer(tensors, 'obs', count)
    return _gathered([Numbers(0, count)], {'obs': (count,)}, {'obs': normalizer})


def read_hybrid(config: StoredConfig, tensors: Mapping[str, Tensor]) -> Observations:
    """Return keys in the order of the configuration; cameras have an encoder of robomimic.

    Raises:
        PolicyImportError: shapes are missing, or weights do not fit.
    """
    shapes, images = _shapes(config)
    crop = _size(config, 'policy.crop_shape', (76, 76))

    def make(key: str, shape: Shape) -> VisualCore:
        weights = below(tensors, f'{ENCODER}obs_nets.{key}.')
        keypoints, linear = weights.get('nets.1.nets.weight'), weights.get('nets.3.weight')
        spec = VisualCoreSpec(
            height=shape[1],
            width=shape[2],
            crop=crop,
            crop_rounds=config.flag('policy.eval_fixed_crop'),
            keypoints=None if keypoints is None else keypoints.shape[0],
            features=None if linear is None else linear.shape[0],
        )
        return build_core(spec, weights, f'the encoder of {key}')

    remarks: tuple[str, ...] = ()
    if images and crop is not None and not config.flag('policy.eval_fixed_crop'):
        remarks = (
            'the crop of an image is that of its centre; the original crops at random '
            '(eval_fixed_crop is off)',
        )
    found = _observations(shapes, list(shapes), images, tensors, make, torch.nn.ReLU(), remarks)
    return replace(found, read=tuple(f'{ENCODER}obs_nets.{key}.' for key in images))


def read_multi_image(config: StoredConfig, tensors: Mapping[str, Tensor]) -> Observations:
    """Return cameras, then numbers, each in the order of the alphabet.

    Raises:
        PolicyImportError: shapes are missing, or weights do not fit.
    """
    where = 'policy.obs_encoder'
    shapes, images = _shapes(config)
    shared = config.flag(f'{where}.share_rgb_model')
    variant = config.get(f'{where}.rgb_model.name', str)
    # A fixed crop is overwritten by the normalisation there, so that only a random one crops.
    crop = _size(config, f'{where}.crop_shape')
    if not config.get(f'{where}.random_crop', bool, True):
        crop = None
    resized = _size(config, f'{where}.resize_shape')
    cores: dict[str, VisualCore] = {}

    def make(key: str, shape: Shape) -> VisualCore:
        name = 'rgb' if shared else key
        size = resized or (shape[1], shape[2])
        if name in cores:
            return cores[name]
        weights = below(tensors, f'{ENCODER}key_model_map.{name}.')
        spec = VisualCoreSpec(
            height=size[0],
            width=size[1],
            variant=variant,
            norm='batch' if 'bn1.running_mean' in weights else 'group',
            crop=crop,
            crop_rounds=True,
            pooling='mean',
            features=None,
        )
        cores[name] = build(
            lambda: VisualCore(spec),
            {f'backbone.{each}': tensor for each, tensor in weights.items()},
            f'the encoder of {name}',
        )
        return cores[name]

    order = [*sorted(images), *sorted(key for key in shapes if key not in images)]
    imagenet = config.flag(f'{where}.imagenet_norm')
    if shared and len({shapes[key] for key in images}) > 1:
        raise PolicyImportError(
            f'{where}.share_rgb_model is true with images of several sizes, expected one size'
        )
    found = _observations(shapes, order, images, tensors, make, None, (), imagenet, resized)
    return replace(found, read=tuple(f'{ENCODER}key_model_map.{name}.' for name in cores))


LOW_DIM = 'diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy'
READERS: Mapping[str, Callable[[StoredConfig, Mapping[str, Tensor]], Observations]] = {
    LOW_DIM: read_vector,
    'diffusion_unet_hybrid_image_policy.DiffusionUnetHybridImagePolicy': read_hybrid,
    'diffusion_unet_image_policy.DiffusionUnetImagePolicy': read_multi_image,
}
"""By the class of the policy."""


def _observations(
    shapes: Mapping[str, Shape],
    order: list[str],
    images: list[str],
    tensors: Mapping[str, Tensor],
    make: Callable[[str, Shape], VisualCore],
    activation: torch.nn.Module | None,
    remarks: tuple[str, ...],
    imagenet: bool = False,
    resized: tuple[int, int] | None = None,
) -> Observations:
    """Return keys with their encoders, in an order."""
    vectors = {key: shape for key, shape in shapes.items() if key not in images}
    normalizers = {
        key: read_normalizer(tensors, key, math.prod(shape)) for key, shape in vectors.items()
    }
    starts, place = {}, 0
    for key, shape in vectors.items():
        starts[key] = place
        place += math.prod(shape)
    parts: list[Numbers | Camera] = []
    features = {}
    for key in order:
        if key in images:
            core = make(key, shapes[key])
            features[key] = core.features
            parts.append(_camera(core, tensors, key, imagenet, resized))
        else:
            parts.append(Numbers(starts[key], starts[key] + math.prod(shapes[key])))
    cameras = {key: (shapes[key][1], shapes[key][2]) for key in features}
    return _gathered(parts, vectors, normalizers, activation, cameras, features, remarks)


def _camera(
    core: VisualCore,
    tensors: Mapping[str, Tensor],
    key: str,
    imagenet: bool,
    resized: tuple[int, int] | None,
) -> Camera:
    normalizer = read_normalizer(tensors, key, 1)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else ((0.0,), (1.0,))
    return Camera(core, [*normalizer.scale], [*normalizer.offset], mean, std, resized)


def _gathered(
    parts: list[Numbers | Camera],
    vectors: Mapping[str, Shape],
    normalizers: Mapping[str, KeyNormalizer],
    activation: torch.nn.Module | None = None,
    cameras: Mapping[str, tuple[int, int]] | None = None,
    features: Mapping[str, int] | None = None,
    remarks: tuple[str, ...] = (),
) -> Observations:
    def all_of(values: list[Array]) -> Array:
        return np.concatenate([np.zeros(0), *values])

    each = [normalizers[key] for key in vectors]
    encoder = WindowEncoder(
        parts,
        torch.from_numpy(all_of([one.scale for one in each])).float(),
        torch.from_numpy(all_of([one.offset for one in each])).float(),
        activation,
    )
    size = sum(map(math.prod, vectors.values())) + sum((features or {}).values())
    return Observations(
        encoder,
        size,
        tuple(name for key, shape in vectors.items() for name in named(key, shape)),
        all_of([one.centre for one in each]),
        all_of([one.spread for one in each]),
        cameras or {},
        features or {},
        remarks,
    )


def _shapes(config: StoredConfig) -> tuple[dict[str, Shape], list[str]]:
    """Return the shape of each key, and which of them are images."""
    entries = config.get('policy.shape_meta.obs', dict)
    shapes, images = {}, []
    for key, entry in entries.items():
        where = StoredConfig(entry if isinstance(entry, Mapping) else {}, f'shape_meta.obs.{key}')
        shape, kind = where.integers('shape'), where.get('type', str, 'low_dim')
        if kind not in ('rgb', 'low_dim') or max(shape, default=0) > MAX_PIXELS:
            raise PolicyImportError(
                f'{where.source} is {shown(kind)} of shape {list(shape)}, expected rgb or low_dim '
                f'with sizes up to {MAX_PIXELS}; import it with --module'
            )
        if kind == 'rgb':
            if len(shape) != 3 or shape[0] != COLOURS:
                raise PolicyImportError(
                    f'{where.source} has shape {list(shape)}, expected [3, height, width]'
                )
            images.append(key)
        shapes[key] = shape
    check_numbers({key: shape for key, shape in shapes.items() if key not in images})
    return shapes, images


def _size(
    config: StoredConfig, path: str, default: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """Return height and width, None if the value is null; the default if there is no such key."""
    above, _, key = path.rpartition('.')
    if key not in config.map(above):
        return default
    if config.find(path) is None:
        return None
    found = config.integers(path)
    if len(found) != 2 or max(found) > MAX_PIXELS:
        raise PolicyImportError(
            f'{path} is {list(found)}, expected height and width up to {MAX_PIXELS}'
        )
    return found[0], found[1]
