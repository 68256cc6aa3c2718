# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a comparison, variants x tasks x seeds, and the result of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.errors import FormatError, ResidualRLError
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.learner.episodes import RECENT_EPISODES, EpisodeRecord
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.training.run_folder import SUMMARY, read_history, steps_to
from residual_rl_ros.training.train import TrainOptions, run_identity, run_training


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
            ResidualRLError: a part is no assignment of a YAML value.
        """
        preset, *changes = text.split(':')
        overrides = {}
        for change in changes:
            key, equals, value = change.partition('=')
            if not equals:
                raise ResidualRLError(f'{text!r}: {change!r} is no assignment, expected key=value')
            try:
                overrides[key] = parse_yaml(value, 'it')
            except FormatError as error:
                raise ResidualRLError(f'{text!r}: {value!r} is no YAML value: {error}') from error
        return cls(text, preset, overrides)

    @property
    def folder(self) -> str:
        """Name as a folder."""
        return self.name.replace(':', '__').replace('/', '_')


@dataclass(frozen=True)
class CompareOptions:
    """The grid."""

    configs: Sequence[RunConfig]
    variants: Sequence[Variant]
    seeds: Sequence[int]
    output_dir: Path
    jobs: int
    """Runs at the same time."""
    ray: str | None = None
    """Address of a Ray cluster to run on instead of this machine."""
    curve_steps: int = 6000
    """Control steps between two evaluations during training."""
    curve_seeds: int = 50
    """Episodes of each."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end of each run."""


def cell_config(config: RunConfig, variant: Variant) -> RunConfig:
    """Return the configuration of one variant on one task."""
    return config.with_preset(variant.preset).changed(variant.overrides)


def cell_folder(options: CompareOptions, config: RunConfig, variant: Variant, seed: int) -> Path:
    """Return the output folder of one run."""
    task = config.task.replace('/', '_').replace(':', '_')
    return options.output_dir / task / variant.folder / f'seed{seed}'


def train_options(
    options: CompareOptions, config: RunConfig, variant: Variant, seed: int
) -> TrainOptions:
    """Return the training run of one cell."""
    folder = cell_folder(options, config, variant, seed)
    return TrainOptions(
        cell_config(config, variant),
        seed,
        folder,
        resume=checkpoint_exists(folder / CHECKPOINTS / 'latest'),
        curve_steps=options.curve_steps,
        curve_seeds=options.curve_seeds,
        paired_seeds=options.paired_seeds,
    )


