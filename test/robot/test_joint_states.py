# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Drivers may share a topic but not a joint; what one of them stops saying is old."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.message_decoder import Reading
from residual_rl_ros.robot.topics import JOINT_STATE, Channel

POSE = 'geometry_msgs/msg/PoseStamped'
ROBOT = Channel('arm', 'joint_states', JOINT_STATE, ('position', 'velocity'), ('a', 'b', 'f'), 0.2)
ARM, GRIPPER = {'a': 1.0, 'b': 2.0, 'unused': 9.0}, {'f': 0.5}
TOGETHER = {'f': 0.5, 'b': 2.0, 'a': 1.0}


def joints(stamp: float, values: dict[str, float]) -> Any:
    sec, nanosec = divmod(round(stamp * 1e9), 10**9)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
        name=list(values),
        position=list(values.values()),
        velocity=[10.0 * value for value in values.values()],
    )


class Listener:
    """Reads messages in turn, at the time of their stamps."""

    def __init__(self, channel: Channel = ROBOT, lockstep: bool = False) -> None:
        self.now = 0.0
        self.reader = message_decoder(channel, lockstep, lambda: self.now)

    def hear(
        self, stamp: float, values: dict[str, float], count: int | None = None
    ) -> Reading | None:
        self.now = 500.0 + stamp
        return self.reader.read(joints(stamp, values), lambda: stamp + 0.01, count)


def test_joints_come_from_whoever_has_them() -> None:
    listener = Listener()
    assert listener.hear(1.0, ARM, 700) is None
    first = listener.hear(1.02, GRIPPER, 3)
    assert first is not None
    assert first.stamp == 1.0
    assert first.values.tolist() == [1.0, 2.0, 0.5, 10.0, 20.0, 5.0]
    newer = listener.hear(1.04, {'b': 4.0, 'a': 3.0}, 701)
    assert newer is not None
    assert (newer.stamp, newer.stamped) == (1.02, True)  # The age of the oldest joint.
    assert newer.values.tolist() == [3.0, 4.0, 0.5, 30.0, 40.0, 5.0]
    assert first.values.tolist()[0] == 1.0
    whole = listener.hear(1.06, TOGETHER, 8000)
    assert whole is not None
    assert whole.stamp == 1.06


def test_two_channels_may_be_two_parts_of_a_topic() -> None:
    arm = Listener(replace(ROBOT, joints=('b', 'a')))
    grip = Listener(replace(ROBOT, name='grip', joints=('f',), fields=('position',)))
    for step in range(100):
        stamp = 1.0 + 0.05 * step
        assert arm.hear(stamp, GRIPPER, step) is None
        assert grip.hear(stamp, ARM, step) is None
        for listener, values in ((arm, ARM), (grip, GRIPPER)):
            reading = listener.hear(stamp, values, step)
            assert reading is not None
            assert reading.stamp == pytest.approx(stamp)


def test_half_of_a_robot_that_falls_silent_makes_the_channel_old_and_is_named() -> None:
    listener = Listener()
    listener.hear(1.0, GRIPPER)
    stamps = []
    for step in range(1, 8):
        reading = listener.hear(1.0 + 0.05 * step, ARM)
        stamps.append(None if reading is None else reading.stamp)
    assert stamps == [1.0, 1.0, 1.0, 1.0, None, None, None]
    with pytest.raises(ObservationError, match=r"joints \['f'\] have been in no message on joint_"):
        listener.hear(1.5, ARM)
    assert listener.hear(1.52, GRIPPER) is not None
    assert listener.hear(1.54, ARM) is not None


def test_a_joint_that_nobody_publishes_is_named_once_it_could_have_come() -> None:
    listener = Listener(replace(ROBOT, joints=('a', 'elbow')))
    assert listener.hear(1.0, ARM) is None
    assert listener.hear(1.2, GRIPPER) is None
    with pytest.raises(ObservationError) as caught:
        listener.hear(1.21, ARM)
    assert str(caught.value) == (
        "channel 'arm': joints ['elbow'] are not in joint_states, which has ['a', 'b', 'f', "
        "'unused']; correct joints in the robot YAML, or start their driver"
    )


def test_a_part_that_was_overtaken_is_dropped_and_a_clock_that_was_set_back_is_followed() -> None:
    listener = Listener()
    listener.hear(10.0, GRIPPER)
    listener.hear(10.0, ARM)
    assert listener.hear(9.9, {'a': 7.0, 'b': 7.0}) is None
    reading = listener.hear(10.05, GRIPPER)
    assert reading is not None
    assert reading.values[0] == 1.0
    assert listener.hear(3.0, ARM) is None
    reading = listener.hear(3.0, GRIPPER)
    assert reading is not None
    assert reading.stamp == 3.0


