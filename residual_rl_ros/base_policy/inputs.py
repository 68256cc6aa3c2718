# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a base policy is given beside the observation vector: images, constants, its memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from residual_rl_ros.errors import BasePolicyError, shown
from residual_rl_ros.numerics import AnyArray, Float32, integer
from residual_rl_ros.robot.image_preprocessing import RgbImage

MAX_PIXELS = 4096
"""Largest height and width of an image [px]."""
MOST_WINDOW_PIXELS = 2**25
"""Pixels of a window of one camera."""
MAX_NUMBERS = 10_000_000
"""Most numbers in a constant or a memory."""
OWN_INPUTS = ('observation', 'noise')
"""Inputs that every policy may have; no other is named so."""


@dataclass(frozen=True)
class ImageInput:
    """Images of the image channel of the same name, uint8 [B, n_obs_steps, height, width, 3]."""

    kind: ClassVar[str] = 'image'
    name: str
    height: int
    """[px]."""
    width: int
    """[px]."""
    features: tuple[str, ...] = ()
    """Names of what the output `NAME.features` tells of the newest image, float32 [B, f]; empty
    if there is no such output."""

    def check(self) -> None:
        """Refuse sizes that no image has.

        Raises:
            ValueError: one is out of range.
        """
        for label in ('height', 'width'):
            if not 1 <= getattr(self, label) <= MAX_PIXELS:
                raise ValueError(f'{label} is {getattr(self, label)}, expected 1 to {MAX_PIXELS}')
        if len(set(self.features)) != len(self.features):
            raise ValueError(f'features are {list(self.features)}, expected each name once')


@dataclass(frozen=True)
class ConstantInput:
    """Numbers that say which task it is: a goal, language tokens; [B, *shape]."""

    kind: ClassVar[str] = 'constant'
    name: str
    shape: tuple[int, ...]
    type: str = 'float32'
    """`float32` or `int64`."""
    default: tuple[float, ...] = ()
    """Numbers in row-major order; empty: whoever runs the policy must say them."""

    def check(self) -> None:
        """Refuse what no array can be made of.

        Raises:
            ValueError: it says why.
        """
        _check_shape(self.shape)
        if self.type not in ('float32', 'int64'):
            raise ValueError(f'type is {shown(self.type)}, expected float32 or int64')
        if self.default:
            self.array(self.default)

    def array(self, values: Iterable[float]) -> AnyArray:
        """Return the constant, shape (1, *shape).

        Raises:
            ValueError: a wrong number of values, or one that its type does not hold.
        """
        numbers = np.array(list(values), dtype=np.float64)
        if numbers.size != math.prod(self.shape):
            raise ValueError(f'it has {numbers.size} values, expected {math.prod(self.shape)}')
        with np.errstate(over='ignore', invalid='ignore'):
            made = numbers.astype(self.type)
        whole = self.type == 'int64'
        sound = np.isfinite(numbers) & (made == numbers if whole else np.isfinite(made))
        if not sound.all():
            raise ValueError(f'it has {numbers[~sound][0]:g}, which is no {self.type}')
        return made.reshape(1, *self.shape)


@dataclass(frozen=True)
class MemoryInput:
    """What a recurrent policy remembers from one inference to the next, float32 [B, *shape].

    Zero at the start of an episode and after a pause.
    """

    kind: ClassVar[str] = 'memory'
    name: str
    output: str
    """The output that is the input of the next inference."""
    shape: tuple[int, ...]
    reset_steps: int = 0
    """Zero again after so many inferences; 0: never."""

    def check(self) -> None:
        """Refuse what cannot be remembered.

        Raises:
            ValueError: it says why.
        """
        _check_shape(self.shape)
        if self.reset_steps < 0:
            raise ValueError(f'reset_steps is {self.reset_steps}, expected >= 0')


Input = ImageInput | ConstantInput | MemoryInput
KINDS: dict[str, type[Input]] = {
    each.kind: each for each in (ImageInput, ConstantInput, MemoryInput)
}


def read_inputs(mapping: Any) -> tuple[Input, ...]:
    """Return the inputs that metadata lists.

    Args:
        mapping: name -> map of its kind and the fields of that kind.

    Raises:
        BasePolicyError: names what is missing, unknown or wrong.
    """
    if not isinstance(mapping, Mapping):
        raise BasePolicyError(f'metadata inputs is {shown(mapping)}, expected a map')
    return tuple(_read_input(str(name), values) for name, values in mapping.items())


def _read_input(name: str, values: Any) -> Input:
    where = f'metadata inputs.{name}'
    if name in OWN_INPUTS:
        raise BasePolicyError(f'{where} describes an input that every policy may have; remove it')
    kind = values.get('kind') if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise BasePolicyError(f'{where}.kind is {shown(kind)}, expected one of {", ".join(KINDS)}')
    try:
        made = KINDS[kind](name, **_typed({key: values[key] for key in values if key != 'kind'}))
        made.check()
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).removeprefix(f'{KINDS[kind].__name__}.__init__() ')
        raise BasePolicyError(f'{where}: {reason}') from error
    return made


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an input with the types that the classes name."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key in ('shape', 'default', 'features') and not isinstance(value, (list, tuple)):
            raise ValueError(f'{key} is {shown(value)}, expected a list')
        if key == 'shape':
            made[key] = tuple(integer(size) for size in value)
        elif key == 'default':
            made[key] = tuple(float(number) for number in value)
        elif key == 'features':
            made[key] = tuple(str(each) for each in value)
        elif key in ('height', 'width', 'reset_steps'):
            made[key] = integer(value)
        elif key in ('type', 'output') and not isinstance(value, str):
            raise ValueError(f'{key} is {shown(value)}, expected a text')
        else:
            made[key] = value
    return made


def write_inputs(inputs: Iterable[Input]) -> dict[str, dict[str, Any]]:
    """Return what `read_inputs` reads, as JSON can hold it."""
    made = {}
    for each in inputs:
        values = {key: value for key, value in vars(each).items() if key != 'name'}
        made[each.name] = {'kind': each.kind, **values}
    return made


def _check_shape(shape: tuple[int, ...]) -> None:
    if any(size < 1 for size in shape) or math.prod(shape) > MAX_NUMBERS:
        raise ValueError(
            f'shape is {list(shape)}, expected sizes of 1 or more and at most {MAX_NUMBERS} numbers'
        )


Images = Mapping[str, RgbImage]
"""By the name of their channel: the newest, shape (height, width, 3), or in a window of
observations, oldest first, shape (n_obs_steps, height, width, 3)."""
NO_IMAGES: Images = MappingProxyType({})


@dataclass
class Memory:
    """What a recurrent policy remembers in an episode; each inference replaces it."""

    values: dict[str, Float32] = field(default_factory=dict)
    """By the name of the input, shape (1, *shape)."""
    inferences: int = 0
    """Since it was empty."""

    def recall(self, each: MemoryInput) -> Float32:
        """Return the input of the next inference, shape (1, *shape)."""
        expired = each.reset_steps and self.inferences % each.reset_steps == 0
        if expired or each.name not in self.values:
            return np.zeros((1, *each.shape), dtype=np.float32)
        return self.values[each.name]


@dataclass(frozen=True)
class Context:
    """What an inference is given beside a window of observations and noise."""

    images: Images = field(default_factory=lambda: NO_IMAGES)
    """Windows of images."""
    memory: Memory = field(default_factory=Memory)
    """Of the episode, which the inference replaces."""
