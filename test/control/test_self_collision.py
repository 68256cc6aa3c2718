# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Links keep their distance; from too near they may only part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_action_spec
from urdf_builders import (
    UR5E_JOINTS,
    cylinder,
    gap,
    joint,
    link,
    mesh,
    two_links,
    ur5e_like,
    urdf,
    write_tetrahedron,
)

from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.control.self_collision import SelfCollision
from residual_rl_ros.control.workspace import Workspace
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.body_spec import SelfCollisionSpec, WorkspaceSpec
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.urdf import Urdf

pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')

DISTANCE = 0.03
PLANAR = SelfCollisionSpec(Urdf('arm.urdf', two_links(), ('a', 'b')), DISTANCE)
ARM = SelfCollisionSpec(Urdf('ur5e.urdf', ur5e_like(), UR5E_JOINTS), 0.02)
WIDE = np.array([[-9.0] * 3, [9.0] * 3])
UP = np.array([0.0, -1.6, 1.6, -1.6, -1.6, 0.0])


def action(spec: SelfCollisionSpec, step: float) -> ActionSpec:
    """Return the actions of an arm."""
    size = len(spec.urdf.joints)
    return make_action_spec(
        names=spec.urdf.joints,
        lower=np.full(size, -3.0),
        upper=np.full(size, 3.0),
        max_step=np.full(size, step),
        measured_by=spec.urdf.joints,
        self_collision=spec,
    )


near = st.tuples(st.floats(1.2, 2.6), st.floats(1.2, 2.6)).map(np.array)
anywhere = st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)).map(np.array)


@given(near, st.lists(near | anywhere, min_size=1, max_size=8))
def test_no_step_leads_nearer_than_the_limit_and_none_from_there_nearer_yet(
    start: np.ndarray, wanted: list[np.ndarray]
) -> None:
    safety = SafetyFilter(action(PLANAR, 0.1))
    previous = start
    for command in wanted:
        sent = safety.apply(command, previous)
        assert gap(sent) >= min(DISTANCE, gap(previous)) - 1e-5
        assert (np.abs(sent - previous) <= 0.1 + 1e-9).all()
        previous = sent


def test_a_command_beyond_the_limit_is_cut_short_there_and_counted() -> None:
    safety, previous = SafetyFilter(action(PLANAR, 0.05)), np.array([2.0, 1.5])
    for _ in range(60):
        previous = safety.apply(previous + np.array([0.0, 0.02]), previous)
    assert safety.self_collision_limited > 0
    assert safety.workspace_limited == 0
    assert gap(previous) == pytest.approx(DISTANCE, abs=1e-4)
    back = previous - 0.02
    np.testing.assert_array_equal(safety.apply(back, previous), back)


def test_links_that_touch_may_part_and_not_come_nearer() -> None:
    safety, body = SafetyFilter(action(PLANAR, 0.05)), SelfCollision(PLANAR)
    inside = np.array([2.0, 2.15])
    before = body.distances(inside).min()
    assert before < 0.0
    parted = 0
    for angle in np.linspace(0.0, 2.0 * np.pi, 16):
        command = inside + 0.02 * np.array([np.cos(angle), np.sin(angle)])
        sent = safety.apply(command, inside)
        assert body.distances(sent).min() >= before - 1e-6
        parts = body.distances(command).min() > before
        assert not parts or np.array_equal(sent, command)
        parted += parts
    assert 0 < parted < 16


def test_a_command_away_from_everything_passes_bit_for_bit() -> None:
    safety = SafetyFilter(action(ARM, 0.02))
    sent = safety.apply(UP + 0.011, UP)
    assert sent.tobytes() == (UP + 0.011).tobytes()
    assert safety.self_collision_limited == 0


def test_an_arm_folded_onto_itself_stops_before_it_touches() -> None:
    safety, body, joints = SafetyFilter(action(ARM, 0.02)), SelfCollision(ARM), UP
    for _ in range(100):
        joints = safety.apply(joints + np.array([0.0, 0.0, 0.02, 0.0, 0.0, 0.0]), joints)
    assert safety.self_collision_limited > 0
    assert body.distances(joints).min() == pytest.approx(0.02, abs=1e-3)


def test_neighbours_and_links_that_are_fixed_together_are_not_watched() -> None:
    pairs = SelfCollision(ARM).pairs
    assert ('base_link', 'upper_arm_link') in pairs
    assert ('base_link', 'shoulder_link') not in pairs
    assert ('wrist_3_link', 'gripper') not in pairs
    ignoring = replace(ARM, ignore=(('upper_arm_link', 'base_link'),))
    assert len(SelfCollision(ignoring).pairs) == len(pairs) - 1


def test_more_pairs_than_a_control_step_has_time_for_are_refused() -> None:
    shapes = ''.join(cylinder(0.01, 0.01, (0.01 * k, 0.0, 0.0)) for k in range(46))
    text = two_links(collision=shapes)  # Of the tip, against two of the base.
    assert len(SelfCollision(SelfCollisionSpec(Urdf('', text, ('a', 'b')), DISTANCE)).pairs) < 100
    both = text.replace('<link name="base">', f'<link name="base">{shapes}')
    with pytest.raises(ConfigError, match=r'more than 2000 pairs of shapes of many.urdf .* ignore'):
        SelfCollision(SelfCollisionSpec(Urdf('many.urdf', both, ('a', 'b')), DISTANCE))


