# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy node is made of, by its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.wait_for_message import wait_for_message
from std_msgs.msg import String

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.distribution import BasePolicy
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.base_policy.received_policy import TOPIC, ReceivedPolicy
from residual_rl_ros.base_policy.robot_fit import check_fit
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.home import way_home
from residual_rl_ros.control.preparation import Preparation
from residual_rl_ros.control.reset_hook import CommandHook, ResetHook
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError, shown
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.urdf import NAME, parse_urdf
from residual_rl_ros.robot.urdf import TOPIC as HEARD
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.managed_node import ManagedNode
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.nodes.services import ServiceHook

PUBLISHER_S = 10.0
"""So long a node waits for the publisher of its URDF, which may start at the same time [s]."""


def open_robot(node: Node, tree: Mapping[str, Any], wait_s: float = PUBLISHER_S) -> RobotConfig:
    """Return the robot of a node, with the URDF of the topic where its description names that.

    Args:
        node: the node.
        tree: its parameters below `robot`.
        wait_s: how long to wait for the topic [s].

    Raises:
        ConfigError: the description is wrong, or nobody publishes the URDF.
    """
    robot = RobotConfig.from_mapping(tree)
    if robot.urdf is None or robot.urdf.source != HEARD:
        return robot
    return RobotConfig.from_mapping(tree, heard=hear_urdf(node, wait_s))


def hear_urdf(node: Node, wait_s: float = PUBLISHER_S) -> str:
    """Return the URDF that robot_state_publisher latches.

    Args:
        node: who listens.
        wait_s: for so long [s].

    Raises:
        ConfigError: nobody publishes it, or what is published is none.
    """
    heard, message = wait_for_message(
        String, node, NAME, qos_profile=qos.LATCHED, time_to_wait=wait_s
    )
    if not heard:
        raise ConfigError(
            f'nobody has published {node.resolve_topic_name(NAME)} for {wait_s:g} s: start '
            'robot_state_publisher, or name a file in robot.robot_description.urdf'
        )
    parse_urdf(message.data, HEARD)  # An empty one is none.
    return str(message.data)


def open_base_policy(
    parameters: PolicyParameters,
    robot: RobotConfig,
    now: Callable[[], float],
    warn: Callable[[str], object],
) -> OnnxBasePolicy | ReceivedPolicy:
    """Load the base policy, or what is known of it, and check it against the robot.

    Args:
        parameters: of the node.
        robot: its robot.
        now: ROS time [s].
        warn: is told what the user should know.

    Raises:
        ResidualRLError: it cannot be run, or is for another robot.
    """
    policy: OnnxBasePolicy | ReceivedPolicy
    described = parameters.base_policy_metadata
    if (parameters.base_policy == TOPIC) is not bool(described):
        raise ConfigError(
            f'base_policy is {parameters.base_policy!r} and base_policy_metadata {described!r}: a '
            f'policy from a {TOPIC} needs the YAML file of its metadata, and no other has one'
        )
    if described and parameters.base_policy_sha256:
        raise ConfigError(
            f'base_policy_sha256 is {shown(parameters.base_policy_sha256)} with base_policy '
            f'{TOPIC}: nobody here sees the file; remove it, and check it where the policy runs'
        )
    if described:
        policy = ReceivedPolicy(Path(described), now)
        check_fit(policy.metadata, robot.observation_names, robot.action, robot.control_rate_hz)
    else:
        policy = OnnxBasePolicy.find(parameters.base_policy, robot, parameters.base_policy_sha256)
        for remark in policy.remarks:
            warn(remark)
    if robot.action.kind == 'discrete' and not robot.action.hold_action:
        warn(
            'a hold repeats the latest action: set hold_action in the robot YAML to the one that '
            'stays'
        )
    return policy


def describe_policy(policy: OnnxBasePolicy | ReceivedPolicy) -> str:
    """Return which base policy it is, for the log."""
    if isinstance(policy, ReceivedPolicy):
        return f'chunks from a topic (metadata {policy.path})'
    return f'base policy {policy.path} on {policy.providers[0]}'


def make_controller(
    parameters: PolicyParameters, policy: BasePolicy, robot: RobotConfig
) -> ResidualController:
    """Return the controller.

    Raises:
        ResidualRLError: the parameters do not fit base policy or robot.
    """
    config = ControllerConfig(
        decision_steps=parameters.decision_steps or policy.metadata.decision_steps,
        residual_scale=parameters.residual_scale,
        splicing=Splicing.of(parameters),
        seed=parameters.seed,
        explore=parameters.explore,
        lockstep=parameters.lockstep,
        scheduled_actor=parameters.lockstep and parameters.wait_for_actor,
        proposals=parameters.proposals,
        customisable=parameters.customisable,
        prior_width=parameters.prior_width,
        max_weights_bytes=parameters.max_weights_bytes,
    )
    return config.build(policy, robot.action)


def warm_up(queue: ChunkQueue, logger: Any) -> None:
    """Run the base policy before anything moves, and say what was chosen by how long it takes.

    Raises:
        BasePolicyError: it failed.
    """
    queue.warm_up()
    if queue.prefetch is not None:
        logger.info(str(queue.prefetch))
        if queue.prefetch.problem:
            logger.warning(queue.prefetch.problem)


def make_preparation(node: ManagedNode, robot: RobotConfig, safety: SafetyFilter) -> Preparation:
    """Return what is done between the episodes of a robot.

    Args:
        node: the policy node.
        robot: its robot.
        safety: the limits.

    Raises:
        ConfigError: home is outside of the workspace.
    """
    hook: ResetHook | None = None
    if robot.reset is not None and robot.reset.command:
        hook = CommandHook(robot.reset.command)
    elif robot.reset is not None and robot.reset.service:
        hook = ServiceHook(node, robot.reset)
    home = None
    if robot.home is not None:
        period_s = 1.0 / robot.control_rate_hz
        home = way_home(robot.home, safety, period_s, robot.observation_names)
    return Preparation(home, robot.reset, hook)


def real_time_rules(parameters: PolicyParameters) -> RealTimeRules:
    """Return the rules of a real-time loop that the parameters say."""
    return RealTimeRules(
        parameters.auto_start,
        parameters.hold_limit_s,
        parameters.episode_limit_s,
        parameters.takeover_timeout_s,
    )


def ramp_s(parameters: PolicyParameters) -> float:
    """Return how long the residual fades in [s]; a simulator that waits needs no caution."""
    return 0.0 if parameters.lockstep else parameters.blend_ramp_s
