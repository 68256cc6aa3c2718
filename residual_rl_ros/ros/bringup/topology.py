# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which processes a run consists of: the one description for launch files and the bring-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.weights import CHECKPOINTS, checkpoint_exists
from residual_rl_ros.robot.description import load_robot

if TYPE_CHECKING:
    from residual_rl_ros.config.run import RunConfig

ENVIRONMENT = {'OMP_NUM_THREADS': '1'}
"""Environment of every process: with small networks in several processes, more threads than cores
only wait for each other."""


@dataclass(frozen=True)
class NodeSpec:
    """One process with one node."""

    executable: str
    """Entry point of the package; also the node's name."""
    lifecycle: bool
    """Whether it is a lifecycle node (it configures and activates itself)."""
    parameter_files: tuple[Path, ...]
    """YAML files of ROS parameters."""
    parameters: Mapping[str, Any]
    """Parameters beyond the files; nested maps become dotted names."""
    namespace: str = ''
    """ROS namespace, to keep several robots apart."""
    remappings: Mapping[str, str] = field(default_factory=dict)
    """Remapped topic names."""

    @property
    def name(self) -> str:
        """Name of the node with its namespace, as `/diagnostics` has it, without the first `/`."""
        return f'{self.namespace.strip("/")}/{self.executable}'.lstrip('/')

    @property
    def enclave(self) -> str:
        """SROS 2 enclave, as in the policies that `residual-rl security-policy` writes."""
        return f'/{self.name}'

    def flat_parameters(self) -> list[tuple[str, Any]]:
        """Return the parameters with dotted names."""
        return _flatten(self.parameters)

    def ros_arguments(self) -> list[str]:
        """Return the command line that follows the executable."""
        arguments = ['--ros-args', '--enclave', self.enclave]
        for path in self.parameter_files:
            arguments += ['--params-file', str(path)]
        for name, value in self.flat_parameters():
            # YAML in flow style is what rcl parses; a one-line document has no end marker.
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split('\n')[0]
            arguments += ['-p', f'{name}:={text}']
        if self.namespace:
            arguments += ['-r', f'__ns:=/{self.namespace.strip("/")}']
        for name, other in self.remappings.items():
            arguments += ['-r', f'{name}:={other}']
        return arguments


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

    Args:
        config: the run.
        robot_file: robot YAML, loaded by policy and simulator.
        base_policy: ONNX file.
        output_dir: where the learner keeps checkpoint and events.
        seed: seeds environment, policy noise and learner.
        control_steps: budget after which the simulator ends the run; 0 is endless.
        lockstep: step with commands instead of with wall time.
        namespace: ROS namespace of all three.
    """
    # Here, because it loads torch, which the processes beside a robot do not need.
    from residual_rl_ros.config.run import training_seed

    policy = NodeSpec(
        'policy_node',
        True,
        (robot_file,),
        {
            'base_policy': str(base_policy),
            'decision_steps': config.decision_steps,
            'residual_scale': list(config.residual_scale),
            'prefetch_steps': config.prefetch_steps,
            'seed': seed,
            'lockstep': lockstep,
        },
        namespace,
    )
    learner = NodeSpec(
        'learner_node',
        True,
        (),
        {
            'preset': config.preset,
            'seed': seed,
            'output_dir': str(output_dir),
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


@dataclass(frozen=True)
class RobotRun:
    """A base policy with a residual on one robot, or on several alike, in real time."""

    robot_file: Path
    """Robot YAML."""
    base_policy: Path
    """ONNX file."""
    output_dir: Path | None
    """Where a learner keeps checkpoint and events, or resumes them; None runs without a learner."""
    actor: Path | None = None
    """Residual to start with; see the policy node's parameter."""
    preset: str = ''
    """Learner preset; empty is the learner node's choice: that of the checkpoint, or dawn."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values that replace those of the preset."""
    decision_steps: int = 1
    """Control steps per residual decision (k)."""
    residual_scale: tuple[float, ...] = (0.05,)
    """Lambda: one value, or one per action dimension."""
    prefetch_steps: int = 0
    """Control steps before its first use at which a chunk is requested."""
    chunk_blend_steps: int = 0
    """Control steps over which a new chunk takes over from the one before."""
    blend_ramp_s: float = 1.0
    """Time over which the residual fades in after activation, a takeover and a rollback [s]."""
    seed: int = 0
    """Seeds policy noise and learner."""
    auto_start: bool = False
    """Start episodes without `~/start_episode`."""
    namespaces: tuple[str, ...] = ('',)
    """ROS namespace of each robot."""
    classifier: Path | None = None
    """ONNX success classifier that judges the episodes."""
    reward: str = ''
    """Instead of it, `package.module:factory` of a reward function."""
    record: Path | None = None
    """Folder of a bag of observations, commands and transitions; None records nothing."""


