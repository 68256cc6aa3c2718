# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot's URDF says of the joints that its actions move, read by pinocchio."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from residual_rl_ros.errors import ConfigError, FormatError
from residual_rl_ros.files.limits import JOINTS, LINKS, MIB, read_text
from residual_rl_ros.files.xml_text import parse_xml
from residual_rl_ros.numerics import Array, as_number
from residual_rl_ros.resources import package_file
from residual_rl_ros.schema import parameter

TOPIC = 'topic'
"""Instead of a file: what robot_state_publisher latches."""
NAME = 'robot_description'
"""Name of that topic."""
STDERR = 2
"""Its file descriptor: what is written in C++ goes there."""
AXIS = 1e-6
"""A shorter axis has no direction."""
LISTED = 12
"""So many names of joints or links are listed for one that is unknown."""


def pinocchio() -> Any:
    """Return the module that reads URDF.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pinocchio as module
    except ImportError as error:
        raise ConfigError(
            'robot.robot_description needs pinocchio, which is not installed: '
            "pip install 'residual_rl_ros[urdf]', or apt install ros-$ROS_DISTRO-pinocchio"
        ) from error
    return module


@dataclass(frozen=True, kw_only=True)
class UrdfKeys:
    """Of `robot.robot_description`."""

    urdf: str = parameter(
        MISSING,
        'a path, `package://<package>/<path>`, or `topic`: the latched `robot_description`, for '
        'which the limits stand in `action`',
        filled=True,
    )
    joints: tuple[str, ...] = parameter(
        (), "joint of each action, '' for one that moves none; default: the one that measures it"
    )
    velocity_share: float = parameter(
        0.5, 'part of the velocities that limits taken from it allow', maximum=1.0, above=0.0
    )


@dataclass(frozen=True)
class Urdf:
    """The URDF of a robot, and which of its joints the actions move."""

    source: str
    """The file, or `TOPIC`."""
    text: str = field(repr=False)
    """Empty where nobody has heard the topic: then nothing can be made of it."""
    joints: tuple[str, ...]
    """Joint of each action (m), empty for one that moves none."""

    @property
    def folder(self) -> Path | None:
        """Where the file lies, None for a topic."""
        return None if self.source == TOPIC else Path(self.source).parent


def read_urdf(name: str) -> tuple[str, str]:
    """Return file and text of a URDF.

    Args:
        name: a path or `package://<package>/<path>`.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    path = package_file(name) if name.startswith('package://') else Path(name)
    if path is None:
        raise ConfigError(
            f'robot_description.urdf is {name!r}, which no folder of AMENT_PREFIX_PATH holds: '
            'source its workspace, or give a path'
        )
    try:
        text = read_text(path)
    except FormatError as error:
        raise ConfigError(f'robot_description.urdf is {name!r}: {error}') from error
    parse_urdf(text, str(path))
    return str(path), text


def parse_urdf(text: str, source: str) -> Element:
    """Return the root of a URDF.

    Args:
        text: the URDF.
        source: where it is from, for the errors.

    Raises:
        ConfigError: it is none, is xacro that was not expanded, or asks for more than the limits.
    """
    try:
        root = parse_xml(text, f'robot_description {source}')
    except FormatError as error:
        raise ConfigError(str(error)) from error
    for element in root.iter():
        values = (element.tag, *element.attrib.values())
        if element.tag.startswith('xacro:') or any('${' in v or '$(' in v for v in values):
            raise ConfigError(
                f'robot_description {source} holds xacro (<{element.tag[:80]}>), expected the URDF '
                f'that is made of it: xacro {source} > robot.urdf'
            )
    links = len(root.findall('link'))
    joints = sum(joint.get('type') != 'fixed' for joint in root.iterfind('joint'))
    if root.tag != 'robot' or not 0 < links <= LINKS or joints > JOINTS:
        raise ConfigError(
            f'robot_description {source} has the root <{root.tag[:80]}>, {links} links and '
            f'{joints} joints that move, expected <robot> with 1 to {LINKS} links and up to '
            f'{JOINTS} joints'
        )
    for problem in (_axis_problem(root), _tree_problem(root)):
        if problem:
            raise ConfigError(f'robot_description {source}: {problem}')
    return root


def _axis_problem(root: Element) -> str:
    """Return which joint turns or slides along nothing, empty if none does."""
    for joint in root.iterfind('joint'):
        axis = joint.find('axis')
        if axis is None or joint.get('type') in ('fixed', 'floating'):
            continue
        numbers = np.array([as_number(text) for text in axis.get('xyz', '1 0 0').split()])
        if numbers.shape != (3,) or not AXIS < np.linalg.norm(numbers) < np.inf:
            return (
                f'joint {joint.get("name")!r} has the axis {axis.get("xyz")!r}, expected three '
                'numbers x, y, z, not all 0'
            )
    return ''


def _tree_problem(root: Element) -> str:
    """Return why the links form no tree, empty if they do."""
    parents: dict[str, str] = {}
    for joint in root.iterfind('joint'):
        ends = [joint.find(key) for key in ('parent', 'child')]
        parent, child = ('' if end is None else end.get('link', '') for end in ends)
        if child in parents:
            return f'several joints have the child link {child!r}, expected one: links form a tree'
        parents[child] = parent
    links = [link.get('name', '') for link in root.iterfind('link')]
    sound: set[str] = set()
    for link in links:
        way: dict[str, None] = {}
        while link in parents and link not in sound:
            if link in way:
                named = [*way][:LISTED]
                return f'links form a loop, {" - ".join(named)}: remove a joint, links form a tree'
            way[link] = None
            link = parents[link]
        sound.update(way)
    bases = [link for link in links if link not in parents]
    if len(bases) != 1:
        return (
            f'no joint has the child link {", ".join(bases[:LISTED])}, expected one such link, '
            'the base: links form a tree'
        )
    return ''


