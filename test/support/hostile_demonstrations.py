# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile files of demonstrations: HDF5 and safetensors; `hostile_files` lists them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from demonstration_builders import write_robomimic
from hostile_texts import Case, Make, pipe, text_file
from robot_builders import ACTIONS, OBSERVATIONS
from safetensors.numpy import save


def _hdf5(spoil: Callable[[Any], None]) -> Make:
    return lambda folder: write_robomimic(folder / 'd.hdf5', spoil)


def _cut(keep: float) -> Make:
    def make(folder: Path) -> Path:
        path = write_robomimic(folder / 'd.hdf5')
        content = path.read_bytes()
        path.write_bytes(content[: round(keep * len(content))])
        return path

    return make


def _flipped(every: int) -> Make:
    """Return what spoils a byte of each so many."""

    def make(folder: Path) -> Path:
        path = write_robomimic(folder / 'd.hdf5')
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
        content[every::every] ^= 0xFF
        path.write_bytes(content.tobytes())
        return path

    return make


def _constant(name: str, shape: tuple[int, ...]) -> Callable[[Any], None]:
    """Return what replaces a data set by one of many zeros, none of which is written."""

    def spoil(file: Any) -> None:
        del file[name]
        file.create_dataset(name, shape, 'f4', compression='gzip')

    return spoil


def _into_itself(file: Any) -> None:
    del file['data/demo_0/obs']
    file['data/demo_0/obs'] = file['data']


def _elsewhere(file: Any) -> None:
    import h5py

    del file['data']
    file['data'] = h5py.ExternalLink('/dev/zero', '/')


def _tensors(**fields: Any) -> bytes:
    described = {'version': 1, 'observation_names': OBSERVATIONS, 'action_names': ACTIONS}
    tensors = {
        'observations': np.zeros((4, 3), np.float32),
        'actions': np.zeros((4, 2), np.float32),
        'lengths': np.array([4]),
    }
    return save(tensors, {'demonstrations': json.dumps({**described, 'rate_hz': 20, **fields})})


def demonstration_cases() -> Iterator[Case]:
    """Yield the cases."""
    for name, make in (
        ('cut in half', _cut(0.5)),
        ('cut after its head', _cut(0.01)),
        ('with spoiled bytes', _flipped(97)),
        ('of nothing', text_file('d.hdf5', b'')),
        ('of noise', text_file('d.hdf5', b'\x89HDF\r\n\x1a\n' + bytes(range(256)) * 8)),
        ('as a pipe', pipe('d.hdf5')),
        ('with a billion steps', _hdf5(_constant('data/demo_0/actions', (10**9, 2)))),
        ('with a billion numbers a step', _hdf5(_constant('data/demo_0/obs/arm', (5, 10**9)))),
        ('with a billion rewards', _hdf5(_constant('data/demo_0/rewards', (10**9,)))),
        ('within itself', _hdf5(_into_itself)),
        ('that lies elsewhere', _hdf5(_elsewhere)),
    ):
        yield Case(f'HDF5: {name}', 'robomimic', make)
    for name, fields in (
        ('names as a number', {'observation_names': 7}),
        ('a name as a map', {'action_names': [{}, {}]}),
        ('a rate as text', {'rate_hz': 'fast'}),
        ('another version', {'version': [1]}),
        ('fewer names', {'observation_names': ['x']}),
    ):
        content = _tensors(**fields)
        make = text_file('d.safetensors', content)
        yield Case(f'demonstrations: {name}', 'demonstrations', make)
