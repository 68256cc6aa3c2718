# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the robot was told and what the learner is told must be the same, step for step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy, settle
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.errors import UnsafeCommandError
from residual_rl_ros.residual_policy.exploration import WARM_UP, Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.transitions.transition import Source, Success, Transition

K = 2
GOING = StepFeedback(0.0, False, False, Success.UNLABELLED)


def build(
    policy: LinearPolicy | None = None,
    action: ActionSpec | None = None,
    gain: float | None = None,
    **changes: Any,
) -> ResidualController:
    """Return a controller, with a random actor of that gain if one is given."""
    config = ControllerConfig(**{'decision_steps': K, 'residual_scale': (0.1,), **changes})
    controller = config.build(policy or LinearPolicy(), action or make_action_spec())
    if gain is not None:
        offer(controller, gain)
    return controller


def offer(
    controller: ResidualController, gain: float, sequence: int = 0, enabled: bool = True
) -> None:
    actor = make_actor(controller.layout, seed=sequence, gain=gain)
    header = WeightsHeader(1, sequence, Exploration() if enabled else WARM_UP)
    controller.mailbox.submit(encode_weights(actor.to_numpy(), header))


@dataclass
class Run:
    """What was seen of an episode."""

    observations: list[np.ndarray]
    commands: list[np.ndarray] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)


def play(
    controller: ResidualController,
    steps: int = 12,
    episode: int = 0,
    last: StepFeedback = GOING,
    takeover: dict[int, np.ndarray] | None = None,
) -> Run:
    """Play an episode of random observations whose rewards are the powers of two."""
    rng = np.random.default_rng([99, episode])
    run = Run([rng.standard_normal(3)])
    controller.begin_episode(episode, run.observations[0], stamp=10.0)
    for step in range(steps):
        command = controller.command((takeover or {}).get(step))
        assert command is not None
        run.commands.append(command.copy())
        run.observations.append(rng.standard_normal(3))
        ending = last if step == steps - 1 else GOING
        feedback = StepFeedback(2.0**step, ending.terminated, ending.truncated, ending.success)
        transition = controller.step(run.observations[-1], 10.0 + 0.05 * (step + 1), feedback)
        if transition is not None:
            run.transitions.append(transition)
    controller.queue.close()
    return run


def base_actions(run: Run, seed: int, episode: int = 0, stochastic: bool = False) -> np.ndarray:
    """Return what the base policy alone commands on the observations of a run, (steps, m)."""
    queue = ChunkQueue(LinearPolicy(stochastic=stochastic), K)
    queue.reset(np.random.default_rng([seed, episode, 0]))
    actions = []
    for step in range(len(run.commands)):
        queue.push_observation(run.observations[step])
        if step % K == 0:
            actions.append(queue.take().actions)
    queue.close()
    return np.concatenate(actions).astype(np.float64)[: len(run.commands)]


def off() -> Iterator[tuple[str, ResidualController]]:
    """Yield every way in which the residual can be off."""
    options = {'seed': 5, 'explore': True}
    yield 'no actor', build(LinearPolicy(stochastic=True), **options)
    warm_up = build(LinearPolicy(stochastic=True), **options)
    offer(warm_up, gain=3.0, enabled=False)
    yield 'warm-up', warm_up
    switched = build(LinearPolicy(stochastic=True), gain=3.0, **options)
    switched.residual.enabled = False
    yield 'operator switch', switched
    faded = build(LinearPolicy(stochastic=True), gain=3.0, **options)
    faded.residual.blend_ratio = 0.0
    yield 'blend ratio', faded


@pytest.mark.parametrize('name', ['no actor', 'warm-up', 'operator switch', 'blend ratio'])
def test_with_the_residual_off_the_robot_does_exactly_what_the_base_does(name: str) -> None:
    run = play(dict(off())[name], episode=3)
    expected = base_actions(run, seed=5, episode=3, stochastic=True)
    assert np.array(run.commands).tobytes() == expected.tobytes()
    for transition in run.transitions:
        assert transition.source is Source.BASE
        assert not transition.residual_action.any()
        assert transition.executed_action.tobytes() == transition.base_action.tobytes()


@given(
    st.integers(0, 1000),
    st.floats(0.01, 50.0),
    st.floats(0.0, 2.0),
    st.booleans(),
    st.floats(0.0, 1.0),
)
def test_no_actor_moves_the_robot_further_from_the_base_than_the_bound(
    seed: int, gain: float, scale: float, explore: bool, blend: float
) -> None:
    limits = make_action_spec(lower=np.full(2, -99.0), upper=np.full(2, 99.0))
    controller = build(
        action=limits, gain=gain, seed=seed, residual_scale=(scale,), explore=explore
    )
    controller.residual.blend_ratio = blend
    run = play(controller, episode=seed)
    bound = scale * np.array([1.0, 0.5])
    base = base_actions(run, seed)
    rounding = np.spacing(np.abs(base) + bound)
    assert (np.abs(np.array(run.commands) - base) <= bound + rounding).all()
    np.testing.assert_array_equal(controller.layout.residual_bound, bound)


