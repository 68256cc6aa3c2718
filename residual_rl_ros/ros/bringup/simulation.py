# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which nodes a run in simulation consists of: for its launch file and the demo."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import own_names

if TYPE_CHECKING:
    from residual_rl_ros.config.run import RunConfig


def finetune_topology(
    config: RunConfig,
    robot_file: Path,
    base_policy: Path,
    output_dir: Path,
    seed: int,
    control_steps: int,
    lockstep: bool = True,
    namespace: str = '',
) -> tuple[NodeSpec, ...]:
    """Return the three processes of simulated fine-tuning: learner, policy, simulator.

    Nothing real moves, so episodes start by themselves.

    Args:
        config: the run.
        robot_file: robot YAML, loaded by policy and simulator.
        base_policy: ONNX file.
        output_dir: where the learner keeps checkpoint and events.
        seed: seeds environment, policy noise and learner.
        control_steps: budget after which the simulator ends the run; 0 is endless.
        lockstep: step with commands instead of with wall time.
        namespace: ROS namespace of all three. Where a real robot could be, it must be one of its
            own: it then holds every topic of the robot YAML, the absolute ones too.
    """
    # Here, because it loads torch, which the processes beside a robot do not need.
    from residual_rl_ros.config.run import training_seed

    asked = config.customisable and config.add_on
    add_on = {'add_on': config.add_on_text} if asked else {}
    policy = NodeSpec(
        'policy_node',
        True,
        (robot_file,),
        {
            'base_policy': str(base_policy),
            'decision_steps': config.decision_steps,
            'residual_scale': list(config.residual_scale),
            **asdict(config.splicing),
            **config.customisation,
            'prior_width': list(config.prior_width or (0.0,)),  # ROS has no empty list.
            **add_on,
            'seed': seed,
            'lockstep': lockstep,
            'auto_start': True,
        },
        namespace,
        moved_topics(robot_file, namespace),
    )
    learner = NodeSpec(
        'learner_node',
        True,
        (),
        {
            'preset': config.preset,
            'seed': seed,
            'output_dir': str(output_dir),
            'robot_file': str(robot_file),
            'base_policy': str(base_policy),
            **asdict(config.splicing),
            **add_on,
            'overrides': config.overrides,
        },
        namespace,
    )
    simulator = NodeSpec(
        'mujoco_sim_node',
        False,
        (robot_file,),
        {
            'task': config.task,
            'success': config.success,
            'lockstep': lockstep,
            'first_seed': training_seed(seed),
            'control_steps': control_steps,
        },
        namespace,
    )
    return learner, policy, simulator


def moved_topics(robot_file: Path, namespace: str) -> dict[str, str]:
    """Return remappings that bring every absolute name of a robot YAML into a namespace.

    Of a simulated robot nothing calls a service of a real one, or heeds its stop inputs.
    """
    if not namespace.strip('/'):
        return {}
    robot, _ = load_robot(str(robot_file))
    names = (*own_names(robot), *(stop.topic for stop in robot.stop_inputs))
    return {name: name.lstrip('/') for name in names if name.startswith('/')}
