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
from typing import Any, Protocol, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.tasks.arm_env import ArmEnv
from residual_rl_ros.tasks.kinematics import Pose, wrap_angle
from residual_rl_ros.tasks.metaworld import PREFIX, import_metaworld, task_of
from residual_rl_ros.tasks.peg_insert import PegInsert
from residual_rl_ros.tasks.pick_place import CUBE_HALF_WIDTH_M, OPEN_M, PickPlace
from residual_rl_ros.tasks.push_to_goal import PushToGoal
from residual_rl_ros.tasks.registry import CAMERA_TASKS

EnvT = TypeVar('EnvT', contravariant=True)
FETCH_PICK_AND_PLACE = 'gymnasium_robotics:FetchPickAndPlace-v4'
FETCH_PUSH = 'gymnasium_robotics:FetchPush-v4'


class Expert(Protocol[EnvT]):
    """A policy with access to the true state of its task."""

    def reset(self, env: EnvT) -> None:
        """Prepare for an episode that `env` has just been reset to."""

    def act(self, env: EnvT) -> NDArray[np.float64]:
        """Return the command of the next control step, shape (m,).

        For the tasks of this package it is absolute joint position targets, [rad].
        """


class _Detour:
    """The displacement of one episode's approach."""

    def __init__(self, rng: np.random.Generator | None, waypoint_noise: float) -> None:
        """Check that noise comes with a generator."""
        if waypoint_noise and rng is None:
            raise ConfigError(
                f'waypoint_noise is {waypoint_noise} but rng is None, expected a numpy Generator; '
                'pass rng to the expert'
            )
        self._rng = rng
        self._std = waypoint_noise
        self.offset: NDArray[np.float64] = np.zeros(2)

    def draw(self) -> None:
        """Draw the displacement, shape (2,), [m], of the next episode."""
        if self._rng is not None:
            self.offset = self._std * self._rng.standard_normal(2)


class PegInsertExpert:
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

    def __init__(
        self, *, rng: np.random.Generator | None = None, waypoint_noise: float = 0.0
    ) -> None:
        """Set the variation between episodes, see `make_expert`."""
        self._detour = _Detour(rng, waypoint_noise)

    def reset(self, env: PegInsert) -> None:
        """Draw this episode's approach."""
        self._detour.draw()

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
        target = hole.position + np.array([*(far * self._detour.offset), height])
        return _move_towards(env, Pose(target, hole.yaw), self.reach, self.turn)


class PushToGoalExpert:
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

    def __init__(
        self, *, rng: np.random.Generator | None = None, waypoint_noise: float = 0.0
    ) -> None:
        """Set the variation between episodes, see `make_expert`."""
        self._detour = _Detour(rng, waypoint_noise)

    def reset(self, env: PushToGoal) -> None:
        """Draw this episode's approach."""
        self._detour.draw()

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
        offset += far * self._detour.offset[1]
        slide = np.clip(offset - pusher[1], -self.slide, self.slide)
        target = block.locate(pusher + np.array([self.push, slide, 0.0]))
        target[2] = self.height
        if self.lift and -pusher[0] > self.standoff + self.descent:
            target[2] = self.lift
        elif self.lift and tool.position[2] > self.down:
            target = block.locate(np.array([-self.standoff, offset, 0.0]))
            target[2] = self.height
        return _move_towards(env, Pose(target, 0.0), self.reach, self.turn)


