# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scripted experts of robots with a gripper, whose commands are Cartesian; see `experts`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from residual_rl_ros.pretraining.expert import Expert
from residual_rl_ros.tasks.pick_place import CUBE_HALF_WIDTH_M, OPEN_M, PickPlace


class PickPlaceExpert(Expert[PickPlace]):
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
    settled = 0.0018
    """Height above that of a grasp up to which the gripper opens: it stands still there, and a
    policy that has missed the moment finds itself where the expert opens, [m]."""
    grip = 0.015
    """Longest change of the opening of one command, [m]."""
    held = 0.0385
    """Opening of the fingers below which they hold the cube, [m]."""
    squeeze = 0.02
    """Opening that is commanded to hold the cube, [m]."""

    def act(self, env: PickPlace) -> NDArray[np.float64]:
        """Approach, grasp, carry or release."""
        now, cube = env.positions(), env.cube_position()
        offset = cube - now[:3]
        beside = math.hypot(*offset[:2])
        around = beside < 2.0 * self.near and abs(offset[2]) < CUBE_HALF_WIDTH_M
        way = env.goal_position()[:2] + self.detour - cube[:2]
        there = math.hypot(*way) < 1.5 * self.near
        if around and (there or now[3] < self.held):
            return self._carry(now, cube, way, there)
        far = np.clip((beside - 0.02) / 0.03, 0.0, 1.0)
        over = beside < self.near or (around and beside < 2.0 * self.near)
        height = self.grasp if over else cube[2] + self.hover
        target = np.array([*(cube[:2] + far * self.detour), height])
        if not over and now[2] < cube[2] + self.hover - 0.01:
            target[:2] = now[:2]  # Beside the cube: up first.
        close = over and now[2] < self.grasp + self.near
        return self._move(now, target, self.squeeze if close else OPEN_M)

    def _carry(
        self,
        now: NDArray[np.float64],
        cube: NDArray[np.float64],
        way: NDArray[np.float64],
        there: bool,
    ) -> NDArray[np.float64]:
        """Take the cube to the disc, and leave it there: as far off as the approach was."""
        low = now[2] < self.grasp + self.settled
        if there:
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
        change = np.clip(opening - now[3], -self.grip, self.grip)
        return np.array([*(now[:3] + move), now[3] + change])


class FetchExpert(Expert[gymnasium.Env[Any, Any]]):
    """What the experts of the Fetch robot share.

    Positions are in the world frame [m]; a command is a displacement of the gripper in units of
    5 cm and the opening of its fingers, each in [-1, 1].
    """

    gain = 10.0
    """Command per displacement [1/m]."""

    def seen(self, env: gymnasium.Env[Any, Any]) -> Mapping[str, NDArray[np.float64]]:
        """Return state and goal, which no other access to the environment gives."""
        unwrapped: Any = env.unwrapped
        observation: Mapping[str, NDArray[np.float64]] = unwrapped._get_obs()
        return observation

    def command(self, move: NDArray[np.float64], fingers: float) -> NDArray[np.float64]:
        """Return the command of a displacement [m], with fingers open (1) or closed (-1)."""
        return np.array([*np.clip(self.gain * move, -1.0, 1.0), fingers])


class FetchPickAndPlaceExpert(FetchExpert):
    """Above the object, down, close, to the goal: each from what is seen now."""

    hover = 0.05
    """Height above the object until the gripper is over it [m]."""
    near = 0.012
    """Misalignment at which the gripper goes down, and at which it closes [m]."""
    held = 0.052
    """Opening of the fingers below which they hold the object [m]."""

    def act(self, env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
        """Approach, grasp or carry."""
        seen = self.seen(env)
        state = seen['observation']
        gripper, thing, opening = state[:3], state[3:6], state[9] + state[10]
        offset = thing - gripper
        aligned = math.hypot(*offset[:2]) < self.near
        if aligned and abs(offset[2]) < self.near:
            carry = opening <= self.held
            move = seen['desired_goal'] - gripper if carry else np.zeros(3)
            return self.command(move, -1.0)
        far = np.clip((np.linalg.norm(offset) - 2.0 * self.hover) / self.hover, 0.0, 1.0)
        move = offset + np.array([*(far * self.detour), 0.0 if aligned else self.hover])
        return self.command(move, 1.0)


class FetchPushExpert(FetchExpert):
    """Behind the object as seen from the goal, down, and through it: each from what is seen now."""

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

    def act(self, env: gymnasium.Env[Any, Any]) -> NDArray[np.float64]:
        """Approach, go down or push."""
        seen = self.seen(env)
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
            lateral = start - offset + far * self.detour
            rising = low and there >= self.near
            move = np.array(
                [*(0.0 * lateral if rising else lateral), thing[2] + height - gripper[2]]
            )
        return self.command(move, -1.0)
