# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which nodes run beside a robot or a fleet: the one description for launch files and `up`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from residual_rl_ros.base_policy.splicing import MEASURED, Splicing
from residual_rl_ros.config import ROBOT_SCALE
from residual_rl_ros.control.composition import residual_scale
from residual_rl_ros.control.takeover_controls import load_takeover
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, checkpoint_exists, read_actor
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.schema import check_namespace


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
    """Learner preset; empty is that of the checkpoint, or the default."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values that replace those of the preset."""
    decision_steps: int | None = None
    """Control steps per residual decision (k); None: as the actor has it, or as
    `BasePolicyMetadata.decision_steps`."""
    residual_scale: tuple[float, ...] | None = None
    """Lambda: one value, or one per action dimension; None: as the actor, or `ROBOT_SCALE`."""
    splicing: Splicing = MEASURED
    """How it goes from one chunk of the base policy to the next."""
    proposals: int = 1
    """Number of draws of the base policy's noise that a decision is given."""
    customisable: bool = False
    """Transitions tell the add-on reward and its weight."""
    prior_width: tuple[float, ...] = (0.0,)
    """Width of a Gaussian around the action of a base policy that tells no density."""
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
    demonstrations: tuple[str, ...] = ()
    """Recordings that a new learner begins with."""
    observation_map: tuple[str, ...] = ()
    """Names of their observations, where they differ; see the learner node's parameter."""
    takeover: str = ''
    """What an operator's controls mean: a file, or the name of a shipped one; empty: nobody takes
    over by `takeover_node`."""
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


def takeover_spec(robot_file: Path, takeover: str, namespaces: Sequence[str]) -> list[NodeSpec]:
    """Return the node of each robot with which an operator takes over.

    Args:
        robot_file: robot YAML.
        takeover: what his controls mean.
        namespaces: of the robots.

    Raises:
        ResidualRLError: the file is wrong or does not fit the robot, is for a keyboard, or its
            topic would move several robots at once.
    """
    robot, _ = load_robot(str(robot_file))
    config, path = load_takeover(takeover, robot)
    if not config.topic:
        raise ConfigError(
            f'{path}: input keyboard needs a terminal of its own: takeover_node --ros-args '
            f'--params-file {robot_file} -p config:={takeover}'
        )
    if len(namespaces) > 1 and config.topic.startswith('/'):
        raise ConfigError(
            f'{path}: topic {config.topic!r} would move every robot of a fleet; make it relative'
        )
    return [
        NodeSpec('takeover_node', True, (robot_file,), {'config': str(path)}, namespace)
        for namespace in namespaces
    ]


def robot_topology(run: RobotRun) -> tuple[NodeSpec, ...]:
    """Return the processes beside the robots' own: a policy for each and, if wanted, a learner.

    A learner whose folder holds a checkpoint resumes it, and the policies start with its actor. The
    learner of one robot is in its namespace; that of several is in none, and every robot
    subscribes to it.

    Raises:
        ConfigError: robots of a fleet would share a name or a topic, or there is a recording.
    """
    _check_apart(run)
    if run.classifier is not None and run.reward:
        raise ConfigError(
            f'classifier {str(run.classifier)!r} and reward {run.reward!r} are given; give one of '
            'them to judge the episodes'
        )
    if run.record is not None and run.record.exists():
        raise ConfigError(f'record folder {str(run.record)!r} exists already; choose a new one')
    resume = run.output_dir is not None and checkpoint_exists(latest(run.output_dir))
    actor = run.actor
    if actor is None and run.output_dir is not None and resume:
        actor = latest(run.output_dir)
    nodes = [*_policies(run, actor), *_judges(run)]
    if run.takeover:
        nodes += takeover_spec(run.robot_file, run.takeover, run.namespaces)
    nodes += _recorders(run)
    return tuple(nodes) if run.output_dir is None else (_learner(run, resume), *nodes)


def _policies(run: RobotRun, actor: Path | None) -> list[NodeSpec]:
    """Return the policy of each robot, which starts with this actor."""
    decision_steps, residual_scale = _decisions(run, actor)
    parameters = {
        'base_policy': str(run.base_policy),
        'actor': '' if actor is None else str(actor),
        'decision_steps': decision_steps,
        'residual_scale': residual_scale,
        **asdict(run.splicing),
        'proposals': run.proposals,
        'customisable': run.customisable,
        'prior_width': list(run.prior_width),
        'explore': run.output_dir is not None,
        'auto_start': run.auto_start,
    }
    shared = {'learner_node/actor': '/learner_node/actor'} if len(run.namespaces) > 1 else {}
    return [
        NodeSpec(
            'policy_node',
            True,
            (run.robot_file,),
            {**parameters, 'seed': run.seed + number},
            namespace,
            shared,
        )
        for number, namespace in enumerate(run.namespaces)
    ]


