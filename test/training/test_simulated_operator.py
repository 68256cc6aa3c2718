# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated operator helps where it is needed, on the way that a real one takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from command_line import run_command
from loop_builders import CHANNELS, Recorder, weights
from robot_builders import make_action_spec

from residual_rl_ros.config.operator import OperatorConfig
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.lockstep_loop import LockstepLoop
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.pretraining.experts import EXPERTS
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.training.simulated_operator import SimulatedOperator, time_needed
from residual_rl_ros.transitions.transition import Source, Transition

Array = np.ndarray
STEPS = 20
HZ = 10.0
EXACT = 'simulated:watch_s=0.3,reaction_s=0.2,min_takeover_s=0.5,patience=0.5,misses=0,noise=0'
ARM = ('arm.position.a', 'arm.position.b')


class Lag(gymnasium.Env):
    """An arm that goes half of the way to its command; it succeeds if `works`."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float64)
    task_name = 'lag'

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.own: Callable[[int], Array] = lambda step: np.ones(2)
        """What the expert commands at a control step."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict]:
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.uniform(-0.1, 0.1, 3), 0
        return self.state.copy(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict]:
        self.state[:2] += 0.5 * (action - self.state[:2])
        self.steps += 1
        done = self.steps == STEPS
        return self.state.copy(), float(done), False, done, {'success': done and self.works}


class Expert:
    def __init__(self, **unused: Any) -> None:
        pass

    def reset(self, env: Lag) -> None:
        self.step = 0

    def act(self, env: Lag) -> Array:
        self.step += 1
        return env.own(self.step)


@pytest.fixture(autouse=True)
def expert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERTS, 'lag', Expert)


CONFIG = ControllerConfig(2, (0.1,), seed=1, explore=True, scheduled_actor=False)
SPEC = make_action_spec(measured_by=ARM, max_step=np.array([0.3, 0.3]))


@pytest.fixture
def controller() -> Iterator[ResidualController]:
    made = CONFIG.build(LinearPolicy(), SPEC)
    yield made
    made.queue.close()


def helped(text: str, env: Lag, controller: ResidualController, seed: int = 0) -> list[int]:
    """Return the control steps that an operator commands in an episode, from 1."""
    config = OperatorConfig.parse(text)
    assert config is not None
    operator = SimulatedOperator(config, env, 'lag', controller, HZ, steps_needed=8)
    attention, steps = operator.attend(np.random.default_rng(seed)), []

    def takeover() -> Array | None:
        command = attention()
        steps.append(command is not None)
        return command

    run_episode(env, controller, 0, 0, takeover=takeover)
    return [step for step, own in enumerate(steps, start=1) if own]


def test_he_waits_watches_reacts_and_hands_back_when_they_agree(
    controller: ResidualController,
) -> None:
    env = Lag()

    def own(step: int) -> Array:
        planned = controller.target()
        assert planned is not None
        return planned + (1.0 if step < 9 else 0.0)

    env.own = own
    # 4 of patience, then he decides at 5; 2 of reaction; they agree from 9 on, he helps for 5.
    assert helped(EXACT, env, controller) == [7, 8, 9, 10, 11]
    assert helped(EXACT.replace('patience=0.5', 'patience=0'), env, controller)[0] == 5


def test_he_helps_no_longer_than_his_limit_and_again_where_it_is_still_needed(
    controller: ResidualController,
) -> None:
    assert helped(f'{EXACT},max_takeover_s=0.6', Lag(), controller) == [*range(7, 13), 18, 19, 20]


def test_within_the_deadband_there_is_nothing_to_help(controller: ResidualController) -> None:
    env = Lag()
    env.own = lambda step: controller.target() + 0.9 * controller.bound.values  # type: ignore[operator]
    assert helped(EXACT, env, controller) == []
    assert helped(f'{EXACT},deadband=0.8', env, controller) != []


def test_what_he_overlooks_and_his_noise_come_from_the_generator(
    controller: ResidualController,
) -> None:
    careless = EXACT.replace('misses=0', 'misses=0.5')
    found = [helped(careless, Lag(), controller, seed) for seed in range(6)]
    assert found == [helped(careless, Lag(), controller, seed) for seed in range(6)]
    firsts = {steps[0] for steps in found if steps}
    assert min(firsts) == 7
    assert len(firsts) > 1
    assert helped(EXACT.replace('misses=0', 'misses=1'), Lag(), controller) == []


