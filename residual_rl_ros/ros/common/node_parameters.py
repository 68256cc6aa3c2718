# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ROS parameters of every node. `docs/reference/parameters.md` is made from this file."""

from __future__ import annotations

from dataclasses import dataclass

from residual_rl_ros.base_policy.ensemble_queue import (
    ENSEMBLE,
    ENSEMBLE_STEPS,
    MAX_COEFFICIENT,
)
from residual_rl_ros.base_policy.prefetch import AUTO as AUTO_PREFETCH
from residual_rl_ros.base_policy.prefetch import DESCRIPTION as PREFETCH
from residual_rl_ros.base_policy.prefetch import WORDS as PREFETCH_WORDS
from residual_rl_ros.config import DEFAULT_PRESET, ROBOT_SCALE
from residual_rl_ros.config.success import AUTO, DESCRIPTION
from residual_rl_ros.control.config import CUSTOMISABLE, PRIOR_WIDTH, PROPOSALS
from residual_rl_ros.residual_policy.mailbox import MAX_WEIGHTS_BYTES
from residual_rl_ros.rewards.composition import MAX_ADD_ON_WEIGHT
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import MAX_PROPOSALS

KEY_FILE = (
    'key of robot and learner: weights, layouts and checkpoints without its digest are refused; a '
    'file that only its owner can read. Empty accepts all'
)


@dataclass(frozen=True)
class NodeParameters:
    """Parameters that every node has."""

    diagnostics_period_s: float = parameter(
        1.0, 'time between two messages on /diagnostics [s]', minimum=0.05
    )


@dataclass(frozen=True)
class PolicyParameters(NodeParameters):
    """Parameters of policy_node, beside the robot description `robot.*`."""

    key_file: str = parameter('', KEY_FILE)
    base_policy: str = parameter(
        '',
        'ONNX base policy: a path, or the name of a shipped one; topic: its chunks arrive on '
        'base_policy/chunk',
    )
    base_policy_metadata: str = parameter(
        '', 'with base_policy topic: YAML file of its metadata, as that beside an ONNX file'
    )
    base_policy_sha256: str = parameter(
        '', 'refuse any other base policy than the file with this sha256 (64 hex digits)'
    )
    actor: str = parameter(
        '',
        "residual to start with: a run's folder, a checkpoint or an actor.safetensors; for a robot "
        'without a learner, or with one that resumes the same checkpoint',
    )
    decision_steps: int = parameter(
        0, 'control steps per residual decision (k); 0: near 20 decisions/s', minimum=0
    )
    residual_scale: tuple[float, ...] = parameter(
        (ROBOT_SCALE,), 'lambda: one value, or one per action dimension', minimum=0.0
    )
    prefetch_steps: int = parameter(AUTO_PREFETCH, PREFETCH, AUTO_PREFETCH, words=PREFETCH_WORDS)
    chunk_blend_steps: int = parameter(
        0, 'control steps over which a new chunk takes over from the one before', minimum=0
    )
    temporal_ensemble: float = parameter(0.0, ENSEMBLE, -MAX_COEFFICIENT, MAX_COEFFICIENT)
    ensemble_steps: int = parameter(0, ENSEMBLE_STEPS, minimum=0)
    proposals: int = parameter(1, PROPOSALS, minimum=1, maximum=MAX_PROPOSALS)
    customisable: bool = parameter(False, CUSTOMISABLE)
    prior_width: tuple[float, ...] = parameter((0.0,), PRIOR_WIDTH, minimum=0.0)
    add_on: str = parameter(
        '',
        'add-on rewards beside the task, as a list of maps in YAML: [{name: ..., weight: 1.0}]; '
        'empty is none',
        live=True,
    )
    add_on_weight: float = parameter(
        1.0,
        'factor on the add-ons; 0 is the base policy alone, bit for bit',
        minimum=0.0,
        maximum=MAX_ADD_ON_WEIGHT,
        live=True,
    )
    seed: int = parameter(0, "seeds the base policy's and the exploration noise", minimum=0)
    explore: bool = parameter(
        True,
        'explore (training): sample the residual, run random episodes; otherwise its mean acts '
        '(deployment)',
        live=True,
    )
    lockstep: bool = parameter(
        False, 'advance with the stamps of a waiting simulator instead of with time'
    )
    wait_for_actor: bool = parameter(
        True, 'lockstep: wait for the actor that a decision needs, so that the run is reproducible'
    )
    actor_timeout_s: float = parameter(
        60.0,
        'lockstep: after this wait without a sign of a learner go on with the actor at hand [s]',
        minimum=0.0,
    )
    auto_start: bool = parameter(
        False,
        'start episodes without being asked; else each waits for ~/start_episode (key n of the '
        'operator console). Real time: in lockstep the simulator starts them',
        live=True,
    )
    episode_limit_s: float = parameter(
        0.0, 'real time: truncate episodes after this time [s]; 0 never', minimum=0.0, live=True
    )
    blend_ratio: float = parameter(
        1.0, 'ceiling of the multiplier on the residual', minimum=0.0, maximum=1.0, live=True
    )
    blend_ramp_s: float = parameter(
        1.0,
        'real time: the residual fades in over this time after activation, a takeover and a '
        'rollback [s]',
        minimum=0.0,
        live=True,
    )
    hold_limit_s: float = parameter(
        1.0,
        'real time: holding longer than this is a fault that deactivates the node [s]',
        minimum=0.0,
        live=True,
    )
    takeover_timeout_s: float = parameter(
        0.5,
        'real time: an operator who has taken over and says nothing for longer wants the robot to '
        'hold [s]',
        minimum=0.0,
        live=True,
    )
    realtime_priority: int = parameter(
        50,
        'real time: SCHED_FIFO priority of the control thread; 0 is normal scheduling. Without the '
        'permission for it the node warns and runs at normal priority',
        minimum=0,
        maximum=99,
    )
    lock_memory: bool = parameter(
        True,
        'real time: keep all memory of the process while control runs. Without the permission for '
        'it the node warns and runs without',
    )
    publish_decisions_hz: float = parameter(
        10.0,
        'how often decisions are published for those who look on (~/base_action, '
        '~/residual_action, ~/decision, ~/markers), as far as somebody subscribes, at the most '
        'once a control step; 0 never [Hz]. ~/executed_action shows every control step',
        minimum=0.0,
        maximum=1000.0,
        live=True,
    )
    marker_frame: str = parameter(
        'base_link', 'frame of ~/markers: that of the workspace, or the base of its kinematic model'
    )
    max_weights_bytes: int = parameter(
        MAX_WEIGHTS_BYTES, 'larger weight messages are dropped unread and counted [byte]', minimum=1
    )


