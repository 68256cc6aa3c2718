# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated robot in real time goes on, whatever is done to it: one robot for all these tests."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from actor_builders import make_actor, mislabelled
from processes import wait_for
from ros_fixtures import Caller, report_often
from simulated_robots import (
    LAYOUT,
    LIMIT_S,
    ROBOT,
    BadJointStates,
    Bystander,
    Running,
    count,
    goes_on,
    nothing_lost,
    repeating,
    running,
)
from std_msgs.msg import Float64MultiArray, String, UInt8MultiArray
from std_srvs.srv import Trigger
from transition_builders import make_layout

from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import byte_array, float_array
from residual_rl_ros.transitions.layout import TransitionLayout

pytestmark = pytest.mark.ros

MAX_BYTES = 2_000_000
REASONS = ('malformed', 'digest', 'layout', 'shape', 'non_finite', 'stale', 'oversized')


def actor(
    version: tuple[int, int],
    layout: TransitionLayout = LAYOUT,
    spoil: bool = False,
    mislabel: bool = False,
) -> bytes:
    """Return a weight message."""
    module = make_actor(layout, seed=1)
    if spoil:
        module.heads.bias.data[0] = float('nan')
    robots = module.to_numpy()
    return encode_weights(mislabelled(robots) if mislabel else robots, WeightsHeader(*version))


def judged(monitor: Monitor) -> dict[str, float]:
    """Return how many messages were accepted, and refused for each reason."""
    keys = ('accepted', *(f'refused_{reason}' for reason in REASONS))
    return {key: count(monitor, 'policy_node', f'weights_{key}') for key in keys}


