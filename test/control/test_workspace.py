# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tool stays in its box; a robot put outside may come back and not go further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.workspace import Workspace
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.body_spec import WorkspaceSpec
from residual_rl_ros.robot.description import load_robot

ROBOT, _ = load_robot('ur_forward_position')
assert ROBOT.action.workspace is not None
BOX: WorkspaceSpec = ROBOT.action.workspace
ARM = Workspace(BOX)
INSIDE = np.array([0.0, -1.6, 1.6, -1.6, -1.6, 0.0])
DOWN = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def border() -> np.ndarray:
    """Return joint positions at the lower border of the box."""
    safety, joints = SafetyFilter(ROBOT.action), INSIDE
    for _ in range(100):
        joints = safety.apply(joints + 0.02 * DOWN, joints)
    return joints


BORDER = border()
vectors = st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6).map(np.array)

URDF = """<robot name="one">
  <link name="base"/>
  <link name="arm"><visual><geometry><mesh filename="package://none/arm.dae"/></geometry></visual>
  </link>
  <joint name="turn" type="revolute"><parent link="base"/><child link="arm"/>
    <axis xyz="0 0 1"/><limit lower="-3" upper="3" effort="1" velocity="1"/></joint>
  <link name="tip"/>
  <joint name="end" type="fixed"><parent link="arm"/><child link="tip"/>
    <origin xyz="1 0 0"/></joint>
</robot>"""


def denavit_hartenberg(joints: np.ndarray) -> np.ndarray:
    """Return the flange position of a UR5e from its published parameters."""
    a = [0.0, -0.425, -0.3922, 0.0, 0.0, 0.0]
    d = [0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996]
    alpha = [np.pi / 2, 0.0, 0.0, np.pi / 2, -np.pi / 2, 0.0]
    pose = np.eye(4)
    for theta, length, offset, twist in zip(joints, a, d, alpha, strict=True):
        c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(twist), np.sin(twist)
        pose = pose @ np.array(
            [
                [c, -s * ca, s * sa, length * c],
                [s, c * ca, -c * sa, length * s],
                [0.0, sa, ca, offset],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
    return pose[:3, 3]


@given(vectors)
def test_the_shipped_model_has_the_kinematics_of_the_arm(joints: np.ndarray) -> None:
    np.testing.assert_allclose(ARM.positions(joints), denavit_hartenberg(joints)[None], atol=1e-9)


@given(st.lists(vectors, min_size=1, max_size=15))
def test_the_tool_never_leaves_its_box(commands: list[np.ndarray]) -> None:
    safety = SafetyFilter(ROBOT.action)
    previous = INSIDE
    for command in commands:
        sent = safety.apply(command, previous)
        assert ARM.contains(sent)
        assert (np.abs(sent - previous) <= ROBOT.action.max_step + 1e-9).all()
        assert (sent >= ROBOT.action.lower).all()
        assert (sent <= ROBOT.action.upper).all()
        previous = sent


def test_a_command_inside_passes_bit_for_bit_and_one_at_the_border_is_counted() -> None:
    safety = SafetyFilter(ROBOT.action)
    near = INSIDE + 0.001
    np.testing.assert_array_equal(safety.apply(near, INSIDE), near)
    assert safety.workspace_limited == 0
    down, previous = INSIDE + np.array([0.0, 3.0, 0.0, 0.0, 0.0, 0.0]), INSIDE
    for _ in range(200):
        previous = safety.apply(down, previous)
    assert safety.workspace_limited > 0
    assert ARM.contains(previous)


@given(st.lists(st.tuples(vectors, vectors), min_size=1, max_size=15), st.floats(0.0, 0.05))
def test_a_residual_keeps_its_bound_at_the_border_too(
    steps: list[tuple[np.ndarray, np.ndarray]], bound: float
) -> None:
    """Away from what the limits leave of the base, in joint space as everywhere."""
    safety, alone = SafetyFilter(ROBOT.action), SafetyFilter(ROBOT.action)
    previous = BORDER
    for towards, residual in steps:
        base = previous + 0.01 * towards
        sent = safety.apply(base + bound * residual / 3.0, previous, base)
        assert ARM.contains(sent)
        assert (np.abs(sent - previous) <= ROBOT.action.max_step + 1e-9).all()
        reached = alone.apply(base, previous)
        unboxed = SafetyFilter(replace(ROBOT.action, workspace=None)).apply(base, previous)
        if ARM.contains(unboxed):
            np.testing.assert_array_equal(reached, unboxed)
        else:  # Either the residual leads back into the box, or the base is followed to its border.
            assert ARM.contains(reached)
            if not np.array_equal(sent, reached):
                reached = unboxed
        assert (np.abs(sent - reached) <= bound + 1e-9).all()
        previous = sent


def test_a_tiny_residual_at_the_border_does_not_stop_the_base() -> None:
    """The base moves along the border, the residual a thousandth of that across it."""
    sideways = BORDER + np.array([0.01, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert ARM.contains(sideways)
    assert not ARM.contains(sideways + 1e-4 * DOWN)
    sent = SafetyFilter(ROBOT.action).apply(sideways + 1e-4 * DOWN, BORDER, sideways)
    assert (np.abs(sent - sideways) <= 1e-4).all()


def test_from_outside_the_way_leads_back() -> None:
    outside = INSIDE.copy()
    outside[1:3] = 0.0, 0.0  # Stretched out, beyond x.
    assert not ARM.contains(outside)
    further = outside + np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    safety = SafetyFilter(ROBOT.action)
    before, after = ARM.positions(outside), ARM.positions(safety.apply(further, outside))
    outer = [np.maximum(np.maximum(BOX.lower - p, p - BOX.upper), 0.0) for p in (before, after)]
    assert (outer[1] <= outer[0] + 1e-12).all()
    joints = outside
    for _ in range(1000):
        joints = safety.apply(INSIDE, joints)
    np.testing.assert_allclose(joints, INSIDE, atol=1e-6)


def test_a_urdf_whose_meshes_are_elsewhere_will_do(tmp_path: Path) -> None:
    path = tmp_path / 'robot.urdf'
    path.write_text(URDF)
    arm = Workspace(
        WorkspaceSpec(str(path), ('tip',), ('turn',), np.full(3, -2.0), np.full(3, 2.0))
    )
    np.testing.assert_allclose(arm.positions(np.array([np.pi / 2])), [[0.0, 1.0, 0.0]], atol=1e-9)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'points': ('hand',)}, "'hand'"),
        ({'joints': ('a', 'b', 'c', 'd', 'e', 'f')}, "'a'"),
        ({'model': '/none.xml'}, 'cannot read arm model'),
    ],
)
def test_a_model_that_does_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Workspace(replace(BOX, **changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'lower': np.zeros(2)}, 'expected 3 numbers'),
        ({'lower': np.ones(3)}, 'is not below upper'),
    ],
)
def test_an_impossible_box_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BOX, **changes)


