# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any gymnasium environment with Box spaces as a robot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import yaml

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.finetune import FinetuneConfig
from residual_rl_ros.robot import FLOAT_ARRAY, RobotConfig
from residual_rl_ros.sim.parameters import TaskError
from residual_rl_ros.sim.tasks import TASK_NAMES, make_task

Env = gymnasium.Env[Any, Any]


def make_environment(name: str, render_mode: str | None = None) -> Env:
    """Make a task of this package, or any registered gymnasium environment.

    Dictionary observations are flattened, in the alphabetical order of their keys. An environment
    that reports `is_success`, as gymnasium-robotics does, ends there with reward 1.

    Args:
        name: one of `TASK_NAMES`, or a gymnasium id; `module:Id-v0` imports the module first.
        render_mode: `rgb_array` to draw pictures.

    Raises:
        TaskError: unknown name, or a space that is not a Box.
    """
    if name in TASK_NAMES:
        return make_task(name, render_mode=render_mode)
    try:
        env: Env = gymnasium.make(name, render_mode=render_mode)
    except (gymnasium.error.Error, ImportError) as error:
        raise TaskError(
            f'unknown task {name!r}: not one of {", ".join(TASK_NAMES)} and no gymnasium '
            f'environment ({error})'
        ) from error
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        env = gymnasium.wrappers.FlattenObservation(env)
    env = EndAtSuccess(env)
    for kind, space in (('observation', env.observation_space), ('action', env.action_space)):
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise TaskError(f'{name}: the {kind} space is {space}, expected a one-dimensional Box')
    return env


class EndAtSuccess(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Turns `info['is_success']` into what this package learns from: a sparse reward and an end."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; environments without `is_success` are left as they are."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if 'is_success' in info:
            success = bool(info['is_success'])
            reward, terminated = float(success), terminated or success
            info = {**info, 'success': success}
        return observation, float(reward), terminated, truncated, info


def environment_names(env: Env) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of observation and action; generic ones where an environment has none."""
    names = []
    spaces = (env.observation_space, env.action_space)
    for kind, space, stem in zip(
        ('observation', 'action'), spaces, ('state.x', 'action'), strict=True
    ):
        assert space.shape is not None
        generic = tuple(f'{stem}{index}' for index in range(space.shape[0]))
        names.append(tuple(getattr(env.unwrapped, f'{kind}_names', generic)))
    return names[0], names[1]


def control_rate_hz(env: Env) -> float:
    """Return the control rate of an environment [Hz]; 20 where it does not say."""
    own = getattr(env.unwrapped, 'control_rate_hz', None) or env.unwrapped.metadata.get(
        'render_fps'
    )
    return float(own or 20.0)


def describe_robot(name: str, env: Env) -> dict[str, Any]:
    """Return a robot description (the content of a robot YAML) for an environment.

    One Float64MultiArray channel carries the observation; velocity limits are those of a full
    swing within one control step, so that nothing is cut off that the environment allows.
    """
    observation, action = env.observation_space, env.action_space
    assert isinstance(observation, gymnasium.spaces.Box)
    assert isinstance(action, gymnasium.spaces.Box)
    rate = control_rate_hz(env)
    low, high = action.low.astype(np.float64), action.high.astype(np.float64)
    return {
        'name': name,
        'control_rate_hz': rate,
        'command': {'topic': 'command', 'type': FLOAT_ARRAY},
        'action': {
            'names': list(environment_names(env)[1]),
            'lower': low.tolist(),
            'upper': high.tolist(),
            'max_velocity': ((high - low) * rate).tolist(),
        },
        'observation': {
            'channels': ['state'],
            'state': {
                'topic': 'observation',
                'type': FLOAT_ARRAY,
                'fields': [f'x{i}' for i in range(observation.shape[0])],
                'max_age_s': 10.0 / rate,
            },
        },
    }


def finetune_for_environment(
    name: str, base_policy: Path, residual_scale: float, folder: Path
) -> FinetuneConfig:
    """Return the fine-tuning of any gymnasium environment with a base policy made for it.

    Args:
        name: gymnasium id.
        base_policy: ONNX file with the names that `describe_robot` gives.
        residual_scale: lambda.
        folder: where the robot YAML is written.
    """
    env = make_environment(name)
    folder.mkdir(parents=True, exist_ok=True)
    robot = folder / 'robot.yaml'
    parameters = {'robot': describe_robot(name, env)}
    text = yaml.safe_dump({'/**': {'ros__parameters': parameters}}, sort_keys=False)
    robot.write_text(text, encoding='utf-8')
    executed = OnnxBasePolicy(base_policy).metadata.exec_steps
    return FinetuneConfig(
        task=name,
        robot=str(robot),
        base_policy=str(base_policy),
        decision_steps=max(k for k in (1, 2, 4) if executed % k == 0),
        residual_scale=(residual_scale,),
        prefetch_steps=0,
        preset='dawn',
        overrides={},
        control_steps=96_000,
    )


def check_environment(env: Env, robot: RobotConfig) -> None:
    """Refuse an environment that does not fit a robot description.

    Raises:
        TaskError: observation or action differ in names or size.
    """
    for kind, names, shape in (
        ('observation', robot.observation_names, env.observation_space.shape),
        ('action', robot.action.names, env.action_space.shape),
    ):
        own = getattr(env.unwrapped, f'{kind}_names', None)
        if own is not None and tuple(own) != names:
            different = next(
                (pair for pair in zip(own, names, strict=False) if pair[0] != pair[1]),
                (f'{len(own)} names', f'{len(names)} names'),
            )
            raise TaskError(
                f'{kind}: the environment has {different[0]!r} where robot {robot.name!r} has '
                f'{different[1]!r}; correct the robot YAML'
            )
        if shape != (len(names),):
            raise TaskError(
                f'{kind}: the environment has shape {shape}, robot {robot.name!r} lists '
                f'{len(names)} names; correct the robot YAML'
            )
