# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot with discrete actions gets exactly one of them, at every step and whoever commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from actor_builders import make_actor
from hypothesis import given
from hypothesis import strategies as st
from loop_builders import CHANNELS, PERIOD, Recorder, drive, feed, real_time
from prior_builders import METADATA, NAMES, Chooser
from robot_builders import make_metadata

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.base_policy.robot_fit import check_fit
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.control.lockstep_loop import LockstepLoop
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.errors import ConfigError, ResidualRLError, UnsafeCommandError, WeightsError
from residual_rl_ros.residual_policy.exploration import Exploration, ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import Decider
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.transitions.transition import Source, Success

LEFT, STAY, RIGHT = np.eye(3)
ROBOT = ActionSpec.discrete(NAMES, hold_action='stay')
GOING_ON = StepFeedback(0.0, False, False, Success.UNLABELLED)


class Always(Decider):
    """A robot policy that always wants the same."""

    def __init__(self, wanted: np.ndarray, k: int = 1, residual: Any = None) -> None:
        self.wanted, self.residual = np.tile(wanted, k), residual
        self.priors: list[np.ndarray] = []
        self.samples: list[ExplorationSample] = []

    def decide(
        self, observation: Any, base: Any, rng: Any, sample: Any = None, distribution: Any = None
    ) -> np.ndarray:
        del observation, rng
        self.priors.append(distribution.prior)
        self.samples.append(sample)
        return self.wanted - base if self.residual is None else self.residual

    def uniform(self, half_width: float, rng: Any) -> np.ndarray:
        raise AssertionError('nobody explores')


def controller(k: int = 1, **changes: Any) -> ResidualController:
    """Return a controller of the robot; the base chooses stay, right, left, stay, ..."""
    config = ControllerConfig(k, (0.1,), scheduled_actor=False, **changes)
    return config.build(Chooser(), ROBOT)


def give(control: ResidualController, policy: Any, **exploration: Any) -> None:
    """Let the controller use a robot policy."""
    header = WeightsHeader(1, 1, Exploration(**exploration))
    control.mailbox.accept(lambda: (header, policy, b''))


def steps(control: ResidualController, count: int) -> list[np.ndarray]:
    """Run control steps of an episode; return the commands."""
    control.begin_episode(0, np.zeros(3), 0.0)
    sent = []
    for step in range(count):
        command = control.command()
        assert command is not None
        sent.append(command)
        control.step(np.zeros(3), step + 1.0, GOING_ON)
    return sent


def test_the_base_passes_as_it_is_and_transitions_tell_its_density() -> None:
    control = controller(k=2)
    assert control.layout.discrete
    assert control.layout.version == 2
    assert control.layout.residual_bound == (1.0, 1.0, 1.0)
    control.begin_episode(0, np.zeros(3), 0.0)
    sent = []
    for step in range(2):
        sent.append(control.command())
        made = control.step(np.zeros(3), step + 1.0, GOING_ON)
    np.testing.assert_array_equal(sent, [STAY, RIGHT])
    assert made is not None
    np.testing.assert_array_equal(made.executed_action, [*STAY, *RIGHT])
    np.testing.assert_array_equal(made.prior, [0, 2, 1, 1, 0, 2])
    np.testing.assert_array_equal(made.next_prior, [2, 1, 0, 0, 2, 1])
    assert control.layout.decode(control.layout.encode(made), control.layout.label)
    control.queue.close()


def test_a_residual_chooses_another_action_and_sees_the_density() -> None:
    control, policy = controller(), Always(RIGHT)
    give(control, policy)
    np.testing.assert_array_equal(steps(control, 3), [RIGHT] * 3)
    np.testing.assert_array_equal(policy.priors[0], [0, 2, 1])
    control.queue.close()


def test_a_bound_scale_is_the_share_of_decisions_in_which_the_residual_acts_whole() -> None:
    control, policy = controller(), Always(RIGHT)
    give(control, policy, bound_scale=0.4)
    sent = np.array(steps(control, 300))
    assert set(np.unique(sent)) == {0.0, 1.0}
    # Of the base's own choices a quarter is to the right.
    assert sent[:, 2].mean() == pytest.approx(0.4 + 0.6 / 4, abs=0.08)
    assert all(sample.bound_scale == 1.0 for sample in policy.samples)
    again = controller()
    give(again, policy, bound_scale=0.4)
    np.testing.assert_array_equal(steps(again, 300), sent)
    for each in (control, again):
        each.queue.close()


