# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the user says of a checkpoint: names, units, rate and what else its files do not have.

A map is a YAML file. Numbers are found by the name that they have in the checkpoint::

    rate_hz: 30
    observation:
      shoulder_pan.pos: {name: arm.position.shoulder_pan, unit: degrees}
      gripper.pos: {name: gripper.position, checkpoint: [-100, 100], robot: [0.0, 0.08]}
    action:
      shoulder_pan.pos: {name: shoulder_pan, unit: degrees}
    images:
      top: camera_top
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.inputs import OWN_INPUTS
from residual_rl_ros.errors import ConfigError, PolicyImportError
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.numerics import Array
from residual_rl_ros.schema import from_mapping, map_parameter, parameter, read_yaml

UNITS = {'same': 1.0, 'degrees': math.degrees(1.0)}
"""What a number of the robot is multiplied with to be that of the checkpoint."""
KINDS = ('observation', 'action')


@dataclass(frozen=True)
class NumberMap:
    """What one number of the checkpoint is on the robot."""

    name: str = parameter('', 'Name on the robot; default: that of the checkpoint.')
    unit: str = parameter(
        'same', 'Unit in the checkpoint; `degrees` are radians on the robot.', choices=tuple(UNITS)
    )
    checkpoint: tuple[float, ...] = parameter(
        (), 'Two values of the checkpoint; those of `robot` are the same positions.'
    )
    robot: tuple[float, ...] = parameter((), 'Two values of the robot, in its units.')
    range: tuple[float, ...] = parameter(
        (), 'Of an action: smallest and largest of the training data, in units of the robot.'
    )

    def problems(self) -> list[str]:
        """Return what does not fit together."""
        found = []
        for key, values in (('checkpoint', self.checkpoint), ('robot', self.robot)):
            if values and (len(values) != 2 or values[0] == values[1]):
                found.append(f'{key}: is {list(values)}, expected two different numbers')
        if bool(self.checkpoint) != bool(self.robot):
            found.append('checkpoint: give both checkpoint and robot, two values each')
        if self.checkpoint and self.unit != 'same':
            found.append(f'unit: is {self.unit!r} beside checkpoint and robot; give one of them')
        if self.range and (len(self.range) != 2 or self.range[0] > self.range[1]):
            found.append(f'range: is {list(self.range)}, expected smallest and largest')
        if not found and self.robot and not self._is_representable:
            found.append(
                f'robot: is {list(self.robot)} beside checkpoint {list(self.checkpoint)}, expected '
                'ends whose quotient float32 can hold'
            )
        return found

    @property
    def _is_representable(self) -> bool:
        """Whether float32, in which the graph computes, holds both directions."""
        gain, bias = self.gain, self.bias
        if gain == 0.0 or not np.isfinite([gain, bias]).all():
            return False
        with np.errstate(over='ignore', under='ignore'):
            held = np.array([gain, 1.0 / gain, bias, bias / gain]).astype(np.float32)
        return bool(np.isfinite(held).all() and held[:2].all())

    @property
    def gain(self) -> float:
        """Return the factor from the robot to the checkpoint."""
        if not self.robot:
            return UNITS[self.unit]
        return (self.checkpoint[1] - self.checkpoint[0]) / (self.robot[1] - self.robot[0])

    @property
    def bias(self) -> float:
        """Return what is added after the factor."""
        return self.checkpoint[0] - self.gain * self.robot[0] if self.robot else 0.0


