# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any gymnasium environment is a robot: described, hosted, controlled over ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from base_policy_builders import write_onnx_policy
from foreign_tasks import register
from prior_builders import write_prior_policy
from processes import wait_for

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import TaskError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.nodes.mujoco_sim_node import MujocoSimNode
from residual_rl_ros.tasks.hosting import describe_robot, make_environment

pytestmark = pytest.mark.ros
register()


@pytest.mark.parametrize('task', ['Pendulum-v1', 'CartPole-v1'])
def test_a_task_runs_over_ros_from_its_generated_description(
    domain_id: int, tmp_path: Path, task: str
) -> None:
    robot_file = tmp_path / 'robot.yaml'
    robot = describe_robot(task, make_environment(task))
    robot_file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': robot}}}))
    config, _ = load_robot(str(robot_file))
    discrete = config.action.is_discrete
    metadata = BasePolicyMetadata(
        observation_names=config.observation_names,
        action_names=config.action.names,
        action_min=(0.0, 0.0) if discrete else (-1.0,),
        action_max=(1.0, 1.0) if discrete else (1.0,),
        rate_hz=config.control_rate_hz,
        n_obs_steps=1,
        horizon=4,
        exec_start=0,
        exec_steps=4,
        prior=Prior.CATEGORICAL if discrete else Prior.NONE,
    )
    model = tmp_path / 'policy.onnx'
    if discrete:
        write_prior_policy(model, Prior.CATEGORICAL, metadata)
    else:
        write_onnx_policy(model, metadata)
    policy = NodeSpec(
        'policy_node',
        True,
        (robot_file,),
        {
            'base_policy': str(model),
            'decision_steps': 1,
            'lockstep': True,
            'wait_for_actor': False,
        },
    )
    simulator = NodeSpec(
        'mujoco_sim_node', False, (robot_file,), {'task': task, 'control_steps': 250}
    )
    with (
        Monitor(domain_id) as monitor,
        Bringup([policy, simulator], tmp_path / 'logs', ros_environment(domain_id)) as bringup,
    ):
        wait_for(lambda: bringup.ended('mujoco_sim_node'), 60.0, 'end of the run')
        bringup.check()
        # Two episodes of 200 steps, or many short ones: the budget ends with an episode.
        least = 250 if discrete else 400

        def one_for_each_tick() -> bool:
            values = monitor.values('policy_node')
            ticks = int(values.get('ticks', 0))
            return ticks >= least and int(values['transitions']) == ticks

        wait_for(one_for_each_tick, 60.0, 'a transition for each tick, in the last report')
        assert discrete or monitor.number('policy_node', 'ticks') == 400


@contextmanager
def simulator(domain_id: int, tmp_path: Path, task: str) -> Iterator[MujocoSimNode]:
    """Yield a simulator of a task, in this process; nothing spins it."""
    robot_file = tmp_path / 'robot.yaml'
    robot = describe_robot(task, make_environment(task))
    robot_file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'robot': robot}}}))
    parameters = {'task': task, 'success': 'return' if task == 'Broken-v0' else 'auto'}
    spec = NodeSpec('mujoco_sim_node', False, (robot_file,), parameters)
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    try:
        node = MujocoSimNode()
        yield node
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.mark.parametrize(
    ('task', 'outcome'), [('Falls-v0', -1.0), ('Along-v0', 1.0), ('AtEnd-v0', 0.0)]
)
def test_the_simulator_labels_an_episode_only_as_its_task_does(
    domain_id: int, tmp_path: Path, task: str, outcome: float
) -> None:
    with simulator(domain_id, tmp_path, task) as node:
        labels = []
        for _ in range(12):
            node._step(np.array([0.1, -0.1]))  # The bounds of its space in float64.
            assert node._feedback is not None
            labels.append(float(node._feedback.success))
            if node._done:
                break
    assert labels == [-1.0] * (len(labels) - 1) + [outcome]


def test_a_number_that_is_none_ends_the_simulator_by_name(domain_id: int, tmp_path: Path) -> None:
    with simulator(domain_id, tmp_path, 'Broken-v0') as node:
        for _ in range(4):
            node._step(np.zeros(2))
        with pytest.raises(
            TaskError, match=r'Broken-v0, episode 0 \(seed 0\), step 5: reward is n'
        ):
            node._step(np.zeros(2))
