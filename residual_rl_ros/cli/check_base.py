# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command that looks at a base policy, and says what can improve it.

Imports that take seconds are inside the command, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from residual_rl_ros.cli.options import (
    JsonOption,
    MaybeInt,
    MaybeText,
    ScaleOption,
    SuccessOption,
    environment_run,
)
from residual_rl_ros.errors import ResidualRLError

if TYPE_CHECKING:
    from residual_rl_ros.checks.diagnosis import Diagnosis, DiagnosisOptions


def check_base(
    model: Annotated[str, typer.Argument(help='Base policy: an ONNX file, or a shipped name.')],
    robot: Annotated[
        MaybeText,
        typer.Option(help='Also check it against a robot: a shipped name or a YAML path.'),
    ] = None,
    diagnose: Annotated[
        bool,
        typer.Option(
            '--diagnose',
            help='Also play it alone, each start with several noises, and say whether a residual, '
            'choosing among its noises, or both can improve it; with --task or --env, to which '
            'the options below belong.',
        ),
    ] = False,
    task: Annotated[
        MaybeText, typer.Option(help='Task of config/finetune/, or the path of such a file.')
    ] = None,
    env: Annotated[
        MaybeText, typer.Option('--env', help='Any environment by its name, instead of --task.')
    ] = None,
    scale: ScaleOption = 0.1,
    success: SuccessOption = None,
    starts: Annotated[int, typer.Option(min=2, max=10_000, help='Environment seeds.')] = 200,
    noises: Annotated[
        int, typer.Option(min=2, max=1000, help='Noises of each; pass@k is told up to k = 8.')
    ] = 8,
    first_seed: Annotated[
        MaybeInt, typer.Option(min=0, help='First environment seed; default: 30000.')
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help='Seed of the intervals.')] = 0,
    workers: Annotated[int, typer.Option(min=1, help='Processes that play.')] = 2,
    as_json: JsonOption = False,
) -> None:
    """Print what a base policy is and what is wrong with it; exit code 1 if it is unusable."""
    from residual_rl_ros.checks.base_policy import check_base_policy
    from residual_rl_ros.resources import find_base_policy

    if (task, env).count(None) != (1 if diagnose else 2):
        raise ResidualRLError('give --diagnose together with one of --task and --env')
    path = find_base_policy(model)
    report = check_base_policy(path, robot)
    results: dict[str, Any] = asdict(report)
    if not as_json:
        report.show(Console())
    if diagnose and not report.problems:
        from residual_rl_ros.checks.diagnosis import DiagnosisOptions
        from residual_rl_ros.evaluation.noises import DIAGNOSIS_SEED
        from residual_rl_ros.evaluation.progress import say

        first = DIAGNOSIS_SEED if first_seed is None else first_seed
        options = DiagnosisOptions(starts, noises, first, seed, workers)
        diagnosis = _diagnose(path, task, env, scale, success, options)
        results['diagnosis'] = {'task': task or env, **asdict(options), **diagnosis.summary()}
        for line in [] if as_json else diagnosis.lines():
            say(Console(), line)
    if as_json:
        print(json.dumps(results, indent=2))
    if report.problems:
        raise typer.Exit(1)


def _diagnose(
    path: Path,
    task: str | None,
    env: str | None,
    scale: float,
    success: str | None,
    options: DiagnosisOptions,
) -> Diagnosis:
    """Return what episodes of a base policy alone say about it; exactly one of task and env."""
    from residual_rl_ros.checks.diagnosis import run_diagnosis
    from residual_rl_ros.config.run import load_run

    with TemporaryDirectory() as folder:
        base = None if env is None else path
        config = environment_run(env, base, scale, Path(folder)) or load_run(task or '')
        config = replace(config, base_policy=str(path)).told_by(success)
        return run_diagnosis(config, options, Console(stderr=True))