class PickPlaceExpert:
    """Above the cube, down, close, up, to the disc, down, open: each from what is seen now."""

    reach = 0.04
    """Longest move of one command over the table, [m]."""
    lift = 0.03
    """Longest move up or down of one command, [m]."""
    hover = 0.045
    """Height above the cube's centre until the gripper is over it, [m]."""
    carry = 0.055
    """Height at which the cube is carried, [m]."""
    near = 0.004
    """Misalignment up to which the gripper goes down, closes or opens, [m]."""
    grasp = 0.012
    """Height of the tool centre point in a grasp, [m]."""
    held = 0.0385
    """Opening of the fingers below which they hold the cube, [m]."""
    squeeze = 0.02
    """Opening that is commanded to hold the cube, [m]."""

    def __init__(
        self, *, rng: np.random.Generator | None = None, waypoint_noise: float = 0.0
    ) -> None:
        """Set the variation between episodes, see `make_expert`."""
        self._detour = _Detour(rng, waypoint_noise)

    def reset(self, env: PickPlace) -> None:
        """Draw this episode's approach."""
        self._detour.draw()

    def act(self, env: PickPlace) -> NDArray[np.float64]:
        """Approach, grasp, carry or release."""
        now, cube = env.positions(), env.cube_position()
        offset = cube - now[:3]
        beside = math.hypot(*offset[:2])
        around = beside < 2.0 * self.near and abs(offset[2]) < CUBE_HALF_WIDTH_M
        if around and now[3] < self.held:
            return self._carry(env, now, cube)
        far = np.clip((beside - 0.02) / 0.03, 0.0, 1.0)
        over = beside < self.near or (around and beside < 2.0 * self.near)
        height = self.grasp if over else cube[2] + self.hover
        target = np.array([*(cube[:2] + far * self._detour.offset), height])
        if not over and now[2] < cube[2] + self.hover - 0.01:
            target[:2] = now[:2]  # Beside the cube: up first.
        close = over and now[2] < self.grasp + self.near
        return self._move(now, target, self.squeeze if close else OPEN_M)

    def _carry(
        self, env: PickPlace, now: NDArray[np.float64], cube: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Take the cube to the disc, and leave it there."""
        goal = env.goal_position()
        way = goal[:2] - cube[:2]
        beside = math.hypot(*way)
        low = cube[2] < CUBE_HALF_WIDTH_M + self.near
        if beside < self.near:
            target = np.array([*(now[:2] + way), self.grasp])
            return self._move(now, target, OPEN_M if low else self.squeeze)
        up = np.clip((cube[2] - CUBE_HALF_WIDTH_M - 0.01) / 0.02, 0.0, 1.0)
        return self._move(now, np.array([*(now[:2] + up * way), self.carry]), self.squeeze)

    def _move(
        self, now: NDArray[np.float64], target: NDArray[np.float64], opening: float
    ) -> NDArray[np.float64]:
        """Return the command of a short move towards a target, shape (4,)."""
        move = target - now[:3]
        move[:2] *= min(1.0, self.reach / max(math.hypot(*move[:2]), 1e-9))
        move[2] = np.clip(move[2], -self.lift, self.lift)
        return np.array([*(now[:3] + move), opening])


class FetchPickAndPlaceExpert:
    """Above the object, down, close, to the goal: each from what is seen now.

    Positions are in the world frame [m]; a command is a displacement of the gripper in units of
    5 cm and the opening of its fingers, each in [-1, 1].
    """

    gain = 10.0
    """Command per displacement [1/m]."""
    hover = 0.05
    """Height above the object until the gripper is over it [m]."""
    near = 0.012
    """Misalignment at which the gripper goes down, and at which it closes [m]."""
    held = 0.052
    """Opening of the fingers below which they hold the object [m]."""

    def __init__(
        self, *, rng: np.random.Generator | None = None, waypoint_noise: float = 0.0
    ) -> None:
        """Set the variation between episodes, see `make_expert`."""
        self._detour = _Detour(rng, waypoint_noise)

    def reset(self, env: gymnasium.Env[Any, Any]) -> None:
        """Draw this episode's approach."""
        del env
        self._detour.draw()

    def act(self, env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
        """Approach, grasp or carry."""
        unwrapped: Any = env.unwrapped
        seen = unwrapped._get_obs()  # The environment offers no other access to its state.
        state = seen['observation']
        gripper, thing, opening = state[:3], state[3:6], state[9] + state[10]
        offset = thing - gripper
        aligned = math.hypot(*offset[:2]) < self.near
        if aligned and abs(offset[2]) < self.near:
            carry = opening <= self.held
            move = seen['desired_goal'] - gripper if carry else np.zeros(3)
            return np.array([*np.clip(self.gain * move, -1.0, 1.0), -1.0])
        far = np.clip((np.linalg.norm(offset) - 2.0 * self.hover) / self.hover, 0.0, 1.0)
        move = offset + np.array([*(far * self._detour.offset), 0.0 if aligned else self.hover])
        return np.array([*np.clip(self.gain * move, -1.0, 1.0), 1.0])


class FetchPushExpert:
    """Behind the object as seen from the goal, down, and through it: each from what is seen now.

    Commands are those of `FetchPickAndPlaceExpert`; the fingers are closed.
    """

    gain = 10.0
    """Command per displacement [1/m]."""
    behind = 0.09
    """Distance from the object's centre at which the gripper comes down [m]."""
    hover = 0.08
    """Height above the object on the way there [m]."""
    near = 0.015
    """Misalignment at which the gripper goes down [m]."""
    lane = 0.02
    """Distance from the line of the push at which the gripper begins anew [m]."""
    push = 0.06
    """Longest move of one command while pushing [m]."""

    def __init__(
        self, *, rng: np.random.Generator | None = None, waypoint_noise: float = 0.0
    ) -> None:
        """Set the variation between episodes, see `make_expert`."""
        self._detour = _Detour(rng, waypoint_noise)

    def reset(self, env: gymnasium.Env[Any, Any]) -> None:
        """Draw this episode's approach."""
        del env
        self._detour.draw()

    def act(self, env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
        """Approach, go down or push."""
        unwrapped: Any = env.unwrapped
        seen = unwrapped._get_obs()  # The environment offers no other access to its state.
        gripper, thing = seen['observation'][:3], seen['observation'][3:6]
        way = (seen['desired_goal'] - thing)[:2]
        distance = float(np.linalg.norm(way))
        forward = way / max(distance, 1e-6)
        offset = (gripper - thing)[:2]
        along = float(offset @ forward)
        across = offset - along * forward
        low = gripper[2] - thing[2] < self.near
        if low and along < 0.0 and np.linalg.norm(across) < self.lane:
            move = np.array([*(min(distance, self.push) * forward - across), thing[2] - gripper[2]])
        else:
            start = -self.behind * forward
            there = float(np.linalg.norm(offset - start))
            far = np.clip((there - self.hover) / self.hover, 0.0, 1.0)
            height = 0.0 if there < self.near else self.hover
            lateral = start - offset + far * self._detour.offset
            rising = low and there >= self.near
            move = np.array(
                [*(0.0 * lateral if rising else lateral), thing[2] + height - gripper[2]]
            )
        return np.array([*np.clip(self.gain * move, -1.0, 1.0), -1.0])


class MetaWorldExpert:
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
        """Set the variation between episodes, see `make_expert`."""
        self._detour = _Detour(rng, waypoint_noise)
        policies = import_metaworld().policies.ENV_POLICY_MAP
        self._policy = policies[task_of(task_name)]()

    def reset(self, env: gymnasium.Env[Any, Any]) -> None:
        """Draw this episode's approach."""
        del env
        self._detour.draw()

    def act(self, env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
        """Ask it, with a hand that seems displaced while it is far from the object."""
        unwrapped: Any = env.unwrapped
        seen = unwrapped.seen.copy()
        offset = seen[:2] - seen[4:6]
        far = np.clip(np.linalg.norm(offset) / self.fade - 1.0, 0.0, 1.0)
        seen[:2] -= far * self._detour.offset
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
    numbers = sorted(k for k, v in vars(type(expert)).items() if isinstance(v, float))
    for name, value in style.items():
        if name not in numbers or not isinstance(value, (int, float)):
            raise ConfigError(
                f'the expert of {task_name!r} takes no {name} of {value!r}, expected a number for '
                f'one of {", ".join(numbers)}'
            )
        setattr(expert, name, float(value))
    return expert