def _judges(run: RobotRun) -> list[NodeSpec]:
    """Return the node that judges the episodes of each robot, if there is to be one."""
    if run.classifier is None and not run.reward:
        return []
    return [
        reward_spec(run.robot_file, run.classifier, run.reward, namespace)
        for namespace in run.namespaces
    ]


def _recorders(run: RobotRun) -> list[NodeSpec]:
    """Return the recorder of each robot, if there is to be one."""
    if run.record is None:
        return []
    return [
        recorder_spec(
            run.robot_file,
            namespace,
            run.record / namespace.strip('/'),
            str(run.base_policy),
            raw=True,
        )
        for namespace in run.namespaces
    ]


def _learner(run: RobotRun, resume: bool) -> NodeSpec:
    """Return the learner of all robots."""
    alone = len(run.namespaces) == 1
    parameters = {
        'preset': run.preset,
        'robots': [''] if alone else list(run.namespaces),
        'seed': run.seed,
        'output_dir': str(run.output_dir),
        'resume': resume,
        'overrides': run.overrides,
        'robot_file': str(run.robot_file),
        'base_policy': str(run.base_policy),
        **asdict(run.splicing),
        **_demonstrations(run),
    }
    return NodeSpec('learner_node', True, (), parameters, run.namespaces[0] if alone else '')


def _demonstrations(run: RobotRun) -> dict[str, Any]:
    """Return the learner's parameters of demonstrations, none where there are none."""
    if not run.demonstrations:
        return {}
    return {
        'demonstrations': list(run.demonstrations),
        'observation_map': list(run.observation_map or ('',)),
    }


def latest(output_dir: Path) -> Path:
    """Return where the learner with this folder keeps its latest checkpoint."""
    return output_dir / CHECKPOINTS / 'latest'


def resumed(learner: NodeSpec) -> NodeSpec:
    """Return a learner that has died, to be started again: from its checkpoint, if it wrote one."""
    checkpoint = latest(Path(learner.parameters['output_dir']))
    return replace(
        learner, parameters={**learner.parameters, 'resume': checkpoint_exists(checkpoint)}
    )


def _decisions(run: RobotRun, actor: Path | None) -> tuple[int, list[float]]:
    """Return decision_steps and residual_scale: what is given, else what the actor was made for.

    Where neither says so, the policy node takes the steps from its base policy, at 0.

    Raises:
        ResidualRLError: the actor is needed for it and cannot be read.
    """
    steps, scale = run.decision_steps, run.residual_scale
    if actor is not None and (steps is None or scale is None):
        _, policy = decode_weights(read_actor(actor))
        layout = policy.architecture.layout
        steps = layout.decision_steps if steps is None else steps
        scale = residual_scale(layout) if scale is None else scale
    return steps or 0, list(scale or (ROBOT_SCALE,))


def own_names(robot: RobotConfig) -> tuple[str, ...]:
    """Return the topics and services that two robots must not share.

    Those of commands, channels and reset; robots of one cell may share a stop input.
    """
    commands = tuple(command.topic for command in robot.commands)
    channels = tuple(s.topic for channel in robot.channels for s in channel.sources)
    reset = (robot.reset.service,) if robot.reset is not None and robot.reset.service else ()
    return commands + channels + reset


def _check_apart(run: RobotRun) -> None:
    """Refuse a namespace that is none, and a fleet whose robots would share one, or a topic.

    Raises:
        ConfigError: names the namespace, or the topic that robots would share.
    """
    names = [namespace.strip('/') for namespace in run.namespaces]
    for name in names:
        check_namespace(name)
    if len(names) == 1:
        return
    if len(set(names)) < len(names) or '' in names:
        raise ConfigError(f'namespaces are {names}, expected a different one for each robot')
    robot, _ = load_robot(str(run.robot_file))
    for name in own_names(robot):
        if name.startswith('/'):
            what = 'topic'
            if robot.reset is not None and name == robot.reset.service:
                what = 'robot.reset.service'
            raise ConfigError(
                f'{run.robot_file}: {what} {name!r} is the same for every robot of a fleet; make '
                'it relative'
            )
