# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An ACT-style base takes images and a latent, and its graph says what its network says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from residual_rl_ros.base_policy.inputs import Context
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.evaluation.paired import run_episode
from residual_rl_ros.pretraining.base_networks import LATENT, ActPolicy
from residual_rl_ros.pretraining.demonstrations import Demonstrations
from residual_rl_ros.pretraining.train_base import export, load_recipe, train
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.robot.image_encoder import ImageEncoder
from residual_rl_ros.tasks.hosting import make_environment
from residual_rl_ros.tasks.robot_view import RobotView
from residual_rl_ros.transitions.transition import Transition

TASK = 'pick_place_camera'
RECIPE = replace(load_recipe(TASK), demonstrations=1, gradient_steps=8, batch_size=8)


@pytest.fixture(scope='module')
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ActPolicy, Demonstrations, Path, list[float]]:
    """Return a policy of few steps, what it is trained on, its file, and the losses."""
    path = tmp_path_factory.mktemp('act') / 'act.onnx'
    torch.set_num_threads(1)
    data, losses = RECIPE.collect(), []
    policy = train(RECIPE, data, 0, lambda _, loss: losses.append(loss))
    assert isinstance(policy, ActPolicy)
    export(policy, RECIPE, data, path)
    return policy, data, path, losses


def test_the_graph_says_what_the_network_says_for_any_number_of_latents(
    trained: tuple[ActPolicy, Demonstrations, Path, list[float]],
) -> None:
    network, data, path, _ = trained
    policy = OnnxBasePolicy(path)
    meta = policy.metadata
    assert meta.image_sizes == {'front': (64, 64), 'wrist': (64, 64)}
    assert (policy.noise_shape, meta.noise_default) == ((LATENT,), 'zero')
    assert meta.dataset_sha256 == data.sha256
    observations = data.episodes[0][0]
    images = {name: frames[9:10] for name, frames in data.flat_images().items()}
    latents = np.random.default_rng(0).standard_normal((8, LATENT), dtype=np.float32)
    rows = policy.plan(observations[9:10], latents, Context(images))
    with torch.no_grad():
        told = network(
            torch.from_numpy(observations[9:10])[None].expand(8, -1, -1),
            *(torch.from_numpy(images[name])[None].expand(8, -1, -1, -1, -1) for name in images),
            torch.from_numpy(latents),
        )[0].numpy()
    np.testing.assert_allclose(rows, np.concatenate(list(told), axis=1), atol=2e-6)
    assert np.abs(rows[:, :4] - rows[:, 4:8]).max() > 1e-6  # The latent says something.


def test_its_features_are_an_encoder_of_each_camera(
    trained: tuple[ActPolicy, Demonstrations, Path, list[float]],
) -> None:
    network, data, path, _ = trained
    for index, (name, frames) in enumerate(data.flat_images().items()):
        encoder = ImageEncoder(path, channel=name)
        with torch.no_grad():
            expected = network.encoders[index](torch.from_numpy(frames[:1]))[0]
        np.testing.assert_allclose(encoder.encode(frames[0]), expected, atol=1e-5)
        assert encoder.feature_names == network.feature_names


def _robot(path: Path) -> RobotConfig:
    """Return the shipped robot with the features of another policy."""
    robot, _ = load_robot(TASK)
    channels = (replace(c, encoder=str(path)) if c.is_image else c for c in robot.channels)
    return replace(robot, channels=tuple(channels))


def test_it_acts_on_what_the_cameras_see_and_the_residual_sees_its_features(
    trained: tuple[ActPolicy, Demonstrations, Path, list[float]],
) -> None:
    _, _, path, _ = trained
    robot = _robot(path)
    policy = OnnxBasePolicy(path)
    policy.bind(robot)
    config = ControllerConfig(4, (0.1, 0.1, 0.0, 0.0), scheduled_actor=False, explore=False)
    made = []
    for _ in range(2):
        controller = config.build(policy, robot.action)
        env = RobotView(make_environment(TASK), robot)
        transitions: list[Transition] = []
        run_episode(env, controller, 3, 0, transitions.append)
        controller.queue.close()
        env.close()
        made.append(np.stack([each.observation for each in transitions]))
    assert made[0].shape[1] == len(robot.observation_names) == 8 + 2 * 24
    np.testing.assert_array_equal(*made)
    assert np.abs(np.diff(made[0][:, 8:], axis=0)).max() > 0.0


def test_a_kind_without_its_data_is_refused() -> None:
    data = Demonstrations(((np.zeros((3, 8), np.float32), np.zeros((3, 4), np.float32)),))
    wanted = 'kind act wants images and n_obs_steps 1, and has images of no camera'
    with pytest.raises(ResidualRLError, match=wanted):
        train(RECIPE, data, 0, lambda _, loss: None)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'kind': 'vae'}, "kind is 'vae', expected one of bc, diffusion, act"),
        ({'demonstrations': 0}, 'demonstrations is 0, expected a whole number >= 1'),
        ({'exec_steps': 50}, 'exec_start [+] exec_steps is 50, expected at most horizon'),
        ({'horizont': 3}, 'horizont is unknown; did you mean horizon'),
    ],
)
def test_a_recipe_that_is_none_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / 'recipe.yaml'
    path.write_text(yaml.safe_dump({**asdict(RECIPE), **change}))
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(path))
