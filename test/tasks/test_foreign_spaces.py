# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Spaces of environments of others: dictionaries, and bounds in float32."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from command_line import run_command
from robot_builders import make_metadata

from residual_rl_ros.base_policy.robot_fit import check_fit
from residual_rl_ros.errors import ConfigError, TaskError
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.tasks.hosting import describe_robot, flattened, make_environment

TASK = 'DrawnPeg-v0'


class DrawnPeg(gymnasium.Env[Any, Any]):
    """Observes a dictionary, and takes a gripper's opening in float32."""

    def __init__(self) -> None:
        wide = {'high': np.inf, 'dtype': np.float32}
        self.observation_space = gymnasium.spaces.Dict(
            {
                'peg': gymnasium.spaces.Box(low=-np.inf, shape=(3,), **wide),
                'grip': gymnasium.spaces.Box(low=-np.inf, shape=(1,), **wide),
            }
        )
        self.action_space = gymnasium.spaces.Box(
            np.array([-0.3, 0.0], np.float32), np.array([0.3, 0.08], np.float32)
        )


gymnasium.register(TASK, DrawnPeg, max_episode_steps=5)


def test_what_a_dictionary_was_flattened_to_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = make_environment(TASK)
    assert list(flattened(env).items()) == [('grip', 1), ('peg', 3)]
    assert flattened(gymnasium.make('Pendulum-v1')) == {}
    assert run_command('describe-robot', TASK, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith('# grip: x0\n# peg: x1 to x3\n')


def test_a_policy_that_reaches_bounds_in_float32_fits_the_described_robot() -> None:
    robot = RobotConfig.from_mapping(describe_robot(TASK, make_environment(TASK)))
    np.testing.assert_array_equal(robot.action.upper, [0.3, 0.08])
    metadata = make_metadata(
        observation_names=robot.observation_names,
        action_names=robot.action.names,
        action_min=(-0.3, 0.0),
        action_max=(float(np.float32(0.3)), 0.08),
        rate_hz=20.0,
    )
    check_fit(metadata, robot.observation_names, robot.action, robot.control_rate_hz)


class Odd(gymnasium.Env[Any, Any]):
    """Says of itself what a test wants."""

    def __init__(self, **says: Any) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        for name, value in says.items():
            setattr(self, name, value)

    def close(self) -> None:
        raise RuntimeError('it is stuck')


def box(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)


@pytest.mark.parametrize(
    ('says', 'reason'),
    [
        ({'observation_space': box(200_000)}, 'the observation has 200000 numbers, expected 1 to'),
        ({'observation_space': box(0)}, 'the observation has 0 numbers'),
        ({'observation_space': gymnasium.spaces.Dict()}, 'is no vector'),
        (
            {'observation_space': gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(10**9))},
            'the observation has 1000000000 numbers',
        ),
        ({'observation_space': None}, 'the observation space is None'),
        ({'action_space': gymnasium.spaces.Discrete(10**9)}, 'the action has 1000000000 numbers'),
        ({'observation_names': None}, 'observation_names: TypeError'),
        ({'observation_names': ('state.a',)}, 'observation_names has 1 names for 3 numbers'),
        ({'observation_names': ('state.a', 'state.a', 'state.b')}, 'names are repeated'),
        ({'action_names': ('a', '')}, 'robot.action.names'),
        ({'control_rate_hz': 'fast'}, 'control_rate_hz, or render_fps: ValueError: could not'),
        ({'control_rate_hz': np.nan}, 'control_rate_hz is nan'),
        ({'control_rate_hz': -5.0}, 'control_rate_hz is -5.0'),
    ],
)
def test_what_an_environment_says_of_itself_is_checked(says: dict[str, Any], reason: str) -> None:
    gymnasium.register('Odd-v0', lambda: Odd(**says), max_episode_steps=5)
    try:
        with pytest.raises((ConfigError, TaskError), match=reason):
            describe_robot('Odd-v0', make_environment('Odd-v0'))
    finally:
        del gymnasium.registry['Odd-v0']


def test_an_environment_that_cannot_be_closed_is_named() -> None:
    gymnasium.register('Odd-v0', Odd, max_episode_steps=5)
    try:
        with pytest.raises(TaskError, match='Odd-v0: close: RuntimeError: it is stuck'):
            make_environment('Odd-v0').close()
    finally:
        del gymnasium.registry['Odd-v0']