@dataclass(frozen=True)
class LearnerParameters(NodeParameters):
    """Parameters of learner_node; `overrides.*` replaces values of the preset."""

    key_file: str = parameter('', KEY_FILE)
    preset: str = parameter(
        '',
        f'name of a file in config/presets/, or a path; empty is {DEFAULT_PRESET}, or to resume, '
        "the checkpoint's numbers",
    )
    robots: tuple[str, ...] = parameter(
        ('',), "namespaces of the robots to learn from; an empty one is the learner's own"
    )
    seed: int = parameter(0, 'seeds initialisation, sampling and updates', minimum=0)
    output_dir: str = parameter('', 'folder for checkpoints and TensorBoard events')
    resume: bool = parameter(False, 'continue from the checkpoint in output_dir')
    demonstrations: tuple[str, ...] = parameter(
        ('',),
        'bags, LeRobot datasets, robomimic files or files of train-base that a new learner begins '
        'with, for a preset that samples demonstrations; empty ones are none',
    )
    observation_map: tuple[str, ...] = parameter(
        ('',),
        'where names of demonstrations differ: NAME=KEY[INDEX], or a YAML file of such pairs; '
        'empty ones are none',
    )
    base_policy: str = parameter(
        '',
        'the ONNX base policy of policy_node, for residual-rl export and for demonstrations '
        'without base actions',
    )
    robot_file: str = parameter(
        '',
        'robot YAML of policy_node, for residual-rl export and, in demonstrations, the limits of '
        'the actions and the topics of bags',
    )
    prefetch_steps: int = parameter(
        0,
        'prefetch_steps of policy_node, for residual-rl export and for demonstrations, where auto '
        '(-1) is 0',
        minimum=AUTO_PREFETCH,
        words=PREFETCH_WORDS,
    )
    chunk_blend_steps: int = parameter(
        0, 'for demonstrations: chunk_blend_steps of policy_node', minimum=0
    )
    temporal_ensemble: float = parameter(
        0.0,
        'temporal_ensemble of policy_node, for residual-rl export and for demonstrations',
        minimum=-MAX_COEFFICIENT,
        maximum=MAX_COEFFICIENT,
    )
    ensemble_steps: int = parameter(
        0, 'for demonstrations: ensemble_steps of policy_node', minimum=0
    )
    add_on: str = parameter(
        '',
        'add-on rewards beside the task, as a list of maps in YAML: [{name: ..., weight: 1.0}]; '
        'empty is none',
        live=True,
    )
    add_on_weight: float = parameter(
        1.0,
        'factor on the add-ons, as that of policy_node; at 0 what was learned waits',
        minimum=0.0,
        maximum=MAX_ADD_ON_WEIGHT,
        live=True,
    )
    checkpoint_interval_s: float = parameter(
        60.0, 'time between two checkpoints [s]', minimum=1.0, live=True
    )
    backlog_limit: int = parameter(
        500,
        'with more transitions waiting than this, they are stored first and learned from later',
        minimum=1,
        live=True,
    )
    drain_limit_s: float = parameter(
        5.0,
        'at the end: how long to go on learning from what has already arrived [s]',
        minimum=0.0,
        live=True,
    )
    niceness: int = parameter(
        10,
        'priority of the updates, as of the command nice: on the computer of the robot, whatever '
        'controls it goes first',
        minimum=0,
        maximum=19,
    )