@dataclass(frozen=True)
class PolicyMap:
    """A map file, or the options of the command line in its place."""

    rate_hz: float = parameter(
        0.0, 'Control rate of the training data [Hz]; 0 is that of --dataset.', 0.0
    )
    exec_steps: int = parameter(
        0, 'Actions of a chunk that are meant to run; 0 is the number of the checkpoint.', 0
    )
    task: str = parameter('', 'Name of the task; information only.')
    observation: dict[str, Any] = map_parameter(
        'Numbers of the observation, by their name in the checkpoint.'
    )
    action: dict[str, Any] = map_parameter(
        'Numbers of the action, by their name in the checkpoint.'
    )
    observation_order: tuple[str, ...] = parameter(
        (),
        'Names on the robot in its order, if that is another; further ones are not for the policy.',
    )
    action_order: tuple[str, ...] = parameter((), 'Names of the actions in the order of the robot.')
    images: dict[str, Any] = map_parameter(
        'Image channels of the robot, by the camera of the checkpoint.'
    )

    def problems(self) -> list[str]:
        """Return what is no map of numbers or images."""
        found = []
        for kind in KINDS:
            for name, entry in getattr(self, kind).items():
                try:
                    _number(kind, name, entry)
                except ConfigError as error:
                    found += [f'{kind}.{name}.{each}' for each in error.problems or [str(error)]]
        found += [
            f'images.{name}: is {channel!r}, expected the name of an image channel'
            for name, channel in self.images.items()
            if not isinstance(channel, str) or not channel.isprintable() or not channel
        ]
        return found

    def number(self, kind: str, name: str) -> NumberMap:
        """Return what a number of the checkpoint is on the robot."""
        entries = getattr(self, kind)
        return _number(kind, name, entries[name]) if name in entries else NumberMap()

    def with_options(self, **given: Any) -> PolicyMap:
        """Return the map with what the command line says instead; None leaves a key."""
        return replace(self, **{key: value for key, value in given.items() if value is not None})

    def channel(self, camera: str) -> str:
        """Return the robot's image channel of a camera of the checkpoint."""
        short = camera.rsplit('.', 1)[-1]
        return str(self.images.get(camera, self.images.get(short, short)))

    def check_cameras(self, cameras: Sequence[str]) -> None:
        """Refuse a map that names a camera which the checkpoint does not have.

        Raises:
            PolicyImportError: it does, or a camera has the channel of another one or of another
                input.
        """
        known = {*cameras, *(camera.rsplit('.', 1)[-1] for camera in cameras)}
        unknown = [name for name in self.images if name not in known]
        if unknown:
            raise PolicyImportError(
                f'images of the map names {listed(unknown)}, the checkpoint has '
                f'{listed(cameras) or "no camera"}; correct --map'
            )
        channels = [self.channel(camera) for camera in cameras]
        if taken := [name for name in channels if name in OWN_INPUTS]:
            raise PolicyImportError(
                f'a camera has the channel {listed(taken)}, which is the name of another input; '
                'give it another below images in --map'
            )
        if len(set(channels)) < len(channels):
            raise PolicyImportError(
                f'cameras {listed(cameras)} have the channels {listed(channels)}, expected a '
                'different one for each; give them names below images in --map'
            )


def read_map(path: Path) -> PolicyMap:
    """Read a map file.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong.
    """
    return from_mapping(PolicyMap, read_yaml(path, 'map') or {}, str(path))


def _number(kind: str, name: Any, entry: Any) -> NumberMap:
    """Return the entry of a number: a map, or its name on the robot alone."""
    if isinstance(entry, str):
        entry = {'name': entry}
    return from_mapping(NumberMap, entry, f'{kind}.{name}')


@dataclass(frozen=True)
class MappedNumbers:
    """Numbers of the checkpoint as the robot has them: c = gain x r[index] + bias."""

    names: tuple[str, ...]
    """Names on the robot, in its order."""
    index: tuple[int, ...]
    """Of each number of the checkpoint its place among the names."""
    gain: Array
    """Of each number of the checkpoint."""
    bias: Array
    ranges: tuple[tuple[float, ...], ...]
    """Of each number of the checkpoint smallest and largest on the robot, empty if not given."""

    @property
    def is_same(self) -> bool:
        """Whether the robot has the same numbers in the same units and order."""
        ordered = self.index == tuple(range(len(self.names)))
        return ordered and bool((self.gain == 1.0).all() and (self.bias == 0.0).all())


def map_numbers(policy_map: PolicyMap, kind: str, names: Sequence[str]) -> MappedNumbers:
    """Return what the numbers of the checkpoint are on the robot.

    Args:
        policy_map: the map.
        kind: `observation` or `action`.
        names: of the checkpoint's numbers.

    Raises:
        PolicyImportError: the map names numbers that do not exist, or an order lacks some.
    """
    unknown = [name for name in getattr(policy_map, kind) if name not in names]
    if unknown:
        raise PolicyImportError(
            f'{kind} of the map names {listed(unknown)}, the checkpoint has {listed(names)}; '
            'correct --map'
        )
    entries = [policy_map.number(kind, name) for name in names]
    mapped = [entry.name or name for entry, name in zip(entries, names, strict=True)]
    repeated = {name: None for name in mapped if mapped.count(name) > 1}
    if repeated:
        raise PolicyImportError(
            f'{kind} of the map gives several numbers of the checkpoint the name '
            f'{listed(repeated)}, expected a different one for each; correct --map'
        )
    order = getattr(policy_map, f'{kind}_order') or tuple(mapped)
    missing = [name for name in mapped if name not in order]
    extra = [name for name in order if name not in mapped] if kind == 'action' else []
    if missing or extra:
        raise PolicyImportError(
            f'{kind}_order of the map lacks {listed(missing) or "nothing"} and has '
            f'{listed(extra) or "nothing"} that the checkpoint does not give; correct --map'
        )
    return MappedNumbers(
        names=tuple(order),
        index=tuple(order.index(name) for name in mapped),
        gain=np.array([entry.gain for entry in entries]),
        bias=np.array([entry.bias for entry in entries]),
        ranges=tuple(entry.range for entry in entries),
    )