def test_a_warm_up_with_noise_chooses_any_action_in_that_share_of_the_steps() -> None:
    control = controller(explore=True)
    give(control, Always(RIGHT), residual_probability=0.0, uniform_noise=0.6)
    sent = np.array(steps(control, 300))
    assert set(np.unique(sent)) == {0.0, 1.0}
    # The base alone goes right in a quarter of the steps.
    assert sent[:, 2].mean() == pytest.approx(0.6 / 3 + 0.4 / 4, abs=0.08)
    assert not control.residual.not_finite
    control.queue.close()


def test_an_episode_of_held_random_residuals_keeps_to_an_action() -> None:
    control = controller(explore=True)
    give(control, Always(RIGHT), random_share=1.0, random_decisions=5)
    sent = np.array(steps(control, 300)).reshape(60, 5, 3)
    np.testing.assert_array_equal(sent, np.broadcast_to(sent[:, :1], sent.shape))
    assert sent[:, 0].mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.2)
    assert not control.residual.not_finite
    control.queue.close()


@pytest.mark.parametrize('residual', [np.full(3, 0.5), np.ones(3), np.full(3, np.nan)])
def test_where_a_residual_chooses_nothing_the_base_acts_and_it_is_counted(
    residual: np.ndarray,
) -> None:
    control = controller()
    give(control, Always(RIGHT, residual=residual))
    np.testing.assert_array_equal(steps(control, 3), [STAY, RIGHT, LEFT])
    assert control.residual.not_finite == 3
    control.queue.close()


@given(
    st.lists(st.sampled_from([0.0, 1.0, 0.5, -1.0, 2.0, np.nan, np.inf]), min_size=3, max_size=3)
)
def test_the_safety_filter_passes_one_hot_vectors_and_nothing_else(values: list[float]) -> None:
    legal = sorted(values) == [0.0, 0.0, 1.0]
    safety = SafetyFilter(ROBOT)
    if legal:
        np.testing.assert_array_equal(safety.apply(values, LEFT), values)
    else:
        with pytest.raises(UnsafeCommandError, match='command'):
            safety.apply(values, LEFT)


# --- the loops


def robot(**changes: Any) -> tuple[Any, Recorder]:
    loop, said = real_time(Chooser(), **{'action': ROBOT, **changes})
    loop.activate()
    return loop, said


def commands(said: Recorder) -> list[str]:
    assert all(sorted(command) == [0.0, 0.0, 1.0] for _, command in said.commands)
    return [NAMES[int(command.argmax())] for _, command in said.commands]


def test_a_hold_is_the_hold_action_and_control_goes_on_from_it() -> None:
    loop, said = robot()
    now = drive(loop, 0.0, 2)
    loop.held = True
    now = drive(loop, now, 2)
    loop.held = False
    drive(loop, now, 1)
    assert commands(said) == ['stay', 'right', 'stay', 'stay', 'stay']
    assert not said.faults


def test_without_a_hold_action_a_hold_repeats_the_last_one() -> None:
    loop, said = robot(action=ActionSpec.discrete(NAMES))
    now = drive(loop, 0.0, 2)
    loop.held = True
    drive(loop, now, 1)
    assert commands(said) == ['stay', 'right', 'right']


def test_an_operator_takes_over_with_one_action_and_nothing_else_is_obeyed() -> None:
    loop, said = robot()
    now = drive(loop, 0.0, 1)
    loop.set_takeover(True)
    loop.receive_takeover(np.array([0.5, 0.5, 0.0]))
    loop.receive_takeover(np.array([1.0, 1.0, 0.0]))
    assert loop.counts['refused_takeovers'] == 2
    assert said.warnings[-1] == (
        'takeover command is [1.0, 1.0, 0.0], expected 1 for one of left, stay, right, and 0 for '
        'the others'
    )
    loop.receive_takeover(LEFT)
    now = drive(loop, now, 1)
    loop.receive_takeover(LEFT)
    drive(loop, now, 1)
    assert commands(said)[-2:] == ['left', 'left']
    assert said.transitions[-1].source is Source.TAKEOVER
    np.testing.assert_array_equal(said.transitions[-1].executed_action, LEFT)


def test_a_robot_that_is_deactivated_holds_and_stays() -> None:
    loop, said = robot()
    drive(loop, 0.0, 2)
    loop.deactivate(1.0)
    assert commands(said)[-1] == 'stay'
    count = len(said.commands)
    drive(loop, 2.0, 2)
    assert len(said.commands) == count


