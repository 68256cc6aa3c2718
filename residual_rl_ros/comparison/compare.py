# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare presets over tasks and seeds: run the grid, and write table, figures and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from residual_rl_ros.comparison.grid import Cell, check_grid, finished, run_grid
from residual_rl_ros.comparison.protocol import (
    FIRST_SCENE,
    SCENES_PER_SEED,
    Judgement,
    Numbers,
    folder_name,
)
from residual_rl_ros.comparison.report import draw_curves, summarise, to_markdown
from residual_rl_ros.comparison.results import read_result
from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.errors import ConfigError, FormatError, ResidualRLError
from residual_rl_ros.evaluation.progress import say
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.resources import write_text
from residual_rl_ros.tasks.success_probe import settled
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.run_folder import prepare_output, write_json


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
        return folder_name(self.name)

    def configured(self, config: RunConfig) -> RunConfig:
        """Return the run of a task with this preset and its changes."""
        return config.with_preset(self.preset).changed(self.overrides)


@dataclass(frozen=True)
class CompareOptions:
    """The grid."""

    configs: Sequence[RunConfig]
    variants: Sequence[Variant]
    seeds: Sequence[int]
    output_dir: Path
    workers: int
    """Runs at the same time."""
    ray: str | None = None
    """Address of a Ray cluster to run on instead of this machine."""
    curve_steps: int = 6000
    """Control steps between two evaluations during training."""
    curve_seeds: int = 50
    """Episodes of each."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end of each run."""
    demonstrations: int = 0
    """Expert episodes for the presets that sample demonstrations."""
    recordings: Recordings = field(default_factory=Recordings)
    """Recorded demonstrations for these presets."""


def run_comparison(options: CompareOptions, console: Console) -> dict[str, Any]:
    """Run what is missing of the grid, and write `compare.md`, `.json` and `.png`.

    Runs that were finished are read, runs that were interrupted are continued. Where runs fail, the
    results are of the others.

    Raises:
        ResidualRLError: bad input, runs failed, or a folder holds a run that is not of the grid.
    """
    prepare_output(options.output_dir, resume=True)
    for config in options.configs:
        for variant in options.variants:
            variant.configured(config).learner_config()
    tell = partial(say, console)
    configs = [settled(config, tell) for config in options.configs]
    cells = compare_cells(replace(options, configs=configs))
    done = finished(cells)
    for config in configs:
        run = config.resolve()
        bound = ResidualBound.from_metadata(
            run.policy.metadata, config.residual_scale, run.robot.action.is_discrete
        )
        words = bound.words(run.robot.action.names, config.decision_steps)
        say(console, f'{config.task}: {words}')
    return finish_grid(cells, done, Judgement(), options.output_dir / 'compare', options, console)


def compare_cells(options: CompareOptions) -> list[Cell]:
    """Return the runs of a comparison, seed by seed.

    Raises:
        ResidualRLError: two of them are one, or a seed has no scenes of its own.
    """
    wanted = options.curve_seeds + options.paired_seeds
    numbers = Numbers(
        control_steps=1,
        curve_steps=max(1, options.curve_steps),
        curve_scenes=options.curve_seeds,
        final_scenes=options.paired_seeds,
        first_scene=FIRST_SCENE,
        scenes_per_seed=max(SCENES_PER_SEED, wanted),
    )
    problems = list(numbers.seed_problems(options.seeds))
    if problems:
        raise ConfigError('compare', problems)
    cells = [
        Cell(config.task, variant.name, _train_options(options, numbers, config, variant, seed))
        for seed in options.seeds
        for config in options.configs
        for variant in options.variants
    ]
    if options.recordings.paths and not any(cell.options.recordings.paths for cell in cells):
        raise ResidualRLError(
            'no preset of this comparison samples demonstrations; add one with '
            'demonstration_share > 0, such as resfit, or leave --demonstrations out'
        )
    check_grid(cells)
    return cells


def _train_options(
    options: CompareOptions, numbers: Numbers, config: RunConfig, variant: Variant, seed: int
) -> TrainOptions:
    folder = options.output_dir / folder_name(config.task) / variant.folder / f'seed{seed}'
    config = variant.configured(config)
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
        first_scene=numbers.scene(seed),
    )


def finish_grid(
    cells: Sequence[Cell],
    done: set[Path],
    judgement: Judgement,
    path: Path,
    options: Any,
    console: Console,
    development: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Run what is missing of a grid, and write its report beside it.

    Args:
        cells: the runs.
        done: folders of those that are finished.
        judgement: the levels.
        path: of the report, without `.md`, `.json` and `.png`; its folder is there.
        options: has `workers` and `ray`; with no workers, nothing is run.
        console: where progress goes.
        development: tasks that methods were tuned on.
        notes: paragraphs that stand first.

    Raises:
        ResidualRLError: runs failed, or none is finished.
    """
    missing = [cell for cell in cells if cell.folder not in done]
    say(console, f'{len(cells)} runs, {len(done)} of them done')
    failed: dict[Path, str] = {}
    if options.workers:
        failed = run_grid(missing, options.workers, options.ray, console)
        done = done | ({cell.folder for cell in missing} - failed.keys())
    report = write_report(
        [cell for cell in cells if cell.folder in done], judgement, path, development, notes
    )
    if failed:
        reasons = '; '.join(f'{folder}: {reason}' for folder, reason in failed.items())
        others = f'the report in {str(path.parent)!r} is of the others'
        left = others if report else 'there are no results'
        raise ResidualRLError(
            f'{len(failed)} of {len(missing)} runs failed: {reasons}; {left}; the same command '
            'runs these again'
        )
    if not report:
        raise ResidualRLError(f'no run of {str(path.parent)!r} is finished')
    return report


def write_report(
    cells: Sequence[Cell],
    judgement: Judgement,
    path: Path,
    development: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Write what finished runs came to, as `.md`, `.json` and `.png`; return the JSON."""
    results: dict[tuple[str, str], list[Any]] = {}
    for cell in sorted(cells, key=lambda cell: cell.options.seed):
        results.setdefault((cell.task, cell.method), []).append(read_result(cell.folder))
    if not results:
        return {}
    order = list(dict.fromkeys((cell.task, cell.method) for cell in cells))
    report = summarise({key: results[key] for key in order}, judgement, development)
    report['notes'] = list(notes)
    write_json(path.with_name(f'{path.name}.json'), report)
    write_text(path.with_name(f'{path.name}.md'), to_markdown(report, notes))
    draw_curves(path.with_name(f'{path.name}.png'), report)
    return report