def robot_range(
    mapped: MappedNumbers, low: Array | None, high: Array | None, names: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the smallest and largest trained action on the robot, in its order.

    Args:
        mapped: the actions.
        low: smallest of the training data in units of the checkpoint, shape (m,); None if unknown.
        high: largest likewise.
        names: of the checkpoint's actions, for the error.

    Raises:
        PolicyImportError: neither the checkpoint nor the map says.
    """
    unknown = [name for name, given in zip(names, mapped.ranges, strict=True) if not given]
    if (low is None or high is None) and unknown:
        raise PolicyImportError(
            f'the checkpoint does not say the range of the actions {listed(unknown)}; give the '
            'dataset that it was trained on (--dataset), or range: [smallest, largest] for each '
            'below action in --map, or --range-std 3 to take mean ± 3 standard deviations'
        )
    found: dict[int, tuple[float, float]] = {}
    for place, (index, given) in enumerate(zip(mapped.index, mapped.ranges, strict=True)):
        if given:
            found[index] = (given[0], given[1])
            continue
        assert low is not None
        assert high is not None
        ends = (np.array([low[place], high[place]]) - mapped.bias[place]) / mapped.gain[place]
        found[index] = (float(ends.min()), float(ends.max()))
    ordered = [found[index] for index in range(len(mapped.names))]
    return tuple(low for low, _ in ordered), tuple(high for _, high in ordered)


DEFAULT_DDIM_STEPS = 10
NOISE_DEFAULTS = ('normal', 'zero')


@dataclass(frozen=True)
class ImportOptions:
    """Options of `import-base`."""

    map: PolicyMap = field(default_factory=PolicyMap)
    """Names, units and rate."""
    dataset: Path | None = None
    """Folder of the dataset that the policy was trained on."""
    ddim_steps: int | None = None
    """Denoising steps of a diffusion policy; None is the number of a checkpoint that was made for
    DDIM, else `DEFAULT_DDIM_STEPS`."""
    range_std: float | None = None
    """Range of the trained actions in standard deviations from their mean, if nothing says it."""
    noise_default: str | None = None
    """Noise of the base action, one of `NOISE_DEFAULTS`; None is that of the architecture."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            PolicyImportError: one is out of range.
        """
        if self.range_std is not None and not self.range_std > 0.0:
            raise PolicyImportError(f'range_std is {self.range_std}, expected > 0')
        if self.noise_default not in (None, *NOISE_DEFAULTS):
            raise PolicyImportError(
                f'noise is {self.noise_default!r}, expected one of {", ".join(NOISE_DEFAULTS)}'
            )


class FromRobot(nn.Module):
    """Makes observations of the checkpoint of those of the robot."""

    index: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, mapped: MappedNumbers) -> None:
        super().__init__()
        self.is_same = mapped.is_same
        self.register_buffer('index', torch.tensor(mapped.index))
        self.register_buffer('gain', torch.from_numpy(mapped.gain).float())
        self.register_buffer('bias', torch.from_numpy(mapped.bias).float())

    def forward(self, observation: Tensor) -> Tensor:
        """Return shape (..., numbers of the checkpoint) for (..., n)."""
        if self.is_same:
            return observation
        return observation.index_select(-1, self.index) * self.gain + self.bias


class ToRobot(nn.Module):
    """Makes actions of the robot of those of the checkpoint."""

    index: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, mapped: MappedNumbers) -> None:
        super().__init__()
        self.is_same = mapped.is_same
        # Of each action of the robot its place in the checkpoint.
        inverse = [mapped.index.index(place) for place in range(len(mapped.names))]
        self.register_buffer('index', torch.tensor(inverse))
        self.register_buffer('gain', torch.from_numpy(1.0 / mapped.gain).float())
        self.register_buffer('bias', torch.from_numpy(-mapped.bias / mapped.gain).float())

    def forward(self, action: Tensor) -> Tensor:
        """Return shape (..., m) in units of the robot."""
        if self.is_same:
            return action
        return (action * self.gain + self.bias).index_select(-1, self.index)
