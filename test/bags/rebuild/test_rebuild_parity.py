# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the live loop made of messages is what a recording of these messages gives."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy, settle
from raw_bag_builders import (
    CONFIG,
    DESCRIPTION,
    PERIOD,
    ROBOT,
    Live,
    check_equal,
    joints,
    rebuild,
    record_lockstep,
)
from robot_builders import make_metadata

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.rebuild.real_time import ReplayedController
from residual_rl_ros.bags.rebuild.rebuild import Rebuilder, RebuildOptions
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import NOTHING_HAPPENED
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.stamps import to_nanoseconds
from residual_rl_ros.robot.topics import JOINT_STATE
from residual_rl_ros.robot.transforms import ChannelTransform
from residual_rl_ros.transitions.cdr import deserialize
from residual_rl_ros.transitions.transition import Source, Success

TOLD = replace(CONFIG, proposals=3, customisable=True, prior_width=(0.2,))


@pytest.mark.parametrize('config', [CONFIG, TOLD], ids=['layout v1', 'layout v2'])
def test_real_time_transitions_are_equal_number_for_number(
    tmp_path: Path, config: ControllerConfig
) -> None:
    policy = LinearPolicy(stochastic=config is TOLD)
    live = Live.start(tmp_path / 'bag', config, policy)
    for tick in range(60):
        live.step(tick)
        if tick in (20, 41):
            live.feedback(tick, 1.0, 1.0, 0.0, float(tick == 20))
        elif tick % 7 == 0:
            live.feedback(tick, 0.1, 0.0, 0.0, -1.0)
    live.recorder.close()
    made, rebuilder, problems = rebuild(tmp_path / 'bag', config, policy)
    assert problems == []
    *made, cut = made  # The end of the recording ends the last episode.
    check_equal(made, live.made)
    assert cut.truncated
    arm, tool = rebuilder.channels.values()
    assert (arm.messages, arm.stamped) == (60, 60)
    assert (tool.messages, tool.stamped) == (30, 0)
    assert arm.ages[5] == pytest.approx(0.01)
    assert arm.rate_hz == pytest.approx(20.0)


def test_recorded_values_are_transformed_as_live_ones(tmp_path: Path) -> None:
    arm, tool = ROBOT.channels
    degrees = ChannelTransform(scale=(90.0,), degrees=True, wrap=('position',))
    shifted = ChannelTransform(scale=(0.5,), offset=(3.0,))
    channels = (replace(arm, transform=degrees), replace(tool, transform=shifted))
    robot = replace(ROBOT, channels=channels)
    live = Live.start(tmp_path / 'bag', robot=robot)
    for tick in range(20):
        live.step(tick)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', robot=robot)
    assert problems == []
    check_equal(made[:-1], live.made)
    seen = np.stack([transition.observation for transition in live.made])
    assert (np.abs(seen[:, 2] - 3.0) <= 0.5).all()
    assert 1.0 < np.abs(seen[:, :2]).max() <= np.pi / 2.0


def test_joints_that_share_a_topic_are_no_damage(tmp_path: Path) -> None:
    """A gripper's driver publishes beside the arm's, which sends its joints one by one."""
    live = Live.start(tmp_path / 'bag')
    recorded = live.recorder.write
    for tick in range(40):
        now = 100.0 + PERIOD * tick
        gripper = joints(now - 0.015, {'finger': 0.1})
        recorded('/cell/joint_states', round((now - 0.012) * 1e9), gripper)

        def apart(topic: str, received_ns: int, data: bytes) -> None:
            if topic != '/cell/joint_states':
                recorded(topic, received_ns, data)
                return
            message = deserialize(data, JOINT_STATE)
            stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
            for name, value in zip(message.name, message.position, strict=True):
                recorded(topic, received_ns, joints(stamp, {name: value}))

        live.recorder.write = apart  # type: ignore[method-assign]
        live.step(tick)
    live.recorder.close()
    made, rebuilder, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made[:-1], live.made)
    assert rebuilder.channels['arm'].messages == 79  # Not before both were there.


def test_lockstep_transitions_are_equal_number_for_number(tmp_path: Path) -> None:
    robot, live = record_lockstep(tmp_path / 'bag')
    bag = Bag(tmp_path / 'bag')
    options = RebuildOptions(CONFIG, lockstep=True, namespace='cell')
    seen: list[tuple[int, int | None]] = []
    rebuilder = Rebuilder(bag, robot, LinearPolicy(), options, lambda *said: seen.append(said))
    made = list(rebuilder.transitions())
    assert list(bag.problems) == []
    check_equal(made, live)
    assert [t.episode for t in made if t.terminated] == [0, 1]
    assert seen[159] == (160, None)  # Three topics and the commands, once.
    assert seen[160] == (1, 160)
    assert len(seen) == 160 + 120


