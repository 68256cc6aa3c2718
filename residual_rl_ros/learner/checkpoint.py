# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: directories that are whole or not there; safetensors and JSON, nothing executable.

`actor.safetensors` is the weight message of the actor and all that a deployment needs; the other
files continue the learner. `manifest.json` holds the SHA-256 of each, without which none is read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from residual_rl_ros.config import DEFAULT_PRESET
from residual_rl_ros.config.preset import LearnerConfig, learner_config, load_preset
from residual_rl_ros.errors import CheckpointError, ConfigError, ResidualRLError
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.files.tensor_file import check_tensor_file
from residual_rl_ros.learner.folder import MANIFEST, FolderLock, check_files, write_manifest
from residual_rl_ros.learner.kept_networks import UNRANKED, Rank
from residual_rl_ros.learner.learner import SILENT, Learner, Log
from residual_rl_ros.residual_policy.actor_file import ACTOR, readable_checkpoint
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.seal import Key

ALGORITHM, GOOD, CANDIDATE, STATE, RUN = (
    'algorithm.safetensors',
    'good.safetensors',
    'candidate.safetensors',
    'learner.json',
    'run.safetensors',
)
MEMORY = 'memory.{}.safetensors'
"""Each part of the rule's memory."""
SPACE_MARGIN = 1.2
"""What a file system needs for files, in units of their contents."""


class CheckpointFolder:
    """The two checkpoints of a run: the latest, and the networks that were confirmed as the best.

    One learner at a time has a folder, until `close` or its death.

    Args:
        root: folder of both.
        key: seals what is saved, and must have sealed what is read; None does neither.

    Raises:
        CheckpointError: another learner has it, or it cannot be written.
    """

    def __init__(self, root: Path, key: Key | None = None) -> None:
        self._lock = FolderLock(root)
        self.root = root
        self._key = key or Key()
        self.latest = root / 'latest'
        self.best = root / 'best'
        self._best_rank = _rank_of(self.best)

    def close(self) -> None:
        """Let other learners have the folder."""
        self._lock.close()

    def lack_of_space(self, learner: Learner) -> str:
        """Return what the disk lacks for the checkpoints of a learner whose memory is full.

        These are three while one is written: the latest, the best and the new one.
        """
        memory = learner.rule.memory
        networks = 3 * sum(value.nbytes for value in learner.rule.state_dict().values())
        needed = int(3 * SPACE_MARGIN * (networks + memory.nbytes))
        held = sum(path.stat().st_size for path in self.root.rglob('*') if path.is_file())
        free = shutil.disk_usage(self.root).free
        if free + held >= needed:
            return ''
        return (
            f'checkpoints in {str(self.root)!r} will need up to {needed / 1e6:.0f} MB, and '
            f'{free / 1e6:.0f} MB are free: free space, choose another folder or lower '
            'replay_capacity'
        )

    def save(self, learner: Learner, run: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Write the latest, and the best too if there are better ones than it holds.

        Args:
            learner: what to save.
            run: state of an in-process run.

        Raises:
            CheckpointError: the folder cannot be written or the disk is full.
        """
        save_checkpoint(self.latest, learner, run, self._key)
        if learner.judge.best.good and learner.judge.best.rank > self._best_rank:
            with learner.with_best_networks():
                save_checkpoint(self.best, learner, run, self._key)
            self._best_rank = learner.judge.best.rank


def save_checkpoint(
    directory: Path,
    learner: Learner,
    run: Mapping[str, npt.NDArray[Any]] | None = None,
    key: Key | None = None,
) -> None:
    """Write a checkpoint; an earlier one at the same place stays until the new one is whole.

    Args:
        directory: where.
        learner: what to save.
        run: state of an in-process run.
        key: seals it; None does not.

    Raises:
        CheckpointError: the folder cannot be written, the disk is full, or a tensor is not finite.
    """
    fresh = directory.with_name(directory.name + '.new')
    stale = directory.with_name(directory.name + '.old')
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _write(fresh, learner, run, key or Key())
        for path in [*fresh.iterdir(), fresh]:
            _sync(path)
        if directory.exists():  # Else a save was killed, and the stale one is all there is.
            shutil.rmtree(stale, ignore_errors=True)
            directory.rename(stale)
        fresh.rename(directory)
        _sync(directory.parent)
        shutil.rmtree(stale, ignore_errors=True)
    except (OSError, SafetensorError, ValueError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if stale.exists() and not directory.exists():
            stale.rename(directory)
        raise CheckpointError(
            f'cannot write checkpoint {str(directory)!r}: {error}; free space or choose another '
            'folder'
        ) from error


def _write(
    folder: Path, learner: Learner, run: Mapping[str, npt.NDArray[Any]] | None, key: Key
) -> None:
    """Write the files of a checkpoint, the manifest last; see `save_checkpoint`.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        ValueError: a tensor is not finite.
    """
    (folder / ACTOR).write_bytes(learner.current_message())
    tensors = {
        ALGORITHM: learner.rule.state_dict(),
        GOOD: learner.judge.best.good,
        CANDIDATE: learner.judge.best.candidate,
    }
    memory = {MEMORY.format(k): v for k, v in learner.rule.memory.export().items()}
    for name, values in (tensors | memory).items():
        check_finite(name, values)
    _check_space(folder, [*(tensors | memory).values(), run or {}])
    for name, values in tensors.items():
        save_tensors(values, folder / name)
    for name, arrays in memory.items():
        # Of an array with gaps safetensors would write what lies between too.
        save_arrays({k: np.asarray(v, order='C') for k, v in arrays.items()}, folder / name)
    if run is not None:
        save_arrays(dict(run), folder / RUN)
    state = {
        'config': learner.config.to_mapping(),
        'layout': learner.layout.to_yaml(),
        'best_rank': learner.judge.best.rank,
        'state': learner.state_dict(),
    }
    (folder / STATE).write_text(json.dumps(state), encoding='utf-8')
    key.seal_file(folder / ACTOR)
    write_manifest(folder)
    key.seal_file(folder / MANIFEST)


def _check_space(folder: Path, contents: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to begin what the disk has no space for.

    Raises:
        OSError: there is less space than tensors and arrays need.
    """
    needed = int(SPACE_MARGIN * sum(v.nbytes for values in contents for v in values.values()))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f'No space left on device: {needed} bytes are needed, {free} free'
        )


