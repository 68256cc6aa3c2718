# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An orientation must turn no faster than it may, whatever numbers say it; checked with SciPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy, make_metadata
from hypothesis import assume, given
from hypothesis import strategies as st
from loop_builders import real_time
from scipy.spatial.transform import Rotation

from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.command_limiter import CommandLimiter
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import NOTHING_HAPPENED
from residual_rl_ros.control.rotation import OrientationMixing
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError, ObservationError, UnsafeCommandError
from residual_rl_ros.robot.action_spec import ActionSpec

STEP, EPSILON = 0.1, 1e-9
VECTOR, PLANE, YAW, QUATERNION = (1, 2, 3), (1, 2, -1), (-1, -1, 1), (1, 2, 3, 4)


def pose(
    orientation: tuple[int, ...], lower: float | list[float] = -np.pi, upper: float = np.pi
) -> ActionSpec:
    """Return actions of a position x and an orientation."""
    size = sum(index >= 0 for index in orientation)
    names = ('x', *(f'r{index}' for index in range(size)))
    return ActionSpec(
        names,
        np.concatenate([[-1.0], np.broadcast_to(lower, size)]),
        np.concatenate([[1.0], np.broadcast_to(upper, size)]),
        np.full(1 + size, STEP),
        measured_by=names,
        following_limit=np.full(1 + size, 0.3),
        orientations=(orientation,),
    )


def rotation(part: np.ndarray, orientation: tuple[int, ...] = VECTOR) -> Rotation:
    """Return what numbers of an orientation mean."""
    if len(orientation) == 4:
        return Rotation.from_quat(part)
    vector = np.zeros(3)
    vector[[axis for axis, index in enumerate(orientation) if index >= 0]] = part
    return Rotation.from_rotvec(vector)


def angle(one: Rotation, other: Rotation) -> float:
    return float((one * other.inv()).magnitude())