@dataclass(frozen=True)
class RewardParameters(NodeParameters):
    """Parameters of reward_node, beside the robot description `robot.*`."""

    classifier: str = parameter('', 'ONNX success classifier: the path of the file')
    classifier_sha256: str = parameter(
        '', 'refuse any other classifier than the file with this sha256 (64 hex digits)'
    )
    threshold: float = parameter(
        0.9, 'probability from which an observation counts as success', minimum=0.0, maximum=1.0
    )
    consecutive: int = parameter(
        3, 'observations in a row that must count before the node reports a success', minimum=1
    )
    function: str = parameter(
        '', 'instead: package.module:factory of a reward function; it is code, and is run'
    )
    add_on: str = parameter(
        '',
        'add-on rewards to show on ~/add_on, as a list of maps in YAML: [{name: ..., weight: '
        '1.0}]; empty is none; nobody learns from them',
        live=True,
    )


@dataclass(frozen=True)
class TakeoverParameters(NodeParameters):
    """Parameters of takeover_node, beside the robot description `robot.*`."""

    config: str = parameter(
        '', "what the operator's controls mean: a YAML file, or the name of a shipped one"
    )


@dataclass(frozen=True)
class RecorderParameters(NodeParameters):
    """Parameters of recorder_node, beside the robot description `robot.*`."""

    output_dir: str = parameter('', 'folder of the bag; it does not exist yet')
    transitions: bool = parameter(True, 'record the transitions and their layout')
    raw: bool = parameter(
        False, 'record observations, commands, feedback and takeovers too; needs robot.*'
    )
    base_policy: str = parameter('', 'ONNX base policy whose sha256 is noted in the bag')
    storage: str = parameter('mcap', 'mcap or sqlite3')
    max_bytes: int = parameter(0, 'begin a new bag after this many bytes; 0 never does', minimum=0)
    max_seconds: float = parameter(
        0.0, 'begin a new bag after this time [s]; 0 never does', minimum=0.0
    )


SIMULATION = 'sim'
"""Namespace of a simulation that is given none: a robot's topics must not be its."""


@dataclass(frozen=True)
class SimParameters(NodeParameters):
    """Parameters of mujoco_sim_node, beside the robot description `robot.*`."""

    task: str = parameter('peg_insert', 'a task of this package or a gymnasium id')
    success: str = parameter(AUTO, DESCRIPTION, filled=True)
    lockstep: bool = parameter(
        True, 'wait for the command of each stamp; otherwise step with wall time'
    )
    first_seed: int = parameter(
        0, 'environment seed of the first episode; the following count up', minimum=0
    )
    control_steps: int = parameter(
        0,
        'stop after the episode in which this many control steps are reached; 0 is endless',
        minimum=0,
    )
    command_timeout_s: float = parameter(
        120.0,
        'lockstep: no command for this long is an error [s]; before the first one, wait for ever',
        minimum=0.0,
    )
