# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""URDFs with collision geometry: an arm like a UR5e, and a planar one of two links."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PI = np.pi
FLAT = (0.0, PI / 2, 0.0)
"""Lays a cylinder along x."""


def numbers(values: tuple[float, ...]) -> str:
    return ' '.join(f'{value:.12g}' for value in values)


def cylinder(
    radius: float,
    length: float,
    xyz: tuple[float, ...] = (0.0, 0.0, 0.0),
    rpy: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> str:
    return (
        f'<collision><origin xyz="{numbers(xyz)}" rpy="{numbers(rpy)}"/>'
        f'<geometry><cylinder radius="{radius}" length="{length}"/></geometry></collision>'
    )


def box(size: tuple[float, ...], xyz: tuple[float, ...] = (0.0, 0.0, 0.0)) -> str:
    return (
        f'<collision><origin xyz="{numbers(xyz)}"/>'
        f'<geometry><box size="{numbers(size)}"/></geometry></collision>'
    )


def mesh(filename: str) -> str:
    return f'<collision><geometry><mesh filename="{filename}"/></geometry></collision>'


def link(name: str, collision: str = '') -> str:
    return f'<link name="{name}">{collision}</link>'


def joint(
    name: str,
    parent: str,
    child: str,
    xyz: tuple[float, ...] = (0.0, 0.0, 0.0),
    rpy: tuple[float, ...] = (0.0, 0.0, 0.0),
    kind: str = 'revolute',
    limit: str = '<limit lower="-3" upper="3" effort="150" velocity="2"/>',
    more: str = '',
    axis: str = '0 0 1',
) -> str:
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{numbers(xyz)}" rpy="{numbers(rpy)}"/><axis xyz="{axis}"/>{limit}{more}'
        '</joint>'
    )


def urdf(*parts: str) -> str:
    return f'<?xml version="1.0"?>\n<robot name="made">{"".join(parts)}</robot>'


def two_links(*more: str, collision: str = '') -> str:
    """Return a planar arm of two links of 1 m above a base with a post beside it.

    Args:
        *more: elements after its own.
        collision: of a tip at its end.
    """
    return urdf(
        link(
            'base', box((0.2, 0.2, 0.1), (0.0, 0.0, -0.2)) + box((0.2, 0.2, 1.0), (-1.0, 0.0, 0.0))
        ),
        link('upper', cylinder(0.05, 0.9, (0.5, 0.0, 0.0), FLAT)),
        link('lower', cylinder(0.05, 0.8, (0.6, 0.0, 0.0), FLAT)),
        link('tip', collision),
        joint('a', 'base', 'upper'),
        joint('b', 'upper', 'lower', (1.0, 0.0, 0.0)),
        joint('end', 'lower', 'tip', (1.0, 0.0, 0.0), kind='fixed', limit=''),
        *more,
    )


POST = np.array([[-1.1, -0.1], [-0.9, 0.1]])
"""Smallest and largest x and y of the post beside the arm [m]."""


def corners(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return those of a rectangle, shape (4, 2)."""
    return np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])


def outside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return how far points are from a rectangle along its axes."""
    return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0.0), axis=1)


def gap(joints: np.ndarray) -> float:
    """Return the distance of the lower link from the post by plane geometry, 0 if they meet [m].

    Both are rectangles: a corner of one is nearest to the other.
    """
    a, b = joints
    elbow = np.array([np.cos(a), np.sin(a)])
    turn = np.array([[np.cos(a + b), -np.sin(a + b)], [np.sin(a + b), np.cos(a + b)]])
    low, high = np.array([0.2, -0.05]), np.array([1.0, 0.05])
    link, post = corners(low, high) @ turn.T + elbow, corners(*POST)
    for axes in (np.eye(2), turn):
        one, other = link @ axes, post @ axes
        if ((one.max(0) < other.min(0)) | (other.max(0) < one.min(0))).any():
            return float(
                min(outside(link, *POST).min(), outside((post - elbow) @ turn, low, high).min())
            )
    return 0.0


UR5E_JOINTS = (
    'shoulder_pan_joint',
    'shoulder_lift_joint',
    'elbow_joint',
    'wrist_1_joint',
    'wrist_2_joint',
    'wrist_3_joint',
)
UR5E_LINKS = (
    'base_link',
    'shoulder_link',
    'upper_arm_link',
    'forearm_link',
    'wrist_1_link',
    'wrist_2_link',
    'wrist_3_link',
)


def ur5e_like(share: float = 1.0) -> str:
    """Return an arm with the joints of a UR5e, each link a cylinder, and a box as its gripper.

    Args:
        share: of the velocities of a UR5e.
    """
    places = (
        ((0.0, 0.0, 0.1625), (0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (PI / 2, 0.0, 0.0)),
        ((-0.425, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((-0.3922, 0.0, 0.1333), (0.0, 0.0, 0.0)),
        ((0.0, -0.0997, 0.0), (PI / 2, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (-PI / 2, 0.0, 0.0)),
    )
    shapes = (
        cylinder(0.07, 0.08, (0.0, 0.0, 0.04)),
        cylinder(0.06, 0.12),
        cylinder(0.055, 0.46, (-0.2125, 0.0, 0.138), FLAT),
        cylinder(0.045, 0.42, (-0.196, 0.0, 0.007), FLAT),
        *(cylinder(0.042, 0.09) for _ in range(2)),
        cylinder(0.04, 0.05, (0.0, 0.0, 0.07)),
    )
    parts = [link(name, shape) for name, shape in zip(UR5E_LINKS, shapes, strict=True)]
    for index, (name, (xyz, rpy)) in enumerate(zip(UR5E_JOINTS, places, strict=True)):
        reach = PI if name == 'elbow_joint' else 2 * PI
        limit = f'<limit lower="{-reach}" upper="{reach}" effort="150" velocity="{share * PI}"/>'
        parts.append(joint(name, *UR5E_LINKS[index : index + 2], xyz, rpy, limit=limit))
    fixed = {'kind': 'fixed', 'limit': ''}
    return urdf(
        *parts,
        link('tool0'),
        joint('flange', 'wrist_3_link', 'tool0', (0.0, 0.0, 0.0996), **fixed),
        link('gripper', box((0.06, 0.12, 0.12), (0.0, 0.0, 0.07))),
        joint('mount', 'tool0', 'gripper', **fixed),
    )


def write_tetrahedron(path: Path, side: float = 0.2) -> Path:
    """Write a mesh of four triangles (STL), and return its file."""
    corners = side * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype='<f4')
    content = bytearray(80) + np.uint32(4).tobytes()
    for triangle in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)):
        content += np.zeros(3, '<f4').tobytes() + corners[list(triangle)].tobytes() + bytes(2)
    path.write_bytes(bytes(content))
    return path