def is_done(run: TrainOptions) -> bool:
    """Return whether a cell's folder holds exactly this run, finished.

    Raises:
        ResidualRLError: it holds another one, for example a shorter one.
    """
    path = run.output_dir / SUMMARY
    if not path.exists():
        return False
    wanted = run_identity(run.config.resolve(), run)
    try:
        found = dict(read_run_json(path).get('run', {}))
    except (FormatError, AttributeError, TypeError, ValueError) as error:
        raise ResidualRLError(f'cannot read {str(path)!r}: {error}') from error
    for key in wanted:
        if key not in found or found[key] != wanted[key]:
            raise ResidualRLError(
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
    """Train the given cells of the grid; a failed one does not stop the others.

    Raises:
        ResidualRLError: Ray is missing, there is no such cluster, or runs failed.
    """
    failed = []
    finished = _here(runs, options.jobs) if options.ray is None else _on_ray(runs, options.ray)
    for number, (folder, reason) in enumerate(finished):
        console.print(f'{number + 1}/{len(runs)} {folder}{reason and f" failed: {reason}"}')
        if reason:
            failed.append(f'{folder}: {reason}')
    if failed:
        raise ResidualRLError(f'{len(failed)} of {len(runs)} runs failed: {"; ".join(failed)}')


def _here(runs: Sequence[TrainOptions], jobs: int) -> Any:
    """Yield what `_run_quietly` returns as processes of this machine finish runs."""
    import joblib

    parallel = joblib.Parallel(jobs, backend='loky', return_as='generator_unordered')
    return parallel(joblib.delayed(_run_quietly)(run) for run in runs)


def _on_ray(runs: Sequence[TrainOptions], address: str) -> Any:
    """Yield what `_run_quietly` returns as a Ray cluster finishes runs; it shares the files."""
    try:
        import ray
    except ImportError as error:
        raise ResidualRLError("--ray needs Ray: pip install 'residual_rl_ros[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResidualRLError(f'no Ray cluster at {address!r}: {error}') from error
    try:
        remote: Callable[..., Any] = ray.remote(num_cpus=1)(_run_quietly).remote
        waiting = [remote(replace(run, output_dir=run.output_dir.resolve())) for run in runs]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()


Array = npt.NDArray[np.float64]
LEVEL = 0.9
BIN_STEPS = 2000
ROUNDING = 1e-9
FAR_BELOW = 0.1
"""Difference of success to the base that counts as far below."""


@dataclass(frozen=True)
class RunResult:
    """Results of one run, as a comparison needs them."""

    base: float
    """Success of the base policy on the paired seeds."""
    base_in_training: float
    """Success of the base-only training episodes; of the base on the paired seeds without any."""
    final: float
    """Success with the residual on the same seeds."""
    curve: Array
    """Control steps and success of the evaluations during training, shape (points, 2)."""
    steps_to_level: float
    """Control steps until success over 50 training episodes first was 90 %; inf if never."""
    excess: Array
    """Success of the training episodes with a residual, exploration included, minus
    `base_in_training`, for every `BIN_STEPS` control steps since the first; NaN where there were
    none."""
    worst: float | None
    """Lowest success over 50 training episodes with residual, exploration included; None with
    fewer episodes."""
    far_below: int
    """Longest row of training episodes with a residual after each of which success over 50 of them
    was more than 10 points below `base_in_training`."""
    rollbacks: int
    """How often the guard rolled back."""


def read_result(folder: Path) -> RunResult:
    """Read a finished run.

    Raises:
        ResidualRLError: its summary is missing or lacks the evaluations.
    """
    try:
        summary = read_run_json(folder / SUMMARY)
        base, final = (float(summary[key]['success']) for key in ('base', 'final'))
        rollbacks, episodes = int(summary['rollbacks']), int(summary['episodes'])
        curve = np.array(summary['evaluations'], dtype=np.float64).reshape(-1, 2)
    except (FormatError, KeyError, TypeError, ValueError) as error:
        raise ResidualRLError(f'{str(folder)!r} holds no finished run: {error}') from error
    history = read_history(folder)
    if len(history) != episodes:
        raise ResidualRLError(
            f'{str(folder)!r} reports {episodes} episodes and its checkpoint holds '
            f'{len(history)}: without checkpoints/latest of the run nothing is known of its '
            'learning; remove the folder to have it run again'
        )
    reached = steps_to(LEVEL, history)
    alone = [bool(record.success) for record in history if record.rates_base]
    in_training = float(np.mean(alone)) if alone else base
    return RunResult(
        base,
        in_training,
        final,
        curve,
        float('inf') if reached is None else reached,
        excess_over_base(history, in_training),
        worst_success(history),
        episodes_far_below(history, in_training),
        rollbacks,
    )


def excess_over_base(history: Sequence[EpisodeRecord], base: float) -> Array:
    """Return success of episodes with a residual minus the base's, per `BIN_STEPS` control steps.

    Args:
        history: episodes of a run.
        base: success of the base.
    """
    residual = [record for record in history if record.rates_residual]
    if not residual:
        return np.zeros(0)
    steps = np.array([record.control_steps for record in residual])
    outcomes = np.array([record.success for record in residual], dtype=np.float64)
    bins = (steps - steps[0]) // BIN_STEPS
    count, successes = np.bincount(bins), np.bincount(bins, weights=outcomes)
    return np.where(count, successes / np.maximum(count, 1), np.nan) - base


def worst_success(history: Sequence[EpisodeRecord]) -> float | None:
    """Return the lowest success over 50 consecutive training episodes with a residual, if any."""
    recent = _recent_success(history)
    return float(recent.min()) if len(recent) else None


def episodes_far_below(history: Sequence[EpisodeRecord], base: float) -> int:
    """Return for how many episodes in a row success over 50 was 10 points below the base's."""
    longest = row = 0
    for success in _recent_success(history):
        row = row + 1 if success < base - FAR_BELOW - ROUNDING else 0
        longest = max(longest, row)
    return longest


def _recent_success(history: Sequence[EpisodeRecord]) -> Array:
    """Return the success over each 50 consecutive episodes with a residual."""
    outcomes = [float(bool(record.success)) for record in history if record.rates_residual]
    if len(outcomes) < RECENT_EPISODES:
        return np.zeros(0)
    return np.convolve(outcomes, np.full(RECENT_EPISODES, 1.0 / RECENT_EPISODES), 'valid')
