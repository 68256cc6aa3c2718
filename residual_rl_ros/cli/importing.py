# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command that makes a base policy of a checkpoint of another framework.

Imports that take seconds are inside the command, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from residual_rl_ros.cli.options import MaybeFloat, MaybeInt, MaybePath, MaybeText
from residual_rl_ros.errors import PolicyImportError


def import_base(
    out: Annotated[Path, typer.Option(help='The ONNX file to write.')],
    checkpoint: Annotated[
        MaybePath,
        typer.Argument(
            help='Folder of a LeRobot policy, .pth of robomimic or .ckpt of diffusion_policy.'
        ),
    ] = None,
    module: Annotated[
        MaybeText,
        typer.Option(
            help='Instead of a checkpoint: package.module:factory of your own, whose code is '
            'executed.'
        ),
    ] = None,
    policy_map: Annotated[
        MaybePath,
        typer.Option('--map', help='YAML file with names, units and rate that the robot has.'),
    ] = None,
    dataset: Annotated[
        MaybePath,
        typer.Option(
            help='Folder of the LeRobot dataset that it was trained on: names, rate and range of '
            'the actions.'
        ),
    ] = None,
    rate_hz: Annotated[
        MaybeFloat, typer.Option(min=0.0, help='Control rate of the training data [Hz].')
    ] = None,
    exec_steps: Annotated[
        MaybeInt, typer.Option(min=1, help='Actions of a chunk to run; default: the checkpoint.')
    ] = None,
    ddim_steps: Annotated[
        MaybeInt,
        typer.Option(
            min=1,
            help='Denoising steps of a diffusion policy; default: those of a checkpoint made for '
            'DDIM, else 10.',
        ),
    ] = None,
    range_std: Annotated[
        MaybeFloat,
        typer.Option(
            help='Where nothing says the range of the actions: their mean ± so many standard '
            'deviations.'
        ),
    ] = None,
    noise: Annotated[
        MaybeText,
        typer.Option(
            help='Noise of the base action: normal (drawn) or zero; default: zero for ACT, whose '
            'latent it is, normal for others.'
        ),
    ] = None,
    task: Annotated[MaybeText, typer.Option(help='Name of the task, for the metadata.')] = None,
) -> None:
    """Make an ONNX base policy of a checkpoint, if ONNX Runtime then gives the same actions."""
    from residual_rl_ros.importing.checkpoint import import_checkpoint
    from residual_rl_ros.importing.export import export
    from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap, read_map
    from residual_rl_ros.importing.module import import_module

    made = read_map(policy_map) if policy_map else PolicyMap()
    options = ImportOptions(
        map=made.with_options(rate_hz=rate_hz, exec_steps=exec_steps, task=task),
        dataset=dataset,
        ddim_steps=ddim_steps,
        range_std=range_std,
        noise_default=noise,
    )
    if (checkpoint is None) == (module is None):
        raise PolicyImportError('give a checkpoint or --module, and not both')
    if checkpoint is not None:
        policy = import_checkpoint(checkpoint, options)
    else:
        policy = import_module(str(module), options)
    parity = export(policy, out)
    meta = policy.metadata
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    for remark in policy.remarks:
        say(f'remark: {remark}')
    say(f'{out}: {meta.source}, {meta.rate_hz:g} Hz, {meta.exec_steps} of {meta.horizon} actions')
    say(f'observation: {", ".join(meta.observation_names)}')
    say(f'action: {", ".join(meta.action_names)}')
    for image in meta.images:
        say(f'image channel {image.name}: {image.height} x {image.width} pixels')
    sizes = ', '.join(map(str, parity.batches))
    say(f'parity with torch: {parity.error:.1e} half ranges, at batches of {sizes}')
