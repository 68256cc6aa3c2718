# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train and export the image encoder of a task with a camera.

The encoder turns an image into keypoints, trained so that a small network after them gives the
objects' poses, which the simulator knows. Only the keypoints are exported.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.pretraining.base_networks import Keypoints, keypoint_names
from residual_rl_ros.pretraining.experts import make_expert
from residual_rl_ros.pretraining.train_base import OPSET
from residual_rl_ros.resources import find_file, make_folder
from residual_rl_ros.robot.image_encoder import ENCODER_METADATA_KEY
from residual_rl_ros.schema import from_mapping, parameter, read_yaml
from residual_rl_ros.tasks.hosting import make_environment
from residual_rl_ros.tasks.registry import CAMERA_TASKS, IMAGE_SIZE, CameraObservation


@dataclass(frozen=True)
class EncoderRecipe:
    """All numbers of an encoder, from `config/encoders/<task>.yaml`."""

    images: int = parameter(MISSING, 'images to train on; a tenth as many again are held out', 10)
    first_seed: int = parameter(
        MISSING, 'first episode seed of the images; evaluation never uses seeds of this range', 0
    )
    waypoint_noise: float = parameter(
        MISSING, "standard deviation of the expert's waypoints [m]", 0.0
    )
    action_noise: float = parameter(
        MISSING,
        "standard deviation of what is added to the expert's joint targets [rad], so that the "
        "images show more than the expert's paths",
        0.0,
    )
    keypoints: int = parameter(MISSING, 'keypoints, two features each', 1)
    channels: int = parameter(MISSING, 'feature maps of the hidden layers', 1)
    gradient_steps: int = parameter(MISSING, 'Adam steps', 1)
    batch_size: int = parameter(MISSING, 'images per step', 1, 10**4)
    learning_rate: float = parameter(
        MISSING,
        'Adam step size at the start; decays to zero along a cosine',
        above=0.0,
    )


def load_encoder_recipe(task: str) -> EncoderRecipe:
    """Read the recipe of a task's encoder.

    Raises:
        ResidualRLError: the task has no camera.
        ResourceError: there is none.
        ConfigError: a key is missing, unknown or wrong.
    """
    if task not in CAMERA_TASKS:
        raise ResidualRLError(
            f'task {task!r} has no camera; those that have one: {", ".join(CAMERA_TASKS)}'
        )
    path = find_file('encoder recipe', ('config', 'encoders'), task, '.yaml')
    return from_mapping(EncoderRecipe, read_yaml(path, 'the recipe'), str(path))


@dataclass(frozen=True)
class LabelledImages:
    """Images and the poses that they show."""

    images: npt.NDArray[np.uint8]
    """Shape (count, height, width, 3)."""
    targets: npt.NDArray[np.float32]
    """Positions of block and goal [m], then the block's yaw [rad], shape (count, 5)."""

    @property
    def sha256(self) -> str:
        """Digest of all numbers, in order."""
        return hashlib.sha256(self.images.tobytes() + self.targets.tobytes()).hexdigest()


def collect_images(task: str, recipe: EncoderRecipe, count: int, seed: int) -> LabelledImages:
    """Take images along the episodes of a noisy expert.

    Args:
        task: task with a camera.
        recipe: numbers.
        count: number of images.
        seed: first episode seed; the following count up.
    """
    env = make_environment(task)
    assert isinstance(env, CameraObservation)
    rng = np.random.default_rng(seed)
    expert = make_expert(task, rng=rng, waypoint_noise=recipe.waypoint_noise)
    images: list[npt.NDArray[np.uint8]] = []
    targets: list[list[float]] = []
    while len(images) < count:
        observation, _ = env.reset(seed=seed)
        seed += 1
        expert.reset(env.unwrapped)
        done = False
        while not done:
            images.append(observation['camera'])
            targets.append(_poses(env.unwrapped))
            action = expert.act(env.unwrapped)
            action = action + recipe.action_noise * rng.standard_normal(len(action))
            observation, _, terminated, truncated, _ = env.step(action.astype(np.float32))
            done = terminated or truncated
    env.close()
    return LabelledImages(np.stack(images[:count]), np.array(targets[:count], dtype=np.float32))


def _poses(env: Any) -> list[float]:
    """Return x and y of block and goal in the base frame [m], and the block's yaw [rad]."""
    block, goal = env.block_pose(), env.goal_position()
    return [*block.position[:2], *goal[:2], block.yaw]


