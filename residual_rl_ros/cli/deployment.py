# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command that makes one ONNX file of a run.

Imports that take seconds are inside the command, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from residual_rl_ros.cli.options import MaybeInt, MaybeText


def export(
    run: Annotated[
        Path, typer.Argument(help='Output folder of a run, a checkpoint, or an actor file.')
    ],
    out: Annotated[Path, typer.Option(help='ONNX file to write.')],
    task: Annotated[
        MaybeText,
        typer.Option(
            help='Task of config/finetune/, or such a file, with the base policy and the robot of '
            'the run; default: what the run says.'
        ),
    ] = None,
    robot: Annotated[
        MaybeText, typer.Option(help='Robot YAML or name, instead of --task; with --base.')
    ] = None,
    base: Annotated[
        MaybeText, typer.Option(help='ONNX base policy, instead of --task; with --robot.')
    ] = None,
    batch: Annotated[
        MaybeInt,
        typer.Option(
            min=1,
            help='Fix all shapes to this batch, as TensorRT wants; default: open, if the base '
            'policy is.',
        ),
    ] = None,
    float32: Annotated[
        bool, typer.Option('--float32', help='Compute everything in float32, as TensorRT wants.')
    ] = False,
    without_workspace: Annotated[
        bool,
        typer.Option(
            '--without-workspace',
            help="Export although the robot's workspace and self-collision are not in the graph.",
        ),
    ] = False,
) -> None:
    """Put base policy, residual, bounds and limits of a run into one ONNX file.

    The graph is compared with the controller first. What is printed is a line for
    `sha256sum --check`.
    """
    from residual_rl_ros.deployment.export import ExportOptions, export_run
    from residual_rl_ros.evaluation.progress import say

    console = Console(stderr=True)
    options = ExportOptions(
        run,
        out,
        task,
        robot,
        base,
        batch,
        'float32' if float32 else 'float64',
        without_workspace,
    )
    done = export_run(options, lambda text: say(console, text))
    parity = done.parity
    say(
        console,
        f'{parity.decisions} decisions beside the controller: commands differ by up to '
        f'{parity.largest:.2g}, {parity.equal_share:.1%} are equal in float32, {parity.ties} ties '
        'of the critics',
    )
    beside = ', '.join(done.metadata.not_in_graph).replace('_', ' ')
    say(console, f'not in the graph: {beside}')
    print(f'{done.sha256}  {out}')
