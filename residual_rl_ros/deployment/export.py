# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From the folder of a run to one ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from residual_rl_ros.base_policy.prefetch import AUTO, WORD
from residual_rl_ros.config.run import ResolvedRun, RunConfig, load_run
from residual_rl_ros.deployment.base_graph import BaseGraph
from residual_rl_ros.deployment.fused_policy import (
    FusedMetadata,
    FusedParts,
    describe,
    fuse,
    serialize,
)
from residual_rl_ros.deployment.parity import (
    MOST_TIES,
    FusedRunner,
    Parity,
    RandomWorld,
    compare,
    tolerance,
)
from residual_rl_ros.errors import BasePolicyError, ConfigError, OutputError, ResourceError
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.resources import write_bytes
from residual_rl_ros.training.identity import StoredRun, stored_run

PARITY_DECISIONS = 100
"""Decisions that are compared before a file is written."""


@dataclass(frozen=True)
class ExportOptions:
    """What the command line chooses."""

    run: Path
    """Folder of a run, a checkpoint, or the file of an actor."""
    out: Path
    task: str | None = None
    """Run configuration whose base policy and robot they are; None: that which the run names."""
    robot: str | None = None
    """Robot, instead of a task."""
    base: str | None = None
    """Base policy, instead of a task."""
    batch: int | None = None
    """Fixed size of the batch; None leaves it open."""
    precision: str = 'float64'
    """Of all but the networks: `float64` or `float32`."""
    without_workspace: bool = False
    """Export although the robot's workspace and self-collision are not in the graph."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    metadata: FusedMetadata
    parity: Parity
    sha256: str
    """Of the file."""


def export_run(options: ExportOptions, say: Callable[[str], None]) -> Exported:
    """Write the fused policy of a run.

    Args:
        options: what to export.
        say: told what the user should know.

    Raises:
        ResidualRLError: the run has no actor, or one that cannot be exported; base policy or robot
            are not those of its training; the file exists or cannot be written.
    """
    if options.out.exists():
        raise OutputError(f'{str(options.out)!r} exists; choose another file with --out')
    message = read_actor(options.run)
    header, policy = decode_weights(message)
    found = stored_run(options.run)
    stored = found.identity
    run = _configuration(options, found).resolve().trained_as(policy.architecture.layout)
    _check_base(run, stored)
    _check_limits(run, options)
    _check_ensemble(run, stored)
    prefetch = stored.get('prefetch_steps', run.config.prefetch_steps)
    if prefetch:
        say(
            f'the run has prefetch_steps {WORD if prefetch == AUTO else prefetch}: in the graph a '
            'chunk is computed when it is needed, from newer observations (prefetch_steps 0)'
        )
    if not header.exploration.bound_scale:
        say('the share of the residual bound in use is 0 in this actor: the base acts alone')
    parts = FusedParts(
        BaseGraph.of(run.policy),
        policy,
        header.exploration,
        run.robot.action,
        options.batch,
        options.precision,
    )
    if options.batch is None and not parts.base.idles:
        say('the base policy fails on a batch of 0: it runs at every decision, also for nothing')
    digests = run.policy.sha256, hashlib.sha256(message).hexdigest()
    metadata = describe(parts, run.robot.control_rate_hz, *digests)
    model = fuse(parts)
    parity = _check_parity(run, message, policy, serialize(model, metadata), metadata)
    metadata = replace(metadata, parity=parity.largest)
    content = serialize(model, metadata)
    write_bytes(options.out, content)
    return Exported(metadata, parity, hashlib.sha256(content).hexdigest())


def _configuration(options: ExportOptions, found: StoredRun) -> RunConfig:
    """Return the run whose base policy and robot are exported."""
    stored = found.identity
    if (options.robot is None) != (options.base is None):
        raise ConfigError('give --robot together with --base, or else --task')
    if options.robot is not None and options.base is not None:
        if options.task is not None:
            raise ConfigError('give either --task, or --robot together with --base')
        config = RunConfig(Path(options.robot).stem, options.robot, options.base, (0.0,), 1)
        return _as_wide(config, stored)
    if options.task is None and found.configuration is not None:
        return found.configuration
    task = options.task or stored.get('task')
    robot, base = stored.get('robot_file'), stored.get('base_policy')
    if task is None and isinstance(robot, str) and isinstance(base, str):
        return _as_wide(RunConfig(Path(robot).stem, robot, base, (0.0,), 1), stored)
    if not isinstance(task, str):
        raise ConfigError(
            f'{str(options.run)!r} does not say which task it is of: give --task, or --robot '
            'together with --base'
        )
    try:
        config = load_run(task)
    except ResourceError as error:
        raise ConfigError(f'{error}; or give --robot together with --base') from error
    return _as_wide(config, stored)


def _as_wide(config: RunConfig, stored: Mapping[str, Any]) -> RunConfig:
    """Return a run with the density around its base action that it was trained with."""
    return config.changed({'prior_width': stored.get('prior_width') or []})


def _check_base(run: ResolvedRun, stored: Mapping[str, Any]) -> None:
    """Refuse another base policy than the run was trained with."""
    trained = stored.get('base_policy_sha256')
    if trained is not None and trained != run.policy.sha256:
        raise BasePolicyError(
            f'the run was trained with a base policy of sha256 {trained}, and {run.policy.path} '
            f'has {run.policy.sha256}: give the configuration of its training (--task), or its '
            'robot and base policy (--robot, --base)'
        )


def _check_ensemble(run: ResolvedRun, stored: Mapping[str, Any]) -> None:
    given = stored.get('temporal_ensemble', run.config.temporal_ensemble)
    if given:
        raise ConfigError(
            f'the run has temporal_ensemble {given:g}, and the graph holds one chunk: run '
            'policy_node, or train with temporal_ensemble 0'
        )


def _check_limits(run: ResolvedRun, options: ExportOptions) -> None:
    action = run.robot.action
    if action.orientations:
        raise ConfigError(
            f'{run.robot_file} commands orientations, whose angle the limits of the graph do not '
            'know: run policy_node'
        )
    if (action.workspace or action.self_collision) and not options.without_workspace:
        raise ConfigError(
            f'the workspace limits and self-collision of {run.robot_file} cannot be put into the '
            'graph: check them behind it, and say so with --without-workspace, or run policy_node'
        )


def _check_parity(
    run: ResolvedRun,
    message: bytes,
    policy: RobotPolicy,
    content: bytes,
    metadata: FusedMetadata,
) -> Parity:
    """Compare the graph with the controller.

    Raises:
        BasePolicyError: they differ.
    """
    runner, allowed = FusedRunner(content, metadata), tolerance(policy.architecture.layout)
    at_once = replace(run, config=replace(run.config, prefetch_steps=0))
    controller = at_once.evaluation_controller(message)
    try:
        world = RandomWorld(policy, runner)
        found = compare(controller, policy, runner, world, PARITY_DECISIONS)
    finally:
        controller.close()
    if found.largest > allowed or found.ties > MOST_TIES * PARITY_DECISIONS:
        raise BasePolicyError(
            f'the commands of the fused graph differ by up to {found.largest:.3g} from those of '
            f'the controller, expected <= {allowed:.3g}, and in {found.ties} of '
            f'{PARITY_DECISIONS} decisions the critics choose otherwise; nothing was written: '
            'please report it with the base policy'
        )
    return found