class KeypointEncoder(nn.Module):
    """Keypoints of an image, and in training a readout of what they tell.

    Args:
        keypoints: number of keypoints.
        channels: feature maps of the hidden layers.
        targets: numbers that the readout predicts in training.
    """

    readout_mean: Tensor
    readout_std: Tensor

    def __init__(self, keypoints: int, channels: int, targets: int) -> None:
        super().__init__()
        self.keypoints = Keypoints(keypoints, channels, IMAGE_SIZE)
        self.readout = nn.Sequential(
            nn.Linear(2 * keypoints, 64), nn.ReLU(), nn.Linear(64, targets)
        )
        self.register_buffer('readout_mean', torch.zeros(targets))
        self.register_buffer('readout_std', torch.ones(targets))

    def forward(self, image: Tensor) -> Tensor:
        """Return features (batch, 2 * keypoints) of uint8 RGB images."""
        features: Tensor = self.keypoints(image)
        return features

    def loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of the poses, each over its variance."""
        error = self.readout(self(image)) - (target - self.readout_mean) / self.readout_std
        loss: Tensor = error.pow(2).mean()
        return loss

    @torch.no_grad()
    def predict(self, image: Tensor) -> Tensor:
        """Return the poses that the readout sees."""
        predicted: Tensor = self.readout(self(image)) * self.readout_std + self.readout_mean
        return predicted


def train_encoder(
    recipe: EncoderRecipe, data: LabelledImages, seed: int, progress: Callable[[int, float], None]
) -> KeypointEncoder:
    """Fit the encoder; the same recipe, data and seed give the same weights."""
    images, targets = torch.from_numpy(data.images), torch.from_numpy(data.targets)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = KeypointEncoder(recipe.keypoints, recipe.channels, targets.shape[1])
    encoder.readout_mean.copy_(targets.mean(0))
    encoder.readout_std.copy_(targets.std(0).clamp_min(1e-3))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.gradient_steps)
    for step in range(recipe.gradient_steps):
        rows = torch.randint(len(images), (recipe.batch_size,), generator=generator)
        loss = encoder.loss(images[rows], targets[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == recipe.gradient_steps - 1:
            progress(step, float(loss.detach()))
    return encoder.eval()


def export_encoder(encoder: KeypointEncoder, recipe: EncoderRecipe, path: Path) -> None:
    """Write the encoder as ONNX with its feature names."""
    torch.onnx.export(
        encoder,
        (torch.zeros(1, *IMAGE_SIZE, 3, dtype=torch.uint8),),
        str(path),
        input_names=['image'],
        output_names=['features'],
        opset_version=OPSET,
        dynamo=False,
    )
    names = keypoint_names(recipe.keypoints)
    model = onnx.load(str(path))
    text = json.dumps({'feature_names': names})
    onnx.helper.set_model_props(model, {ENCODER_METADATA_KEY: text})
    onnx.save(model, str(path))


def train_encoder_with_card(
    task: str, folder: Path, seed: int, progress: Callable[[int, float], None]
) -> str:
    """Write `<task>.onnx` and `<task>.md`.

    Args:
        task: task with a camera.
        folder: where to write.
        seed: training seed.
        progress: called with (step, loss) at intervals.

    Returns:
        The held-out error, in words.

    Raises:
        ResidualRLError: the recipe is wrong or the folder cannot be written.
    """
    recipe = load_encoder_recipe(task)
    make_folder(folder)
    # One thread: the order of sums, and so the weights, must not depend on the machine's cores.
    torch.set_num_threads(1)
    data = collect_images(task, recipe, recipe.images, recipe.first_seed)
    held_out = collect_images(task, recipe, recipe.images // 10, 2 * recipe.first_seed)
    encoder = train_encoder(recipe, data, seed, progress)
    path = folder / f'{task}.onnx'
    export_encoder(encoder, recipe, path)
    miss = encoder.predict(torch.from_numpy(held_out.images)).numpy() - held_out.targets
    block, goal = 1e3 * np.hypot(miss[:, [0, 2]], miss[:, [1, 3]]).mean(0)
    yaw = math.degrees(float(np.abs(miss[:, 4]).mean()))
    errors = f'block {block:.1f} mm and {yaw:.1f} degrees, goal {goal:.1f} mm'
    digest = file_sha256(path)
    path.with_suffix('.md').write_text(
        f"""# Image encoder `{task}`

{recipe.keypoints} keypoints by spatial softmax, trained so that a small network after them gives
the poses of block and goal; only the keypoints are in the file.

| | |
|---|---|
| mean error of that network | {errors}, on {len(held_out.targets)} held-out images |
| input | `image`, uint8 [1, {IMAGE_SIZE[0]}, {IMAGE_SIZE[1]}, 3], RGB |
| output | `features`, float32 [1, {2 * recipe.keypoints}], in [-1, 1] |
| file | `{path.name}`, {path.stat().st_size / 1e6:.2f} MB, sha256 `{digest}` |
| data | {len(data.targets)} images along a noisy expert's episodes, sha256 `{data.sha256}` |
| seed | {seed} |
| command | `residual-rl train-encoder --task {task} --seed {seed}` |

Images are drawn by the machine's OpenGL, so another driver gives other bytes.
""",
        encoding='utf-8',
    )
    return errors