def numbers(largest: float = np.pi / np.sqrt(3.0), size: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Return vectors of so many numbers up to a size."""
    each = st.floats(-largest, largest, allow_subnormal=False)
    return st.lists(each, min_size=size, max_size=size).map(np.array)


def sent(spec: ActionSpec, wanted: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Return the orientation of a command that has passed the filter."""
    command, before = (np.concatenate([[0.0], each]) for each in (wanted, previous))
    return SafetyFilter(spec).apply(command, before, passed=True)[1:]


@given(numbers(), numbers(6.0))
def test_a_rotation_vector_turns_the_shortest_way_and_not_too_far(
    previous: np.ndarray, wanted: np.ndarray
) -> None:
    goal, reached = rotation(wanted), sent(pose(VECTOR), wanted, previous)
    whole, turned = (angle(each, rotation(previous)) for each in (goal, rotation(reached)))
    assert (np.abs(reached) <= np.pi + EPSILON).all()
    assert turned == pytest.approx(min(whole, STEP), abs=1e-7)
    assert angle(goal, rotation(reached)) == pytest.approx(whole - turned, abs=1e-6)


@given(numbers(2.0, 4), numbers(2.0, 4))
def test_a_quaternion_and_its_negative_turn_alike_and_not_too_far(
    previous: np.ndarray, wanted: np.ndarray
) -> None:
    assume(min(np.linalg.norm(previous), np.linalg.norm(wanted)) > 0.01)
    spec = pose(QUATERNION, -1.0, 1.0)
    previous /= np.linalg.norm(previous)
    for goal in (wanted, -wanted):
        reached = sent(spec, goal, previous)
        whole = angle(Rotation.from_quat(goal), Rotation.from_quat(previous))
        turned = angle(Rotation.from_quat(reached), Rotation.from_quat(previous))
        assert turned == pytest.approx(min(whole, 2.0 * STEP), abs=1e-7)
        left = angle(Rotation.from_quat(goal), Rotation.from_quat(reached))
        assert left == pytest.approx(whole - turned, abs=1e-6)


@given(numbers(1.4), numbers(6.0))
def test_inside_of_limits_that_leave_out_orientations_a_turn_stays_inside_and_arrives(
    previous: np.ndarray, wanted: np.ndarray
) -> None:
    spec = pose(VECTOR, -1.5, 1.5)
    for _ in range(80):
        reached = sent(spec, wanted, previous)
        assert (np.abs(reached) <= 1.5).all()
        assert angle(rotation(reached), rotation(previous)) <= STEP + EPSILON
        previous = reached
    np.testing.assert_allclose(sent(spec, wanted, previous), previous, atol=1e-9)


@given(numbers(2.0, 2), numbers(2.0, 2))
def test_two_axes_alone_turn_not_too_far(previous: np.ndarray, wanted: np.ndarray) -> None:
    reached = sent(pose(PLANE), wanted, previous)
    turned = angle(rotation(reached, PLANE), rotation(previous, PLANE))
    assert turned <= STEP + EPSILON


def test_a_tool_that_points_down_turns_past_half_a_turn_and_not_through_its_back() -> None:
    """The vectors (pi, 0, 0) and (-pi, 0, 0) are the same; 0 between them points up."""
    previous, wanted = np.array([3.1, 0.0, 0.0]), np.array([-3.0, 0.0, 0.0])
    reached = sent(pose(VECTOR), wanted, previous)
    assert reached.tolist() == pytest.approx([3.2 - 2.0 * np.pi, 0.0, 0.0])
    near = sent(pose(VECTOR), np.array([-3.1, 0.0, 0.0]), previous)
    assert near.tolist() == [-3.1, 0.0, 0.0]


def test_a_yaw_goes_around_and_one_beyond_pi_is_said_in_other_numbers() -> None:
    assert sent(pose(YAW), np.array([-3.0]), np.array([3.0])).item() == pytest.approx(3.1)
    assert sent(pose(YAW), np.array([3.3]), np.array([-3.0])).item() == pytest.approx(
        3.3 - 2.0 * np.pi
    )
    unwrapped = pose(YAW, 2.0, 4.0)  # As recorded, without a jump.
    assert sent(unwrapped, np.array([3.3]), np.array([3.25])).item() == 3.3
    assert sent(unwrapped, np.array([3.3 - 2.0 * np.pi]), np.array([3.25])).item() == (
        pytest.approx(3.3)
    )


def test_a_quaternion_of_no_length_turns_nothing_and_a_measured_one_is_unsafe() -> None:
    spec = pose(QUATERNION, -1.0, 1.0)
    turned = np.array([0.0, 0.6, 0.0, 0.8])
    assert sent(spec, np.zeros(4), turned).tolist() == turned.tolist()
    with pytest.raises(UnsafeCommandError, match=r'r0, r1, r2, r3 is .*a quaternion with a length'):
        sent(spec, turned, np.zeros(4))


def test_a_quaternion_of_no_length_is_no_first_command() -> None:
    with pytest.raises(UnsafeCommandError, match='a quaternion with a length'):
        SafetyFilter(pose(QUATERNION, -1.0, 1.0)).apply(np.zeros(5), None)


def test_a_rotation_vector_of_any_size_is_limited() -> None:
    reached = sent(pose(VECTOR), np.full(3, 1e200), np.zeros(3))
    assert angle(rotation(reached), rotation(np.zeros(3))) <= STEP + EPSILON


def test_the_limits_of_a_quaternion_leave_none_out() -> None:
    with pytest.raises(ConfigError, match=r"'r0', of a quaternion, has lower 0.0 .*expected -1"):
        pose(QUATERNION, [0.0, -1.0, -1.0, -1.0], 1.0)


@pytest.mark.parametrize(
    ('spec', 'told', 'measured'),
    [
        (pose(VECTOR), [3.1, 0.0, 0.0], [-3.1, 0.0, 0.0]),
        (pose(QUATERNION, -1.0, 1.0), [0.6, 0.0, 0.0, 0.8], [-0.6, 0.0, 0.0, -0.8]),
    ],
)
def test_a_robot_that_measures_its_orientation_in_other_numbers_follows(
    spec: ActionSpec, told: list[float], measured: list[float]
) -> None:
    limiter = CommandLimiter(SafetyFilter(spec), spec.names)
    limiter.commit(np.array([0.0, *told]))
    limiter.observe(np.array([0.0, *measured]))
    assert limiter.following_error() == ''
    assert limiter.start_error(np.array([0.0, *told])) == ''
    away = np.array([0.0, *told])
    away[2] += 0.5
    limiter.observe(away)
    assert 'the robot does not follow' in limiter.following_error()


def test_a_measured_orientation_is_inside_of_its_limits_in_whatever_numbers() -> None:
    spec = pose(YAW, 2.0, 4.0)
    limiter = CommandLimiter(SafetyFilter(spec), spec.names)
    limiter.observe(np.array([0.0, -3.0]))
    limiter.check_measured()
    limiter.observe(np.array([0.0, 0.0]))
    with pytest.raises(ObservationError, match=r'r0 is 0, expected 2 to 4'):
        limiter.check_measured()


@pytest.mark.parametrize(
    ('spec', 'told', 'measured', 'believed'),
    [
        (pose(QUATERNION, -1.0, 1.0), [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.05], True),
        (pose(QUATERNION, -1.0, 1.0), [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1e6], False),
        (pose(QUATERNION, -1.0, 1.0), [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], False),
        (pose(VECTOR), [0.1, 0.0, 0.0], [0.2 - 2.0 * np.pi, 0.0, 0.0], True),
        (pose(VECTOR), [0.1, 0.0, 0.0], [0.1 + 4.0 * np.pi, 0.0, 0.0], False),
        (pose(YAW, -1.0, 9.0), [0.1], [8.9], True),
    ],
)
def test_numbers_that_no_orientation_is_measured_in_are_not_believed(
    spec: ActionSpec, told: list[float], measured: list[float], believed: bool
) -> None:
    limiter = CommandLimiter(SafetyFilter(spec), spec.names)
    limiter.commit(np.array([0.0, *told]))
    limiter.observe(np.array([0.0, *measured]))
    if believed:
        limiter.check_measured()
        return
    with pytest.raises(ObservationError, match=r'r0.* is measured as .*check the sensor'):
        limiter.check_measured()


@given(numbers(2.0 * np.pi), numbers())
def test_means_are_taken_of_orientations_and_not_of_their_numbers(
    given_numbers: np.ndarray, near: np.ndarray
) -> None:
    limit = SafetyFilter(pose(VECTOR)).orientations[0]
    command, other = (np.concatenate([[0.0], each]) for each in (given_numbers, near))
    found = limit.alike(command, other)
    assert angle(rotation(found), rotation(given_numbers)) < 1e-6
    assert np.linalg.norm(found - near) <= np.linalg.norm(given_numbers - near) + 1e-12


def test_the_mean_of_a_quaternion_and_its_negative_is_that_orientation() -> None:
    mixing = OrientationMixing(SafetyFilter(pose(QUATERNION, -1.0, 1.0)).orientations)
    quaternion = Rotation.from_rotvec([0.3, 0.0, 1.0]).as_quat()
    rows = np.concatenate([[[0.5, *quaternion]], [[0.5, *-quaternion]]]).astype(np.float32)
    alike = mixing.alike(rows, rows[:1].repeat(2, axis=0))
    mean = mixing.whole(0.9 * alike[:1] + 0.05 * alike[1:])  # Shorter than 1.
    np.testing.assert_allclose(mean[0, 1:], quaternion, atol=1e-6)
    nothing = np.zeros((1, 5), dtype=np.float32)
    assert not mixing.whole(nothing).any()  # The filter refuses it.


@pytest.mark.parametrize('splicing', [Splicing(0, 6), Splicing(0, 0, 0.01, 4)])
def test_chunks_whose_numbers_leap_are_blended_without_a_turn(splicing: Splicing) -> None:
    action = pose(VECTOR, -6.0, 6.0)
    spec = replace(action, measured_by=())
    policy = Leaping()
    controller = ControllerConfig(1, (0.0,), splicing).build(policy, spec)
    controller.begin_episode(0, np.zeros(1), 0.0)
    previous = None
    for step in range(40):
        command = controller.command()
        assert command is not None
        turned = rotation(command[1:])
        if previous is not None:
            assert angle(turned, previous) < 0.01
        previous = turned
        controller.step(np.zeros(1), float(step + 1), NOTHING_HAPPENED)
    assert policy.calls > 4
    controller.close()


class Leaping(LinearPolicy):
    """Plans one orientation in numbers that are on either side of pi in turn."""

    def __init__(self) -> None:
        super().__init__(
            make_metadata(
                observation_names=('x',),
                action_names=('x', 'r0', 'r1', 'r2'),
                action_min=(-1.0, *(-6.0,) * 3),
                action_max=(1.0, *(6.0,) * 3),
                horizon=16,
                exec_steps=8,
            )
        )
        self.calls = 0

    def plan(self, window: Any, noises: Any = None, context: Any = None) -> np.ndarray:
        del window, noises, context
        self.calls += 1
        side = 1.0 if self.calls % 2 else -1.0
        return np.tile(np.array([0.0, 0.0, 0.0, side * (np.pi - 0.002)], np.float32), (16, 1))


def test_density_and_proposals_of_orientations_are_not_blended() -> None:
    with pytest.raises(ConfigError, match='chunk_blend_steps is given, but an orientation'):
        ControllerConfig(1, (0.0,), Splicing(0, 6), prior_width=(0.1,)).build(
            Leaping(), pose(VECTOR, -6.0, 6.0)
        )


def test_an_operators_quaternion_of_no_length_is_refused() -> None:
    names = ('x', 'r0', 'r1', 'r2', 'r3')
    policy = LinearPolicy(
        make_metadata(action_names=names, action_min=(-1.0,) * 5, action_max=(1.0,) * 5)
    )
    loop, callbacks = real_time(policy, action=replace(pose(QUATERNION, -1.0, 1.0), measured_by=()))
    loop.receive_takeover(np.zeros(5))
    assert loop.counts['refused_takeovers'] == 1
    assert 'expected a quaternion with a length' in callbacks.warnings[-1]
    loop.receive_takeover(np.array([0.0, 0.0, 0.0, 0.0, 1.0]))
    assert loop.counts['refused_takeovers'] == 1