def test_a_waiting_simulator_sends_all_joints_of_a_stamp_at_once() -> None:
    listener = Listener(lockstep=True)
    for values in (ARM, GRIPPER):
        with pytest.raises(ObservationError, match=r"joints \['.* are not in joint_states"):
            listener.hear(1.0, values)
    assert listener.hear(1.0, TOGETHER) is not None
    assert listener.hear(1.0, {'other': 1.0}) is None


@pytest.mark.parametrize('numbers', [(900, 5), (5, 900), (7, 7)])
@pytest.mark.parametrize('others', [{'a': 0.0, 'b': 0.0, 'f': 0.0}, {'b': 0.0}])
def test_a_second_publisher_of_a_joint_is_an_error_that_names_it(
    numbers: tuple[int, int], others: dict[str, float]
) -> None:
    listener = Listener()
    usable, refused = 0, []
    for step in range(40):
        for number, values in zip(numbers, (TOGETHER, others), strict=True):
            try:
                usable += listener.hear(1.0 + 0.05 * step, values, number + step) is not None
            except ObservationError as error:
                refused.append((error.topic, str(error)))
    assert usable <= 3
    assert len(refused) >= 77
    for topic, reason in refused:
        assert topic == 'joint_states'
        assert "'arm': two publishers of " in reason
        assert 'b on joint_states take turns; stop' in reason or 'b, f on joint_states' in reason


def test_a_rare_second_publisher_is_noticed_and_forgotten_after_it_has_gone() -> None:
    listener = Listener()
    zeros = dict.fromkeys(TOGETHER, 0.0)
    heard: list[float] = []
    for step in range(1000):
        stamp = 1.0 + 0.01 * step
        rare = [(zeros, step // 100)] if step % 100 == 50 and step < 500 else []
        for values, number in [(TOGETHER, 500 + step), *rare]:
            try:
                listener.hear(stamp, values, number)
            except ObservationError:
                continue
            heard.append(stamp)
    assert heard[0] == 1.0
    assert not [stamp for stamp in heard if 1.51 < stamp < 7.5]
    assert len([stamp for stamp in heard if stamp > 7.52]) >= 345


def test_a_driver_that_was_started_anew_is_followed() -> None:
    listener = Listener()
    for step in range(50):
        assert listener.hear(1.0 + 0.05 * step, TOGETHER, 4000 + step) is not None
    for step in range(50):
        assert listener.hear(4.0 + 0.05 * step, TOGETHER, 1 + step) is not None


def test_a_message_of_nonsense_is_no_second_publisher() -> None:
    listener = Listener()
    for step in range(50):
        reading = listener.hear(1.0 + 0.05 * step, TOGETHER, 10 + step)
        assert reading is not None
        bad = listener.hear(1.0 + 0.05 * step, {**TOGETHER, 'b': np.nan}, 100 + 3 * step)
        assert bad is not None  # The observation refuses it by name.


@pytest.mark.parametrize('every', [1, 4])
def test_positions_that_leap_there_and_back_are_of_two_publishers(every: int) -> None:
    """A recording, and some middleware, does not tell publishers apart."""
    listener = Listener()
    first, reasons = None, set()
    for step in range(40):
        stamp = 1.0 + 0.05 * step
        moving = {joint: value + 0.2 * stamp for joint, value in TOGETHER.items()}
        try:
            listener.hear(stamp, moving)
            if step % every == 0:
                listener.hear(stamp + 0.01, dict.fromkeys(TOGETHER, 0.0))
        except ObservationError as error:
            first = step if first is None else first
            reasons.add(str(error).partition(' of ')[0])
    assert reasons == {"channel 'arm': two publishers"}
    assert first is not None
    assert first <= 5 * every


def test_a_robot_that_moves_as_it_likes_has_one_publisher() -> None:
    rng = np.random.default_rng(0)
    listener = Listener()
    for step in range(3000):
        swing = 0.3 * np.sin(0.7 * step)
        values = {'a': rng.uniform(-1, 1), 'b': swing, 'f': float(step // 30 % 2)}
        assert listener.hear(1.0 + 0.05 * step, values) is not None


def test_the_second_publisher_of_another_type_is_an_error_too() -> None:
    channel = Channel('tool', 'tool_pose', POSE, ('position.x',), (), 0.2, stamped_by='receipt')
    reader = message_decoder(channel)
    message = SimpleNamespace(pose=SimpleNamespace(position=SimpleNamespace(x=1.0)), header=0)
    assert reader.read(message, lambda: 1.0, 5) == Reading(1.0, np.array([1.0]), False)
    with pytest.raises(ObservationError, match="'tool': two publishers on tool_pose take turns"):
        reader.read(message, lambda: 1.01, 4)