def test_a_takeover_is_accounted_for_as_live(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(40):
        live.step(tick)
        if tick == 11:
            live.takeover(tick, True, np.array([0.3, -0.2]))
        elif tick == 21:
            live.takeover(tick, False)
    live.feedback(39, 0.0, 0.0, 1.0, 0.0)
    live.step(40)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made, live.made)
    assert {t.source for t in made} == {Source.BASE, Source.TAKEOVER}


def test_an_end_during_a_hold_is_accounted_for_as_live(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(16):
        live.step(tick)
    live.takeover(15, True)  # The operator has not commanded yet: the robot holds.
    live.step(16)
    live.feedback(16, 1.0, 1.0, 0.0, 1.0)
    live.step(17)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made, live.made)
    assert made[-1].success is Success.SUCCESS


@pytest.mark.parametrize(
    ('splicing', 'stochastic'),
    [(Splicing(), False), (Splicing(2), False), (Splicing(2, 2), True)],
)
def test_with_an_actor_all_but_what_it_said_is_equal_number_for_number(
    splicing: Splicing, stochastic: bool, tmp_path: Path
) -> None:
    """However chunks are requested and blended, if none was late."""
    config = replace(CONFIG, splicing=splicing, explore=True)
    policy = LinearPolicy(stochastic=stochastic)
    live = Live.start(tmp_path / 'bag', config, policy)
    actor = make_actor(live.loop.controller.layout, gain=1.0)
    live.loop.receive_weights(encode_weights(actor.to_numpy(), WeightsHeader(1, 0)))
    live.loop.take_weights(wait=True)
    for tick in range(44):
        live.step(tick)
        if tick in (21, 42):
            live.feedback(tick, 1.0, tick == 21, tick == 42, float(tick == 21))
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', config, policy)
    assert problems == []
    *made, cut = made
    *expected, cut_short = live.made
    check_equal(made, expected, 'residual_action', 'epoch', 'policy_sequence')
    # The end kept half of the last decision from being executed: only its plan is not known.
    (one, planned), (other, _) = (t.executed_action.reshape(2, 2) for t in (cut, cut_short))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(planned, cut.base_action[2:])
    assert {t.source for t in made} == {Source.RESIDUAL}
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(one.residual_action, other.residual_action, atol=1e-9)
        assert (one.epoch, one.policy_sequence) == (0, -1)


def record_slow_policy(folder: Path, late: range) -> Live:
    """Record three episodes whose chunks take less than a period to infer, but in some ticks."""
    policy = LinearPolicy()
    live = Live.start(folder, replace(PREFETCHING, lockstep=False), policy)
    for tick in range(66):
        policy.gate.clear()
        live.step(tick)
        if tick not in late:
            policy.gate.set()
            settle(live.loop.controller.queue)
        if tick in (20, 41, 62):
            live.feedback(tick, 1.0, 1.0, 0.0, 1.0)
    live.recorder.close()
    return live


def rolling() -> RobotConfig:
    """Return the robot commanded by velocities: it takes several control steps to come to rest."""
    mapping = copy.deepcopy(DESCRIPTION)
    del mapping['action']['measured_by']
    mapping['action'] |= {'units': ['rad/s', 'rad/s'], 'max_velocity': [0.2, 0.2]}
    return RobotConfig.from_mapping(mapping)


