# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in simulation: `ros2 launch residual_rl_ros sim_finetune.launch.py task:=peg_insert`.

The processes and their parameters come from `residual_rl_ros.ros.topology`, as in the demo. The
end of any process ends the launch; lifecycle nodes configure and activate themselves.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from residual_rl_ros.finetune import load_finetune
from residual_rl_ros.ros.topology import finetune_topology

ARGUMENTS = (
    ('task', 'peg_insert', 'task of config/finetune/, or the path of such a file'),
    ('seed', '0', 'seed of environment, policy noise and learner'),
    ('control_steps', '', 'budget of control steps; empty: as configured, 0: endless'),
    ('output_dir', 'runs/launch', 'folder for checkpoint and TensorBoard events'),
    ('lockstep', 'true', 'step with commands (true) or with wall time (false)'),
    ('namespace', '', 'namespace of all nodes, to keep several robots apart'),
)


def start(context: LaunchContext) -> list[object]:
    """Return one action for each process of the topology."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    config = load_finetune(value['task'])
    policy, _, robot_file = config.load()
    actions = []
    for spec in finetune_topology(
        config,
        robot_file,
        policy.path,
        Path(value['output_dir']),
        int(value['seed']),
        int(value['control_steps'] or config.control_steps),
        value['lockstep'].lower() == 'true',
    ):
        kind = LifecycleNode if spec.lifecycle else Node
        actions.append(
            kind(
                package='residual_rl_ros',
                executable=spec.executable,
                name=spec.executable,
                namespace=value['namespace'],
                parameters=[*map(str, spec.parameter_files), dict(spec.flat_parameters())],
                output='screen',
            )
        )
    return [RegisterEventHandler(OnProcessExit(on_exit=end, handle_once=True)), *actions]


def end(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
    """End the launch with its first process, whichever it is; a second shutdown is an error."""
    return None if context.is_shutdown else EmitEvent(event=Shutdown())


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and defer the rest until they are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