def test_a_random_actor_uses_its_whole_bound() -> None:
    run = play(build(gain=50.0))
    offset = np.abs(np.array(run.commands) - base_actions(run, seed=0)).max(0)
    np.testing.assert_allclose(offset, [0.1, 0.05], rtol=1e-6)


@pytest.mark.parametrize('explore', [False, True])
def test_transitions_chain_and_hold_what_was_commanded(explore: bool) -> None:
    controller = build(gain=1.0, explore=explore)
    run = play(controller, steps=14)
    assert len(run.transitions) == 7
    for index, transition in enumerate(run.transitions):
        first = index * K
        assert transition.step == first
        assert transition.stamp == pytest.approx(10.0 + 0.05 * first)
        assert transition.episode == 0
        assert (transition.epoch, transition.policy_sequence) == (1, 0)
        assert transition.source is Source.RESIDUAL
        assert transition.reward == 2.0**first + 2.0 ** (first + 1)
        assert not transition.terminated
        assert not transition.truncated
        np.testing.assert_array_equal(transition.observation, run.observations[first])
        np.testing.assert_array_equal(transition.next_observation, run.observations[first + K])
        commands = np.concatenate(run.commands[first : first + K])
        np.testing.assert_array_equal(transition.executed_action, commands)
        bound = np.tile(controller.layout.residual_bound, K)
        np.testing.assert_array_equal(
            transition.executed_action, transition.base_action + transition.residual_action * bound
        )
        controller.layout.decode(controller.layout.encode(transition), controller.layout.label)
    for one, other in itertools.pairwise(run.transitions):
        np.testing.assert_array_equal(one.next_observation, other.observation)
        np.testing.assert_array_equal(one.next_base_action, other.base_action)


def test_the_executed_action_is_the_one_after_clamps_and_slew() -> None:
    limits = make_action_spec(
        lower=np.full(2, -0.1), upper=np.full(2, 0.1), max_step=np.array([0.03, 0.01])
    )
    run = play(build(action=limits, gain=3.0, residual_scale=(1.0,)))
    executed = np.concatenate([t.executed_action.reshape(K, 2) for t in run.transitions])
    np.testing.assert_array_equal(executed, run.commands)
    assert np.abs(executed).max() <= 0.1
    assert (np.abs(np.diff(executed, axis=0)) <= limits.max_step + 1e-12).all()
    planned = [t.base_action + t.residual_action * np.tile([1.0, 0.5], K) for t in run.transitions]
    assert np.abs(np.ravel(planned) - executed.ravel()).max() > 0.05


def test_the_slew_limit_starts_at_the_measured_position() -> None:
    limits = make_action_spec(
        max_step=np.array([0.01, 0.02]), measured_by=('arm.position.b', 'arm.position.a')
    )
    run = play(build(action=limits), steps=2)
    measured = run.observations[0][[1, 0]]
    np.testing.assert_allclose(np.abs(run.commands[0] - measured), limits.max_step)


@pytest.mark.parametrize('steps', [5, 6])
def test_a_termination_ends_the_decision_at_once(steps: int) -> None:
    run = play(build(), steps=steps, last=StepFeedback(0.0, True, False, Success.SUCCESS))
    last = run.transitions[-1]
    assert len(run.transitions) == 3
    assert (last.terminated, last.truncated, last.success) == (True, False, Success.SUCCESS)
    assert last.step == 4
    assert last.reward == sum(2.0**step for step in range(4, steps))
    np.testing.assert_array_equal(last.next_observation, run.observations[steps])
    executed = last.executed_action.reshape(K, 2)[: steps - 4]
    np.testing.assert_array_equal(executed, run.commands[4:])


def test_a_truncation_ends_the_decision_with_a_next_base_action_to_bootstrap_from() -> None:
    run = play(build(), steps=6, last=StepFeedback(0.0, False, True, Success.FAILURE))
    longer = play(build(), steps=8)
    last = run.transitions[-1]
    assert len(run.transitions) == 3
    assert (last.terminated, last.truncated, last.success) == (False, True, Success.FAILURE)
    np.testing.assert_array_equal(last.next_base_action, longer.transitions[3].base_action)