def test_a_joint_of_more_than_one_position_is_refused(tmp_path: Path) -> None:
    model = tmp_path / 'ball.xml'
    model.write_text(
        '<mujoco><worldbody><body name="tip"><joint name="turn" type="ball"/>'
        '<geom size="0.1"/></body></worldbody></mujoco>'
    )
    with pytest.raises(ConfigError, match="'turn' is no joint of one position"):
        Workspace(replace(BOX, model=str(model), points=('tip',), joints=('turn',)))


def test_a_gripper_among_the_actions_moves_no_joint_of_the_arm() -> None:
    action = ROBOT.action
    order = [0, 1, 2, 6, 3, 4, 5]  # The gripper stands in the middle.
    names, joints, units = (
        [*each, last]
        for each, last in (
            (action.names, 'gripper.position'),
            (BOX.joints, ''),
            (action.units, '1'),
        )
    )
    with_gripper = replace(
        action,
        names=tuple(names[i] for i in order),
        units=tuple(units[i] for i in order),
        measured_by=tuple(names[i] for i in order),
        hold=tuple('last' if units[i] == '1' else '' for i in order),
        workspace=replace(BOX, joints=tuple(joints[i] for i in order)),
        **{
            label: np.append(getattr(action, label), 0.0 if label == 'lower' else 1.0)[order]
            for label in ('lower', 'upper', 'max_step', 'following_limit', 'start_limit')
        },
    )
    alone, both = SafetyFilter(action), SafetyFilter(with_gripper)
    joint_positions = BORDER
    for _ in range(5):
        wanted = joint_positions + 0.02 * DOWN
        sent = both.apply(np.append(wanted, 0.5)[order], np.append(joint_positions, 0.5)[order])
        expected = alone.apply(wanted, joint_positions)
        np.testing.assert_array_equal(sent[[0, 1, 2, 4, 5, 6]], expected)
        assert sent[3] == 0.5
        joint_positions = expected
    assert both.workspace_limited == alone.workspace_limited > 0


def test_an_orientation_beside_an_arm_turns_no_faster_at_its_border() -> None:
    """Between the numbers of two orientations are none that can be cut short at."""
    action, count = ROBOT.action, ROBOT.action.size
    names = tuple(f'tool.r{index}' for index in range(3))
    both = replace(
        action,
        names=(*action.names, *names),
        units=(*action.units, *('rad',) * 3),
        measured_by=(*action.names, *names),
        hold=('',) * (count + 3),
        orientations=((count, count + 1, count + 2),),
        workspace=replace(BOX, joints=(*BOX.joints, '', '', '')),
        **{
            label: np.append(getattr(action, label), [value] * 3)
            for label, value in (
                *(('lower', -6.0), ('upper', 6.0), ('max_step', 0.05)),
                *(('following_limit', 0.2), ('start_limit', 0.2)),
            )
        },
    )
    alone, safety = SafetyFilter(action), SafetyFilter(both)
    side = np.array([0.0, 0.0, np.pi - 0.002])
    wanted = BORDER + 0.02 * DOWN
    for base in (None, BORDER, wanted):
        sent = safety.apply(
            np.append(wanted, -side),  # Nearly the same orientation, in other numbers.
            np.append(BORDER, side),
            None if base is None else np.append(base, -side),
        )
        np.testing.assert_array_equal(sent[:count], alone.apply(wanted, BORDER, base))
        turn = Rotation.from_rotvec(sent[count:]) * Rotation.from_rotvec(side).inv()
        assert turn.magnitude() < 0.005
    assert safety.workspace_limited == alone.workspace_limited == 3