def test_commands_that_slow_a_robot_down_begin_no_episode(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag', robot=rolling())
    live.loop.rules = replace(live.loop.rules, auto_start=False)
    for tick in range(60):
        if tick in (0, 30):
            live.loop.request_start()
        live.step(tick)
        if tick == 15:
            live.feedback(tick, 1.0, 1.0, 0.0, 1.0)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', robot=rolling())
    assert problems == []
    check_equal(made[: len(live.made)], live.made)
    assert {one.source for one in made} == {Source.BASE}


def test_an_operators_hold_of_a_robot_that_slows_down_is_no_takeover(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag', robot=rolling())
    for tick in range(60):
        live.loop.set_held(20 <= tick < 35)
        live.step(tick)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', robot=rolling())
    assert problems == []
    assert {one.source for one in made} == {Source.BASE}
    executed = [[one.executed_action for one in each] for each in (made, live.made)]
    np.testing.assert_array_equal(executed[0][: len(live.made)], executed[1])


PREFETCHING = replace(CONFIG, splicing=Splicing(2))
FIRST_CHUNK = make_metadata().exec_steps
"""Control steps of an episode that its first chunk decides."""
OF_THE_BASE = ('source', 'base_action', 'residual_action', 'next_base_action')


def test_only_the_first_chunk_of_an_episode_is_another_one(tmp_path: Path) -> None:
    """Nothing is sent until it is there: what it was computed from is not in the recording."""
    live = record_slow_policy(tmp_path / 'bag', range(0))
    assert live.loop.controller.first_chunk_holds == 4
    made, _, problems = rebuild(tmp_path / 'bag', PREFETCHING)
    assert problems == []
    made = made[: len(live.made)]
    check_equal(made, live.made, *OF_THE_BASE)
    later = [[t for t in of if t.step >= FIRST_CHUNK] for of in (made, live.made)]
    check_equal(*later)
    first = [[t.base_action for t in of if t.step < FIRST_CHUNK] for of in (made, live.made)]
    assert not np.array_equal(*first)


def test_a_late_chunk_costs_the_rest_of_its_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hold looks like a command, so that whatever follows is another step of the base."""
    said: list[str] = []
    monkeypatch.setattr(Live, 'warn', lambda self, reason: said.append(reason))
    live = record_slow_policy(tmp_path / 'bag', range(30, 34))
    assert {reason.partition(':')[0] for reason in said} == {'the base policy is late'}
    made, _, problems = rebuild(tmp_path / 'bag', PREFETCHING)
    assert problems == []
    before, after = ([t for t in live.made if t.episode == episode] for episode in (0, 2))
    check_equal([t for t in made if t.episode == 0], before, *OF_THE_BASE)
    check_equal([t for t in made if t.episode == 2][: len(after)], after, *OF_THE_BASE)
    held, executed = ([t for t in of if t.episode == 1] for of in (live.made, made))
    assert len(executed) > len(held)


def test_a_command_beyond_the_bound_is_a_takeover_that_was_not_recorded(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(20):
        live.step(tick)
        if tick == 8:
            live.loop.receive_takeover(np.array([0.9, 0.9]))
            live.loop.set_takeover(True)
        elif tick == 10:
            live.loop.set_takeover(False)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made[: len(live.made)], live.made)
    by_operator = [t for t in made if t.source is Source.TAKEOVER]
    assert [t.step for t in by_operator] == [8, 10]  # Half of each is an operator's.
    assert not any(t.residual_action.any() for t in by_operator)


def test_a_recording_of_another_policy_is_remarked(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag', CONFIG, LinearPolicy(make_metadata(), stochastic=True))
    for tick in range(20):
        live.step(tick)
    live.recorder.close()
    _, rebuilder, problems = rebuild(tmp_path / 'bag', replace(CONFIG, seed=4))
    assert problems == []
    (remark,) = rebuilder.remarks
    assert "decisions are an operator's" in remark
    assert rebuild(tmp_path / 'bag', CONFIG, LinearPolicy(stochastic=True))[1].remarks == []


def test_a_residual_behind_the_safety_filter_stays_one() -> None:
    """What a limit takes away from the base is no operator's doing."""
    slow = replace(ROBOT.action, max_step=np.full(2, 0.02), measured_by=())
    live, replayed = (
        CONFIG.build(LinearPolicy(), slow, kind)
        for kind in (ResidualController, ReplayedController)
    )
    actor = make_actor(live.layout, gain=1.0)
    live.mailbox.submit(encode_weights(actor.to_numpy(), WeightsHeader(1, 0)))
    rng = np.random.default_rng(1)
    found = []
    for number in range(40):
        stamp, observation = PERIOD * number, rng.uniform(-3.0, 3.0, 3)
        for controller in (live, replayed):
            if number == 0:
                controller.begin_episode(0, observation, stamp)
                continue
            made = controller.step(observation, stamp, NOTHING_HAPPENED)
            if controller is replayed and made is not None:
                found.append(made.source)
        replayed.commands = {to_nanoseconds(stamp): live.command()}
        replayed.command()
    for controller in (live, replayed):
        controller.queue.close()
    assert live.limiter.safety.slew_limited > 10
    assert Source.RESIDUAL in found
    assert Source.TAKEOVER not in found


def test_an_episode_limit_truncates_as_live(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    live.loop.rules = RealTimeRules(True, 10.0, 12 * PERIOD)
    for tick in range(30):
        live.step(tick)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', episode_limit_s=12 * PERIOD)
    assert problems == []
    check_equal(made[: len(live.made)], live.made)
    assert any(t.truncated for t in live.made)
