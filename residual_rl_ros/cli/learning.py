# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that learn and judge: demo, train, evaluate, bench learner.

Imports that take seconds are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from residual_rl_ros.cli.options import (
    INTERRUPTED,
    MAX_EPISODES,
    MAX_SEED,
    AddOnOption,
    BaseOption,
    DemonstrationsOption,
    EnvOption,
    JsonOption,
    MaybeInt,
    MaybePath,
    MaybeText,
    MaybeTexts,
    ObservationMapOption,
    OperatorOption,
    ScaleOption,
    SeedOption,
    StepsOption,
    SuccessOption,
    TaskOption,
    assignments,
    environment_run,
    scale_of,
)
from residual_rl_ros.errors import ResidualRLError

if TYPE_CHECKING:
    from residual_rl_ros.config.run import RunConfig
    from residual_rl_ros.tasks.mcts_planner import MctsPlanner


def demo(
    task: TaskOption = 'peg_insert',
    steps: StepsOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        MaybePath,
        typer.Option(help='Output folder; default: runs/TASK_seedN.'),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help='A minute that exercises everything and learns nothing.')
    ] = False,
    domain: Annotated[
        MaybeInt,
        typer.Option(help='ROS domain, in which nothing else may run; default: a free one.'),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a shipped base policy in MuJoCo through three ROS 2 processes.

    Evaluates the base policy on 100 seeds, fine-tunes, evaluates base + residual on the same
    seeds, and leaves summary, learning curve, checkpoint, TensorBoard events and, with OpenGL,
    a failure beside its repair, as a strip and as an animation.
    """
    from residual_rl_ros.config.run import load_run
    from residual_rl_ros.ros.bringup import demo as demonstration

    console = Console(stderr=True)
    config = load_run(task)
    seeds = demonstration.PAIRED_SEEDS
    if quick:
        config, seeds = demonstration.quick(config), demonstration.QUICK_SEEDS
    if steps is not None:
        config = replace(config, control_steps=steps)
    folder = out if out is not None else _fresh_folder(Path('runs') / f'{config.task}_seed{seed}')
    options = demonstration.DemoOptions(config, seed, folder, seeds, domain, quick)
    try:
        summary = demonstration.run_demo(options, console)
    except KeyboardInterrupt:
        checkpoint = folder / 'checkpoints' / 'latest'
        kept = f'checkpoint kept in {checkpoint}' if checkpoint.exists() else 'no checkpoint yet'
        console.print(f'interrupted; every process has ended; {kept}')
        raise typer.Exit(INTERRUPTED) from None
    console.print(f'results are in {folder}')
    if as_json:
        print(json.dumps(summary, indent=2))


def train(
    task: Annotated[
        MaybeText,
        typer.Option(
            help='Task of config/finetune/, or the path of such a file; default: peg_insert.'
        ),
    ] = None,
    env: EnvOption = None,
    base: BaseOption = None,
    scale: ScaleOption = None,
    preset: Annotated[
        MaybeText,
        typer.Option(help='Learner preset of config/presets/; default: the configuration.'),
    ] = None,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    out: Annotated[
        MaybePath,
        typer.Option(help='Output folder; default: runs/TASK_PRESET_seedN.'),
    ] = None,
    overrides: Annotated[
        MaybeTexts,
        typer.Option(
            '--set',
            help='Replace a number of the preset, residual_scale or decision_steps: key=value, '
            'in YAML.',
        ),
    ] = None,
    operator: OperatorOption = None,
    start: Annotated[
        MaybePath,
        typer.Option('--from', help='Begin with what `bag train` left in this folder.'),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help='Continue the run in --out from its latest checkpoint.')
    ] = False,
    demonstrations: DemonstrationsOption = None,
    observation_map: ObservationMapOption = None,
    checkpoint_steps: Annotated[
        int, typer.Option(min=1, help='Control steps between two checkpoints.')
    ] = 8000,
    evaluate: Annotated[
        int, typer.Option(min=0, max=MAX_EPISODES, help='Paired evaluation episodes at the end.')
    ] = 100,
    success: SuccessOption = None,
    add_on: AddOnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune in one process, without ROS: the same classes as the nodes, and faster.

    Ctrl-C ends it after the episode in progress and saves; a second Ctrl-C ends it at once.
    """
    from residual_rl_ros.config import DEFAULT_PRESET
    from residual_rl_ros.config.run import load_run

    console = Console(stderr=True)
    if start is not None and resume:
        raise ResidualRLError('give --from for a new run or --resume for an old one, not both')

    def folder(task: str, preset: str) -> Path:
        path = Path('runs') / f'{task}_{preset}_seed{seed}'
        return path if resume else _fresh_folder(path)

    if env is not None and out is None:
        out = folder(env, preset or DEFAULT_PRESET)
    own = environment_run(env, base, scale_of(env, scale), out or Path(), task)
    config = own or load_run(task or 'peg_insert')
    config = config.with_success(success).with_add_ons(add_on)
    config = replace(config, control_steps=steps or config.control_steps)
    config = config.with_preset(preset or config.preset).changed(assignments(overrides or []))
    config = config if operator is None else config.changed({'operator': operator})
    config.learner_config()  # A wrong number is said before what takes seconds to import.
    from residual_rl_ros.demonstrations.source import read_demonstrations
    from residual_rl_ros.evaluation.progress import say
    from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists
    from residual_rl_ros.training.options import TrainOptions
    from residual_rl_ros.training.train import run_training

    episodes, recordings = read_demonstrations(demonstrations or [], observation_map or [])
    out = folder(config.task, config.preset) if out is None else out
    options = TrainOptions(
        config,
        seed,
        out,
        start=start,
        resume=resume,
        demonstrations=episodes,
        recordings=recordings,
        checkpoint_steps=checkpoint_steps,
        paired_seeds=evaluate,
    )
    try:
        summary = run_training(options, console)
    except KeyboardInterrupt:
        kept = checkpoint_exists(out / CHECKPOINTS / 'latest')
        how = (
            f'continue with the same command and --resume --out {out}'
            if kept
            else 'no checkpoint yet, start again'
        )
        say(console, f'interrupted; {how}')
        raise typer.Exit(INTERRUPTED) from None
    say(console, f'results are in {out}')
    if as_json:
        print(json.dumps(summary, indent=2))


def evaluate(
    run: Annotated[
        MaybePath,
        typer.Argument(
            help='Output folder of train or demo, a checkpoint, or an actor or planner file.'
        ),
    ] = None,
    task: Annotated[
        MaybeText,
        typer.Option(
            help='Task of config/finetune/, or the path of such a file; default: that of the run, '
            'or peg_insert.'
        ),
    ] = None,
    env: EnvOption = None,
    base: BaseOption = None,
    episodes: Annotated[int, typer.Option(min=1, help='Paired seeds.')] = 100,
    first_seed: Annotated[
        MaybeInt,
        typer.Option(min=0, help='First environment seed; default: the reserved ones.'),
    ] = None,
    order_seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help='Seed of the blind order.')
    ] = 0,
    success: SuccessOption = None,
    add_on: AddOnOption = None,
    planner: Annotated[
        MaybeText,
        typer.Option(
            help='Instead of a run: mcts, tree search in copies of the environment with the base '
            'policy as its prior, for the add-on.'
        ),
    ] = None,
    overrides: Annotated[
        MaybeTexts,
        typer.Option(
            '--set',
            help='A number of the search: iterations, horizon, discount, prior_weight, '
            'temperature, exploration or sample =value, in YAML.',
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate base and base + residual on the same seeds, in a blind random order."""
    from residual_rl_ros.config.run import load_run
    from residual_rl_ros.evaluation.paired import EVALUATION_SEED
    from residual_rl_ros.training.identity import stored_run

    with TemporaryDirectory() as folder:
        # k and lambda are those of the actor; a search reaches every action.
        scale = 0.0 if planner is None else 2.0
        loaded = environment_run(env, base, scale, Path(folder), task)
        if loaded is None and task is None and run is not None:
            loaded = stored_run(run).configuration
        loaded = loaded or load_run(task or 'peg_insert')
        loaded = loaded.with_success(success).with_add_ons(add_on)
        policy = _evaluated(run, planner, assignments(overrides or []), loaded)
        first = EVALUATION_SEED if first_seed is None else first_seed
        _evaluate(policy, loaded, range(first, first + episodes), order_seed, as_json)


def _evaluate(
    policy: bytes | MctsPlanner, loaded: RunConfig, seeds: range, order_seed: int, as_json: bool
) -> None:
    """Print what the actor of a run came to beside its base."""
    import numpy as np

    from residual_rl_ros.evaluation.episode import Episode
    from residual_rl_ros.evaluation.paired import difference, evaluate_blind, score
    from residual_rl_ros.evaluation.progress import progress, say
    from residual_rl_ros.residual_policy.weights import decode_weights
    from residual_rl_ros.tasks.success_probe import settled

    errors = Console(stderr=True)
    config = loaded = settled(loaded, partial(say, errors))
    if isinstance(policy, bytes):
        header, actor = decode_weights(policy)
        if not header.exploration.residual_probability:
            say(errors, 'the run ended in its warm-up: the residual is off, and both are the base')
        config = loaded.resolve().trained_as(actor.architecture.layout).config
    played: dict[bool, dict[int, Episode]] = {False: {}, True: {}}
    rng = np.random.default_rng(order_seed)
    with progress(errors, 'evaluating', 2 * len(seeds)) as report:
        for residual, episode in evaluate_blind(config, seeds, policy, rng):
            played[residual][episode.seed] = episode
            report(len(played[False]) + len(played[True]))
    base, final = ([played[residual][seed] for seed in seeds] for residual in (False, True))
    pair = difference(base, final)
    if as_json:
        rates = {'base': score(base).summary(), 'final': score(final).summary()}
        print(json.dumps({**rates, **pair.summary()}))
        return
    console = Console()
    say(console, f'base            {score(base)}')
    say(console, f'base + residual {score(final)}')
    say(console, str(pair))


def _evaluated(
    run: Path | None, planner: str | None, numbers: dict[str, Any], config: RunConfig
) -> bytes | MctsPlanner:
    """Return what is evaluated: a weight message, or a tree search."""
    from residual_rl_ros.residual_policy.actor_file import read_actor
    from residual_rl_ros.schema import from_mapping
    from residual_rl_ros.tasks.mcts_planner import MctsPlanner
    from residual_rl_ros.tasks.residual_mcts import MctsConfig

    if run is not None and planner is None and not numbers:
        return read_actor(run)
    if run is not None or planner != 'mcts':
        raise ResidualRLError(
            'give a run, a checkpoint or a file, or else --planner mcts with its numbers (--set)'
        )
    search = from_mapping(MctsConfig, numbers, '--set')
    if not config.add_ons:
        raise ResidualRLError('--planner mcts has no add-on to search for; name one with --add-on')
    return MctsPlanner(config.add_ons, config=search)


def bench_learner(
    threads: Annotated[int, typer.Option(min=1, help='Threads of each library.')] = 2,
    repetitions: Annotated[int, typer.Option(min=1, help='Rounds through all of them.')] = 3,
    updates: Annotated[int, typer.Option(min=1, help='Measured updates of each round.')] = 400,
) -> None:
    """Print updates/s of the same SAC here, in Stable-Baselines3 and in SBX, and the limit."""
    from residual_rl_ros.bench.learner import measure, to_markdown

    print(to_markdown(measure(threads, repetitions, updates)), end='')


def _fresh_folder(path: Path) -> Path:
    """Return the path, or the first of path_2, path_3, … that does not exist."""
    number, fresh = 1, path
    while fresh.exists():
        number += 1
        fresh = path.with_name(f'{path.name}_{number}')
    return fresh
