# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy sees the images of a recording as it saw them live."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from base_policy_builders import LinearPolicy
from raw_bag_builders import DESCRIPTION, PERIOD, Live, check_equal, rebuild
from robot_builders import make_metadata

from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.topics import IMAGE
from residual_rl_ros.transitions.cdr import serialize, typestore


class Looking(LinearPolicy):
    """Adds the brightness of the newest image to its actions."""

    def __init__(self) -> None:
        super().__init__(make_metadata(inputs=(ImageInput('camera', 2, 2),)))
        self.seen: list[float] = []

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        self.seen.append(float(context.images['camera'][-1].mean()))
        return super().plan(window, noises) + np.float32(self.seen[-1] / 1000.0)


def robot_with_a_camera() -> RobotConfig:
    """Return the robot of the recordings, with a camera that the base policy alone sees."""
    description: dict[str, Any] = copy.deepcopy(DESCRIPTION)
    description['observation']['channels'].append('camera')
    description['observation']['camera'] = {
        'topic': '/camera',
        'type': IMAGE,
        'encoder': 'none',
        'resize': [2, 2],
        'max_age_s': 0.2,
    }
    return RobotConfig.from_mapping(description)


def image(stamp: float, grey: int) -> bytes:
    """Return an image message of one colour, 4 x 6."""
    types = typestore().types
    nanoseconds = round(stamp * 1e9)
    time = types['builtin_interfaces/msg/Time'](nanoseconds // 10**9, nanoseconds % 10**9)
    message = types[IMAGE](
        header=types['std_msgs/msg/Header'](stamp=time, frame_id=''),
        height=4,
        width=6,
        encoding='rgb8',
        is_bigendian=0,
        step=18,
        data=np.full(72, grey, dtype=np.uint8),
    )
    return serialize(message, IMAGE)


def test_rebuilt_transitions_are_those_of_the_images_that_were_recorded(tmp_path: Path) -> None:
    robot, live_policy, policy = robot_with_a_camera(), Looking(), Looking()
    live = Live.start(tmp_path / 'bag', policy=live_policy, robot=robot)
    for tick in range(40):
        now = 100.0 + PERIOD * tick
        received = round((now - 0.008) * 1e9)
        live.observe('camera', '/camera', IMAGE, received, image(now - 0.03, 6 * tick))
        live.step(tick)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', policy=policy, robot=robot)
    assert problems == []
    check_equal(made[:-1], live.made)
    assert policy.seen[:-1] == live_policy.seen  # The end of the recording is one more.
    assert len(set(policy.seen)) > 5
