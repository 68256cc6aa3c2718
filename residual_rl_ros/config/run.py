# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One fine-tuning run, described once: task, robot, base policy, residual and learner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.config.preset import LearnerConfig, load_preset
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_base_policy, find_file
from residual_rl_ros.robot.action_spec import integer
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.transitions.transition import TransitionLayout


@dataclass(frozen=True)
class FinetuneConfig:
    """The content of `config/finetune/<task>.yaml`."""

    task: str
    """Simulated task or gymnasium id."""
    robot: str
    """Name of a shipped robot, or path of a robot YAML."""
    base_policy: str
    """Name of a shipped base policy, or path of an ONNX file."""
    decision_steps: int
    """Control steps per residual decision (k)."""
    residual_scale: tuple[float, ...]
    """Lambda: one value, or one per action dimension."""
    prefetch_steps: int
    """Control steps before its first use at which a chunk is requested."""
    preset: str
    """Learner preset."""
    overrides: Mapping[str, Any]
    """Values that replace those of the preset."""
    control_steps: int
    """Budget of control steps, warm-up included."""

    def load(self) -> tuple[OnnxBasePolicy, RobotConfig, Path]:
        """Load the base policy and the robot and check them against each other.

        Returns:
            Base policy, robot, and the robot's file.

        Raises:
            ResidualRLError: one of them is missing or they do not fit.
        """
        policy = OnnxBasePolicy(find_base_policy(self.base_policy))
        robot, path = load_robot(self.robot)
        policy.metadata.check_robot(robot.observation_names, robot.action, robot.control_rate_hz)
        return policy, robot, path

    def changed(self, changes: Mapping[str, Any]) -> FinetuneConfig:
        """Return it with changed numbers: of the preset, or how the residual acts.

        Args:
            changes: names and values as in YAML.

        Raises:
            ConfigError: `residual_scale` or `decision_steps` is no number.
        """
        overrides = {**self.overrides, **changes}
        try:
            scale = as_scale(overrides.pop('residual_scale', self.residual_scale))
            steps = integer(overrides.pop('decision_steps', self.decision_steps))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f'residual_scale or decision_steps: {error}') from error
        return replace(self, overrides=overrides, residual_scale=scale, decision_steps=steps)

    def trained_as(self, layout: TransitionLayout) -> FinetuneConfig:
        """Return it with the k and the lambda of the run that an actor's layout is of.

        Raises:
            ConfigError: the actor is for another task or base policy; or `ResidualRLError`, this
                one's base policy or robot does not load.
        """
        policy, _, _ = self.load()
        own, its = (
            (kind.observation_names, kind.action_names, kind.action_min, kind.action_max)
            for kind in (policy.metadata, layout)
        )
        if own != its:
            raise ConfigError(
                f'the actor is for actions {", ".join(layout.action_names)} and '
                f'{layout.observation_size} observations, task {self.task!r} has actions '
                f'{", ".join(policy.metadata.action_names)} and {len(own[0])} observations, or '
                'the ranges of their base policies differ; give the task of its training (--task)'
            )
        scale = map(_scale, layout.residual_bound, layout.action_min, layout.action_max)
        return replace(self, decision_steps=layout.decision_steps, residual_scale=tuple(scale))

    def with_preset(self, preset: str) -> FinetuneConfig:
        """Return it with a preset; its own overrides are tuned for its own one alone."""
        return self if preset == self.preset else replace(self, preset=preset, overrides={})

    def learner_config(self) -> LearnerConfig:
        """Return the preset with this run's overrides."""
        return load_preset(self.preset, self.overrides)

    def controller_config(self, seed: int, explore: bool, scheduled: bool) -> ControllerConfig:
        """Return the controller's configuration in lockstep.

        Args:
            seed: seeds the base policy's and the exploration noise.
            explore: sample the residual.
            scheduled: use each actor from the decision that it names.
        """
        return ControllerConfig(
            decision_steps=self.decision_steps,
            residual_scale=self.residual_scale,
            prefetch_steps=self.prefetch_steps,
            seed=seed,
            explore=explore,
            scheduled_actor=scheduled,
        )


def _scale(bound: float, low: float, high: float) -> float:
    """Return the lambda of one dimension whose product with the half range is its bound.

    That is not always the quotient, whose last digits are noise.
    """
    half_range = (high - low) / 2.0
    if not bound:
        return 0.0
    quotient = bound / half_range
    written = float(f'{quotient:.12g}')
    below, above = (math.nextafter(quotient, limit) for limit in (0.0, math.inf))
    near = (quotient, below, above, math.nextafter(below, 0.0), math.nextafter(above, math.inf))
    exact = (scale for scale in (written, *near) if scale * half_range == bound)
    return next(exact, quotient)


def training_seed(seed: int) -> int:
    """Return the first environment seed of a run: far from every evaluation seed."""
    return 10_000_000 + 1_000_000 * seed


def as_scale(value: Any) -> tuple[float, ...]:
    """Return lambda, given as one number or as a list of one per action dimension.

    Raises:
        ValueError: it is neither; or `TypeError`.
    """
    return tuple(map(float, value if isinstance(value, (list, tuple)) else [value]))


def load_finetune(name_or_path: str) -> FinetuneConfig:
    """Read a fine-tuning configuration: a path, or the name of a shipped task.

    Raises:
        ConfigError: unknown or missing key, or a value of the wrong type.
        ResourceError: unknown task.
    """
    path = find_file('task', ('config', 'finetune'), name_or_path, '.yaml')
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'cannot read {str(path)!r}: {error}') from error
    names = {field.name for field in fields(FinetuneConfig)}
    if not isinstance(values, Mapping) or set(values) != names:
        found = set(values) if isinstance(values, Mapping) else set()
        raise ConfigError(
            f'{path}: unknown keys {sorted(map(str, found - names))}, missing keys '
            f'{sorted(names - found)}'
        )
    try:
        config = FinetuneConfig(
            task=str(values['task']),
            robot=str(values['robot']),
            base_policy=str(values['base_policy']),
            decision_steps=integer(values['decision_steps']),
            residual_scale=as_scale(values['residual_scale']),
            prefetch_steps=integer(values['prefetch_steps']),
            preset=str(values['preset']),
            overrides=dict(values['overrides'] or {}),
            control_steps=integer(values['control_steps']),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f'{path}: {error}') from error
    if config.control_steps < 1:
        raise ConfigError(f'{path}: control_steps is {config.control_steps}, expected >= 1')
    return config
