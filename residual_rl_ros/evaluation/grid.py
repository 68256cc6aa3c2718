# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The grid of a comparison: tasks x variants x seeds, run here or on a Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.finetune import FinetuneConfig
from residual_rl_ros.residual.actor_file import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.summary import SUMMARY
from residual_rl_ros.training import TrainOptions, run_identity, run_training


class CompareError(ResidualRLError):
    """A comparison cannot be made."""


@dataclass(frozen=True)
class Variant:
    """A preset with changes, as the command line names it: `preset` or `preset:key=value:…`.

    The keys are those of presets, and `residual_scale` and `decision_steps` of the run.
    """

    name: str
    preset: str
    overrides: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read `preset:key=value:key=value`.

        Raises:
            CompareError: a part is no assignment of a YAML value.
        """
        preset, *changes = text.split(':')
        overrides = {}
        for change in changes:
            key, equals, value = change.partition('=')
            if not equals:
                raise CompareError(f'{text!r}: {change!r} is no assignment, expected key=value')
            try:
                overrides[key] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise CompareError(f'{text!r}: {value!r} is no YAML value: {error}') from error
        return cls(text, preset, overrides)

    @property
    def folder(self) -> str:
        """Name as a folder."""
        return self.name.replace(':', '__').replace('/', '_')


@dataclass(frozen=True)
class CompareOptions:
    """The grid."""

    configs: Sequence[FinetuneConfig]
    variants: Sequence[Variant]
    seeds: Sequence[int]
    output_dir: Path
    jobs: int
    """Runs at the same time."""
    ray: str | None = None
    """Address of a Ray cluster to run on instead of this machine."""
    curve_steps: int = 6000
    """Control steps between two evaluations during training."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end of each run."""


def cell_config(config: FinetuneConfig, variant: Variant) -> FinetuneConfig:
    """Return the configuration of one variant on one task."""
    return config.with_preset(variant.preset).changed(variant.overrides)


def cell_folder(
    options: CompareOptions, config: FinetuneConfig, variant: Variant, seed: int
) -> Path:
    """Return the output folder of one run."""
    task = config.task.replace('/', '_').replace(':', '_')
    return options.output_dir / task / variant.folder / f'seed{seed}'


def train_options(
    options: CompareOptions, config: FinetuneConfig, variant: Variant, seed: int
) -> TrainOptions:
    """Return the training run of one cell."""
    folder = cell_folder(options, config, variant, seed)
    return TrainOptions(
        cell_config(config, variant),
        seed,
        folder,
        resume=checkpoint_exists(folder / CHECKPOINTS / 'latest'),
        curve_steps=options.curve_steps,
        paired_seeds=options.paired_seeds,
    )


def is_done(run: TrainOptions) -> bool:
    """Return whether a cell's folder holds this very run, finished.

    Raises:
        CompareError: it holds another one, for example a shorter one.
    """
    path = run.output_dir / SUMMARY
    if not path.exists():
        return False
    wanted = run_identity(run)
    try:
        found = dict(json.loads(path.read_text(encoding='utf-8')).get('run', {}))
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise CompareError(f'cannot read {str(path)!r}: {error}') from error
    for key in wanted:
        if key not in found or found[key] != wanted[key]:
            raise CompareError(
                f'{str(path)!r} is of another run: {key} is {found.get(key, "not recorded")} there '
                f'and {wanted[key]} in this comparison; choose another --out, or remove '
                f'{str(run.output_dir)!r}'
            )
    return True


def _run_quietly(options: TrainOptions) -> tuple[str, str]:
    """Run one cell in a worker process; return its folder, and why it failed if it did."""
    try:
        run_training(options, Console(quiet=True))
    except ResidualRLError as error:
        return str(options.output_dir), str(error)
    return str(options.output_dir), ''


def run_grid(runs: Sequence[TrainOptions], options: CompareOptions, console: Console) -> None:
    """Train the given cells of the grid; one that fails does not keep the others from it.

    Raises:
        CompareError: joblib or Ray is missing, there is no such cluster, or runs failed.
    """
    failed = []
    finished = _here(runs, options.jobs) if options.ray is None else _on_ray(runs, options.ray)
    for number, (folder, reason) in enumerate(finished):
        console.print(f'{number + 1}/{len(runs)} {folder}{reason and f" failed: {reason}"}')
        if reason:
            failed.append(f'{folder}: {reason}')
    if failed:
        raise CompareError(f'{len(failed)} of {len(runs)} runs failed: {"; ".join(failed)}')


def _here(runs: Sequence[TrainOptions], jobs: int) -> Any:
    """Yield what `_run_quietly` returns as processes of this machine finish runs."""
    try:
        import joblib
    except ImportError as error:
        raise CompareError("compare needs joblib: pip install 'residual_rl_ros[bench]'") from error
    parallel = joblib.Parallel(jobs, backend='loky', return_as='generator_unordered')
    return parallel(joblib.delayed(_run_quietly)(run) for run in runs)


def _on_ray(runs: Sequence[TrainOptions], address: str) -> Any:
    """Yield what `_run_quietly` returns as a Ray cluster finishes runs; it shares the files."""
    try:
        import ray
    except ImportError as error:
        raise CompareError("--ray needs Ray: pip install 'residual_rl_ros[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CompareError(f'no Ray cluster at {address!r}: {error}') from error
    try:
        remote: Callable[..., Any] = ray.remote(num_cpus=1)(_run_quietly).remote
        waiting = [remote(replace(run, output_dir=run.output_dir.resolve())) for run in runs]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()
