# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a comparison, variants x tasks x seeds, and the result of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from residual_rl_ros.comparison.workers import finish_here, finish_on_ray
from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.errors import FormatError, ResidualRLError
from residual_rl_ros.evaluation.progress import progress, say
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.learner.episodes import RECENT_EPISODES, EpisodeRecord
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.training.run_folder import SUMMARY, read_history, steps_to
from residual_rl_ros.training.train import TrainOptions, run_identity


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
    demonstrations: int = 20
    """Expert episodes for the presets that sample demonstrations."""
    recordings: Recordings = field(default_factory=Recordings)
    """Recorded demonstrations for these presets."""


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
    config = cell_config(config, variant)
    samples = config.learner_config().rule.samples_demonstrations
    return TrainOptions(
        config,
        seed,
        folder,
        demonstrations=options.demonstrations,
        recordings=options.recordings if samples else Recordings(),
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


def run_grid(
    runs: Sequence[TrainOptions], options: CompareOptions, console: Console
) -> dict[Path, str]:
    """Train the given cells of the grid; a failed one does not stop the others.

    Returns:
        The folders of runs that failed, and why.

    Raises:
        ResidualRLError: Ray is missing, or there is no such cluster.
    """
    if not runs:
        return {}
    failed: dict[Path, str] = {}
    shares = [0.0] * len(runs)
    ended = 0
    with progress(console, f'0 of {len(runs)} runs ended', len(runs)) as show:

        def report(index: int, share: float) -> None:
            shares[index] = share
            show(sum(shares), f'{ended} of {len(runs)} runs ended')

        finished = (
            finish_here(runs, options.jobs, report)
            if options.ray is None
            else finish_on_ray(runs, options.ray)
        )
        for index, reason in finished:
            ended += 1
            folder = runs[index].output_dir
            say(console, f'{ended}/{len(runs)} {folder}{reason and f" failed: {reason}"}')
            if reason:
                failed[folder] = reason
            report(index, 1.0)
    return failed


Array = npt.NDArray[np.float64]
SUCCESS, RETURN = 'success', 'return'
"""What a run is measured by: the second where the task tells no success."""
LEVEL = 0.9
BIN_STEPS = 2000
ROUNDING = 1e-9
FAR_BELOW = 0.1
"""Difference of success to the base that counts as far below."""


@dataclass(frozen=True)
class RunResult:
    """Results of one run, as a comparison needs them."""

    base: float
    """Success of the base policy on the paired seeds; its mean return, where that is measured."""
    base_in_training: float
    """Success of the base-only training episodes; of the base on the paired seeds without any."""
    final: float
    """Success, or mean return, with the residual on the same seeds."""
    curve: Array
    """Control steps and success, or mean return, of the evaluations during training, shape
    (points, 2)."""
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
    measure: str = SUCCESS
    """What it is measured by: `success`, or `return`."""


def read_result(folder: Path) -> RunResult:
    """Read a finished run.

    Raises:
        ResidualRLError: its summary is missing or lacks the evaluations.
    """
    try:
        summary = read_run_json(folder / SUMMARY)
        told = summary['base']['success'] is not None and summary['final']['success'] is not None
        measure = SUCCESS if told else RETURN
        base, final = (float(summary[key][measure]) for key in ('base', 'final'))
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
        measure,
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