@contextmanager
def urdf_errors(source: str) -> Iterator[None]:
    """Say in one line why pinocchio refuses a URDF; its parser tells that stderr alone.

    What else is written there meanwhile is written in the end.

    Args:
        source: where the URDF is from.

    Raises:
        ConfigError: pinocchio refuses it.
    """
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), STDERR)
        try:
            yield
        except (ValueError, RuntimeError, IndexError) as error:
            told.seek(0)
            said = told.read(MIB).decode(errors='replace').partition('Error:')[2]
            reason = said.partition(' at line ')[0] or str(error).partition('message:')[2] or error
            raise ConfigError(f'pinocchio cannot read {source}: {reason}') from error
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
        told.seek(0)
        os.write(STDERR, told.read(MIB))


@dataclass(frozen=True)
class JointLimits:
    """What a URDF says of the joint of each action, shape (m,); NaN where it says nothing."""

    lower: Array
    """Smallest position [rad or m]."""
    upper: Array
    """Largest position [rad or m]."""
    velocity: Array
    """Largest velocity [rad/s or m/s]."""
    effort: Array
    """Largest effort [N m or N]."""


class UrdfModel:
    """Kinematics of a URDF; joints that no action moves stay at 0, or at their nearest limit.

    Args:
        urdf: the URDF.

    Raises:
        ConfigError: pinocchio is not installed or cannot read it, or it lacks a joint.
    """

    def __init__(self, urdf: Urdf) -> None:
        self.urdf = urdf
        """The URDF."""
        self.library = pinocchio()
        """The module pinocchio."""
        if not urdf.text:
            raise ConfigError(
                f'robot_description.urdf is {TOPIC}, which policy_node alone hears: name a file'
            )
        with urdf_errors(urdf.source):
            self.model = self.library.buildModelFromXML(urdf.text, mimic=True)
        self.data = self.model.createData()
        self._moved = np.array([bool(name) for name in urdf.joints])
        self.joints = [self._joint(name) for name in urdf.joints if name]
        """Index of the joint of each action that moves one."""
        whole = [self.model.joints[joint].nq == 1 for joint in self.joints]
        places = [self.model.joints[joint].idx_q for joint in self.joints]
        self._places, self._turning = np.array(places, dtype=np.intp), ~np.array(whole)
        self._rest = self._resting()

    def _joint(self, name: str) -> int:
        """Return the index of a joint of one position."""
        names = list(self.model.names)[1:]
        if name not in names:
            raise ConfigError(f'robot_description.joints: {self._unknown("joint", name, names)}')
        index = self.model.getJointId(name)
        joint = self.model.joints[index]
        if joint.nv != 1:
            reason = 'follows another one (mimic)' if joint.nv == 0 else 'has several positions'
            raise ConfigError(
                f'joint {name!r} of {self.urdf.source} {reason}: name another one in '
                "robot_description.joints, or '' there"
            )
        return int(index)

    def _unknown(self, kind: str, name: str, known: Sequence[str]) -> str:
        more = ', …' if len(known) > LISTED else ''
        return (
            f'{self.urdf.source} has no {kind} {name!r}; it has {", ".join(known[:LISTED])}{more}'
        )

    def _resting(self) -> Array:
        """Return the configuration in which every joint is at 0, or at its nearest limit."""
        rest: Array = self.library.neutral(self.model)
        single = [j for j in self.model.joints if j.nq == 1 and j.nv == 1]
        for joint in single:
            index = joint.idx_q
            low, high = self.model.lowerPositionLimit[index], self.model.upperPositionLimit[index]
            rest[index] = min(max(rest[index], low), high)
        return rest

    @property
    def rest(self) -> Array:
        """Positions where each joint is at 0, or at its nearest limit, shape (m,)."""
        rest = np.zeros(len(self._moved))
        rest[self._moved] = np.where(self._turning, 0.0, self._rest[self._places])
        return rest

    def limits(self) -> JointLimits:
        """Return the limits of the actions' joints."""
        model = self.model
        speeds = [model.joints[joint].idx_v for joint in self.joints]
        # A joint that turns for ever is two numbers, cosine and sine, each within [-1, 1].
        low = np.where(self._turning, np.nan, model.lowerPositionLimit[self._places])
        high = np.where(self._turning, np.nan, model.upperPositionLimit[self._places])
        found = low, high, model.velocityLimit[speeds], model.effortLimit[speeds]
        return JointLimits(*map(self._of_actions, found))

    def _of_actions(self, values: Array) -> Array:
        """Return finite values for each action, NaN for those without a joint."""
        whole = np.full(len(self._moved), np.nan)
        whole[self._moved] = np.where(np.isfinite(values), values, np.nan)
        return whole

    def configuration(self, joints: Array) -> Array:
        """Return pinocchio's configuration at positions of the actions, shape (nq,).

        Args:
            joints: positions in the order of the actions, shape (m,) [rad or m].
        """
        positions = joints[self._moved]
        configuration = self._rest.copy()
        configuration[self._places] = np.where(self._turning, np.cos(positions), positions)
        configuration[self._places[self._turning] + 1] = np.sin(positions[self._turning])
        return configuration

    def frame(self, link: str, key: str) -> int:
        """Return the index of a link's frame.

        Args:
            link: its name.
            key: names it, for the error.

        Raises:
            ConfigError: there is no such link.
        """
        kind = self.library.FrameType.BODY
        if not self.model.existFrame(link, kind):
            links = [each.name for each in self.model.frames if each.type == kind]
            raise ConfigError(f'{key}: {self._unknown("link", link, links)}')
        return int(self.model.getFrameId(link, kind))
