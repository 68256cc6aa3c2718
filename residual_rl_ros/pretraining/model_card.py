# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a base policy, evaluate it on its own, and write its model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from rich.console import Console

from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.evaluation.intervals import Rate, wilson
from residual_rl_ros.evaluation.noises import DIAGNOSIS_SEED, play_noises, study_noise
from residual_rl_ros.evaluation.paired import evaluate
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.pretraining.train_base import BaseRecipe, load_recipe, train_base_policy
from residual_rl_ros.resources import demonstrations_of, make_folder
from residual_rl_ros.tasks.hosting import (
    control_rate_hz,
    environment_names,
    finetune_for_environment,
)
from residual_rl_ros.tasks.registry import CAMERA_TASKS, TASK_NAMES

CARD_SEED = 20_000
"""First held-out seed of the card's success."""
NOISES = 8
"""Noises with which each start of the card's pass@k is played."""


def success_of(config: RunConfig, seeds: Sequence[int]) -> tuple[Rate, float]:
    """Return how often a base policy succeeds on its own, and in how many control steps.

    Args:
        config: names the base policy and its environment.
        seeds: of the environment.
    """
    episodes = list(evaluate(config, seeds))
    steps = [episode.steps for episode in episodes if episode.success]
    rate = wilson([bool(episode.success) for episode in episodes])
    return rate, float(np.mean(steps)) if steps else math.nan


def noise_row(config: RunConfig, starts: int) -> str:
    """Return the row of the card that says what the noise decides; empty without noise.

    Args:
        config: names the base policy and its environment.
        starts: number of starts, as many seeds of the environment; none are played for fewer than
            two.
    """
    if starts < 2 or not config.resolve().policy.stochastic:
        return ''
    seeds = range(DIAGNOSIS_SEED, DIAGNOSIS_SEED + starts)
    played = [attempt.success for attempt in play_noises(config, seeds, NOISES)]
    outcomes = np.array(played).reshape(starts, NOISES)
    study = study_noise(outcomes, np.random.default_rng(0))
    rates = ', '.join(f'pass@{k} {value.shown(".0%")}' for k, value in study.pass_at.items())
    share = study.start_share
    explained = '' if share is None else f'; the start explains {share.shown(".0%")} of the outcome'
    return (
        f'| over its noise | {rates}{explained}; {starts} starts, seeds {seeds.start} to '
        f'{seeds.stop - 1}, with {NOISES} noises each |\n'
    )


@contextmanager
def run_of(recipe: BaseRecipe, path: Path) -> Iterator[RunConfig]:
    """Yield the run of a base policy; the robot of a task of others is described for as long.

    Args:
        recipe: says the environment.
        path: the model.
    """
    with TemporaryDirectory() as scratch:
        if recipe.environment in TASK_NAMES or recipe.environment in CAMERA_TASKS:
            yield replace(load_run(recipe.task), base_policy=str(path))
        else:
            yield finetune_for_environment(recipe.environment, path, 0.0, Path(scratch))


MODELS = Path('models')
"""Where the shipped base policies are."""


def train_with_card(
    task: str, folder: Path, seed: int, evaluation_seeds: int, console: Console
) -> None:
    """Write `<recipe>.onnx`, `<recipe>.md` and `<recipe>.demonstrations.safetensors`.

    Args:
        task: task with a recipe, or the path of a recipe.
        folder: where to write.
        seed: training seed.
        evaluation_seeds: number of held-out seeds, and of starts of pass@k.
        console: where progress goes.

    Raises:
        ResidualRLError: the folder cannot be written.
    """
    recipe = load_recipe(task)
    make_folder(folder)
    path = folder / f'{recipe.task}.onnx'
    # One thread: the order of sums, and so the weights, must not depend on the machine's cores.
    torch.set_num_threads(1)
    console.print(f'{recipe.demonstrations} demonstrations, {recipe.gradient_steps} steps')
    demonstrations = train_base_policy(
        recipe, seed, path, lambda step, loss: console.print(f'step {step}: loss {loss:.6f}')
    )
    kept = 'not kept: images are in no demonstration file'
    if not demonstrations.images:
        data = demonstrations_of(path)
        env = recipe.make_demonstration_task()
        demonstrations.save(data, *environment_names(env), control_rate_hz(env))
        kept = f'in `{data.name}`'
    seeds = range(CARD_SEED, CARD_SEED + evaluation_seeds)
    with run_of(recipe, path) as config:
        rate, steps = success_of(config, seeds)
        console.print(f'success {rate} on seeds {seeds.start}..{seeds.stop - 1}')
        noise = noise_row(config, evaluation_seeds)
    digest = file_sha256(path)
    count = len(demonstrations.episodes)
    samples = sum(len(actions) for _, actions in demonstrations.episodes)
    where = '' if folder == MODELS else f' --out {folder}'
    recipe_text = yaml.safe_dump(asdict(recipe), sort_keys=False).rstrip()
    path.with_suffix('.md').write_text(
        f"""# Base policy `{recipe.task}`

{_KINDS[recipe.kind]}.
Trained on scripted demonstrations and meant to be imperfect: it is what residual fine-tuning starts
from. {_REASONS.get(recipe.task, _FEW)}

| | |
|---|---|
| success | {rate} (95 % Wilson interval) on {rate.trials} held-out seeds, \
{seeds.start} to {seeds.stop - 1} |
{noise}\
| episodes | {steps:.0f} control steps to a success, {samples / count:.0f} in the demonstrations |
| file | `{path.name}`, {path.stat().st_size / 1e6:.2f} MB, sha256 `{digest}` |
| data | {count} demonstrations, {samples} samples, \
sha256 `{demonstrations.sha256}`; {kept} |
| seed | {seed} |
| command | `residual-rl train-base --task {task}{where} --seed {seed}` |

The evaluation runs the task as it is, with its default parameters. The recipe:

```yaml
{recipe_text}
```
""",
        encoding='utf-8',
    )


_KINDS = {
    'diffusion': 'Diffusion policy (chunked, DDIM loop unrolled in the graph, noise as an input)',
    'bc': 'Chunked behaviour cloning with an L1 loss, ACT style',
    'act': 'ACT style: images as keypoints, a transformer decoder of chunks, a latent that is\n'
    'zero by default',
}
_FEW = 'It fails because its demonstrations are few and noisy.'
_REASONS = {
    'peg_insert': 'It fails because its demonstrations are few and had a looser\npeg: between '
    'them it reaches the rim some millimetres off and presses the peg on the block.',
    'fetch_pick_and_place': 'It fails because its demonstrations are few: it closes the fingers\n'
    'beside the object or loses it on the way.',
    'push_to_goal': 'It fails because its demonstrations are few: the block slips off\nto a side '
    'and the policy has not seen how to bring it back.',
    'push_to_goal_operators': 'It fails because some of its operators push beside the centre:\n'
    'at each moment it may do what any of them does.',
    'pick_place_camera': 'It fails because its demonstrations are few: the fingers come down some\n'
    'millimetres off, or the cube is put down beside the disc.',
    'push_to_goal_camera': 'It fails because its demonstrations are few and it sees block and\n'
    'goal some millimetres off: the block slips off to a side.',
}