def reward_spec(
    robot_file: Path, classifier: Path | None, function: str, namespace: str
) -> NodeSpec:
    """Return the node that judges a robot's episodes, by a classifier or by a function."""
    source = {'function': function} if classifier is None else {'classifier': str(classifier)}
    return NodeSpec('reward_node', True, (robot_file,), source, namespace)


def recorder_spec(
    robot_file: Path | None, namespace: str, folder: Path, base_policy: str, **parameters: Any
) -> NodeSpec:
    """Return the node that records a robot.

    Args:
        robot_file: robot YAML; None records transitions only.
        namespace: ROS namespace of the robot.
        folder: folder of the bag.
        base_policy: ONNX file that is noted in the bag; empty notes none.
        parameters: further parameters of the node.
    """
    files = () if robot_file is None else (robot_file,)
    common = {'output_dir': str(folder), 'base_policy': base_policy}
    return NodeSpec('recorder_node', False, files, {**common, **parameters}, namespace)


def robot_topology(run: RobotRun) -> tuple[NodeSpec, ...]:
    """Return the processes beside the robots' own: a policy for each and, if wanted, a learner.

    A learner whose folder holds a checkpoint resumes it, and the policies start with its actor. The
    learner of one robot is in its namespace; that of several is in none, and every robot
    subscribes to it.

    Raises:
        ConfigError: robots of a fleet would share a name or a topic, or there is a recording.
    """
    _check_apart(run)
    if run.record is not None and run.record.exists():
        raise ConfigError(f'record folder {str(run.record)!r} exists already; choose a new one')
    learning = run.output_dir is not None
    checkpoint = run.output_dir / CHECKPOINTS / 'latest' if run.output_dir is not None else None
    resume = checkpoint is not None and checkpoint_exists(checkpoint)
    actor = run.actor or (checkpoint if resume else None)
    alone = len(run.namespaces) == 1
    remappings = {} if alone else {'learner_node/actor': '/learner_node/actor'}
    nodes = [
        NodeSpec(
            'policy_node',
            True,
            (run.robot_file,),
            {
                'base_policy': str(run.base_policy),
                'actor': '' if actor is None else str(actor),
                'decision_steps': run.decision_steps,
                'residual_scale': list(run.residual_scale),
                'prefetch_steps': run.prefetch_steps,
                'chunk_blend_steps': run.chunk_blend_steps,
                'blend_ramp_s': run.blend_ramp_s,
                'seed': run.seed + number,
                'explore': learning,
                'auto_start': run.auto_start,
            },
            namespace,
            remappings,
        )
        for number, namespace in enumerate(run.namespaces)
    ]
    if run.classifier is not None or run.reward:
        nodes += [
            reward_spec(run.robot_file, run.classifier, run.reward, namespace)
            for namespace in run.namespaces
        ]
    if run.record is not None:
        nodes += [
            recorder_spec(
                run.robot_file,
                namespace,
                run.record / namespace.strip('/'),
                str(run.base_policy),
                raw=True,
            )
            for namespace in run.namespaces
        ]
    if not learning:
        return tuple(nodes)
    learner = NodeSpec(
        'learner_node',
        True,
        (),
        {
            'preset': run.preset,
            'robots': [''] if alone else list(run.namespaces),
            'seed': run.seed,
            'output_dir': str(run.output_dir),
            'resume': resume,
            'overrides': run.overrides,
        },
        run.namespaces[0] if alone else '',
    )
    return learner, *nodes


def _check_apart(run: RobotRun) -> None:
    """Refuse a fleet whose robots would share a name or a topic.

    Raises:
        ConfigError: they would.
    """
    names = [namespace.strip('/') for namespace in run.namespaces]
    if len(names) == 1:
        return
    if len(set(names)) < len(names) or '' in names:
        raise ConfigError(f'namespaces are {names}, expected a different one for each robot')
    robot, _ = load_robot(str(run.robot_file))
    for topic in (robot.command.topic, *(channel.topic for channel in robot.channels)):
        if topic.startswith('/'):
            raise ConfigError(
                f'{run.robot_file}: topic {topic!r} is the same for every robot of a fleet; make '
                'it relative'
            )


def _flatten(parameters: Mapping[str, Any], prefix: str = '') -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f'{prefix}{name}.')
        else:
            flat.append((prefix + name, value))
    return flat
