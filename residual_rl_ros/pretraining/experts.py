# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scripted experts that solve the tasks from privileged state, to clone base policies from.

All are pure feedback laws: every command is a short, bounded move from where the tool is now, so a
policy can be cloned from single observations and the contact force stays bounded by the arm's
stiffness times the length of that move.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.pretraining.expert import Expert
from residual_rl_ros.pretraining.gripper_experts import (
    FetchPickAndPlaceExpert,
    FetchPushExpert,
    PickPlaceExpert,
)
from residual_rl_ros.tasks.arm_env import ArmEnv
from residual_rl_ros.tasks.kinematics import Pose, wrap_angle
from residual_rl_ros.tasks.metaworld import PREFIX, import_metaworld, task_of
from residual_rl_ros.tasks.peg_insert import PegInsert
from residual_rl_ros.tasks.pick_place import PickPlace
from residual_rl_ros.tasks.push_to_goal import PushToGoal
from residual_rl_ros.tasks.registry import CAMERA_TASKS

FETCH_PICK_AND_PLACE = 'gymnasium_robotics:FetchPickAndPlace-v4'
FETCH_PUSH = 'gymnasium_robotics:FetchPush-v4'


class PegInsertExpert(Expert[PegInsert]):
    """Funnel: the closer the peg is to the axis of the hole, the deeper it may go."""

    reach = 0.0065
    """Longest move of one command, [m]; the speed settles near 12 times this per second."""
    turn = 0.08
    """Largest turn of one command, [rad]."""
    depth = 0.022
    """Depth the peg is sent to, [m]."""
    hover = 0.008
    """Height of the tip above the rim until the peg is aligned, [m]."""
    aligned = 0.0015
    """Misalignment up to which the peg is sent all the way down, [m]; more than the clearance, so
    that a peg that leans on a wall of the hole is not drawn out again."""
    funnel = 0.002
    """Further misalignment over which the sent height rises to `hover`, [m]."""
    lever = 0.01
    """Weight of a yaw error in the misalignment, half the width of the peg, [m/rad]."""

    def act(self, env: PegInsert) -> NDArray[np.float64]:
        """Move over the hole and down the funnel."""
        hole = env.hole_pose()
        tool = env.tool_pose()
        offset = hole.position - tool.position
        misalignment = math.hypot(*offset[:2]) + self.lever * abs(wrap_angle(hole.yaw - tool.yaw))
        openness = np.clip((misalignment - self.aligned) / self.funnel, 0.0, 1.0)
        height = -self.depth + openness * (self.depth + self.hover)
        # The detour is over well before the tip reaches the hover height.
        far = np.clip((-offset[2] - 2.0 * self.hover) / 0.03, 0.0, 1.0)
        target = hole.position + np.array([*(far * self.detour), height])
        return _move_towards(env, Pose(target, hole.yaw), self.reach, self.turn)


class PushToGoalExpert(Expert[PushToGoal]):
    """Steer the block like a unicycle.

    It moves where its pushed face points, and turns when it is pushed off the centre of that face.
    """

    reach = 0.012
    """Longest move of one command, [m]."""
    turn = 0.1
    """Largest turn of one command, [rad]."""
    height = 0.012
    """Height of the tip above the table, [m]."""
    standoff = 0.05
    """Distance from the block's centre at which an approach ends, before contact, [m]."""
    lever = 0.035
    """Offset from the centre of the pushed face per error of its heading, [m/rad]."""
    max_offset = 0.022
    """Largest such offset, short of the edge at 0.03, [m]."""
    push = 0.011
    """Move along the block's axis of one command while pushing, [m]."""
    slide = 0.015
    """Largest move along the pushed face of one command, [m]."""
    aim = 0.0
    """Offset that is added to that of steering: an operator who misjudges the block, [m]."""
    lift = 0.0
    """Height of the tip on the way to the block, for an operator who comes from above, [m]; 0
    stays at `height`."""
    descent = 0.012
    """Distance before the end of the approach at which such an operator comes down, [m]."""
    down = 0.03
    """Height up to which he goes straight down there, [m]."""

    def act(self, env: PushToGoal) -> NDArray[np.float64]:
        """Push on the rear face, off centre by as much as the block has to turn."""
        block = env.block_pose()
        tool = env.tool_pose()
        goal = Pose(env.goal_position(), 0.0).relative_to(block).position
        pusher = tool.relative_to(block).position
        heading_error = math.atan2(goal[1], goal[0])
        steered = self.aim - self.lever * heading_error
        offset = np.clip(steered, -self.max_offset, self.max_offset)
        # The detour is over before the pusher touches the block.
        far = np.clip((-pusher[0] - self.standoff) / 0.03, 0.0, 1.0)
        offset += far * self.detour[1]
        slide = np.clip(offset - pusher[1], -self.slide, self.slide)
        target = block.locate(pusher + np.array([self.push, slide, 0.0]))
        target[2] = self.height
        if self.lift and -pusher[0] > self.standoff + self.descent:
            target[2] = self.lift
        elif self.lift and tool.position[2] > self.down:
            target = block.locate(np.array([-self.standoff, offset, 0.0]))
            target[2] = self.height
        return _move_towards(env, Pose(target, 0.0), self.reach, self.turn)