@pytest.fixture(scope='module')
def robot(worker_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp('robot')
    with pytest.MonkeyPatch.context() as patch:
        report_often(patch)
        with running(worker_domain, folder, max_weights_bytes=MAX_BYTES) as parts:
            yield Running(folder, *parts)


def test_a_stopped_learner_is_not_waited_for_and_loses_nothing(robot: Running) -> None:
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    learner = bringup.processes['learner_node']
    learner.send_signal(signal.SIGSTOP)
    goes_on(monitor)
    learner.send_signal(signal.SIGCONT)
    sent = count(monitor, 'policy_node', 'transitions')
    wait_for(lambda: count(monitor, 'learner_node', 'transitions') >= sent, LIMIT_S, 'the rest')
    nothing_lost(monitor, 'missing', 'policy_node')
    assert count(monitor, 'learner_node', 'malformed') == 0
    bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_a_full_disk_costs_no_checkpoint_and_no_learning(robot: Running, call: Caller) -> None:
    """The learner may not write another byte: to the kernel a limit is as good as a full disk."""
    monitor, bringup = robot.monitor, robot.bringup
    assert call(Trigger, '/learner_node/save').success
    latest = robot.folder / 'learner' / CHECKPOINTS / 'latest'
    before = {path.name: path.read_bytes() for path in latest.iterdir()}
    learner = bringup.processes['learner_node'].pid
    _, hard = resource.prlimit(learner, resource.RLIMIT_FSIZE)
    resource.prlimit(learner, resource.RLIMIT_FSIZE, (0, hard))
    try:
        answer = call(Trigger, '/learner_node/save')
        assert not answer.success
        assert 'cannot write checkpoint' in answer.message
        assert {path.name: path.read_bytes() for path in latest.iterdir()} == before
        learned = count(monitor, 'learner_node', 'updates')
        wait_for(
            lambda: count(monitor, 'learner_node', 'updates') > learned + 20, LIMIT_S, 'learning'
        )
        goes_on(monitor)
    finally:
        resource.prlimit(learner, resource.RLIMIT_FSIZE, (hard, hard))
    assert call(Trigger, '/learner_node/save').success
    assert {path.name: path.read_bytes() for path in latest.iterdir()} != before
    bringup.check()


def test_bad_observations_among_good_ones_change_nothing(robot: Running) -> None:
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    refused = ('policy_node', 'refused_observations')
    before = count(monitor, *refused)
    log = robot.folder / 'logs' / 'policy_node.log'
    with repeating(BadJointStates(bystander)):
        goes_on(monitor)
        wait_for(lambda: count(monitor, *refused) > before + 30, LIMIT_S, 'refusals')
        # Of what is warned of within two seconds, one is logged.
        wait_for(lambda: 'joint' in log.read_text(), LIMIT_S, 'a warning')
    goes_on(monitor)
    nothing_lost(monitor, 'missing', 'policy_node')
    assert monitor.errors() == {}
    bringup.check()
    bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_every_bad_actor_is_refused_for_its_reason(robot: Running) -> None:
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    # A stale actor has one before it: the first that the learner sends has none.
    wait_for(lambda: count(monitor, 'policy_node', 'sequence') > 0, LIMIT_S, 'a second actor')
    bringup.processes['learner_node'].send_signal(signal.SIGSTOP)  # It says no more.
    try:
        every_bad_actor_is_refused(monitor, bystander)
    finally:
        bringup.processes['learner_node'].send_signal(signal.SIGCONT)
    bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def every_bad_actor_is_refused(monitor: Monitor, bystander: Bystander) -> None:
    goes_on(monitor)
    version = tuple(int(count(monitor, 'policy_node', key)) for key in ('epoch', 'sequence'))
    epoch, sequence = version
    good = actor((epoch, sequence + 1))
    altered = bytearray(good)
    altered[-1] ^= 1
    publisher = bystander.node.create_publisher(UInt8MultiArray, '/learner_node/actor', qos.LATCHED)
    wait_for(lambda: publisher.get_subscription_count() > 0, LIMIT_S, 'connection')
    for reason, message in (
        ('malformed', good[: len(good) // 2]),
        ('digest', bytes(altered)),
        ('layout', actor((epoch, sequence + 2), make_layout())),
        ('shape', actor((epoch, sequence + 2), mislabel=True)),
        ('non_finite', actor((epoch, sequence + 3), spoil=True)),
        ('stale', actor((epoch, sequence - 1))),
        ('oversized', np.random.default_rng(0).bytes(MAX_BYTES + 1)),
    ):
        expected = judged(monitor)
        expected[f'refused_{reason}'] += 1.0
        publisher.publish(byte_array(message))
        wait_for(lambda e=expected: judged(monitor) == e, LIMIT_S, f'refusal: {reason}')
        assert count(monitor, 'policy_node', 'sequence') == sequence
    goes_on(monitor)
    publisher.publish(byte_array(good))
    wait_for(lambda: count(monitor, 'policy_node', 'sequence') == sequence + 1, LIMIT_S, 'the good')
    goes_on(monitor)
    assert monitor.errors() == {}


def test_junk_on_the_topics_is_counted_and_changes_nothing(robot: Running) -> None:
    """About 1 GB/h on each of three topics, and nonsense on the others.

    YAML that opens a thousand brackets costs the learner, though not the robot, most of a second.
    """
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    # A learner that has just started ends where another publishes actors already.
    wait_for(lambda: count(monitor, 'learner_node', 'updates') > 20, LIMIT_S, 'learning')
    create = bystander.node.create_publisher
    weights = create(UInt8MultiArray, '/learner_node/actor', qos.LATCHED)
    transitions = create(Float64MultiArray, '/policy_node/transitions', qos.TRANSITIONS)
    feedback = create(Float64MultiArray, '/step_feedback', qos.FEEDBACK)
    layouts = create(String, '/policy_node/transition_layout', qos.LATCHED)
    takeovers = create(Float64MultiArray, '/takeover/command', qos.COMMAND)
    # What is sent before a subscriber is known is lost. The bystander hears two of these, too.
    for publisher, subscribers in (
        *((weights, 1), (layouts, 1), (takeovers, 1)),
        *((transitions, 2), (feedback, 2)),
    ):
        wait_for(
            lambda p=publisher, n=subscribers: p.get_subscription_count() >= n, LIMIT_S, 'listeners'
        )
    few = {
        ('policy_node', 'weights_refused_oversized'): 3,
        ('policy_node', 'weights_refused_malformed'): 3,
        ('policy_node', 'refused_takeovers'): 6,
    }
    """Of weights and takeovers only the newest is kept: what comes right behind another piece takes
    its place, the more often the busier the machine. At least so many are to be seen and counted.
    """
    all_of = {('policy_node', 'refused_feedback'): 1, ('learner_node', 'malformed'): 0}
    """Of these none is lost. So many are sent besides those of the loop, of which some are refused
    on a busy machine: they come when the next episode has begun."""
    before = {key: count(monitor, *key) for key in (*few, *all_of)}

    def more(key: tuple[str, str]) -> int:
        return int(count(monitor, *key) - before[key])

    rng = np.random.default_rng(0)
    sent = 0
    while sent < 20 or (sent < 200 and any(more(key) < least for key, least in few.items())):
        weights.publish(byte_array(rng.bytes(3_000_000 if sent % 2 else 100)))
        transitions.publish(float_array(rng.normal(size=30_000), f'junk{sent}'))
        feedback.publish(float_array(rng.normal(size=30_000)))
        layouts.publish(String(data='{[' * (1000 if sent == 7 else sent % 20)))
        takeovers.publish(float_array([np.nan] * (ROBOT.action.size + sent % 2)))
        sent += 1
        time.sleep(0.2)
    feedback.publish(float_array([1e300, 0.0, 0.0, 0.0, -1.0]))
    goes_on(monitor)
    for key, others in all_of.items():
        wait_for(lambda k=key, n=sent + others: more(k) >= n, LIMIT_S, f'an account of {key}')
    assert more(('learner_node', 'malformed')) == sent
    for key, least in few.items():
        assert least <= more(key) <= sent
    assert 'layout of the robot refused' in (robot.folder / 'logs/learner_node.log').read_text()
    bringup.check()
    bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)


def test_a_policy_whose_terminal_closes_holds_first(robot: Running) -> None:
    """SIGTERM comes to it in `test_parent_faults`, SIGINT wherever a bring-up ends.

    The last test of this robot.
    """
    monitor, bringup, bystander = robot.monitor, robot.bringup, robot.bystander
    policy = bringup.processes['policy_node']
    wait_for(bystander.early_in_an_episode, LIMIT_S, 'an episode')
    policy.send_signal(signal.SIGHUP)
    assert policy.wait(timeout=10.0) == 0
    bystander.check_hold()
    bystander.check_commands(int(count(monitor, 'policy_node', 'episode')) + 1)
