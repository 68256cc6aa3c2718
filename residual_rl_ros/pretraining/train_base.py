# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a base policy by imitation of a scripted expert, export it, and write its model card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from rich.console import Console
from torch import Tensor

from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.pretraining.base_figures import CARD_SEED, noise_row, success_of
from residual_rl_ros.pretraining.base_networks import BcPolicy, DiffusionPolicy
from residual_rl_ros.pretraining.demonstrations import Demonstrations, collect, collect_operators
from residual_rl_ros.resources import demonstrations_of, find_file, read_record
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.hosting import (
    connect,
    control_rate_hz,
    environment_names,
    finetune_for_environment,
    make_environment,
)
from residual_rl_ros.tasks.parameters import SensorNoise
from residual_rl_ros.tasks.registry import CAMERA_TASKS, TASK_NAMES, make_camera_task, make_task

OPSET = 17


@dataclass(frozen=True)
class BaseRecipe:
    """All numbers of a base policy, from `config/base_policies/<task>.yaml`."""

    task: str
    """Name of the recipe, the model and the fine-tuning configuration."""
    environment: str
    """What is demonstrated: a task of this package or a gymnasium id, with a scripted expert."""
    kind: str
    """`diffusion` or `bc`."""
    demonstrations: int
    """Number of successful expert episodes."""
    demonstration_seed: int
    """First episode seed of the demonstrations; evaluation never uses seeds of this range."""
    task_overrides: Mapping[str, Any]
    """Task parameters of the demonstrations that differ from the evaluation's; `noise` is a map
    of `SensorNoise` fields."""
    waypoint_noise: float
    """Standard deviation of the expert's waypoints [m]."""
    action_noise: float
    """Standard deviation of the noise on its commands, as a share of half their range."""
    n_obs_steps: int
    """Observations in the input window."""
    horizon: int
    """Actions in a chunk."""
    exec_start: int
    """Index of the action meant for the newest observation."""
    exec_steps: int
    """Actions of a chunk that are executed."""
    gradient_steps: int
    """Adam steps."""
    batch_size: int
    """Windows per step."""
    learning_rate: float
    """Adam step size at the start; decays to zero along a cosine."""
    operators: tuple[Mapping[str, Any], ...] = ()
    """Several operators instead of the expert, see `collect_operators`."""

    def make_demonstration_task(self) -> Env:
        """Build the task as the demonstrations see it, through the encoders of its robot if any.

        Raises:
            ResidualRLError: overrides for an environment that takes none.
        """
        overrides = dict(self.task_overrides)
        if self.environment in CAMERA_TASKS:
            robot, _ = load_robot(self.task)
            return connect(make_camera_task(self.environment, **overrides), robot)
        if self.environment not in TASK_NAMES:
            if overrides:
                raise ResidualRLError(
                    f'task_overrides is {overrides}, but {self.environment!r} is no task of this '
                    f'package ({", ".join(TASK_NAMES)}); remove them'
                )
            return make_environment(self.environment)
        if 'noise' in overrides:
            overrides['noise'] = SensorNoise(**overrides['noise'])
        return make_task(self.environment, **overrides)

    def collect(self) -> Demonstrations:
        """Return the demonstrations; they are the same each time.

        Raises:
            ResidualRLError: the expert fails, or overrides for an environment that takes none.
        """
        if self.operators:
            given = sum(int(group['demonstrations']) for group in self.operators)
            if given != self.demonstrations or self.action_noise:
                raise ResidualRLError(
                    f'demonstrations is {self.demonstrations} and action_noise '
                    f'{self.action_noise}, expected {given}, the sum of the operators, and 0'
                )
            return collect_operators(
                self.make_demonstration_task(),
                self.environment,
                self.operators,
                self.demonstration_seed,
                self.waypoint_noise,
            )
        return collect(
            self.make_demonstration_task(),
            self.environment,
            self.demonstrations,
            self.demonstration_seed,
            self.waypoint_noise,
            self.action_noise,
        )


def load_recipe(name_or_path: str) -> BaseRecipe:
    """Read the recipe of a base policy: a path, or the name of a shipped one.

    Raises:
        ResourceError: there is none, or a key is missing or unknown.
    """
    path = find_file('base policy recipe', ('config', 'base_policies'), name_or_path, '.yaml')
    return read_record(BaseRecipe, path, task=path.stem)


