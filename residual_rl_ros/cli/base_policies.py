# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands for what runs on a robot: train, import and check a base policy, export a run.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from residual_rl_ros.cli.options import (
    MAX_EPISODES,
    MAX_SEED,
    AddOnOption,
    JsonOption,
    MaybeFloat,
    MaybeInt,
    MaybePath,
    MaybeText,
    NumbersOption,
    ScaleOption,
    SuccessOption,
    assignments,
    environment_run,
    scale_of,
)
from residual_rl_ros.errors import PolicyImportError, ResidualRLError

if TYPE_CHECKING:
    from residual_rl_ros.checks.diagnosis import Diagnosis, DiagnosisOptions


def train_base(
    task: Annotated[str, typer.Option(help='Task with a recipe in config/base_policies/.')],
    out: Annotated[Path, typer.Option(help='Folder for the model and its card.')] = Path('models'),
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help='Training seed.')] = 0,
    evaluate: Annotated[
        int,
        typer.Option(min=1, max=MAX_EPISODES, help='Held-out seeds for the success in the card.'),
    ] = 200,
) -> None:
    """Train a base policy from scripted demonstrations and write its model card."""
    from residual_rl_ros.pretraining.model_card import train_with_card

    train_with_card(task, out, seed, evaluate, Console(stderr=True))


def train_prior(
    env: Annotated[str, typer.Option(help='Task of this package or gymnasium id.')],
    out: Annotated[Path, typer.Option(help='The model; its card is written beside it.')],
    steps: Annotated[int, typer.Option(min=1, help='Control steps of training.')],
    preset: Annotated[
        str, typer.Option(help='Preset that forgets the base and learns from the basic reward.')
    ] = 'soft_q',
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help='Training seed.')] = 0,
    overrides: NumbersOption = None,
    add_on: AddOnOption = None,
    evaluate: Annotated[
        int,
        typer.Option(min=1, max=MAX_EPISODES, help='Held-out seeds for the returns in the card.'),
    ] = 100,
    run: Annotated[
        MaybePath, typer.Option(help='Folder of the run; default: runs/MODEL_prior.')
    ] = None,
    resume: Annotated[bool, typer.Option(help='Continue the run in --run.')] = False,
) -> None:
    """Train a base policy that tells how likely its actions are, and write its model card."""
    from residual_rl_ros.training.train_prior import PriorOptions, train_prior

    changes, asked = assignments(overrides or []), tuple(add_on or ())
    folder = run or Path('runs') / f'{out.stem}_prior'
    options = PriorOptions(env, preset, steps, seed, out, folder, changes, asked, evaluate, resume)
    console = Console(stderr=True)
    console.print(f'card: {train_prior(options, console)}')


def train_encoder(
    task: Annotated[str, typer.Option(help='Task with a camera.')],
    out: Annotated[Path, typer.Option(help='Folder for the encoder and its card.')] = Path(
        'models/encoders'
    ),
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help='Training seed.')] = 0,
) -> None:
    """Train the image encoder of a task with a camera and write its model card."""
    from residual_rl_ros.pretraining.train_encoder import train_encoder_with_card

    console = Console(stderr=True)
    error = train_encoder_with_card(
        task, out, seed, lambda step, loss: console.print(f'step {step}: loss {loss:.6f}')
    )
    console.print(f'mean error: {error}')


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
    from residual_rl_ros.evaluation.progress import say
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
    tell = partial(say, Console(stderr=True))
    for remark in policy.remarks:
        tell(f'remark: {remark}')
    if parity.decided:
        tell(
            f'remark: {", ".join(parity.decided)}: the graph has what was decided there for one '
            'example, whatever it is given; write it with torch.where'
        )
    tell(f'{out}: {meta.source}, {meta.rate_hz:g} Hz, {meta.exec_steps} of {meta.horizon} actions')
    tell(f'observation: {", ".join(meta.observation_names)}')
    tell(f'action: {", ".join(meta.action_names)}')
    for image in meta.images:
        tell(f'image channel {image.name}: {image.height} x {image.width} pixels')
    sizes = ', '.join(map(str, parity.batches))
    tell(f'parity with torch: {parity.error:.1e} half ranges, at batches of {sizes}')
    if parity.rounding is not None:
        tell(f'torch in single precision is as far as {parity.rounding:.1e} from double itself')


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
    scale: ScaleOption = None,
    success: SuccessOption = None,
    starts: Annotated[int, typer.Option(min=2, max=10_000, help='Environment seeds.')] = 200,
    noises: Annotated[
        int, typer.Option(min=2, max=1000, help='Noises of each; pass@k is told up to k = 8.')
    ] = 8,
    first_seed: Annotated[
        MaybeInt, typer.Option(min=0, help='First environment seed; default: 30000.')
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help='Seed of the intervals.')] = 0,
    workers: Annotated[int, typer.Option(min=1, help='Processes that play.')] = 2,
    as_json: JsonOption = False,
) -> None:
    """Print what a base policy is and what is wrong with it; exit code 1 if it is unusable."""
    from residual_rl_ros.checks.base_policy import try_base_policy
    from residual_rl_ros.resources import find_base_policy

    if (task, env).count(None) != (1 if diagnose else 2):
        raise ResidualRLError('give --diagnose together with one of --task and --env')
    own_scale = scale_of(env, scale)
    path = find_base_policy(model)
    report = try_base_policy(path, robot)
    results: dict[str, Any] = asdict(report)
    if not as_json:
        report.show(Console())
    if diagnose and not report.problems:
        from residual_rl_ros.checks.diagnosis import DiagnosisOptions
        from residual_rl_ros.evaluation.noises import DIAGNOSIS_SEED
        from residual_rl_ros.evaluation.progress import say

        first = DIAGNOSIS_SEED if first_seed is None else first_seed
        options = DiagnosisOptions(starts, noises, first, seed, workers)
        diagnosis = _diagnose(path, task, env, own_scale, success, options)
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
        config = replace(config, base_policy=str(path)).with_success(success)
        return run_diagnosis(config, options, Console(stderr=True))


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
