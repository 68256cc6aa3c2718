# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and progress bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from residual_rl_ros.errors import FormatError, ResidualRLError
from residual_rl_ros.schema import check_namespace

if TYPE_CHECKING:
    from residual_rl_ros.config.run import RunConfig

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
USUAL_SCALE = 0.3
"""Lambda of `--env` where none is given, as of every task of the benchmark: at 0.1 not even an
expert behind the residual would reach 90 % on the three of them where that was measured."""

# typer reads these at run time.
MaybeInt = int | None
MaybePath = Path | None
MaybeText = str | None
MaybeTexts = list[str] | None
MaybeFloat = float | None
MaybeFloats = list[float] | None

TaskOption = Annotated[
    str, typer.Option(help='Task of config/finetune/, or the path of such a file.')
]
EnvOption = Annotated[
    MaybeText,
    typer.Option('--env', help='Any environment by its name, instead of --task; with --base.'),
]
BaseOption = Annotated[MaybePath, typer.Option('--base', help='ONNX base policy for --env.')]
ScaleOption = Annotated[
    MaybeFloat,
    typer.Option('--scale', help=f'Residual scale lambda for --env; default: {USUAL_SCALE:g}.'),
]
MAX_EPISODES = 100_000
"""Most episodes of an evaluation."""
MAX_SEED = 2**31 - 1
"""Largest seed; environment seeds are a million times as large."""
SeedOption = Annotated[int, typer.Option(min=0, max=MAX_SEED, help='Learner seed.')]
StepsOption = Annotated[
    MaybeInt, typer.Option(min=1, help='Control steps of a run; default: the configuration.')
]
RunsOption = Annotated[Path, typer.Option(help='Output folder; finished runs in it are kept.')]
SuccessOption = Annotated[
    MaybeText,
    typer.Option(
        '--success',
        help='How the task tells success: auto, return (it has none), terminated, or a key of info '
        'with KEY:once, KEY:end or KEY:stop; default: the configuration, or auto.',
    ),
]
AddOnOption = Annotated[
    MaybeTexts,
    typer.Option(
        '--add-on',
        help='Add-on reward: name, or name:key=value,key=value with values in YAML; give it again '
        'for more. Default: those of the configuration.',
    ),
]
DemonstrationsOption = Annotated[
    MaybeTexts,
    typer.Option(
        '--demonstrations',
        help="For a preset that samples demonstrations: how many episodes of the task's expert, or "
        'a bag, a LeRobot dataset, a robomimic file or one of train-base; give it again for more. '
        'Default: none.',
    ),
]
ObservationMapOption = Annotated[
    MaybeTexts,
    typer.Option(
        '--observation-map',
        help='Where names of demonstrations differ: NAME=KEY[INDEX], with the name that the base '
        'policy has, or a YAML file of such pairs; give it again for more.',
    ),
]
WorkersOption = Annotated[
    int, typer.Option('--workers', '--jobs', min=1, help='Runs at the same time.')
]
RayOption = Annotated[MaybeText, typer.Option(help='Address of a Ray cluster to run on.')]
OperatorOption = Annotated[
    MaybeText,
    typer.Option(
        '--operator',
        help='Who takes over where the policy fails: simulated, with changed numbers '
        'simulated:key=value,key=value; default: the configuration, or nobody.',
    ),
]
NumbersOption = Annotated[
    MaybeTexts, typer.Option('--set', help='Replace a number of the preset: key=value, in YAML.')
]


def check_namespaces(given: str | list[str] | None) -> str | list[str] | None:
    """Refuse namespaces that ROS does not know, before anything is started.

    Raises:
        ConfigError: names the wrong one.
    """
    for name in [given] if isinstance(given, str) else given or []:
        check_namespace(name)
    return given