def check_finite(name: str, values: Mapping[str, torch.Tensor | npt.NDArray[Any]]) -> None:
    """Refuse to read or write tensors that no learner could go on with.

    Args:
        name: the file that holds them, for the error.
        values: tensors or arrays by name.

    Raises:
        ValueError: one holds what is not finite.
    """
    for key, value in values.items():
        finite = value.isfinite() if isinstance(value, torch.Tensor) else np.isfinite(value)
        if not bool(finite.all()):
            raise ValueError(f'{key} in {name} is not finite')


def load_checkpoint(
    directory: Path, key: Key | None = None, log: Log = SILENT, run: str = ''
) -> Learner:
    """Return a learner that continues where the checkpoint was taken.

    If a save was killed between its two renames, the checkpoint before it is used.

    Args:
        directory: the checkpoint.
        key: it must be sealed with this one; None accepts any.
        log: see `Learner`.
        run: see `Learner`.

    Raises:
        CheckpointError: missing, truncated, altered, of another architecture, or not sealed with
            the key.
    """
    directory = readable_checkpoint(directory)
    try:
        (key or Key()).check_file(directory / MANIFEST)
        listed = check_files(directory)
        stored = _read_state(directory)
        config = _config(stored, directory)
        layout = TransitionLayout.from_yaml(stored['layout'])
        learner = Learner(config, layout, seed=0, log=log, run=run)
        learner.rule.load_state_dict(_finite_tensors(directory / ALGORITHM))
        learner.judge.best.good = _finite_tensors(directory / GOOD)
        learner.judge.best.candidate = _finite_tensors(directory / CANDIDATE)
        memory = learner.rule.memory
        parts = {part: MEMORY.format(part) for part in memory.export()}
        missing = {STATE, ACTOR, ALGORITHM, GOOD, CANDIDATE, *parts.values()} - listed.keys()
        if missing:
            raise ValueError(f'{", ".join(sorted(missing))} is not in {MANIFEST}')
        contents = {part: _arrays(directory / name) for part, name in parts.items()}
        for part, arrays in contents.items():
            check_finite(parts[part], arrays)
        memory.restore(contents)
        learner.load_state_dict(stored['state'])
    except _UNREADABLE as error:
        raise _unreadable(directory, error) from error
    return learner


