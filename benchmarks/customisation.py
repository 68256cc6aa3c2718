# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Customise a prior of CartPole, MountainCar or HalfCheetah: against itself, and full RL.

`python benchmarks/customisation.py run OUT --case CASE --arm ARM` trains learner seeds one after
the other and evaluates each (finished ones are kept), `table OUT` puts the means together. The
protocols are in docs/lab/2026-11-29-customisation.md and 2026-11-29-residual-ppo-half-cheetah.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.evaluation.intervals import mean_interval
from residual_rl_ros.evaluation.paired import EVALUATION_SEED, evaluate
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.tasks.hosting import finetune_for_environment
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.train import run_training

app = typer.Typer(no_args_is_help=True, add_completion=False)
PRIOR = 'prior'
ARMS: dict[str, dict[str, Any]] = {
    PRIOR: {},
    'customised': {},
    'light': {'prior_weight': 0.01, 'temperature': 0.01},
    'full': {'prior_weight': 0.0, 'reward': 'total'},
}
"""Numbers of an arm that differ from the preset: `light` weighs the prior less, and `full` learns
the sum of both rewards from nothing (full RL)."""
Case = Annotated[str, typer.Option(help='cart_pole, mountain_car or half_cheetah.')]


@dataclass(frozen=True)
class Recipe:
    """How a prior is customised."""

    environment: str
    add_on: str
    preset: str
    residual_scale: float
    """So large that every action can be reached from every base action."""
    prior_temperature: float = 1.0
    """Temperature at which the prior is taken to be optimal, of the arms with PPO."""


CASES = {
    'cart_pole': Recipe('cart_pole', 'cart_pole_centre', 'residual_soft_q', 1.0),
    'mountain_car': Recipe('mountain_car', 'mountain_car_less_left', 'residual_sac', 2.0),
    'half_cheetah': Recipe('half_cheetah', 'half_cheetah_front_foot', 'residual_sac', 2.0, 0.2),
}
ON_POLICY: dict[str, tuple[str, dict[str, Any]]] = {
    'residual_ppo': ('residual_ppo', {'prior_weight': 1.0, 'temperature': 0.1}),
    'kl_ppo': ('kl_ppo', {'prior_weight': 1.0, 'temperature': 1.0}),
    'greedy_ppo': ('kl_ppo', {'prior_weight': 0.0, 'temperature': 0.0}),
    'full_ppo': ('soft_ppo', {'reward': 'total'}),
}
"""Preset and changes of the arms with PPO; knobs are in units of the prior's temperature."""


KNOBS = ('prior_weight', 'temperature')


def make_config(case: str, arm: str, prior: Path, steps: int, folder: Path) -> RunConfig:
    """Return the run of an arm."""
    recipe = CASES[case]
    folder.mkdir(parents=True, exist_ok=True)
    config = finetune_for_environment(recipe.environment, prior, recipe.residual_scale, folder)
    preset, changes = recipe.preset, ARMS.get(arm, {})
    if arm in ON_POLICY:
        preset, knobs = ON_POLICY[arm]
        unit = recipe.prior_temperature
        changes = {key: unit * at if key in KNOBS else at for key, at in knobs.items()}
    config = replace(config, preset=preset, control_steps=steps)
    return config.with_add_ons([recipe.add_on]).changed(changes)


@app.command()
def run(
    out: Path,
    case: Case,
    arm: Annotated[str, typer.Option(help=f'One of {", ".join([*ARMS, *ON_POLICY])}.')],
    prior: Annotated[Path, typer.Option(help='ONNX file of the prior.')],
    seeds: Annotated[int, typer.Option(min=1, help='Learner seeds, from 0 on.')] = 5,
    steps: Annotated[int, typer.Option(min=1, help='Control steps.')] = 100_000,
    episodes: Annotated[int, typer.Option(min=1, help='Scenes of an evaluation.')] = 50,
) -> None:
    """Train and evaluate an arm; the prior is only evaluated."""
    console = Console(stderr=True)
    for seed in range(1 if arm == PRIOR else seeds):
        folder = out / f'{case}_{arm}_{seed}'
        result = folder / 'episodes.json'
        if result.exists():
            continue
        config = make_config(case, arm, prior, steps, folder)
        message = None
        if arm != PRIOR:
            trained = folder / 'run'
            run_training(TrainOptions(config, seed, trained, paired_seeds=0), console)
            message = read_actor(trained)
        scenes = range(EVALUATION_SEED, EVALUATION_SEED + episodes)
        played = [asdict(each) for each in evaluate(config, scenes, message, workers=1)]
        result.write_text(json.dumps(played), encoding='utf-8')


@app.command()
def table(out: Path) -> None:
    """Print basic, add-on and total return of every arm."""
    print('| case | arm | seeds | basic | add-on | total | success |')
    print('|---|---|---|---|---|---|---|')
    for case in CASES:
        for arm in (*ARMS, *ON_POLICY):
            files = sorted(out.glob(f'{case}_{arm}_*/episodes.json'))
            if files:
                print(row(case, arm, [read(each) for each in files]))


def read(path: Path) -> list[Episode]:
    """Return the episodes of one learner seed."""
    return [Episode(**each) for each in json.loads(path.read_text(encoding='utf-8'))]


def row(case: str, arm: str, runs: Sequence[Sequence[Episode]]) -> str:
    """Return a line of the table: means over runs, or over the episodes of the only one."""
    cells = []
    for name in ('episode_return', 'add_on_return', 'total_return'):
        each = [[getattr(episode, name) for episode in episodes] for episodes in runs]
        values = [float(np.mean(returns)) for returns in each] if len(each) > 1 else each[0]
        cells.append(str(mean_interval(values)))
    success = np.mean([bool(episode.success) for episodes in runs for episode in episodes])
    return f'| {case} | {arm} | {len(runs)} | {" | ".join(cells)} | {success:.0%} |'


if __name__ == '__main__':
    app()