class MetaWorldExpert(Expert[gymnasium.Env[Any, Any]]):
    """The expert that Meta-World brings for a task."""

    fade = 0.05
    """Distance over which the displacement of the approach fades out [m]."""

    def __init__(
        self,
        task_name: str,
        *,
        rng: np.random.Generator | None = None,
        waypoint_noise: float = 0.0,
    ) -> None:
        super().__init__(rng=rng, waypoint_noise=waypoint_noise)
        policies = import_metaworld().policies.ENV_POLICY_MAP
        self._policy = policies[task_of(task_name)]()

    def act(self, env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
        """Ask it, with a hand that seems displaced while it is far from the object."""
        unwrapped: Any = env.unwrapped
        seen = unwrapped.seen.copy()
        offset = seen[:2] - seen[4:6]
        far = np.clip(np.linalg.norm(offset) / self.fade - 1.0, 0.0, 1.0)
        seen[:2] -= far * self.detour
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # It says at each step that commands are clipped.
            command = self._policy.get_action(seen)
        clipped: NDArray[np.float64] = np.clip(command, -1.0, 1.0).astype(np.float64)
        return clipped


def _move_towards(env: ArmEnv, target: Pose, reach: float, turn: float) -> NDArray[np.float64]:
    """Return joint targets for a move from the true tool pose towards `target`.

    Args:
        env: The task.
        target: Tool pose to approach, in the base frame.
        reach: Longest move over the table, and longest move up or down, [m]. They are apart so
            that pressing down on something takes nothing from the lateral correction.
        turn: Largest turn, [rad].
    """
    tool = env.tool_pose()
    move = target.position - tool.position
    move[:2] *= min(1.0, reach / max(math.hypot(*move[:2]), 1e-9))
    move[2] = np.clip(move[2], -reach, reach)
    yaw = tool.yaw + float(np.clip(wrap_angle(target.yaw - tool.yaw), -turn, turn))
    return env.kinematics.inverse(Pose(tool.position + move, yaw), env.joint_positions())


EXPERTS: dict[str, Any] = {
    PegInsert.task_name: PegInsertExpert,
    PushToGoal.task_name: PushToGoalExpert,
    PickPlace.task_name: PickPlaceExpert,
    FETCH_PICK_AND_PLACE: FetchPickAndPlaceExpert,
    FETCH_PUSH: FetchPushExpert,
}
"""Expert of every task that has one, beside those of Meta-World."""
EXPERTS |= {name: EXPERTS[task] for name, task in CAMERA_TASKS.items()}


def has_expert(task_name: str) -> bool:
    """Return whether a task has an expert; every task of Meta-World has."""
    return task_name in EXPERTS or task_name.startswith(PREFIX)


def make_expert(
    task_name: str,
    *,
    rng: np.random.Generator | None = None,
    waypoint_noise: float = 0.0,
    style: Mapping[str, float] = MappingProxyType({}),
) -> Expert[Any]:
    """Build the expert of a task.

    Args:
        task_name: Name of the task.
        rng: Source of the variation between episodes; needed when `waypoint_noise` is not zero.
        waypoint_noise: Standard deviation by which each episode's approach is displaced, [m]. The
            displacement fades out before contact, so it varies the motion and not the outcome.
        style: Numbers of the expert that differ, by the name of its attribute.

    Raises:
        ConfigError: If no expert knows the task or it has no such number, or noise is given without
            a generator.
    """
    if not has_expert(task_name):
        known = [*EXPERTS, f'{PREFIX}TASK']
        raise ConfigError(f'no expert for task {task_name!r}, expected one of {known}')
    if task_name.startswith(PREFIX):
        return MetaWorldExpert(task_name, rng=rng, waypoint_noise=waypoint_noise)
    expert: Expert[Any] = EXPERTS[task_name](rng=rng, waypoint_noise=waypoint_noise)
    numbers = sorted(
        name
        for kind in type(expert).__mro__
        for name, value in vars(kind).items()
        if isinstance(value, float)
    )
    for name, value in style.items():
        if name not in numbers or not isinstance(value, (int, float)):
            raise ConfigError(
                f'the expert of {task_name!r} takes no {name} of {value!r}, expected a number for '
                f'one of {", ".join(numbers)}'
            )
        setattr(expert, name, float(value))
    return expert
