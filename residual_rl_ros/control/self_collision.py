# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How near the links of an arm may come that is commanded in joint positions."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.files.limits import MESH_BYTES
from residual_rl_ros.numerics import Array
from residual_rl_ros.resources import package_file
from residual_rl_ros.robot.body_section import SELF_COLLISION
from residual_rl_ros.robot.body_spec import SelfCollisionSpec
from residual_rl_ros.robot.urdf import Urdf, UrdfModel, parse_urdf, urdf_errors

MESH_M = 100.0
"""No corner of a mesh is further away [m]."""
SIZES = ('radius', 'length', 'size')
"""Attributes of shapes."""
MOST_PAIRS = 2000
"""Of shapes whose distances a control step computes: 0.6 ms, some 5 ms where it is cut short."""
MESH_TYPES = ('.stl', '.dae', '.obj')
"""Of the dozens of formats that the loader of meshes knows, those of robots."""


class SelfCollision:
    """The distance that links keep from one another.

    Shapes are the URDF's collision geometries, of a mesh its convex hull. Links that no action
    moves against each other, and neighbours at a joint, may touch.

    Args:
        spec: URDF, distance, and the pairs that may be nearer.

    Raises:
        ConfigError: the URDF or a mesh cannot be read, it has no such link, or nothing can collide,
            or too much.
    """

    def __init__(self, spec: SelfCollisionSpec) -> None:
        self.spec = spec
        """URDF, distance and ignored pairs."""
        self._chain = chain = UrdfModel(spec.urdf)
        self._geometry = _collision_geometry(chain)
        for link in {name for pair in spec.ignore for name in pair}:
            chain.frame(link, f'{SELF_COLLISION}.ignore')  # Is there one?
        self.pairs = self._choose()
        """Pairs of links that are watched, once for each pair of their shapes."""
        if not self.pairs:
            raise ConfigError(
                f'self_collision has nothing to watch: {spec.urdf.source} has no two links with '
                'collision geometry that could meet; remove it'
            )
        self._data = chain.library.GeometryData(self._geometry)

    def _choose(self) -> list[tuple[str, str]]:
        """Add the pairs to watch, and return their links."""
        chain, geometry = self._chain, self._geometry
        frames, parents = chain.model.frames, chain.model.parents
        movers = [self._movers(joint) for joint in range(chain.model.njoints)]
        pairs: list[tuple[str, str]] = []
        for one, other in combinations(range(len(geometry.geometryObjects)), 2):
            shapes = geometry.geometryObjects[one], geometry.geometryObjects[other]
            names = tuple(frames[shape.parentFrame].name for shape in shapes)
            first, second = (int(shape.parentJoint) for shape in shapes)
            neighbours = parents[first] == second or parents[second] == first
            together = movers[first] == movers[second]
            if not (neighbours or together or {*names} in map(set, self.spec.ignore)):
                if len(pairs) == MOST_PAIRS:
                    raise ConfigError(
                        f'self_collision has more than {MOST_PAIRS} pairs of shapes of '
                        f'{chain.urdf.source} to watch, which takes too long in a control step: '
                        'give its links fewer collision shapes, or list pairs in ignore'
                    )
                geometry.addCollisionPair(chain.library.CollisionPair(one, other))
                pairs.append((names[0], names[1]))
        return pairs

    def _movers(self, joint: int) -> set[int]:
        """Return which joints of the actions move what hangs on a joint."""
        model = self._chain.model
        moved = {model.joints[each].idx_q for each in self._chain.joints}
        # A joint that mimics another one has the place of that one.
        return moved.intersection(model.joints[each].idx_q for each in model.supports[joint])

    def distances(self, joints: Array) -> Array:
        """Return the distance of each pair, negative by how far they are in one another [m].

        Args:
            joints: positions in the order of the actions, shape (m,) [rad or m].
        """
        self._nearest(joints)
        return np.array([result.min_distance for result in self._data.distanceResults])

    def _nearest(self, joints: Array) -> float:
        """Compute all distances, and return the smallest [m]."""
        chain = self._chain
        configuration = chain.configuration(joints)
        chain.library.forwardKinematics(chain.model, chain.data, configuration)
        chain.library.updateGeometryPlacements(chain.model, chain.data, self._geometry, self._data)
        nearest = chain.library.computeDistances(self._geometry, self._data)
        return float(self._data.distanceResults[nearest].min_distance)

    def excess(self, joints: Array) -> Array:
        """Return how much nearer than allowed each pair is, shape (pairs,) [m]."""
        if self._nearest(joints) >= self.spec.distance:
            return np.zeros(len(self.pairs))
        found = np.array([result.min_distance for result in self._data.distanceResults])
        return np.maximum(self.spec.distance - found, 0.0)

    def near(self, joints: Array) -> list[tuple[str, str, float]]:
        """Return the pairs that are nearer than allowed, with their distances [m]."""
        found = zip(self.pairs, self.distances(joints).tolist(), strict=True)
        return [(*pair, far) for pair, far in found if far < self.spec.distance]

    @property
    def rest(self) -> Array:
        """Positions of the actions where all joints are at 0, or at their nearest limit."""
        return self._chain.rest

    def problem(self, joints: Array) -> str:
        """Return which links positions bring too near one another, empty if none."""
        return '; '.join(
            f'bring {one} and {other} within {far:.3g} m, nearer than '
            f'robot.action.self_collision.distance {self.spec.distance:g}'
            for one, other, far in self.near(joints)[:1]
        )


