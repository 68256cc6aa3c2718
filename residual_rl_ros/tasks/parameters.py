# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What can be set on a task: sensor noise, actuation delay, episode length and randomisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from residual_rl_ros.errors import ConfigError


@dataclass(frozen=True)
class SensorNoise:
    """Standard deviations of the white Gaussian noise added at every control step."""

    joint_position_std_rad: float = 2e-4
    """Joint encoders, [rad]; the measured tool position inherits it through forward kinematics."""
    joint_velocity_std_rad_s: float = 2e-3
    """Differentiated encoders, [rad/s]."""
    object_position_std_m: float = 5e-4
    """Object poses from the camera, per axis, [m]."""
    object_yaw_std_rad: float = 5e-3
    """Object poses from the camera, about the vertical, [rad]."""

    def __post_init__(self) -> None:
        """Refuse negative and non-finite deviations."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not (np.isfinite(value) and value >= 0.0):
                raise ConfigError(
                    f'sensor noise {entry.name} is {value}, expected a finite value >= 0; '
                    f'set SensorNoise.{entry.name}'
                )


NOISELESS = SensorNoise(0.0, 0.0, 0.0, 0.0)
"""Perfect sensors, for tests and for telling noise from everything else."""


@dataclass(frozen=True)
class Range:
    """One named quantity that is drawn uniformly at every reset."""

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse empty and non-finite ranges."""
        if not (np.isfinite([self.low, self.high]).all() and self.low <= self.high):
            raise ConfigError(
                f'range {self.name!r} is [{self.low}, {self.high}], expected finite low <= high; '
                f'set the randomisation of {self.name!r}'
            )

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one value."""
        return float(rng.uniform(self.low, self.high))


def override_ranges(
    defaults: tuple[Range, ...], overrides: Mapping[str, tuple[float, float]]
) -> tuple[Range, ...]:
    """Replace ranges by name and keep their order.

    Args:
        defaults: The ranges a task knows.
        overrides: `(low, high)` by range name; equal bounds pin a quantity.

    Returns:
        The ranges in the order of `defaults`.

    Raises:
        ConfigError: If an override names no range of the task.
    """
    known = [entry.name for entry in defaults]
    for name in overrides:
        if name not in known:
            raise ConfigError(
                f'unknown randomisation {name!r}, expected one of {known}; rename or remove it'
            )
    return tuple(
        Range(entry.name, *overrides[entry.name]) if entry.name in overrides else entry
        for entry in defaults
    )


@dataclass(frozen=True)
class TaskParameters:
    """Parameters every task has."""

    max_episode_steps: int = 80
    """Control steps after which an episode is truncated; a multiple of 4, the longest chunk."""
    action_delay_steps: int = 1
    """Control steps between a command and its arrival at the actuators."""
    noise: SensorNoise = field(default_factory=SensorNoise)
    initial_joint_std_rad: float = 2e-3
    """Spread of the joints around the start posture, [rad]."""
    randomisation: tuple[Range, ...] = ()
    """What is drawn at every reset, in the order it is drawn."""

    def __post_init__(self) -> None:
        """Refuse lengths and delays that cannot be stepped."""
        if self.max_episode_steps < 4 or self.max_episode_steps % 4:
            raise ConfigError(
                f'max_episode_steps is {self.max_episode_steps}, expected a positive multiple '
                'of 4; set TaskParameters.max_episode_steps'
            )
        if self.action_delay_steps < 0:
            raise ConfigError(
                f'action_delay_steps is {self.action_delay_steps}, expected >= 0; '
                'set TaskParameters.action_delay_steps'
            )
