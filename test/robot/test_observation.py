# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robot must hold rather than act on an observation that is missing, old or not a number."""

from __future__ import annotations

import re

import numpy as np
import pytest

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.topics import FLOAT_ARRAY, IMAGE, JOINT_STATE, NO_ENCODER, Channel

TOOL = Channel('tool', 'tool_topic', FLOAT_ARRAY, ('x', 'y'), (), 0.1)
ARM = Channel('arm', 'joint_states', JOINT_STATE, ('position',), ('a', 'b', 'c'), 0.5)


@pytest.fixture
def assembler() -> ObservationAssembler:
    """Return an assembler that holds a value of both channels, of time 1 s."""
    made = ObservationAssembler((TOOL, ARM))
    made.update('arm', 1.0, np.array([3.0, 4.0, 5.0]))
    made.update('tool', 1.0, np.array([1.0, 2.0]))
    return made


def test_values_come_in_channel_order_whatever_arrived_first(
    assembler: ObservationAssembler,
) -> None:
    np.testing.assert_array_equal(assembler.assemble(), [1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_channel_that_was_never_received_is_named() -> None:
    assembler = ObservationAssembler((TOOL, ARM))
    assembler.update('tool', 1.0, np.zeros(2))
    with pytest.raises(ObservationError, match=r"'arm': nothing received on joint_states"):
        assembler.assemble()


def test_a_channel_is_stale_only_beyond_its_own_maximum_age(
    assembler: ObservationAssembler,
) -> None:
    assert assembler.assemble(now=1.0625).size == 5
    with pytest.raises(ObservationError, match=r"'tool' is 0.125 s old, max_age_s is 0.1 s"):
        assembler.assemble(now=1.125)
    assembler.update('tool', 1.5, np.zeros(2))
    assert assembler.assemble(now=1.5).size == 5
    assembler.update('tool', 1.625, np.zeros(2))
    with pytest.raises(ObservationError, match=r"'arm' is 0.625 s old, max_age_s is 0.5 s"):
        assembler.assemble(now=1.625)


def test_age_is_not_judged_in_lockstep(assembler: ObservationAssembler) -> None:
    assembler.update('tool', 1000.0, np.zeros(2))
    assert assembler.assemble(now=None).size == 5


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e39])
def test_a_non_finite_value_is_refused_by_name_and_the_old_one_is_kept(
    assembler: ObservationAssembler, value: float
) -> None:
    with pytest.raises(
        ObservationError, match=re.escape(f'arm.position.b is {value} on joint_states')
    ):
        assembler.update('arm', 2.0, np.array([0.0, value, np.nan]))
    np.testing.assert_array_equal(assembler.assemble(), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert assembler.complete_at(1.0)


@pytest.mark.parametrize('size', [0, 1, 3])
def test_a_wrong_size_is_refused_and_the_old_value_is_kept(
    assembler: ObservationAssembler, size: int
) -> None:
    with pytest.raises(
        ObservationError, match=rf"'tool' \(tool_topic\) has {size} values, expected 2"
    ):
        assembler.update('tool', 2.0, np.zeros(size))
    np.testing.assert_array_equal(assembler.assemble(), [1.0, 2.0, 3.0, 4.0, 5.0])


def test_an_older_message_is_dropped_and_one_of_the_same_time_replaces(
    assembler: ObservationAssembler,
) -> None:
    assembler.update('tool', 0.5, np.array([7.0, 7.0]))
    np.testing.assert_array_equal(assembler.assemble()[:2], [1.0, 2.0])
    assembler.update('tool', 1.0, np.array([8.0, 8.0]))
    np.testing.assert_array_equal(assembler.assemble()[:2], [8.0, 8.0])


def test_complete_at_needs_every_channel_at_exactly_that_time(
    assembler: ObservationAssembler,
) -> None:
    assert assembler.complete_at(1.0)
    assembler.update('tool', 1.05, np.zeros(2))
    assert not assembler.complete_at(1.0)
    assert not assembler.complete_at(1.05)
    assembler.update('arm', 1.05, np.zeros(3))
    assert assembler.complete_at(1.05)


def test_the_oldest_stamp_is_that_of_the_channel_furthest_behind() -> None:
    assembler = ObservationAssembler((TOOL, ARM))
    assembler.update('tool', 2.0, np.zeros(2))
    assert assembler.oldest_stamp == -np.inf
    assembler.update('arm', 1.5, np.zeros(3))
    assert assembler.oldest_stamp == 1.5


def test_after_clear_nothing_is_left_and_an_earlier_clock_is_accepted(
    assembler: ObservationAssembler,
) -> None:
    assembler.clear()
    with pytest.raises(ObservationError, match=r"'tool': nothing received"):
        assembler.assemble()
    assembler.update('tool', 0.0, np.array([5.0, 6.0]))
    assembler.update('arm', 0.0, np.zeros(3))
    np.testing.assert_array_equal(assembler.assemble(now=0.0)[:2], [5.0, 6.0])


def test_an_assembled_observation_does_not_change_afterwards(
    assembler: ObservationAssembler,
) -> None:
    observation = assembler.assemble()
    assembler.update('tool', 2.0, np.array([9.0, 9.0]))
    observation[2] = 77.0
    np.testing.assert_array_equal(observation[:2], [1.0, 2.0])
    np.testing.assert_array_equal(assembler.assemble(), [9.0, 9.0, 3.0, 4.0, 5.0])


def test_a_channel_whose_messages_were_refused_says_why_it_has_none(
    assembler: ObservationAssembler,
) -> None:
    problem = ObservationError('two publishers', ARM.topic)
    empty = ObservationAssembler((ARM,))
    empty.refuse(problem)
    with pytest.raises(ObservationError, match=r'received on joint_states; refused: two publ'):
        empty.assemble(1.0)
    assembler.refuse(problem)
    assembler.update('tool', 2.0, np.zeros(2))
    with pytest.raises(ObservationError, match=r"'arm' is .* max_age_s is 0.5 s; refused: two"):
        assembler.assemble(2.0)
    assembler.update('arm', 2.0, np.zeros(3))  # A usable message.
    assembler.update('tool', 3.0, np.zeros(2))
    assembler.hints['arm'] = 'the oldest transform is that of the wrist'
    with pytest.raises(ObservationError, match=r'max_age_s is 0.5 s; the oldest transform is'):
        assembler.assemble(3.0)
    assembler.hints['arm'] = ''
    assembler.update('tool', 4.0, np.zeros(2))
    with pytest.raises(ObservationError, match=r'max_age_s is 0.5 s$'):
        assembler.assemble(4.0)


def test_a_camera_without_encoder_adds_a_image_and_no_value_and_ages_like_any_channel() -> None:
    camera = Channel('camera', 'image_raw', IMAGE, (), (), 0.1, NO_ENCODER)
    assembler = ObservationAssembler((TOOL, camera))
    assembler.update('tool', 1.0, np.zeros(len(TOOL.observation_names)))
    with pytest.raises(ObservationError, match="channel 'camera': nothing received on image_raw"):
        assembler.assemble(1.0)
    image = np.ones((2, 2, 3), dtype=np.uint8)
    assembler.update('camera', 1.0, np.zeros(0), image)
    assert assembler.assemble(1.0).shape == (len(TOOL.observation_names),)
    assert assembler.images['camera'] is image
    assembler.update('tool', 1.2, np.zeros(len(TOOL.observation_names)))
    with pytest.raises(ObservationError, match=r"channel 'camera' is 0.2"):
        assembler.assemble(1.2)
