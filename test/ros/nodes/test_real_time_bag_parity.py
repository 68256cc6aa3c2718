# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A raw bag recorded in real time must give the transitions that the live system made."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from processes import wait_for
from std_msgs.msg import Float64MultiArray

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.rebuild.rebuild import Rebuilder, RebuildOptions
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.config.run import load_run
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelEncoder, float_array
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.transitions.transition import Transition

pytestmark = pytest.mark.ros

Array = npt.NDArray[np.float64]
SEED = 7
CONFIG = replace(load_run('peg_insert'), prefetch_steps=4)
RESOLVED = CONFIG.resolve()
BASE, ROBOT, ROBOT_FILE = RESOLVED.policy, RESOLVED.robot, RESOLVED.robot_file
PERIOD_S = 1.0 / ROBOT.control_rate_hz
ANSWER_S = PERIOD_S / 4
EPISODES, EPISODE_COMMANDS = 3, 40
ATTEMPTS = 3
"""A busy machine is not always too busy."""
OF_THE_BASE = ('source', 'base_action', 'residual_action', 'next_base_action')


class Robot(NodeHost):
    """Answers a while after each command and long before the next, so that none is beside a tick.

    The recorder knows when it received a message, not when the policy node did.
    """

    def __init__(self, domain_id: int) -> None:
        super().__init__('robot', domain_id)
        self._rng = np.random.default_rng(0)
        self._writers = [ChannelEncoder(channel) for channel in ROBOT.channels]
        self._due, self._commands, self._ending = 0.0, 0, False
        self.late_s = 0.0
        """How late it has answered at most [s]."""
        self._answers: list[tuple[float, Array]] = []
        self._position: Any = None

    def listen(self) -> None:
        create = self.node.create_publisher
        self.publishers = [
            create(writer.message_type, channel.topic, qos.SENSOR)
            for writer, channel in zip(self._writers, ROBOT.channels, strict=True)
        ]
        self.feedback = create(Float64MultiArray, 'step_feedback', qos.FEEDBACK)
        kind = message_class(ROBOT.commands[0].type)
        self.node.create_subscription(kind, ROBOT.commands[0].topic, self._obey, qos.COMMAND)

    def _obey(self, message: Any) -> None:
        self._position = message.data
        self._due = time.monotonic() + ANSWER_S
        self._commands += 1
        self._ending = self._commands % EPISODE_COMMANDS == 0

    def run(self, commands: int) -> None:
        """Be commanded so many times."""
        self._due = time.monotonic()
        while self._commands < commands:
            left = self._due - time.monotonic()
            if left > 0.0:
                self.executor.spin_once(timeout_sec=left)
                continue
            self.late_s = max(self.late_s, -left)
            self._due += PERIOD_S
            now = time.time()
            if self._ending:
                self.feedback.publish(float_array(np.array([now, 1.0, 1.0, 0.0, 1.0]), ''))
                self._ending = False
            values = [self._rng.uniform(0.1, 0.2, len(c.observation_names)) for c in ROBOT.channels]
            if self._position is not None:
                values[0][: len(self._position)] = self._position
            self._answers.append((now, np.concatenate(values)))
            for writer, publisher, answer in zip(
                self._writers, self.publishers, values, strict=True
            ):
                publisher.publish(writer.message(answer, now))

    def recorded_after_s(self, bag: Bag) -> float:
        """Return the longest time between an answer and its record [s]; infinite if one is lost."""
        answered = np.array([time for time, _ in self._answers])
        longest = 0.0
        for channel in ROBOT.channels:
            topic = f'/{channel.topic.lstrip("/")}'
            recorded = np.array([1e-9 * message.time_ns for message in bag.messages({topic})])
            if len(recorded) != len(answered):
                return float('inf')
            longest = max(longest, (recorded - answered).max())
        return longest

    def newest_answer(self, stamp: float) -> Array:
        """Return what it had answered by then, shape (n,)."""
        return next(answer for answered, answer in reversed(self._answers) if answered < stamp)


def play(domain_id: int, folder: Path) -> tuple[Bag, dict[tuple[int, int], Transition], str]:
    """Run a robot; return its raw bag, its transitions, and what was too late in it."""
    _, policy, _ = finetune_topology(CONFIG, ROBOT_FILE, BASE.path, folder, SEED, 0, False)
    recorder = NodeSpec(
        'recorder_node', False, (ROBOT_FILE,), {'output_dir': str(folder / 'bag'), 'raw': True}
    )
    recorded = 'recorder_node', 'messages'
    with (
        Robot(domain_id) as robot,
        Monitor(domain_id) as monitor,
        Bringup([recorder, policy], folder / 'logs', ros_environment(domain_id)) as bringup,
    ):
        for publisher in (*robot.publishers, robot.feedback):
            wait_for(lambda p=publisher: p.get_subscription_count() == 2, 60.0, 'both nodes')
        # Of a robot that is silent that is the layout: the policy sends all to the recorder.
        wait_for(lambda: monitor.number(*recorded) > 0, 60.0, 'a record of the layout')
        robot.run(EPISODES * EPISODE_COMMANDS)
        bringup.check()
        overruns = monitor.number('policy_node', 'overruns')
    bag = Bag(folder / 'bag')
    live = {(t.episode, t.step): t for block in TransitionReader(bag).blocks() for t in block.table}
    unread = sum(
        not np.allclose(t.observation, robot.newest_answer(t.stamp), rtol=0.0, atol=1e-6)
        for t in live.values()
    )
    in_time, recorded_s = PERIOD_S - ANSWER_S, robot.recorded_after_s(bag)
    if not (overruns or robot.late_s > PERIOD_S / 2 or unread or recorded_s > in_time):
        return bag, live, ''
    return (
        bag,
        live,
        f'{overruns:g} overruns, {robot.late_s:.3f} s late, {unread} decisions that an answer did '
        f'not reach within {in_time:.3f} s, recorded up to {recorded_s:.3f} s late',
    )


def test_rebuilt_transitions_of_a_running_robot_equal_the_live_ones(
    domain_id: int, tmp_path: Path
) -> None:
    """But for the first chunk of an episode, of which nothing is recorded before it is there."""
    for attempt in range(ATTEMPTS):
        bag, live, late = play(domain_id, tmp_path / str(attempt))
        if not late:
            break
    else:
        pytest.skip(f'too busy for real time, {ATTEMPTS} times: {late}')
    options = RebuildOptions(CONFIG.controller_config(SEED, explore=True, scheduled=False))
    made = {(t.episode, t.step): t for t in Rebuilder(bag, ROBOT, BASE, options).transitions()}
    assert [str(problem) for problem in bag.problems] == []
    assert live.keys() <= made.keys()
    assert len(live) > 8 * EPISODES
    for (_, step), sent in live.items():
        one = made[sent.episode, step]
        assert one.stamp == pytest.approx(sent.stamp, abs=1e-6, rel=0.0)  # A message rounds it.
        first_chunk = step < BASE.metadata.exec_steps
        for name in {field.name for field in fields(Transition)} - {'stamp'}:
            if not (first_chunk and name in OF_THE_BASE):
                np.testing.assert_array_equal(
                    getattr(one, name), getattr(sent, name), err_msg=f'step {step}: {name}'
                )