def test_a_truncation_within_a_decision_gives_the_rewards_up_to_it() -> None:
    run = play(build(), steps=5, last=StepFeedback(0.0, False, True, Success.UNLABELLED))
    last = run.transitions[-1]
    assert len(run.transitions) == 3
    assert (last.truncated, last.reward, last.step) == (True, 16.0, 4)
    np.testing.assert_array_equal(last.next_observation, run.observations[5])


def test_a_truncation_within_a_decision_bootstraps_from_the_base_action_of_that_step() -> None:
    run = play(build(), steps=1, last=StepFeedback(0.0, False, True, Success.UNLABELLED))
    chunk = LinearPolicy().infer(run.observations[0].astype(np.float32)[None])
    (transition,) = run.transitions
    np.testing.assert_array_equal(transition.base_action, chunk[1:3].ravel())
    np.testing.assert_array_equal(transition.next_base_action, chunk[2:4].ravel())


def test_an_episode_leaves_nothing_to_the_next() -> None:
    controller = build(LinearPolicy(stochastic=True), gain=1.0, seed=4, explore=True)
    rng = np.random.default_rng(0)
    controller.begin_episode(0, rng.standard_normal(3), 0.0)
    for _ in range(3):
        controller.command()
        controller.step(rng.standard_normal(3), 0.0, GOING)
    second = play(controller, episode=1)
    fresh = play(build(LinearPolicy(stochastic=True), gain=1.0, seed=4, explore=True), episode=1)
    np.testing.assert_array_equal(second.commands, fresh.commands)
    assert [t.step for t in second.transitions] == [t.step for t in fresh.transitions]


def test_a_pause_drops_the_decision_and_leaves_a_gap_that_the_replay_sees() -> None:
    controller = build()
    controller.begin_episode(0, [0.0, 0.0, 0.0], stamp=0.0)
    transitions = []
    for step in range(7):
        if step == 3:  # In the middle of the second decision the sensors go stale for a while.
            controller.abandon()
            assert controller.step([5.0, 5.0, 5.0], 3.5, GOING) is None
        command = controller.command()
        assert command is not None
        transition = controller.step([1.0 + step, 0.0, 0.0], float(step), GOING)
        transitions += [transition] if transition else []
    controller.queue.close()
    first, second = transitions[:2]
    assert (first.step, second.step) == (0, 4)
    assert second.observation.tolist() == [5.0, 5.0, 5.0]
    assert second.base_action.size == K * 2
    np.testing.assert_array_equal(second.executed_action, second.base_action)


def test_a_takeover_replaces_the_command_and_marks_the_decision() -> None:
    hand = np.array([0.7, -0.7])
    run = play(build(gain=1.0), steps=8, takeover={3: hand})
    plain = play(build(gain=1.0), steps=8)
    sources = [t.source for t in run.transitions]
    assert sources == [Source.RESIDUAL, Source.TAKEOVER, Source.RESIDUAL, Source.RESIDUAL]
    np.testing.assert_array_equal(run.commands[3], hand)
    np.testing.assert_array_equal(run.transitions[1].executed_action[2:], hand)
    np.testing.assert_array_equal(run.transitions[1].executed_action[:2], plain.commands[2])
    np.testing.assert_array_equal(np.delete(run.commands, 3, 0), np.delete(plain.commands, 3, 0))


def test_a_takeover_passes_the_safety_filter_too() -> None:
    run = play(build(), steps=2, takeover={0: np.array([50.0, 0.0])})
    np.testing.assert_array_equal(run.commands[0], [2.0, 0.0])
    controller = build()
    controller.begin_episode(0, np.zeros(3), 0.0)
    with pytest.raises(UnsafeCommandError, match=r"'a.position' is nan"):
        controller.command(np.array([np.nan, 0.0]))
    controller.queue.close()


@pytest.mark.parametrize('prefetch', [0, 1, 2])
def test_the_same_seed_is_the_same_run_bit_for_bit(prefetch: int) -> None:
    def commands(seed: int) -> bytes:
        policy = LinearPolicy(stochastic=True)
        controller = build(policy, gain=1.0, seed=seed, explore=True, splicing=Splicing(prefetch))
        return np.array(play(controller).commands).tobytes()

    assert commands(1) == commands(1)
    assert commands(1) != commands(2)


def test_the_noise_of_the_base_is_the_same_with_and_without_a_residual() -> None:
    runs = [
        play(build(LinearPolicy(stochastic=True), gain=gain, seed=6, explore=True))
        for gain in (None, 1.0)
    ]
    base = [[t.base_action for t in run.transitions] for run in runs]
    np.testing.assert_array_equal(base[0], base[1])
    assert not np.array_equal(runs[0].commands, runs[1].commands)