def _collision_geometry(chain: UrdfModel) -> Any:
    """Return the collision shapes of a URDF, meshes as their convex hulls."""
    urdf, pin = chain.urdf, chain.library
    root = parse_urdf(urdf.text, urdf.source)
    for shape in root.iterfind('./link/collision/geometry/*'):
        if shape.tag == 'mesh':
            shape.set('filename', str(_mesh_file(shape.get('filename', ''), urdf)))
        size = ' '.join(shape.get(key, '') for key in SIZES).split()
        if not all(map(_is_positive, size)):
            raise ConfigError(
                f'a {shape.tag} of {urdf.source} has the size {" ".join(size)!r}, expected numbers '
                'above 0'
            )
    count = len(root.findall('./link/collision'))
    text = ElementTree.tostring(root, 'unicode')
    with urdf_errors(urdf.source):
        geometry = pin.buildGeomFromUrdfString(chain.model, text, pin.GeometryType.COLLISION)
        if len(geometry.geometryObjects) != count:
            raise ValueError(f'it finds {len(geometry.geometryObjects)} of {count} shapes')
    import coal  # Comes with pinocchio.

    for each in geometry.geometryObjects:
        if each.geometry.getObjectType() == coal.OBJECT_TYPE.OT_BVH:
            points = coal.StdVec_Vec3s()
            points.extend(_hull(each.geometry.vertices(), each.meshPath))
            each.geometry = coal.Convex.convexHull(points, True, 'Qt')
    return geometry


def _hull(points: Array, path: str) -> Array:
    """Return the corners of the convex hull of a mesh, shape (k, 3) [m].

    Raises:
        ConfigError: it is flat, or no mesh of a robot; coal would end the process.
    """
    from scipy.spatial import ConvexHull, QhullError

    if not (np.abs(points) < MESH_M).all():
        raise ConfigError(f'mesh {path!r} reaches further than {MESH_M:g} m: scale it to metres')
    try:
        corners: Array = points[ConvexHull(points).vertices]
    except QhullError as error:
        raise ConfigError(f'mesh {path!r} has no volume: {str(error).splitlines()[0]}') from error
    return corners


def _is_positive(text: str) -> bool:
    """Return whether a text is a number above 0."""
    try:
        return 0.0 < float(text) < np.inf
    except ValueError:
        return False


def _mesh_file(name: str, urdf: Urdf) -> Path:
    """Return the file of a mesh.

    Raises:
        ConfigError: it is not there, or too large.
    """
    if name.startswith('package://'):
        path = package_file(name, urdf.folder)
    else:
        path = (urdf.folder or Path()) / name.removeprefix('file://')
    if path is None or not path.is_file():
        raise ConfigError(
            f'mesh {name!r} of {urdf.source} is not there: source the workspace of its package, or '
            'put it where the URDF says'
        )
    if path.suffix.lower() not in MESH_TYPES:
        raise ConfigError(f'mesh {str(path)!r} is none of {", ".join(MESH_TYPES)}: convert it')
    if path.stat().st_size > MESH_BYTES:
        raise ConfigError(
            f'mesh {str(path)!r} is larger than {MESH_BYTES} bytes: simplify it for collisions'
        )
    return path.resolve()
