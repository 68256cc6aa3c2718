# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the policy node of a shipped robot before a fake of its driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rclpy
from base_policy_builders import write_onnx_policy
from fake_drivers import ARMS, ArmDriver, BaseDriver, stand_ins
from onnx import TensorProto, helper
from processes import wait_for
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from robot_builders import make_metadata
from ros_fixtures import Caller
from std_srvs.srv import Trigger

from residual_rl_ros.base_policy.inputs import ImageInput
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.nodes.policy_node import PolicyNode

ROBOTS = (*ARMS, 'turtlebot_twist', 'turtlebot_twist_stamped')
LIMIT_S = 30.0
MOTION = 0.25
"""How far the first joint goes in an episode [rad], or the base [m]."""
GAIN = 0.08
"""Which part of the remaining way a step of the chunk goes."""


def write_base(path: Path, robot: RobotConfig) -> None:
    """Write a base policy that moves the first joint, and the gripper with it; or a base forward.

    It is linear: each action of the chunk goes on from what is observed. It takes the images of
    all cameras.
    """
    names, action = robot.observation_names, robot.action
    horizon, size = 16, action.size
    weights = np.zeros((len(names), horizon, size))
    bias = np.zeros((horizon, size))
    arm = ARMS.get(robot.name)
    if arm is None:
        weights[names.index('odometry.pose.pose.position.x'), :, 0] = -1.0
        bias[:, 0] = 2.0 * MOTION
    else:
        first = names.index(action.measured_by[0])
        way = 1.0 - (1.0 - GAIN) ** np.arange(1, horizon + 1)
        for index, goal in enumerate(arm.start):
            weights[names.index(action.measured_by[index]), :, index] = 1.0 - way
            bias[:, index] = way * (goal + MOTION * (index == 0))
        slope = (arm.gripper_end - arm.gripper_start) / (0.8 * MOTION)
        weights[first, :, -1] = slope
        bias[:, -1] = arm.gripper_start - slope * arm.start[0]
    cameras = [
        ImageInput(channel.name, *channel.preprocessing.resize)
        for channel in robot.channels
        if channel.is_image
    ]
    metadata = make_metadata(
        inputs=tuple(cameras),
        observation_names=names,
        action_names=action.names,
        action_min=tuple(np.maximum(action.lower, -1e3)),
        action_max=tuple(np.minimum(action.upper, 1e3)),
        rate_hz=robot.control_rate_hz,
        horizon=horizon,
        exec_start=0,
        exec_steps=12,
    )
    flat = weights.reshape(len(names), -1)
    write_onnx_policy(path, metadata, weights=flat, bias=bias)
    if cameras:
        take_images(path, cameras)


def take_images(path: Path, cameras: list[ImageInput]) -> None:
    """Have a base policy add to each action by how much a camera sees more light than the next."""
    model = onnx.load(str(path))
    graph = model.graph
    graph.node[-1].output[0] = 'blind'
    for each in cameras:
        shape, numbers = (1, 1, each.height, each.width, 3), f'{each.name}.numbers'
        graph.input.append(helper.make_tensor_value_info(each.name, TensorProto.UINT8, shape))
        graph.node.append(helper.make_node('Cast', [each.name], [numbers], to=TensorProto.FLOAT))
        light = f'{each.name}.light'
        graph.node.append(helper.make_node('ReduceMean', [numbers], [light], keepdims=0))
    lights = [f'{each.name}.light' for each in cameras]
    graph.node.append(helper.make_node('Sub', lights, ['difference']))
    graph.node.append(helper.make_node('Add', ['blind', 'difference'], ['action']))
    onnx.save(model, str(path))


def driver_of(name: str, domain_id: int, **options: Any) -> ArmDriver | BaseDriver:
    """Start the fake of a robot's driver."""
    if name in ARMS:
        return ArmDriver(domain_id, name, **options)
    return BaseDriver(domain_id, name)


def policy_spec(name: str, folder: Path, **parameters: Any) -> NodeSpec:
    """Return the policy node of a shipped robot, with a base policy that moves it."""
    robot, path = load_robot(name)
    base = folder / 'base.onnx'
    write_base(base, robot)
    (spec,) = robot_topology(RobotRun(path, base, None, decision_steps=4, splicing=Splicing(4)))
    quiet = {'realtime_priority': 0, 'lock_memory': False, 'diagnostics_period_s': 0.2}
    quiet['hold_limit_s'] = 5.0
    return replace(spec, parameters={**spec.parameters, **quiet, **parameters})


@contextmanager
def policy_node(
    name: str, folder: Path, domain_id: int, patch: pytest.MonkeyPatch, **parameters: Any
) -> Iterator[PolicyNode]:
    """Run the policy node of a shipped robot in a thread of this process, not yet configured."""
    stand_ins(patch)
    spec = policy_spec(name, folder, **parameters)
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    node = PolicyNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        if node.active:
            node.trigger_deactivate()
        executor.shutdown(timeout_sec=2.0)
        thread.join(timeout=3.0)
        node.made.close()
        node.destroy_node()
        rclpy.try_shutdown()


def begin(node: PolicyNode) -> None:
    """Configure and activate a node, in its own thread, as far as it can be."""

    def job() -> None:
        node.trigger_configure()
        if node.failure is None:
            node.trigger_activate()

    future = node.executor.create_task(job)
    wait_for(future.done, LIMIT_S, 'an answer')
    assert future.exception() is None


def play(driver: ArmDriver | BaseDriver, call: Caller, episodes: int) -> None:
    """Play episodes up to where the base policy leads, and mark each a success."""
    for episode in range(episodes):
        driver.reset()
        time.sleep(0.15)  # Until nothing is on its way that tells of the episode before.
        assert call(Trigger, '/policy_node/start_episode').success
        wait_for(lambda: has_arrived(driver), LIMIT_S, f'the success of episode {episode}')
        assert call(Trigger, '/policy_node/mark_success').success
        time.sleep(0.2)


def has_arrived(driver: ArmDriver | BaseDriver) -> bool:
    """Return whether a robot is where its base policy leads, and its gripper has moved."""
    if isinstance(driver, BaseDriver):
        return driver.x > 0.8 * MOTION
    arm = driver.arm
    there = driver.positions[0] - arm.start[0] > 0.8 * MOTION
    way = driver.finger.position - arm.gripper_start
    return bool(there and abs(way) > 0.8 * abs(arm.gripper_end - arm.gripper_start))
