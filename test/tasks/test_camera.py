# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A task with a camera shows its objects in an image and nowhere else."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.pretraining.train_encoder import (
    EncoderRecipe,
    collect_images,
    export_encoder,
    load_encoder_recipe,
    train_encoder,
)
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.image_encoder import channel_encoder
from residual_rl_ros.tasks import scene_env as rendering
from residual_rl_ros.tasks.hosting import (
    check_environment,
    connect,
    describe_robot,
    make_environment,
)
from residual_rl_ros.tasks.registry import make_camera_task, make_task
from residual_rl_ros.tasks.robot_view import split_observation

TASK = 'push_to_goal_camera'
SMALL = EncoderRecipe(
    images=40,
    first_seed=3_000_000,
    waypoint_noise=0.01,
    action_noise=0.01,
    keypoints=3,
    channels=4,
    gradient_steps=30,
    batch_size=16,
    learning_rate=1e-2,
)


@pytest.mark.filterwarnings('ignore:.*(spec|symmetric|unwrapped).*')
def test_gymnasium_accepts_the_environment() -> None:
    check_env(make_camera_task(TASK), skip_render_check=True)


def test_the_state_is_that_of_the_task_without_its_objects() -> None:
    env, plain = make_camera_task(TASK), make_task('push_to_goal')
    seen, _ = env.reset(seed=4)
    measured, _ = plain.reset(seed=4)
    count = len(env.observation_names)
    assert env.observation_names == plain.observation_names[:count]
    assert plain.observation_names[count:] == plain.object_names
    np.testing.assert_array_equal(seen['state'], measured[:count])


def test_the_image_shows_where_the_block_is() -> None:
    def column(y: float) -> float:
        env = make_camera_task(TASK, randomisation={'block.y': (y, y)})
        image = env.reset(seed=1)[0]['camera'].astype(float)
        assert image.shape == (64, 64, 3)
        blue = (image[..., 2] > 1.3 * image[..., 0]).astype(float)
        return float((blue * np.arange(64)).sum() / blue.sum())

    # The camera looks back at the robot: y to the left of the robot is to the right of the image.
    assert column(0.03) > column(0.0) + 3.0 > column(-0.03) + 6.0


def test_the_same_seed_gives_the_same_image() -> None:
    first, second = (make_camera_task(TASK).reset(seed=2)[0]['camera'] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_robot_with_a_camera_sees_state_and_features_in_the_order_of_its_channels() -> None:
    robot, _ = load_robot(TASK)
    env = connect(make_environment(TASK), robot)
    raw = make_environment(TASK)
    observation, _ = env.reset(seed=3)
    parts = split_observation(raw.reset(seed=3)[0], robot)
    assert [channel.name for channel in robot.channels] == ['arm', 'tool', 'camera']
    features = channel_encoder(robot.channels[-1]).encode(parts[-1])
    np.testing.assert_array_equal(
        observation, np.concatenate([*parts[:-1], features], dtype=np.float32)
    )
    assert observation.shape == env.observation_space.shape
    assert env.get_wrapper_attr('observation_names') == robot.observation_names


def test_a_robot_without_the_camera_is_refused() -> None:
    robot, _ = load_robot('push_to_goal')
    with pytest.raises(
        ConfigError, match=r'the image channels \[\], the environment the cameras \['
    ):
        check_environment(make_environment(TASK), robot)
    with_camera, _ = load_robot(TASK)
    with pytest.raises(
        ConfigError, match=r"image channels \['camera'\], the environment the camer"
    ):
        check_environment(make_environment('push_to_goal'), with_camera)


def test_a_robot_with_a_camera_is_not_described_by_guessing() -> None:
    with pytest.raises(ConfigError, match='describe its cameras by hand'):
        describe_robot(TASK, make_environment(TASK))


def test_a_machine_without_opengl_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError('no EGL device')

    monkeypatch.setattr(mujoco, 'Renderer', broken)
    with pytest.raises(ConfigError, match='no OpenGL to draw with: no EGL device; install EGL'):
        rendering.make_renderer(make_task('push_to_goal').model, 64, 64)


def test_images_and_training_are_reproducible(tmp_path: Path) -> None:
    def train(name: str) -> tuple[str, bytes, list[float]]:
        losses: list[float] = []
        data = collect_images(TASK, SMALL, SMALL.images, SMALL.first_seed)
        encoder = train_encoder(SMALL, data, 0, lambda _, loss: losses.append(loss))
        export_encoder(encoder, SMALL, tmp_path / name)
        return data.sha256, (tmp_path / name).read_bytes(), losses

    first, second = train('a.onnx'), train('b.onnx')
    assert first == second
    assert first[2][-1] < first[2][0]


def test_a_task_without_camera_has_no_encoder() -> None:
    with pytest.raises(ResidualRLError, match="task 'peg_insert' has no camera; those that have"):
        load_encoder_recipe('peg_insert')
