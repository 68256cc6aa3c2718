# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the links of an arm may be that is commanded in joint positions: in boxes, and apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.files.limits import MESH_BYTES
from residual_rl_ros.numerics import Array
from residual_rl_ros.resources import find_file, package_file
from residual_rl_ros.robot.body_section import SELF_COLLISION, WORKSPACE
from residual_rl_ros.robot.body_spec import SelfCollisionSpec, WorkspaceSpec
from residual_rl_ros.robot.urdf import Urdf, UrdfModel, parse_urdf, urdf_errors

MESH_M = 100.0
"""No corner of a mesh is further away [m]."""
SIZES = ('radius', 'length', 'size')
"""Attributes of shapes."""
MOST_PAIRS = 2000
"""Of shapes whose distances a control step computes: 0.6 ms, some 5 ms where it is cut short."""
MESH_TYPES = ('.stl', '.dae', '.obj')
"""Of the dozens of formats that the loader of meshes knows, those of robots."""


class BodyLimit(Protocol):
    """A limit of joint positions."""

    def excess(self, joints: Array) -> Array:
        """Return how far each of its quantities is beyond the limit, shape (k,), [m], 0 inside."""

    def problem(self, joints: Array) -> str:
        """Return what is beyond the limit, in words; empty if nothing is."""


class Workspace:
    """The boxes of named points.

    Args:
        spec: kinematic model, points and boxes.

    Raises:
        ResourceError: no shipped model has the name.
        ConfigError: the model cannot be read, or has no such joint or point.
    """

    def __init__(self, spec: WorkspaceSpec) -> None:
        self.spec = spec
        """Boxes, points and joints."""
        self.positions: Callable[[Array], Array]
        """Returns where the points are, shape (points, 3), base frame of the model [m], at joint
        positions in the order of the actions, shape (m,) [rad or m]."""
        self.positions = _urdf_points(spec) if spec.urdf else _mujoco_points(spec)

    def contains(self, joints: Array) -> bool:
        """Return whether each point is inside its box."""
        return not self.excess(joints).any()

    def problem(self, joints: Array) -> str:
        """Return which point positions bring out of its box, and where; empty if none."""
        outside = self.excess(joints).reshape(-1, 3).any(1)
        if not outside.any():
            return ''
        index = int(np.argmax(outside))
        lower, upper = (each[index].tolist() for each in (self.spec.lower, self.spec.upper))
        return (
            f'bring {self.spec.points[index]} to '
            f'{np.round(self.positions(joints)[index], 3).tolist()}, outside of '
            f'robot.action.workspace {lower} to {upper}'
        )

    def excess(self, joints: Array) -> Array:
        """Return how far each coordinate of each point is outside, shape (3 points,) [m]."""
        positions = self.positions(joints)
        beyond: Array = np.maximum(self.spec.lower - positions, positions - self.spec.upper)
        return np.maximum(beyond, 0.0).ravel()


def _urdf_points(spec: WorkspaceSpec) -> Callable[[Array], Array]:
    """Return the kinematics of links of the robot's URDF."""
    assert spec.urdf is not None
    chain = UrdfModel(spec.urdf)
    pin, model, data = chain.library, chain.model, chain.data
    frames = [chain.frame(point, f'{WORKSPACE}: point') for point in spec.points]
    origin = chain.frame(spec.frame, f'{WORKSPACE}.frame') if spec.frame else None

    def positions(joints: Array) -> Array:
        pin.forwardKinematics(model, data, chain.configuration(joints))
        found = np.array([pin.updateFramePlacement(model, data, f).translation for f in frames])
        if origin is None:
            return found
        base = pin.updateFramePlacement(model, data, origin)
        rotated: Array = (found - base.translation) @ base.rotation
        return rotated

    return positions


def _mujoco_points(spec: WorkspaceSpec) -> Callable[[Array], Array]:
    """Return the kinematics of sites and bodies of an MJCF or URDF file."""
    import mujoco  # Here, for a robot without workspace limits needs no MuJoCo.

    given = Path(spec.model)
    path = given if given.suffix else find_file('arm model', ('sim',), spec.model, '.xml')
    model = _mujoco_model(path)
    data = mujoco.MjData(model)
    try:
        joints = [model.joint(name) for name in spec.joints if name]
        for joint in joints:
            if joint.type[0] not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
                raise ConfigError(
                    f'arm model {spec.model!r}: {joint.name!r} is no joint of one position; '
                    'name hinges and slides in robot.action.workspace.joints'
                )
        sites = {model.site(index).name for index in range(model.nsite)}
        places = [
            data.site(point).xpos if point in sites else data.body(point).xpos
            for point in spec.points
        ]
    except KeyError as error:
        raise ConfigError(f'arm model {spec.model!r}: {error.args[0]}') from error
    addresses = np.array([joint.qposadr[0] for joint in joints])
    moved = np.array([bool(name) for name in spec.joints])

    def positions(joints: Array) -> Array:
        data.qpos[addresses] = joints[moved]
        mujoco.mj_kinematics(model, data)
        return np.array(places)

    return positions


def _mujoco_model(path: Path) -> Any:
    """Load joints and frames of an MJCF or URDF file; its meshes need not be there."""
    import mujoco

    try:
        spec = mujoco.MjSpec.from_file(str(path))
        for geometry in spec.geoms:
            spec.delete(geometry)
        for mesh in spec.meshes:
            spec.delete(mesh)
        spec.compiler.fusestatic = False  # Links without a joint are points too.
        spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
        return spec.compile()
    except (ValueError, OSError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'cannot read arm model {str(path)!r}: {reason}') from error


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