def check_numbers(directory: Path, config: LearnerConfig) -> None:
    """Refuse to continue a checkpoint with other numbers than those it was made with.

    Raises:
        CheckpointError: they differ, or it cannot be read.
    """
    stored, wanted = stored_config(directory).to_mapping(), config.to_mapping()
    differing = [key for key in wanted | stored if stored.get(key) != wanted.get(key)]
    if differing:
        key = differing[0]
        more = f', and {len(differing) - 1} more differ' if differing[1:] else ''
        raise CheckpointError(
            f'checkpoint {str(directory)!r} was trained with other numbers: {key} is '
            f'{stored.get(key, "absent")} there, {wanted.get(key, "absent")} by the preset and its '
            f'overrides{more}; use the same, or another folder'
        )


def numbers(preset: str, overrides: Mapping[str, Any], resumed: Path | None) -> LearnerConfig:
    """Return the numbers of a learner.

    Args:
        preset: its preset; empty is that of the checkpoint, or the default.
        overrides: what replaces numbers of it.
        resumed: checkpoint that it continues, if it does.

    Raises:
        ResidualRLError: a number is wrong or not the checkpoint's, or this cannot be read.
    """
    if resumed is not None and not preset:
        config = learner_config({**stored_config(resumed).to_mapping(), **overrides})
    else:
        config = load_preset(preset or DEFAULT_PRESET, overrides)
    if resumed is not None:
        check_numbers(resumed, config)
    return config


def stored_config(directory: Path) -> LearnerConfig:
    """Return the numbers that a checkpoint was made with.

    Raises:
        CheckpointError: it cannot be read.
    """
    directory = readable_checkpoint(directory)
    try:
        check_files(directory, STATE)
        return _config(_read_state(directory), directory)
    except _UNREADABLE as error:
        raise _unreadable(directory, error) from error


def load_run_state(directory: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the in-process run state of a checkpoint.

    Raises:
        CheckpointError: it has none, for example because a learner node wrote it.
    """
    directory = readable_checkpoint(directory)
    try:
        check_files(directory, RUN)
        return _arrays(directory / RUN)
    except _UNREADABLE as error:
        raise CheckpointError(
            f'checkpoint {str(directory)!r} holds no in-process run to continue: {error}'
        ) from error


_UNREADABLE = (
    OSError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RuntimeError,
    SafetensorError,
    ResidualRLError,
)


def _unreadable(directory: Path, error: Exception) -> CheckpointError:
    """Return the error, with the checkpoint beside it that could take its place."""
    hint = ''
    for other in (directory.with_name('latest'), directory.with_name('best')):
        if other != directory and other.exists():
            try:
                check_files(other)
            except (OSError, ValueError):
                continue
            hint = f'; {str(other)!r} is whole: put it there to go on from it'
    reason = str(error)
    if isinstance(error, KeyError):
        reason = f'{reason} is missing: another version of this package wrote it'
    return CheckpointError(f'cannot read checkpoint {str(directory)!r}: {reason}{hint}')


def _read_state(directory: Path) -> dict[str, Any]:
    stored: dict[str, Any] = read_run_json(directory / STATE)
    return stored


def _config(stored: dict[str, Any], directory: Path) -> LearnerConfig:
    """Return the configuration of a checkpoint, which holds every number: none is a default."""
    config = learner_config(stored['config'], str(directory / STATE))
    missing = sorted(config.to_mapping().keys() - stored['config'].keys())
    if missing:
        raise ConfigError(
            str(directory / STATE),
            [f'{", ".join(missing)} missing: an earlier version of this package wrote it'],
        )
    return config


def _finite_tensors(path: Path) -> dict[str, torch.Tensor]:
    check_tensor_file(path)
    tensors: dict[str, torch.Tensor] = load_tensors(path)
    check_finite(path.name, tensors)
    return tensors


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    check_tensor_file(path)
    return {key: np.asarray(value) for key, value in load_arrays(path).items()}


def _rank_of(directory: Path) -> Rank:
    """Return the rank that a checkpoint was saved with, the lowest if there is none to read."""
    try:
        directory = readable_checkpoint(directory)
        check_files(directory, STATE)
        begun, confirmed, success, taken_at = _read_state(directory)['best_rank']
        return int(begun), bool(confirmed), float(success), int(taken_at)
    except (OSError, ResidualRLError, KeyError, TypeError, ValueError):
        return UNRANKED


def _sync(path: Path) -> None:
    """Make a file or folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