def train(
    recipe: BaseRecipe,
    demonstrations: Demonstrations,
    seed: int,
    progress: Callable[[int, float], None],
) -> BcPolicy | DiffusionPolicy:
    """Fit the policy; the same recipe, data and seed give the same weights.

    Args:
        recipe: numbers.
        demonstrations: training data.
        seed: seeds initialisation and batches.
        progress: called with (step, loss) at intervals.

    Raises:
        ResidualRLError: unknown policy kind.
    """
    kinds: dict[str, type[BcPolicy] | type[DiffusionPolicy]] = {
        'bc': BcPolicy,
        'diffusion': DiffusionPolicy,
    }
    if recipe.kind not in kinds:
        raise ResidualRLError(f'unknown policy kind {recipe.kind!r}; known: {", ".join(kinds)}')
    observations, actions = (torch.from_numpy(array) for array in demonstrations.flat())
    windows, chunks = (
        torch.from_numpy(array)
        for array in demonstrations.windows(recipe.n_obs_steps, recipe.horizon, recipe.exec_start)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = kinds[recipe.kind](
            recipe.n_obs_steps, observations.shape[1], recipe.horizon, actions.shape[1]
        )
    policy.fit(observations, actions)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=recipe.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.gradient_steps)
    for step in range(recipe.gradient_steps):
        rows = torch.randint(len(windows), (recipe.batch_size,), generator=generator)
        loss = policy.loss(windows[rows], chunks[rows], generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == recipe.gradient_steps - 1:
            progress(step, float(loss.detach()))
    return policy.eval()


def export(
    policy: BcPolicy | DiffusionPolicy,
    recipe: BaseRecipe,
    demonstrations: Demonstrations,
    path: Path,
) -> None:
    """Write the policy as ONNX with its metadata."""
    env = recipe.make_demonstration_task()
    observation_names, action_names = environment_names(env)
    n, m = len(observation_names), len(action_names)
    inputs: dict[str, Tensor] = {'observation': torch.zeros(1, recipe.n_obs_steps, n)}
    if isinstance(policy, DiffusionPolicy):
        inputs['noise'] = torch.zeros(1, recipe.horizon, m)
    torch.onnx.export(
        policy,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=['action'],
        opset_version=OPSET,
        dynamo=False,
        dynamic_axes={name: {0: 'batch'} for name in (*inputs, 'action')},
    )
    _, actions = demonstrations.flat()
    metadata = BasePolicyMetadata(
        observation_names=observation_names,
        action_names=action_names,
        action_min=tuple(actions.min(0).astype(np.float64).tolist()),
        action_max=tuple(actions.max(0).astype(np.float64).tolist()),
        rate_hz=control_rate_hz(env),
        n_obs_steps=recipe.n_obs_steps,
        horizon=recipe.horizon,
        exec_start=recipe.exec_start,
        exec_steps=recipe.exec_steps,
        kind=recipe.kind,
        task=recipe.task,
        dataset_sha256=demonstrations.sha256,
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, str(path))


def train_base_policy(
    recipe: BaseRecipe, seed: int, path: Path, progress: Callable[[int, float], None]
) -> Demonstrations:
    """Collect demonstrations, train on them and write the model.

    Returns:
        The demonstrations, for the model card.
    """
    demonstrations = recipe.collect()
    policy = train(recipe, demonstrations, seed, progress)
    export(policy, recipe, demonstrations, path)
    return demonstrations


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResidualRLError(f'folder {str(folder)!r} cannot be made: {error.strerror}') from error
    path = folder / f'{recipe.task}.onnx'
    # One thread: the order of sums, and so the weights, must not depend on the machine's cores.
    torch.set_num_threads(1)
    console.print(f'{recipe.demonstrations} demonstrations, {recipe.gradient_steps} steps')
    demonstrations = train_base_policy(
        recipe, seed, path, lambda step, loss: console.print(f'step {step}: loss {loss:.6f}')
    )
    data = demonstrations_of(path)
    env = recipe.make_demonstration_task()
    demonstrations.save(data, *environment_names(env), control_rate_hz(env))
    seeds = range(CARD_SEED, CARD_SEED + evaluation_seeds)
    with run_of(recipe, path) as config:
        rate, steps = success_of(config, seeds)
        console.print(f'success {rate} on seeds {seeds.start}..{seeds.stop - 1}')
        noise = noise_row(config, evaluation_seeds)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
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
sha256 `{demonstrations.sha256}`; in `{data.name}` |
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
    'push_to_goal_camera': 'It fails because its demonstrations are few and it sees block and\n'
    'goal some millimetres off: the block slips off to a side.',
}
