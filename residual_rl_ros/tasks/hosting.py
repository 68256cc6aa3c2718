# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Any gymnasium environment that observes a Box, with Box or Discrete actions, as a robot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.config.success import AUTO, SuccessCriterion
from residual_rl_ros.errors import ConfigError, shown
from residual_rl_ros.numerics import FLOAT32_MAX
from residual_rl_ros.resources import write_text
from residual_rl_ros.robot.action_spec import CONTINUOUS, DISCRETE
from residual_rl_ros.robot.description import RobotConfig, robot_yaml
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.tasks.checked import Env, criterion_of, environment_name, foreign
from residual_rl_ros.tasks.metaworld import PREFIX, MetaWorld
from residual_rl_ros.tasks.published import PUBLISHED
from residual_rl_ros.tasks.registry import (
    CAMERA_TASKS,
    STATE,
    TASK_NAMES,
    make_camera_task,
    make_task,
)
from residual_rl_ros.tasks.robot_view import RobotView
from residual_rl_ros.transitions.layout import MAX_SIZE

if TYPE_CHECKING:
    from residual_rl_ros.config.run import RunConfig

SMALLEST_RANGE = 1e-6
"""Smallest difference of the bounds of an action, relative to them: some ten steps of float32."""
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
CHANNEL = f'{STATE}.'
"""What the observation names of an environment without a robot begin with."""
Float64 = npt.NDArray[np.float64]


def make_environment(name: str, render_mode: str | None = None, success: str = AUTO) -> Env:
    """Make a task of this package, or any registered gymnasium environment.

    Dictionary observations of others are flattened, in the alphabetical order of their keys.

    Args:
        name: one of `TASK_NAMES`, `CAMERA_TASKS` or `PUBLISHED`, a gymnasium id, for which
            `module:Id-v0` imports the module first, or `metaworld:TASK`.
        render_mode: `rgb_array` to draw images.
        success: how it tells success; see `SuccessCriterion`. With `auto`, those that have a name
            here say so themselves; the episodes of others end at the first `info['is_success']`, as
            with `is_success:stop`, or `info['success']` counts at any step.

    Raises:
        ConfigError: unknown name, a wrong criterion, or a space that is no vector of numbers.
        TaskError: it cannot be made.
    """
    criterion = SuccessCriterion.parse(success)
    if name in TASK_NAMES or name in CAMERA_TASKS:
        make = make_task if name in TASK_NAMES else make_camera_task
        own: Env = make(name, render_mode=render_mode)
        return own if criterion.source == AUTO else TellsSuccess(own, criterion)
    env = _make_foreign(name, render_mode)
    if name in PUBLISHED and criterion.source == AUTO:
        criterion = criterion_of(env)
    return TellsSuccess(foreign(f'{name}: its spaces', lambda: _as_vector(name, env)), criterion)


def _as_vector(name: str, env: Env) -> Env:
    """Return an environment that observes a vector.

    Raises:
        ConfigError: names the space that is none.
    """
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Dict):
        if not (len(space) and space.is_np_flattenable):
            raise ConfigError(f'{name}: the observation space {shown(space)} is no vector')
        _check_size(name, 'observation', gymnasium.spaces.flatdim(space))
        env = gymnasium.wrappers.FlattenObservation(env)
    _check_spaces(name, env)
    return env


def _check_size(name: str, kind: str, size: int) -> None:
    """Refuse a vector that no transition holds.

    Raises:
        ConfigError: it has too many numbers, or none.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ConfigError(f'{name}: the {kind} has {size} numbers, expected 1 to {MAX_SIZE}')


def flattened(env: Env) -> dict[str, int]:
    """Return how many numbers each key of a dictionary observation became, in their order.

    Empty if the environment observes none.
    """
    while isinstance(env, gymnasium.Wrapper):
        inner = env.env
        spaces = inner.observation_space
        if isinstance(env, gymnasium.wrappers.FlattenObservation) and isinstance(
            spaces, gymnasium.spaces.Dict
        ):
            return {key: gymnasium.spaces.flatdim(space) for key, space in spaces.items()}
        env = inner
    return {}


def _make_foreign(name: str, render_mode: str | None) -> Env:
    """Make a gymnasium environment; its constructor need not know `render_mode`."""
    options: dict[str, Any] = {} if render_mode is None else {'render_mode': render_mode}

    def make() -> Env:
        if name.startswith(PREFIX):
            return MetaWorld(name, render_mode)
        if name in PUBLISHED:
            return PUBLISHED[name](render_mode)
        try:
            # Its checker only warns of what is refused here, and asserts in other words.
            env: Env = gymnasium.make(name, disable_env_checker=True, **options)
        except (gymnasium.error.Error, ImportError) as error:
            raise ConfigError(
                f'unknown task {name!r}: not one of '
                f'{", ".join([*TASK_NAMES, *CAMERA_TASKS, *PUBLISHED])} and no gymnasium '
                f'environment ({error}); for one of your own write module:Id'
            ) from error
        return env

    return foreign(f'{name} cannot be made', make)


def _check_spaces(name: str, env: Env) -> None:
    """Refuse spaces that are no vectors of numbers.

    Raises:
        ConfigError: names the space.
    """
    for kind, space in (('observation', env.observation_space), ('action', env.action_space)):
        if kind == 'action' and isinstance(space, gymnasium.spaces.Discrete):
            _check_size(name, kind, int(space.n))
            continue
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            more = ' or, of the actions, a Discrete' if kind == 'action' else ''
            raise ConfigError(
                f'{name}: the {kind} space is {shown(space)}, expected a one-dimensional Box{more}'
            )
        _check_size(name, kind, space.shape[0])
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return
    if env.action_space.dtype is None or env.action_space.dtype.kind != 'f':
        raise ConfigError(
            f'{name}: actions are of type {env.action_space.dtype}, expected float32 or float64; '
            'whole numbers cannot carry a residual'
        )


class TellsSuccess(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Names how an environment tells success, for `CheckedEnvironment`.

    Args:
        env: the environment.
        criterion: how it tells success.
    """

    def __init__(self, env: Env, criterion: SuccessCriterion) -> None:
        super().__init__(env)
        self.success_criterion = criterion

    def close(self) -> None:
        """End it.

        Raises:
            TaskError: it failed.
        """
        foreign(f'{environment_name(self)}: close', super().close)


