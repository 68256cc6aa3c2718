# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a base policy, measure it on held-out seeds and write its card."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import torch
import yaml
from rich.console import Console

from residual_rl_ros.evaluation.intervals import wilson
from residual_rl_ros.evaluation.paired import evaluate
from residual_rl_ros.finetune import load_finetune
from residual_rl_ros.sim.train_base import TrainBaseError, load_recipe, train_base_policy

CARD_SEED = 20_000
"""First held-out seed of the card's success."""


def train_with_card(
    task: str, folder: Path, seed: int, evaluation_seeds: int, console: Console
) -> None:
    """Write `<task>.onnx` and `<task>.md`.

    Args:
        task: task with a recipe.
        folder: where to write.
        seed: training seed.
        evaluation_seeds: number of held-out seeds.
        console: where progress goes.

    Raises:
        TrainBaseError: the folder cannot be written.
    """
    recipe = load_recipe(task)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainBaseError(f'folder {str(folder)!r} cannot be made: {error.strerror}') from error
    path = folder / f'{task}.onnx'
    # One thread: the order of sums, and so the weights, must not depend on the machine's cores.
    torch.set_num_threads(1)
    console.print(f'{recipe.demonstrations} demonstrations, {recipe.gradient_steps} steps')
    demonstrations = train_base_policy(
        recipe, seed, path, lambda step, loss: console.print(f'step {step}: loss {loss:.6f}')
    )
    config = replace(load_finetune(task), base_policy=str(path))
    seeds = range(CARD_SEED, CARD_SEED + evaluation_seeds)
    outcomes = [episode.success for episode in evaluate(config, seeds)]
    rate = wilson(outcomes)
    console.print(f'success {rate} on seeds {seeds.start}..{seeds.stop - 1}')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    samples = sum(len(actions) for _, actions in demonstrations.episodes)
    recipe_text = yaml.safe_dump(asdict(recipe), sort_keys=False).rstrip()
    path.with_suffix('.md').write_text(
        f"""# Base policy `{task}`

{_KINDS[recipe.kind]}.
Trained on scripted demonstrations and meant to be imperfect: it is what residual fine-tuning starts
from. {_REASONS[task]}

| | |
|---|---|
| success | {rate} (95 % Wilson interval) on {rate.trials} held-out seeds, \
{seeds.start} to {seeds.stop - 1} |
| file | `{path.name}`, {path.stat().st_size / 1e6:.2f} MB, sha256 `{digest}` |
| data | {len(demonstrations.episodes)} demonstrations, {samples} samples, \
sha256 `{demonstrations.sha256}` |
| seed | {seed} |
| command | `residual-rl train-base --task {task} --seed {seed}` |

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
}
_REASONS = {
    'peg_insert': 'It fails because its demonstrations are few and had a looser\npeg: between '
    'them it reaches the rim some millimetres off and presses the peg on the block.',
    'fetch_pick_and_place': 'It fails because its demonstrations are few: it closes the fingers\n'
    'beside the object or loses it on the way.',
    'push_to_goal': 'It fails because its demonstrations are few: the block slips off\nto a side '
    'and the policy has not seen how to bring it back.',
    'push_to_goal_camera': 'It fails because its demonstrations are few and it sees block and\n'
    'goal some millimetres off: the block slips off to a side.',
}
