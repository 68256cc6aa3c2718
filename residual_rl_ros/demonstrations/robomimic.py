# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in robomimic's HDF5 files.

Group `data` holds one group a demonstration: `actions` (steps, m), `obs/<key>` (steps, size) and,
where they were written, `next_obs/<key>`, `rewards` and `dones` (steps,). Actions have no names.
https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.demonstrations.frames import DemonstratedEpisode, Number
from residual_rl_ros.errors import DemonstrationError, FormatError, ResidualRLError
from residual_rl_ros.files.json_text import parse_json
from residual_rl_ros.files.limits import (
    CHUNK_BYTES,
    EPISODE_BYTES,
    EPISODES,
    FRAME_BYTES,
    FRAMES,
)
from residual_rl_ros.numerics import Array
from residual_rl_ros.transitions.layout import MAX_SIZE

ENVIRONMENT = 'env_args'
"""Attribute of `data`: JSON that describes the environment, with its control rate."""


def h5py() -> Any:
    """Return the module `h5py`.

    Raises:
        DemonstrationError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DemonstrationError(
            "robomimic files need h5py: pip install 'residual_rl_ros[robomimic]'"
        ) from error
    return h5py


@contextmanager
def open_robomimic(path: Path) -> Iterator[RobomimicFile]:
    """Open a file; whatever its library says of a damaged one is one line.

    Raises:
        DemonstrationError: h5py is missing, or the file is none of robomimic's or damaged.
    """
    library = h5py()
    if not path.is_file():  # A pipe would be waited for.
        raise DemonstrationError(f'{path} is no regular file')
    try:
        with library.File(path, 'r', locking=False) as file:
            yield RobomimicFile(path, file)
    except ResidualRLError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DemonstrationError(
            f'{path}: cannot be read as HDF5, it is damaged or cut off: {error}'
        ) from error


class RobomimicFile:
    """An open file.

    Args:
        path: where it is.
        file: as h5py has it.

    Raises:
        DemonstrationError: it lacks the groups of robomimic, or holds too much.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._data = self._group(file, 'data')
        if not 1 <= len(self._data) <= EPISODES:
            raise DemonstrationError(
                f'{path}: group data holds {len(self._data)} demonstrations, expected 1 to '
                f'{EPISODES}'
            )
        self._names = sorted(self._data, key=_natural)
        first = self._group(self._data, self._names[0])
        shape = self._numbers(first, 'actions').shape
        if len(shape) != 2 or not 1 <= shape[1] <= MAX_SIZE:
            raise DemonstrationError(
                f'{path}: {first.name}/actions has shape {shape}, expected (steps, actions)'
            )
        self.action_names: tuple[str, ...] | None = None
        self.action_size = int(shape[1])
        self.rate_hz = self._control_rate()
        self._widths = self._vectors(first)

    @property
    def numbers(self) -> Mapping[str, Number]:
        """The numbers of every vector in `obs`: `key[index]`, and `key` for a single one."""
        found: dict[str, Number] = {}
        for key, width in self._widths.items():
            found |= {f'{key}[{index}]': (key, index) for index in range(width)}
            if width == 1:
                found[key] = (key, 0)
        return found

    def episodes(
        self, observed: Sequence[Number], order: Sequence[int]
    ) -> Iterator[DemonstratedEpisode]:
        """Yield the demonstrations in the order of their numbers; see `FrameSource`."""
        left = FRAMES + self.path.stat().st_size // FRAME_BYTES
        for index, name in enumerate(self._names):
            group = self._group(self._data, name)
            steps = self._steps(group)
            left -= steps
            if left < 0:
                raise DemonstrationError(
                    f'{self.path}: more than {FRAMES} steps, and less than {FRAME_BYTES} bytes for '
                    'each: not to be unpacked'
                )
            seen = self._observations(group, 'obs', observed, steps)
            if 'next_obs' in group:
                after = self._observations(group, 'next_obs', observed, steps)
                seen = np.concatenate([seen, after[-1:]])
            rewards = self._column(group, 'rewards', steps)
            dones = self._column(group, 'dones', steps)
            if dones is not None and not np.isin(dones, (0.0, 1.0)).all():
                raise DemonstrationError(
                    f'{self.path}: {group.name}/dones holds other numbers than 0 and 1'
                )
            if dones is not None and dones.any():  # What comes after the end is none of it.
                steps = int(np.argmax(dones != 0.0)) + 1
                seen = seen[: steps + 1]
            yield DemonstratedEpisode(
                name,
                index,
                seen,
                self._read(group, 'actions')[:steps, list(order)],
                None if rewards is None else rewards[:steps],
            )

    def _control_rate(self) -> float | None:
        """Return the control rate that robosuite's environments are made with [Hz]."""
        text = self._data.attrs.get(ENVIRONMENT)
        if not isinstance(text, (str, bytes)):
            return None
        try:
            text = text if isinstance(text, str) else text.decode()
            described = parse_json(text, ENVIRONMENT)
            rate = described['env_kwargs']['control_freq']
            return float(rate) if rate > 0.0 and not isinstance(rate, bool) else None
        except (FormatError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            return None  # Another environment's; it may say anything.

    def _vectors(self, demonstration: Any) -> dict[str, int]:
        """Return the size of every vector of numbers in `obs`; images are passed over."""
        group, widths = self._group(demonstration, 'obs'), {}
        for key in group:
            data = self._child(group, key)
            vector = isinstance(data, h5py().Dataset) and data.ndim in (1, 2)
            if vector and data.dtype.kind in 'biuf':
                widths[key] = 1 if data.ndim == 1 else int(data.shape[1])
        count = sum(widths.values())
        if not 1 <= count <= MAX_SIZE:
            raise DemonstrationError(
                f'{self.path}: {group.name} holds {count} numbers a step, expected 1 to '
                f'{MAX_SIZE}; it has {", ".join(list(group)[:20]) or "nothing"}'
            )
        return widths

    def _steps(self, group: Any) -> int:
        """Return how many steps a demonstration has."""
        shape = self._numbers(group, 'actions').shape
        if len(shape) != 2 or shape[0] < 1 or shape[1] != self.action_size:
            raise DemonstrationError(
                f'{self.path}: {group.name}/actions has shape {shape}, expected (steps, '
                f'{self.action_size}) with at least one step'
            )
        return int(shape[0])

    def _observations(
        self, demonstration: Any, part: str, observed: Sequence[Number], steps: int
    ) -> Array:
        """Return the observed numbers, shape (steps, n)."""
        group = self._group(demonstration, part)
        columns = {}
        nbytes = 0
        for key in dict.fromkeys(key for key, _ in observed):
            width = self._widths[key]
            data = self._numbers(group, key)
            if data.shape not in ((steps, width), *([(steps,)] if width == 1 else [])):
                raise DemonstrationError(
                    f'{self.path}: {group.name}/{key} has shape {data.shape}, expected '
                    f'({steps}, {width})'
                )
            nbytes += data.size * 8
            if nbytes > EPISODE_BYTES:
                raise DemonstrationError(
                    f'{self.path}: {group.name} unpacks to more than {EPISODE_BYTES} bytes'
                )
            columns[key] = self._read(group, key).reshape(steps, width)
        return np.stack([columns[key][:, index] for key, index in observed], axis=1)

    def _column(self, group: Any, name: str, steps: int) -> Array | None:
        """Return one number a step, shape (steps,); None if there are none."""
        if name not in group:
            return None
        data = self._numbers(group, name)
        if data.shape not in ((steps,), (steps, 1)):
            raise DemonstrationError(
                f'{self.path}: {group.name}/{name} has shape {data.shape}, expected ({steps},)'
            )
        return self._read(group, name).reshape(steps)

    def _read(self, group: Any, name: str) -> Array:
        data = self._numbers(group, name)
        if data.size * 8 > EPISODE_BYTES:
            raise DemonstrationError(
                f'{self.path}: {data.name} unpacks to {data.size * 8} bytes, expected <= '
                f'{EPISODE_BYTES}'
            )
        values: Array = np.asarray(data[()], dtype=np.float64)
        return values

    def _numbers(self, group: Any, name: str) -> Any:
        """Return a data set of numbers that lies in the file itself, unread."""
        data = self._child(group, name)
        if not isinstance(data, h5py().Dataset):
            raise DemonstrationError(
                f'{self.path}: {group.name}/{name} is a group, expected numbers'
            )
        if data.dtype.kind not in 'biuf':
            raise DemonstrationError(
                f'{self.path}: {data.name} holds {data.dtype}, expected numbers'
            )
        if data.is_virtual or data.external:
            raise DemonstrationError(f'{self.path}: {data.name} lies in other files; repack it')
        # One number unpacks the whole chunk that it lies in.
        chunk = math.prod(data.chunks or (0,)) * data.dtype.itemsize
        if chunk > CHUNK_BYTES:
            raise DemonstrationError(
                f'{self.path}: {data.name} has chunks of {chunk} bytes, expected <= {CHUNK_BYTES}; '
                'repack it'
            )
        return data

    def _group(self, parent: Any, name: str) -> Any:
        group = self._child(parent, name)
        if not isinstance(group, h5py().Group):
            raise DemonstrationError(
                f'{self.path}: {parent.name.rstrip("/")}/{name} is no group; expected '
                'data/demo_0/obs/…, as robomimic writes it'
            )
        return group

    def _child(self, parent: Any, name: str) -> Any:
        """Return an entry of a group, which must not link to another file."""
        where = f'{parent.name.rstrip("/")}/{name}'
        if name not in parent:
            raise DemonstrationError(
                f'{self.path}: {where} is missing; {parent.name} has '
                f'{", ".join(list(parent)[:20]) or "nothing"}, expected data/demo_0/actions and '
                'data/demo_0/obs/…, as robomimic writes them'
            )
        if not isinstance(parent.get(name, getlink=True), h5py().HardLink):
            raise DemonstrationError(f'{self.path}: {where} is a link; repack the file without')
        return parent[name]


def _natural(name: str) -> tuple[int, str]:
    """Order `demo_10` after `demo_9`."""
    digits = re.search(r'\d{1,9}$', name)
    return (int(digits.group()) if digits else -1, name)