def environment_names(env: Env) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of observation and action; generic ones where an environment has none.

    Raises:
        ConfigError: it does not name each number.
        TaskError: it fails to.
    """
    names = []
    spaces = (env.observation_space, env.action_space)
    for kind, space, stem in zip(
        ('observation', 'action'), spaces, (f'{CHANNEL}x', 'action'), strict=True
    ):
        generic = tuple(f'{stem}{index}' for index in range(vector_size(space)))
        own = _own_names(env, kind)
        if own and len(own) != len(generic):
            raise ConfigError(
                f'{environment_name(env)}: {kind}_names has {len(own)} names for {len(generic)} '
                'numbers; correct the environment'
            )
        names.append(own or generic)
    return names[0], names[1]


def vector_size(space: gymnasium.Space[Any]) -> int:
    """Return the size of the vector that stands for an element; one-hot, if it is discrete."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    assert space.shape is not None
    return int(np.prod(space.shape))


def _own_names(env: Env, kind: str) -> tuple[str, ...]:
    """Return the names that an environment gives, empty if it gives none."""
    attribute = f'{kind}_names'

    def read() -> tuple[str, ...]:
        return tuple(env.get_wrapper_attr(attribute)) if env.has_wrapper_attr(attribute) else ()

    return foreign(f'{environment_name(env)}: {attribute}', read)


def control_rate_hz(env: Env) -> float:
    """Return the control rate of an environment [Hz]; 20 where it does not say."""
    attribute = 'control_rate_hz'

    def read() -> float:
        own = env.get_wrapper_attr(attribute) if env.has_wrapper_attr(attribute) else None
        return float(own or (env.unwrapped.metadata or {}).get('render_fps') or 20.0)

    return foreign(f'{environment_name(env)}: {attribute}, or render_fps', read)


def describe_robot(name: str, env: Env) -> dict[str, Any]:
    """Return a robot description (the content of a robot YAML) for an environment.

    One Float64MultiArray channel carries the observation; velocity limits are those of a full
    swing within one control step, so that nothing is cut off that the environment allows. Discrete
    actions go as one-hot vectors.

    Raises:
        ConfigError: it observes images, its actions have no bounds for a robot, or a name or number
            that it gives is none for one.
        TaskError: it fails to say one.
    """
    observation, action = env.observation_space, env.action_space
    if not isinstance(observation, gymnasium.spaces.Box):
        raise ConfigError(
            f'{name} observes {observation}: describe its cameras by hand, as '
            'config/robots/push_to_goal_camera.yaml does'
        )
    rate = control_rate_hz(env)
    names, action_names = environment_names(env)
    named = all(each.startswith(CHANNEL) for each in names)
    if isinstance(action, gymnasium.spaces.Discrete):
        described: dict[str, Any] = {'names': list(action_names), 'kind': DISCRETE}
    else:
        assert isinstance(action, gymnasium.spaces.Box)
        low, high = _action_bounds(name, action)
        described = {
            'names': list(action_names),
            'lower': low.tolist(),
            'upper': high.tolist(),
            'max_velocity': ((high - low) * rate).tolist(),
        }
    described_robot = {
        'name': name,
        'control_rate_hz': rate,
        'command': {'topic': 'command', 'type': FLOAT_ARRAY},
        'action': described,
        'observation': {
            'channels': ['state'],
            'state': {
                'topic': 'observation',
                'type': FLOAT_ARRAY,
                'fields': [
                    each.removeprefix(CHANNEL) if named else f'x{i}' for i, each in enumerate(names)
                ],
                'max_age_s': 10.0 / rate,
            },
        },
    }
    RobotConfig.from_mapping(described_robot, f'{name}, as a robot')
    return described_robot


