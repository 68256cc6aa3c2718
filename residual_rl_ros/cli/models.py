# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands for base policies and encoders.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from residual_rl_ros.cli.options import MaybeText


def check_base(
    model: Annotated[str, typer.Argument(help='Base policy: an ONNX file, or a shipped name.')],
    robot: Annotated[
        MaybeText,
        typer.Option(help='Also check it against a robot: a shipped name or a YAML path.'),
    ] = None,
) -> None:
    """Print what a base policy is and what is wrong with it; exit code 1 if it is unusable."""
    from residual_rl_ros.checks.base_policy import check_base_policy
    from residual_rl_ros.resources import find_base_policy

    report = check_base_policy(find_base_policy(model), robot)
    report.show(Console())
    if report.problems:
        raise typer.Exit(1)


def train_base(
    task: Annotated[str, typer.Option(help='Task with a recipe in config/base_policies/.')],
    out: Annotated[Path, typer.Option(help='Folder for the model and its card.')] = Path('models'),
    seed: Annotated[int, typer.Option(min=0, help='Training seed.')] = 0,
    evaluate: Annotated[
        int, typer.Option(min=1, help='Held-out seeds for the success in the card.')
    ] = 200,
) -> None:
    """Train a base policy from scripted demonstrations and write its model card."""
    from residual_rl_ros.pretraining.train_base import train_with_card

    train_with_card(task, out, seed, evaluate, Console(stderr=True))


def train_encoder(
    task: Annotated[str, typer.Option(help='Task with a camera.')],
    out: Annotated[Path, typer.Option(help='Folder for the encoder and its card.')] = Path(
        'models/encoders'
    ),
    seed: Annotated[int, typer.Option(min=0, help='Training seed.')] = 0,
) -> None:
    """Train the image encoder of a task with a camera and write its model card."""
    from residual_rl_ros.pretraining.train_encoder import train_encoder_with_card

    console = Console(stderr=True)
    error = train_encoder_with_card(
        task, out, seed, lambda step, loss: console.print(f'step {step}: loss {loss:.6f}')
    )
    console.print(f'mean error: {error}')
