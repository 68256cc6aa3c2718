# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that make planners: the model from data, then what is wanted of it.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from residual_rl_ros.cli.options import (
    AddOnOption,
    JsonOption,
    MaybePath,
    MaybeText,
    MaybeTexts,
    SeedOption,
    assignments,
    environment_run,
)
from residual_rl_ros.errors import OutputError, ResidualRLError
from residual_rl_ros.resources import write_bytes

if TYPE_CHECKING:
    from residual_rl_ros.pretraining.train_dynamics import HeldOutError
    from residual_rl_ros.residual_policy.mppi import MppiPlanner

PlanOption = Annotated[
    MaybeTexts,
    typer.Option(
        '--set',
        help='A number of the plan: samples, horizon, discount, prior_weight, temperature or noise '
        '=value, in YAML; give it again for more.',
    ),
]


def train_dynamics(
    out: Annotated[Path, typer.Option(help='File of the planner, safetensors.')],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help='Bags of transitions, or the folder of one run or checkpoint.'),
    ] = None,
    task: Annotated[
        MaybeText,
        typer.Option(help='Instead: task of config/finetune/, or such a file, to play now.'),
    ] = None,
    env: Annotated[
        MaybeText, typer.Option(help='Instead: any gymnasium environment, to play now.')
    ] = None,
    base: Annotated[MaybePath, typer.Option(help='ONNX base policy for --env.')] = None,
    scale: Annotated[
        float, typer.Option(help='Residual scale lambda for --env; 2 reaches every action.')
    ] = 2.0,
    steps: Annotated[int, typer.Option(min=1, help='Control steps to play.')] = 20_000,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=10.0,
            help='Standard deviation of the exploration noise, in half ranges of actions.',
        ),
    ] = 0.3,
    seed: SeedOption = 0,
    overrides: Annotated[
        MaybeTexts,
        typer.Option(
            '--set',
            help='A number of the training: updates, batch_size, steps, learning_rate, hidden, '
            'prior_hidden or prior_width =value, in YAML.',
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the model with which a planner looks ahead, and print its error on held-out decisions.

    The result is a planner without add-on, which is the base policy; `planner` gives it one.
    """
    import numpy as np
    import torch

    from residual_rl_ros.config.run import load_run
    from residual_rl_ros.evaluation.progress import progress
    from residual_rl_ros.pretraining.dynamics_data import Decisions, collect, read_sources
    from residual_rl_ros.pretraining.train_dynamics import DynamicsRecipe, train_model
    from residual_rl_ros.schema import from_mapping

    errors = Console(stderr=True)
    _check_new(out)
    recipe = from_mapping(DynamicsRecipe, assignments(overrides or []), '--set')
    if sum(each is not None for each in (sources or None, task, env)) != 1:
        raise ResidualRLError('give one of bags or a run, --task, or --env with --base')
    torch.set_num_threads(1)
    if sources:
        buffer, layout = read_sources(sources)
    else:
        config = environment_run(env, base, scale, out.parent) or load_run(task or '')
        with progress(errors, 'playing', steps) as report:
            buffer, layout = collect(
                config, steps, noise, seed, lambda done: report(min(done, steps))
            )
    data = Decisions.of(buffer, layout, recipe.prior_width, np.random.default_rng(seed))
    errors.print(f'{len(buffer)} decisions, {int(data.held_out.sum())} of them held out')
    with progress(errors, 'training', recipe.updates) as report:
        planner, found = train_model(data, recipe, seed, report)
    _write(out, planner)
    if as_json:
        print(json.dumps([vars(each) for each in found], indent=2))
    else:
        Console().print(_table(found))
    errors.print(f'planner without add-on in {out}', markup=False, soft_wrap=True)


def planner(
    model: Annotated[Path, typer.Argument(help='File of train-dynamics, or another planner.')],
    out: Annotated[Path, typer.Option(help='File of the new planner, safetensors.')],
    add_on: AddOnOption = None,
    weight: Annotated[
        float, typer.Option(min=0.0, help='Factor on the add-on; 0 is the base policy.')
    ] = 1.0,
    overrides: PlanOption = None,
) -> None:
    """Make a planner of a trained model: an add-on reward and the numbers of a plan.

    `evaluate` plays it, and the parameter `actor` of policy_node runs it on a robot.
    """
    from dataclasses import asdict

    from residual_rl_ros.residual_policy.actor_file import read_actor
    from residual_rl_ros.residual_policy.mppi import MppiConfig, MppiPlanner
    from residual_rl_ros.residual_policy.weights import decode_weights
    from residual_rl_ros.rewards.composition import AddOns
    from residual_rl_ros.schema import from_mapping

    _check_new(out)
    _, found = decode_weights(read_actor(model))
    if not isinstance(found, MppiPlanner):
        raise ResidualRLError(
            f'{str(model)!r} holds a robot policy of kind {found.kind}, expected mppi; make one '
            'with train-dynamics'
        )
    old = found.architecture
    numbers = {**asdict(old.config), **assignments(overrides or [])}
    try:
        made = found.customised(
            config=from_mapping(MppiConfig, numbers, '--set'),
            add_on=AddOns.from_options(add_on) if add_on else old.add_on,
            add_on_weight=weight,
        )
    except ValueError as error:
        raise ResidualRLError(str(error)) from error
    _write(out, made)


def _check_new(path: Path) -> None:
    """Refuse, before hours of training, a file that exists or cannot be written.

    Raises:
        OutputError: there is such a file, or its folder cannot be written.
    """
    if path.exists():
        raise OutputError(f'{str(path)!r} exists; choose another file with --out')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f'{str(path)!r} cannot be written: {error.strerror}') from error


def _write(path: Path, planner: MppiPlanner) -> None:
    """Write a planner as a weight message that a robot accepts.

    Raises:
        WeightsError: a robot would refuse it.
        OutputError: it cannot be written.
    """
    from residual_rl_ros.residual_policy.weights import (
        WeightsHeader,
        decode_weights,
        encode_weights,
    )

    message = encode_weights(planner, WeightsHeader(1, 0))
    decode_weights(message)
    write_bytes(path, message)


def _table(errors: list[HeldOutError]) -> Table:
    """Return the errors by name, the worst first."""
    table = Table('observation', 'error of a decision (RMS)', 'share of its change')
    for each in sorted(errors, key=lambda each: -each.unexplained):
        table.add_row(each.name, f'{each.error:.4g}', f'{each.unexplained:.1%}')
    return table
