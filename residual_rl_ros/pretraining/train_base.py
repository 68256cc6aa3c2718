# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a base policy by imitation of a scripted expert, export it, and write its model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.pretraining.base_networks import LATENT, ActPolicy, BcPolicy, DiffusionPolicy
from residual_rl_ros.pretraining.demonstrations import Demonstrations, collect, collect_operators
from residual_rl_ros.resources import find_file
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.image_encoder import FEATURES
from residual_rl_ros.schema import from_mapping, parameter, read_yaml
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.hosting import (
    connect,
    control_rate_hz,
    environment_names,
    make_environment,
)
from residual_rl_ros.tasks.parameters import SensorNoise
from residual_rl_ros.tasks.registry import CAMERA_TASKS, TASK_NAMES, make_camera_task, make_task

OPSET = 17
ACT = 'act'
Policy = BcPolicy | DiffusionPolicy | ActPolicy
KINDS: dict[str, type[BcPolicy] | type[DiffusionPolicy]] = {
    'bc': BcPolicy,
    'diffusion': DiffusionPolicy,
}
"""Policies that see the values of the observation."""


@dataclass(frozen=True)
class BaseRecipe:
    """All numbers of a base policy, from `config/base_policies/<task>.yaml`.

    `load_recipe` checks them.
    """

    task: str = parameter(
        MISSING, 'name of the recipe, the model and the fine-tuning configuration', filled=True
    )
    environment: str = parameter(
        MISSING,
        'what is demonstrated: a task of this package or a gymnasium id, with a scripted expert',
        filled=True,
    )
    kind: str = parameter(
        MISSING,
        "diffusion or bc, which see the values of the robot's observation, or act, which sees the "
        'images of its cameras',
        choices=(*KINDS, ACT),
    )
    demonstrations: int = parameter(MISSING, 'number of successful expert episodes', 1)
    demonstration_seed: int = parameter(
        MISSING,
        'first episode seed of the demonstrations; evaluation never uses seeds of this range',
        0,
    )
    task_overrides: dict[str, Any] = parameter(
        MISSING,
        "task parameters of the demonstrations that differ from the evaluation's; noise is a map "
        'of `SensorNoise` fields',
    )
    waypoint_noise: float = parameter(
        MISSING, "standard deviation of the expert's waypoints [m]", 0.0
    )
    action_noise: float = parameter(
        MISSING,
        'standard deviation of the noise on its commands, as a share of half their range',
        0.0,
    )
    n_obs_steps: int = parameter(MISSING, 'observations in the input window', 1)
    horizon: int = parameter(MISSING, 'actions in a chunk', 1)
    exec_start: int = parameter(MISSING, 'index of the action meant for the newest observation', 0)
    exec_steps: int = parameter(MISSING, 'actions of a chunk that are executed', 1)
    gradient_steps: int = parameter(MISSING, 'Adam steps', 1)
    batch_size: int = parameter(MISSING, 'windows per step', 1, 10**5)
    learning_rate: float = parameter(
        MISSING,
        'Adam step size at the start; decays to zero along a cosine',
        above=0.0,
    )
    operators: tuple[dict[str, Any], ...] = parameter(
        (), 'several operators instead of the expert, see `collect_operators`'
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        last = self.exec_start + self.exec_steps
        if last > self.horizon:
            yield (
                f'exec_start + exec_steps is {last}, expected at most horizon, which is '
                f'{self.horizon}'
            )

    def make_demonstration_task(self) -> Env:
        """Build the task as the demonstrations see it, through the encoders of its robot if any.

        What becomes the encoder itself is trained without.

        Raises:
            ResidualRLError: overrides for an environment that takes none.
        """
        overrides = dict(self.task_overrides)
        if self.environment in CAMERA_TASKS:
            robot, _ = load_robot(self.task)
            if self.kind == ACT:
                robot = robot.without_encoders()
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
        ResourceError: there is none.
        ConfigError: a key is missing, unknown or wrong.
    """
    path = find_file('base policy recipe', ('config', 'base_policies'), name_or_path, '.yaml')
    values = read_yaml(path, 'the recipe')
    named = {'task': path.stem, **values} if isinstance(values, dict) else values
    return from_mapping(BaseRecipe, named, str(path))


def train(
    recipe: BaseRecipe,
    demonstrations: Demonstrations,
    seed: int,
    progress: Callable[[int, float], None],
) -> Policy:
    """Fit the policy; the same recipe, data and seed give the same weights.

    Args:
        recipe: numbers.
        demonstrations: training data.
        seed: seeds initialisation and batches.
        progress: called with (step, loss) at intervals.

    Raises:
        ResidualRLError: its kind needs other data.
    """
    observations, actions = (torch.from_numpy(array) for array in demonstrations.flat())
    windows, chunks = (
        torch.from_numpy(array)
        for array in demonstrations.windows(recipe.n_obs_steps, recipe.horizon, recipe.exec_start)
    )
    generator = torch.Generator().manual_seed(seed)
    images = {
        name: torch.from_numpy(array)[:, None]
        for name, array in demonstrations.flat_images().items()
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = _untrained(recipe, observations.shape[1], actions.shape[1], images)
    policy.fit(observations, actions)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=recipe.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.gradient_steps)
    for step in range(recipe.gradient_steps):
        rows = torch.randint(len(windows), (recipe.batch_size,), generator=generator)
        if isinstance(policy, ActPolicy):
            seen = [images[name][rows] for name in policy.cameras]
            loss = policy.loss(windows[rows], chunks[rows], generator, *seen)
        else:
            loss = policy.loss(windows[rows], chunks[rows], generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == recipe.gradient_steps - 1:
            progress(step, float(loss.detach()))
    return policy.eval()


def _untrained(
    recipe: BaseRecipe, observations: int, actions: int, images: Mapping[str, Tensor]
) -> Policy:
    """Return the policy of a recipe.

    Args:
        recipe: numbers.
        observations: size n of an observation.
        actions: number of commands m.
        images: of each camera, shape (samples, 1, height, width, 3).

    Raises:
        ResidualRLError: it is a kind that needs other data.
    """
    if recipe.kind == ACT:
        if not images or recipe.n_obs_steps != 1:
            raise ResidualRLError(
                f'kind act wants images and n_obs_steps 1, and has images of '
                f'{", ".join(images) or "no camera"} and n_obs_steps {recipe.n_obs_steps}'
            )
        sizes = {name: (each.shape[2], each.shape[3]) for name, each in images.items()}
        return ActPolicy(observations, recipe.horizon, actions, sizes)
    return KINDS[recipe.kind](recipe.n_obs_steps, observations, recipe.horizon, actions)


def export(
    policy: Policy,
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
    outputs = ['action']
    if isinstance(policy, ActPolicy):
        for name, size in policy.cameras.items():
            inputs[name] = torch.zeros(1, 1, *size, 3, dtype=torch.uint8)
            outputs.append(name + FEATURES)
        inputs['noise'] = torch.zeros(1, LATENT)
    torch.onnx.export(
        policy,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=outputs,
        opset_version=OPSET,
        dynamo=False,
        dynamic_axes={name: {0: 'batch'} for name in (*inputs, *outputs)},
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
    if isinstance(policy, ActPolicy):
        sizes, features = policy.cameras.items(), policy.feature_names
        images = tuple(ImageInput(name, *size, features) for name, size in sizes)
        metadata = replace(metadata, inputs=images, noise_shape=(LATENT,), noise_default='zero')
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