def test_his_transitions_are_those_of_the_loop_that_a_robot_has(
    controller: ResidualController,
) -> None:
    hand = {step: np.array([0.8, -0.4]) + 0.01 * step for step in (*range(5, 9), 15)}
    steps = iter(range(STEPS))
    played: list[Transition] = []
    callbacks = Recorder()
    blend, assembler = BlendRamp(0.0), ObservationAssembler(CHANNELS)
    parts = LoopParts(CONFIG.build(LinearPolicy(), SPEC), assembler, blend, callbacks, lambda: 0.0)
    loop = LockstepLoop(parts, 60.0)
    message = weights(loop, 1)
    controller.mailbox.submit(message)
    takeover = lambda: hand.get(next(steps))  # noqa: E731
    run_episode(Lag(), controller, 3, 0, played.append, takeover=takeover)

    loop.activate()
    loop.receive_weights(message)
    env = Lag()
    (state, _), reward, cut = env.reset(seed=3), 0.0, False
    for step in range(STEPS + 1):
        loop.set_takeover(step in hand)
        if step in hand:
            loop.receive_takeover(hand[step])
        if step:
            outcome = [reward, 0.0, float(cut), 1.0 if cut else -1.0]
            loop.receive_feedback(np.array([float(step), *outcome]))
        loop.push_observation('arm', float(step), state[:2])
        loop.push_observation('tool', float(step), state[2:])
        if step < STEPS:
            state, reward, _, cut, _ = env.step(callbacks.commands[-1][1])
    loop.controller.queue.close()

    layout = controller.layout
    assert [t.source for t in played] == [t.source for t in callbacks.transitions]
    assert {t.source for t in played} == {Source.RESIDUAL, Source.TAKEOVER}
    for ours, theirs in zip(played, callbacks.transitions, strict=True):
        np.testing.assert_array_equal(layout.encode(ours), layout.encode(theirs))
    counts = loop.counts
    assert (counts['ticks'], counts['takeovers'], counts['operator_ticks']) == (STEPS, 2, 5)


def test_an_operator_who_cannot_do_the_task_is_refused(controller: ResidualController) -> None:
    assert time_needed(Lag(), 'lag', controller, 0) == STEPS
    with pytest.raises(ConfigError, match="expert of task 'lag' never succeeded"):
        time_needed(Lag(works=False), 'lag', controller, 0)
    with pytest.raises(ConfigError, match="no expert for task 'unknown'"):
        time_needed(Lag(), 'unknown', controller, 0)


@pytest.mark.parametrize(
    ('text', 'wrong'),
    [
        ('human', "operator 'human': expected simulated or simulated:key=value"),
        ('simulated:misses=2', 'misses is 2.0, expected a number >= 0.0 and <= 1.0'),
        ('simulated:noise=loud', "noise is 'loud', expected a number"),
        ('simulated:pateince=1', 'pateince is unknown; did you mean patience'),
        ('simulated:misses=0,misses=1', "'misses=1' is given twice"),
        ('simulated:misses', "'misses' is no assignment"),
        ('simulated:max_takeover_s=0.1', 'max_takeover_s is 0.1, expected at least min_takeover_s'),
    ],
)
def test_what_names_no_operator_is_said(text: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OperatorConfig.parse(text)
    assert wrong in str(raised.value)


def test_a_run_with_an_operator_counts_his_time_and_goes_on_with_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [word for key in ('actor', 'critic') for word in ('--set', f'{key}_hidden_sizes=[8]')]
    out = tmp_path / 'run'
    command = ['train', '--task', 'peg_insert', '--evaluate', '0', '--out', str(out), *small]
    helps = ('--operator', 'simulated:misses=0,deadband=0.1')
    assert run_command(*command, '--steps', '100', *helps, monkeypatch=monkeypatch) == 0
    summary = json.loads((out / 'summary.json').read_text())
    history = json.loads((out / 'checkpoints' / 'latest' / 'learner.json').read_text())['state']
    assert summary['takeovers'] == history['takeovers'] > 0
    assert 0.0 < summary['operator_minutes'] < summary['robot_minutes']
    assert summary['operator_minutes'] == round(history['operator_steps'] / 20.0 / 60.0, 2)
    assert history['history'][-1]['operator_steps'] == history['operator_steps']
    assert summary['run']['operator']['misses'] == 0.0
    assert run_command(*command, '--steps', '110', '--resume', monkeypatch=monkeypatch) == 2