def test_weights_that_arrive_within_a_decision_are_used_from_the_next_one() -> None:
    controller = build(gain=1.0)
    controller.begin_episode(0, np.zeros(3), 0.0)
    sequences = []
    for step in range(6):
        controller.command()
        if step == 2:
            offer(controller, gain=1.0, sequence=1)
        transition = controller.step(np.zeros(3), 0.0, GOING)
        if transition is not None:
            sequences.append(transition.policy_sequence)
    controller.queue.close()
    assert sequences == [0, 0, 1]


# --- chunks that come too late, outside lockstep


@pytest.fixture
def slow() -> Iterator[tuple[ResidualController, LinearPolicy]]:
    """Yield a controller that never waits, and its policy, whose gate is closed."""
    policy = LinearPolicy(make_metadata(horizon=2, exec_start=0, exec_steps=2))
    policy.gate.clear()
    controller = build(policy, gain=1.0, lockstep=False)
    controller.begin_episode(0, np.ones(3), stamp=0.0)
    yield controller, policy
    policy.gate.set()
    controller.queue.close()


def let_through(controller: ResidualController, policy: LinearPolicy) -> None:
    policy.gate.set()
    settle(controller.queue)


def feedback(reward: float) -> StepFeedback:
    return StepFeedback(reward, False, False, Success.UNLABELLED)


def test_a_chunk_late_at_the_start_sends_nothing_and_begins_when_it_is_there(slow: Any) -> None:
    controller, policy = slow
    assert controller.command() is None
    assert controller.step(np.full(3, 2.0), 0.05, feedback(1.0)) is None
    assert 'its first chunk' in controller.hold_reason
    let_through(controller, policy)
    assert controller.command() is not None
    assert controller.hold_reason == ''
    assert (controller.first_chunk_holds, controller.late_chunks) == (1, 0)


def test_what_was_measured_is_no_command_for_a_hold() -> None:
    """It may lie outside the limits."""
    policy = LinearPolicy()
    policy.gate.clear()
    action = make_action_spec(measured_by=('arm.position.a', 'arm.position.b'))
    controller = build(policy, action, lockstep=False)
    controller.begin_episode(0, np.array([0.3, 0.4, 0.5]), stamp=0.0)
    assert controller.command() is None
    policy.gate.set()
    controller.queue.close()


def first_decision(controller: ResidualController, policy: LinearPolicy) -> np.ndarray:
    """Execute the first decision, with the next chunk late; return its last command."""
    controller.command()
    let_through(controller, policy)
    controller.command()
    assert controller.step(np.full(3, 2.0), 0.05, feedback(1.0)) is None
    command = controller.command()
    policy.gate.clear()
    assert controller.step(np.full(3, 3.0), 0.10, feedback(2.0)) is None
    assert command is not None
    return command.copy()


def test_a_late_chunk_holds_the_last_command_and_its_transition_comes_later(slow: Any) -> None:
    controller, policy = slow
    held = first_decision(controller, policy)
    np.testing.assert_array_equal(controller.command(), held)
    assert 'raise prefetch_steps' in controller.hold_reason
    assert (controller.first_chunk_holds, controller.late_chunks) == (1, 1)
    let_through(controller, policy)
    transition = controller.step(np.full(3, 4.0), 0.15, feedback(4.0))
    assert transition is not None
    assert transition.reward == 7.0
    np.testing.assert_array_equal(transition.executed_action[2:], held)
    np.testing.assert_array_equal(transition.next_observation, np.full(3, 4.0))
    controller.command()
    controller.step(np.full(3, 5.0), 0.20, feedback(8.0))
    controller.command()
    following = controller.step(np.full(3, 6.0), 0.25, feedback(16.0))
    settle(controller.queue)
    if following is None:  # Its own next chunk was still being computed.
        following = controller.step(np.full(3, 6.0), 0.30, feedback(0.0))
    assert following is not None
    np.testing.assert_array_equal(following.observation, transition.next_observation)
    np.testing.assert_array_equal(following.base_action, transition.next_base_action)


def test_no_transition_is_lost_if_the_chunk_arrives_between_step_and_command(slow: Any) -> None:
    controller, policy = slow
    first_decision(controller, policy)
    let_through(controller, policy)
    transitions = []
    for time in range(4):
        controller.command()
        transitions.append(controller.step(np.full(3, 4.0 + time), 0.15, feedback(0.0)))
        settle(controller.queue)
    found = [transition for transition in transitions if transition is not None]
    assert found
    np.testing.assert_array_equal(found[0].observation, np.full(3, 1.0))


def test_an_operator_takes_over_while_a_chunk_is_late(slow: Any) -> None:
    controller, policy = slow
    first_decision(controller, policy)
    hand = np.array([0.7, -0.7])
    np.testing.assert_array_equal(controller.command(hand), hand)