def test_an_episode_that_ends_in_a_hold_has_a_transition_without_a_known_density() -> None:
    loop, said = robot()
    now = drive(loop, 0.0, 2)
    loop.held = True
    now = drive(loop, now, 1)
    loop.end_episode(StepFeedback(0.0, True, False, Success.FAILURE), now)
    feed(loop, now)
    loop.tick(now)
    last = said.transitions[-1]
    assert last.terminated
    np.testing.assert_array_equal(last.executed_action, STAY)
    np.testing.assert_array_equal(last.prior, np.zeros(3))


def test_a_waiting_simulator_is_answered_with_one_action_for_each_stamp() -> None:
    config = ControllerConfig(1, (0.1,), scheduled_actor=False)
    said = Recorder()
    controller, assembler = config.build(Chooser(), ROBOT), ObservationAssembler(CHANNELS)
    parts = LoopParts(controller, assembler, BlendRamp(0.0), said, lambda: 0.0)
    loop = LockstepLoop(parts, 60.0)
    said.loop = loop
    loop.activate()
    for step in range(1, 4):
        if step > 1:  # Before the first stamp nothing was done.
            loop.receive_feedback(np.array([step * PERIOD, 0.0, 0.0, 0.0, -1.0]))
        feed(loop, step * PERIOD)
    assert commands(said) == ['stay', 'right', 'left']


# --- what cannot be


def test_an_actor_for_continuous_actions_is_refused_before_it_may_act() -> None:
    control = controller()
    actor = make_actor(control.layout, gain=1.0).to_numpy()
    message = encode_weights(actor, WeightsHeader(1, 1, Exploration()))
    with pytest.raises(WeightsError, match=r'not always for one of the discrete actions left, st'):
        control.mailbox.submit(message)
    control.queue.close()


@dataclass(frozen=True)
class Refused:
    """A controller that must not be built."""

    message: str
    changes: Any


@pytest.mark.parametrize(
    'case',
    [
        Refused(r'chunk_blend_steps is given, but discrete', {'splicing': Splicing(0, 2)}),
        Refused(r'prior_width is given, but discrete', {'prior_width': (0.1,)}),
        Refused(r'residual_scale is .*, expected all above 0', {'residual_scale': (0.1, 0, 0.1)}),
        Refused(r'proposals is 4, but the base policy has no noise', {'proposals': 4}),
    ],
    ids=lambda case: next(iter(case.changes)),
)
def test_what_discrete_actions_cannot_have_is_refused(case: Refused) -> None:
    values: dict[str, Any] = {'decision_steps': 1, 'residual_scale': (0.1,), **case.changes}
    with pytest.raises(ResidualRLError, match=case.message):
        ControllerConfig(**values).build(Chooser(), ROBOT)


@pytest.mark.parametrize(
    ('metadata', 'spec', 'message'),
    [
        (
            METADATA,
            ActionSpec(NAMES, np.zeros(3), np.ones(3), np.ones(3)),
            'has prior categorical, the robot has continuous actions',
        ),
        (
            make_metadata(action_names=NAMES, action_min=(0.0,) * 3, action_max=(0.5,) * 3),
            ROBOT,
            r"action 'left': trained range \[0, 0.5\], expected \[0, 1\]",
        ),
    ],
)
def test_a_base_policy_of_another_kind_of_actions_is_refused(
    metadata: BasePolicyMetadata, spec: ActionSpec, message: str
) -> None:
    with pytest.raises(ResidualRLError, match=message):
        check_fit(metadata, metadata.observation_names, spec, metadata.rate_hz)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'hold_action': 'jump'}, "hold_action is 'jump', expected one of left, stay, right"),
        ({'kind': 'hybrid'}, "action kind is 'hybrid', expected continuous or discrete"),
        ({'units': ('m', 'm', 'm')}, 'units is given, but discrete actions have none'),
        ({'upper': np.full(3, 2.0)}, r'upper of discrete actions is \[2.0, 2.0, 2.0\]'),
        ({'kind': 'continuous', 'hold_action': 'stay'}, 'but the actions are continuous'),
    ],
)
def test_a_discrete_action_that_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    one = np.ones(3)
    values: dict[str, Any] = {'kind': 'discrete', 'lower': np.zeros(3), 'upper': one, **changes}
    with pytest.raises(ConfigError, match=message):
        ActionSpec(NAMES, max_step=one, **values)