def test_pairs_too_near_at_home_are_named() -> None:
    far = replace(ARM, distance=0.1)
    body = SelfCollision(far)
    near = {(one, other) for one, other, _ in body.near(body.rest)}
    assert ('base_link', 'upper_arm_link') in near
    assert ('base_link', 'gripper') not in near


def test_a_mesh_counts_as_its_convex_hull(tmp_path: Path) -> None:
    """Its corner is 0.2 m nearer to the post than the end of the arm."""
    write_tetrahedron(tmp_path / 'tip.stl')
    source = str(tmp_path / 'arm.urdf')
    folded = np.array([0.0, np.pi])
    for name in ('tip.stl', f'file://{tmp_path}/tip.stl'):
        given = Urdf(source, two_links(collision=mesh(name)), ('a', 'b'))
        body = SelfCollision(SelfCollisionSpec(given, DISTANCE))
        distances = zip(body.pairs, body.distances(folded), strict=True)
        far = [distance for pair, distance in distances if pair == ('base', 'tip')]
        assert far == pytest.approx([0.15, 0.7], abs=1e-6)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('package://arm_description/none.stl', 'is not there'),
        ('none.stl', 'is not there'),
        ('junk.stl', 'junk.stl'),
        ('large.stl', 'larger than'),
        ('flat.obj', 'has no volume'),
        ('far.obj', 'further than 100 m'),
        ('arm.urdf', 'is none of .stl, .dae, .obj'),
    ],
)
def test_a_mesh_that_cannot_be_used_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / 'junk.stl').write_bytes(b'junk' * 100)
    for other, z in (('flat.obj', '0'), ('far.obj', '1e30')):
        corners = ''.join(f'v {xy} {z}\n' for xy in ('0 0', '1 0', '0 1', '1 1'))
        (tmp_path / other).write_text(f'{corners}f 1 2 3\nf 2 3 4\n')
    (tmp_path / 'arm.urdf').touch()
    with (tmp_path / 'large.stl').open('wb') as file:
        file.truncate(2**24 + 1)
    given = Urdf(str(tmp_path / 'arm.urdf'), two_links(collision=mesh(name)), ('a', 'b'))
    with pytest.raises(ConfigError, match=reason) as caught:
        SelfCollision(SelfCollisionSpec(given, DISTANCE))
    assert name in str(caught.value)


def test_the_points_of_the_urdf_are_where_those_of_the_shipped_model_are() -> None:
    robot, _ = load_robot('ur_forward_position')
    shipped = robot.action.workspace
    assert shipped is not None
    theirs, own = Workspace(shipped), Workspace(replace(shipped, model='', urdf=ARM.urdf))
    for joints in np.random.default_rng(0).uniform(-3.0, 3.0, (20, 6)):
        np.testing.assert_allclose(own.positions(joints), theirs.positions(joints), atol=1e-9)


def test_a_joint_that_turns_for_ever_and_one_that_follows_move_what_hangs_on_them() -> None:
    """Joint d, which no action moves, stays at 0."""
    ahead = (1.0, 0.0, 0.0)
    text = urdf(
        *(link(name) for name in ('base', 'one', 'two', 'three', 'end', 'tip')),
        joint('a', 'base', 'one', kind='continuous', limit='<limit effort="1" velocity="1"/>'),
        joint('b', 'one', 'two', ahead),
        joint('c', 'two', 'three', ahead, more='<mimic joint="b" multiplier="2"/>'),
        joint('d', 'three', 'end', ahead),
        joint('fix', 'end', 'tip', ahead, kind='fixed', limit=''),
    )
    joints = ('b', '', 'a')
    arm = Workspace(WorkspaceSpec('', ('tip',), joints, *WIDE, Urdf('made', text, joints)))
    turns = np.cumsum([7.0, 0.3, 0.6, 0.0])
    expected = [np.cos(turns).sum(), np.sin(turns).sum(), 0.0]
    np.testing.assert_allclose(arm.positions(np.array([0.3, 5.0, 7.0])), [expected], atol=1e-9)


def test_coordinates_may_be_those_of_any_link() -> None:
    """As of `base` and `base_link` of one arm, which differ by half a turn."""
    arm = Workspace(WorkspaceSpec('', ('tip',), ('a', 'b'), *WIDE, PLANAR.urdf, 'upper'))
    expected = [1.0 + np.cos(0.4), np.sin(0.4), 0.0]
    np.testing.assert_allclose(arm.positions(np.array([2.5, 0.4])), [expected], atol=1e-9)


def test_each_point_has_a_box_of_its_own() -> None:
    boxes = np.array([[[-3.0] * 3, [-0.5, -3.0, -3.0]], [[3.0] * 3, [0.5, 3.0, 3.0]]])
    spec = WorkspaceSpec('', ('tip', 'lower'), ('a', 'b'), *boxes, PLANAR.urdf)
    safety = SafetyFilter(replace(action(PLANAR, 0.05), self_collision=None, workspace=spec))
    joints = np.array([np.pi / 2, 0.0])
    for _ in range(50):
        joints = safety.apply(joints - 0.05, joints)
    assert safety.workspace_limited > 0
    assert safety.workspace is not None
    assert safety.workspace.positions(joints)[1, 0] == pytest.approx(0.5, abs=1e-3)