NamespaceOption = Annotated[
    str, typer.Option(callback=check_namespaces, help='Namespace of the robot.')
]
FleetOption = Annotated[
    bool, typer.Option('--fleet', help='Its learner is shared, and in no namespace.')
]
TakeoverOption = Annotated[
    str,
    typer.Option(
        help="What an operator's pad does: a file of config/takeover, or the name of a shipped one."
    ),
]
RobotOption = Annotated[str, typer.Option(help='Robot YAML, or the name of a shipped one.')]
ModelOption = Annotated[str, typer.Option(help='ONNX base policy, or the name of a shipped one.')]
RobotArgument = Annotated[str, typer.Argument(help='Robot YAML, or the name of a shipped one.')]
BlendOption = Annotated[
    int, typer.Option(min=0, help='Steps over which a new chunk takes over from the last.')
]
EnsembleOption = Annotated[
    float, typer.Option(help='Coefficient m: take the mean of all chunks; 0 does not.')
]
EnsembleStepsOption = Annotated[
    int, typer.Option(min=0, help='Steps between two chunks of that mean; 0: a decision.')
]
ProposalsOption = Annotated[
    int, typer.Option(min=1, help="Draws of the base policy's noise that a decision is given.")
]
CustomisableOption = Annotated[
    bool, typer.Option(help='Transitions tell the add-on reward and its weight.')
]
PriorWidthOption = Annotated[
    MaybeFloats,
    typer.Option(
        help='Standard deviation of a Gaussian around the action of a base policy without density, '
        'in half ranges: once, or once per action.'
    ),
]
BagOption = Annotated[Path, typer.Option(help='Folder of the transition bag; it must not exist.')]
JsonOption = Annotated[bool, typer.Option('--json', help='Print the results as JSON.')]


def scale_of(env: str | None, scale: float | None) -> float:
    """Return `--scale`, or its default.

    Raises:
        ResidualRLError: it is given without `--env`: a task has its own.
    """
    if env is None and scale is not None:
        raise ResidualRLError(
            f'--scale {scale:g} is for --env, and a task has its own: give --set '
            f'residual_scale={scale:g} to train, PRESET:residual_scale={scale:g} to compare, or '
            'write it in a file for --task'
        )
    if scale is None:
        return USUAL_SCALE
    if not 0.0 <= scale < math.inf:
        raise ResidualRLError(f'--scale is {scale:g}, expected a number from 0 on')
    return scale


def environment_run(
    env: str | None, base: Path | None, scale: float, folder: Path, task: object = None
) -> RunConfig | None:
    """Return the run of `--env`; None without one.

    Args:
        env: name of the environment.
        base: its base policy.
        scale: residual scale.
        folder: where the description of its robot is written.
        task: what names a run beside it, if anything does.

    Raises:
        ResidualRLError: there is only one of `--env` and `--base`, or `--task` too, or they cannot
            be used.
    """
    if (env is None) != (base is None) or (env is not None and task):
        raise ResidualRLError('give either --task, or --env together with --base')
    if env is None or base is None:
        return None
    from residual_rl_ros.tasks.hosting import finetune_for_environment

    return finetune_for_environment(env, base, scale, folder)


def assignments(texts: list[str]) -> dict[str, Any]:
    """Return the values of `--set key=value` options."""
    from residual_rl_ros.files.yaml_text import parse_yaml

    values, given = {}, set()
    for text in texts:
        key, equals, value = text.partition('=')
        try:
            values[key] = parse_yaml(value, f'--set {text!r}')
        except FormatError as error:
            raise ResidualRLError(str(error)) from error
        if not equals:
            raise ResidualRLError(f'--set {text!r} is no assignment, expected key=value')
        if key in given:
            raise ResidualRLError(f'--set {key} is given twice; give it once')
        given.add(key)
    return values


def progress_bars() -> Progress:
    """Return a context for bars on stderr; there are none if that is no terminal."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def reading_bar(nbytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while files are read.

    Args:
        nbytes: how many bytes will be read.

    Yields:
        A function of the bytes read since its last call.
    """
    with progress_bars() as bars:
        task = bars.add_task('reading', total=nbytes)
        yield lambda read: bars.advance(task, read)
        bars.update(task, completed=nbytes)