def _action_bounds(name: str, space: gymnasium.spaces.Box) -> tuple[Float64, Float64]:
    """Return the bounds of an action space, shape (m,) each.

    Raises:
        ConfigError: one is not finite, or float32, in which networks compute, cannot tell them
            apart.
    """
    # The shortest decimals that are these float32: 0.08, not 0.07999999821186066.
    low, high = (
        np.array([float(str(bound)) for bound in each]) for each in (space.low, space.high)
    )
    for index, (lowest, highest) in enumerate(zip(low, high, strict=True)):
        bounds = f'{name}: action[{index}] is bounded by {lowest:.9g} and {highest:.9g}'
        if not (abs(lowest) <= FLOAT32_MAX and abs(highest) <= FLOAT32_MAX):
            raise ConfigError(
                f'{bounds}, expected finite bounds up to {FLOAT32_MAX:.3g}; limit the actions with '
                'gymnasium.wrappers.RescaleAction, or describe the robot by hand'
            )
        width, largest = highest - lowest, max(abs(lowest), abs(highest), SMALLEST_NORMAL)
        if not width > SMALLEST_RANGE * largest or width * SMALLEST_RANGE < SMALLEST_NORMAL:
            raise ConfigError(
                f'{bounds}, which networks cannot tell apart in float32; rescale the actions, for '
                'example with gymnasium.wrappers.RescaleAction'
            )
    return low, high


def finetune_for_environment(
    name: str, base_policy: Path, residual_scale: float, folder: Path
) -> RunConfig:
    """Return the fine-tuning of any gymnasium environment with a base policy made for it.

    Args:
        name: gymnasium id.
        base_policy: ONNX file with the names that `describe_robot` gives.
        residual_scale: lambda.
        folder: where the robot YAML is written.

    Raises:
        ResidualRLError: environment or base policy cannot be used, or the folder not be written.
    """
    # It loads torch, which a simulator does without.
    from residual_rl_ros.config.run import RunConfig

    env = make_environment(name)
    robot = folder.resolve() / 'robot.yaml'
    write_text(robot, robot_yaml(describe_robot(name, env)))
    metadata = OnnxBasePolicy(base_policy).metadata
    wanted = metadata.observation_names, metadata.action_names
    for kind, own, needed in zip(
        ('observations', 'actions'), environment_names(env), wanted, strict=True
    ):
        if len(own) != len(needed):
            raise ConfigError(
                f'{name} has {len(own)} {kind}, and {base_policy.name} was made for {len(needed)}: '
                'give the base policy of this environment with --base'
            )
    return RunConfig(
        task=name,
        robot=str(robot),
        base_policy=str(base_policy.resolve()),
        decision_steps=metadata.decision_steps,
        residual_scale=(residual_scale,),
        control_steps=96_000,
    )


def host(config: RunConfig, robot: RobotConfig, render_mode: str | None = None) -> Env:
    """Return the environment of a run, as the policy of its robot sees it.

    Raises:
        ResidualRLError: it cannot be made, or does not fit the robot.
    """
    return connect(make_environment(config.task, render_mode, config.success), robot)


def connect(env: Env, robot: RobotConfig) -> Env:
    """Return an environment whose observation is the vector that the robot's policy expects.

    Raises:
        ConfigError: observation or action differ in names or size.
        ConfigError: an image encoder is unusable.
    """
    check_environment(env, robot)
    return RobotView(env, robot) if any(c.is_image for c in robot.channels) else env


def check_environment(env: Env, robot: RobotConfig) -> None:
    """Refuse an environment that does not fit a robot description.

    Raises:
        ConfigError: observation or action differ in kind, names or size, or a camera is missing.
    """
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    if discrete != robot.action.is_discrete:
        raise ConfigError(
            f'action: the environment has {env.action_space}, robot {robot.name!r} has '
            f'{robot.action.kind} actions; set robot.action.kind in the robot YAML to '
            f'{DISCRETE if discrete else CONTINUOUS}'
        )
    space = env.observation_space
    cameras = {c.name for c in robot.channels if c.is_image}
    seen = set(space) - {STATE} if isinstance(space, gymnasium.spaces.Dict) else set()
    if cameras != seen:
        raise ConfigError(
            f'robot {robot.name!r} has the image channels {sorted(cameras)}, the environment the '
            f'cameras {sorted(seen)}; correct the robot YAML'
        )
    state = space[STATE] if isinstance(space, gymnasium.spaces.Dict) else space
    names_of_state = tuple(
        name for c in robot.channels if not c.is_image for name in c.observation_names
    )
    for kind, names, shape in (
        ('observation', names_of_state, state.shape),
        ('action', robot.action.names, (vector_size(env.action_space),)),
    ):
        own = _own_names(env, kind)
        if own and own != names:
            different = next(
                (pair for pair in zip(own, names, strict=False) if pair[0] != pair[1]),
                (f'{len(own)} names', f'{len(names)} names'),
            )
            raise ConfigError(
                f'{kind}: the environment has {different[0]!r} where robot {robot.name!r} has '
                f'{different[1]!r}; correct the robot YAML'
            )
        if shape != (len(names),):
            raise ConfigError(
                f'{kind}: the environment has shape {shape}, robot {robot.name!r} lists '
                f'{len(names)} names; correct the robot YAML'
            )
