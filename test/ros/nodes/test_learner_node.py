# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner that stumbles says so, saves and ends; one that saves goes on listening."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rclpy
from processes import wait_for
from rclpy.executors import SingleThreadedExecutor
from ros_fixtures import Caller
from std_msgs.msg import Float64MultiArray, String, UInt8MultiArray
from std_srvs.srv import Trigger
from transition_builders import make_layout, random_transitions

from residual_rl_ros.errors import WeightsError
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import ros_environment
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import float_array
from residual_rl_ros.ros.nodes.learner_node import LearnerNode

pytestmark = pytest.mark.ros

LIMIT_S = 120.0
YOUNG_S = 0.5
"""After so long a learner is the one of its topic; it is 5 s elsewhere."""
LAYOUT = make_layout()
STREAM = random_transitions(LAYOUT, 60)


@dataclass
class Robot:
    """Says what a policy node would say, to a learner in a process of its own."""

    node: Any
    executor: SingleThreadedExecutor
    learner: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        create = self.node.create_publisher
        self.transitions = create(Float64MultiArray, 'policy_node/transitions', qos.TRANSITIONS)
        self.layout = create(String, 'policy_node/transition_layout', qos.LATCHED)
        self.actors: list[bytes] = []
        self.node.create_subscription(
            UInt8MultiArray, 'learner_node/actor', self._on_actor, qos.LATCHED
        )
        wait_for(lambda: self.transitions.get_subscription_count() == 1, LIMIT_S, 'connection')

    def _on_actor(self, message: UInt8MultiArray) -> None:
        self.actors.append(message.data.tobytes())

    def hears(self, mailbox: ActorMailbox, epoch: int) -> bool:
        """Offer what has come to a mailbox; return whether it has an actor of an epoch."""
        rclpy.spin_once(self.node, executor=self.executor, timeout_sec=0.05)
        while self.actors:
            with contextlib.suppress(WeightsError):
                mailbox.submit(self.actors.pop(0))
                mailbox.begin_decision()
        return mailbox.header is not None and mailbox.header.epoch == epoch

    def use(self, mailbox: ActorMailbox) -> None:
        """Tell of a decision with a late actor of the epoch at hand."""
        assert mailbox.header is not None
        used = replace(STREAM[20], epoch=mailbox.header.epoch, policy_sequence=7)
        self.transitions.publish(float_array(LAYOUT.encode(used), LAYOUT.label))

    def send(self, first: int, last: int) -> None:
        for transition in STREAM[first:last]:
            self.transitions.publish(float_array(LAYOUT.encode(transition), LAYOUT.label))


@contextmanager
def learner(
    domain_id: int, folder: Path, method: str = 'pass', **parameters: Any
) -> Iterator[tuple[Monitor, Robot]]:
    """Run a learner node in which one method is another."""
    script = folder / 'learner.py'
    script.write_text(
        'import os\nimport time\n'
        'from residual_rl_ros.ros.nodes.learner_node import LearnerNode\n'
        'from residual_rl_ros.ros.common.managed_node import run\n'
        f'class Altered(LearnerNode):\n{textwrap.indent(textwrap.dedent(method), "    ")}\n'
        'raise SystemExit(run(Altered, spin=Altered.learn))\n'
    )
    spec = NodeSpec('learner_node', True, (), {'output_dir': str(folder / 'run'), **parameters})
    command = [sys.executable, str(script), *spec.ros_arguments()]
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('robot', context=context)
    executor = SingleThreadedExecutor(context=context)
    with (
        (folder / 'log').open('wb') as log,
        Monitor(domain_id) as monitor,
        subprocess.Popen(
            command, env=ros_environment(domain_id), stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield monitor, Robot(node, executor, process)
        finally:
            process.kill()
    node.destroy_node()
    context.try_shutdown()


def test_transitions_arrive_while_a_service_waits_for_the_learner(
    domain_id: int, tmp_path: Path, call: Caller
) -> None:
    started, finish = tmp_path / 'started', tmp_path / 'finish'
    slow = f"""
    def _save(self):
        open({str(started)!r}, 'w').close()
        while not os.path.exists({str(finish)!r}):
            time.sleep(0.05)
        return super()._save()
    """
    with learner(domain_id, tmp_path, slow) as (monitor, robot):
        robot.layout.publish(String(data=LAYOUT.to_yaml()))
        robot.send(0, 20)
        number = partial(monitor.number, 'learner_node')
        wait_for(lambda: number('transitions') == 20, LIMIT_S, 'learning')
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(call, Trigger, 'learner_node/save')
            wait_for(started.exists, LIMIT_S, 'the save')
            robot.send(20, 60)
            wait_for(lambda: number('queue') >= 30, LIMIT_S, 'a queue during the save')
            assert number('transitions') == 20
            assert not answer.done()
            finish.touch()
            assert answer.result().success, answer.result().message
        wait_for(lambda: number('transitions') == 60, LIMIT_S, 'the rest')


def test_a_robot_that_knows_who_wants_its_layout_knows_who_wants_its_transitions(
    domain_id: int, tmp_path: Path
) -> None:
    """It begins when its layout has been answered; nothing of it may be lost from then on."""
    spec = NodeSpec('learner_node', True, (), {'output_dir': str(tmp_path)})
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    try:
        node = LearnerNode()
        node.trigger_configure()
        heard = [each.topic_name for each in node.subscriptions]
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    wanted = ['/policy_node/transitions', '/policy_node/transition_layout']
    assert [topic for topic in heard if topic in wanted] == wanted


@pytest.mark.parametrize('where', ['_report', '_work'], ids=['ROS thread', 'learning thread'])
def test_a_learner_that_stumbles_saves_says_why_and_ends(
    where: str, domain_id: int, tmp_path: Path
) -> None:
    stumbling = f"""
    def {where}(self, *args, **kwargs):
        if self._learner is not None and self._learner.transitions >= 20:
            raise RuntimeError('stumbled')
        return super().{where}(*args, **kwargs)
    """
    with learner(domain_id, tmp_path, stumbling) as (_, robot):
        robot.layout.publish(String(data=LAYOUT.to_yaml()))
        robot.send(0, 20)
        wait_for(lambda: robot.learner.poll() is not None, LIMIT_S, 'the end')
        assert robot.learner.returncode == 1
    assert 'RuntimeError: stumbled' in (tmp_path / 'log').read_text()
    assert load_checkpoint(tmp_path / 'run' / 'checkpoints' / 'latest').transitions == 20


def test_a_learner_goes_on_after_an_epoch_that_it_has_forgotten(
    domain_id: int, tmp_path: Path
) -> None:
    """Killed before it saved, it opens the same epoch again; the robot has newer weights of it."""
    with learner(domain_id, tmp_path) as (_, robot):
        robot.layout.publish(String(data=LAYOUT.to_yaml()))
        mailbox = ActorMailbox(LAYOUT)
        wait_for(lambda: robot.hears(mailbox, 1), LIMIT_S, 'epoch 1')
        robot.use(mailbox)
        wait_for(lambda: robot.hears(mailbox, 2), LIMIT_S, 'an epoch that is not forgotten')


def test_what_comes_before_its_layout_is_bounded_in_bytes(domain_id: int, tmp_path: Path) -> None:
    with learner(domain_id, tmp_path) as (monitor, robot):
        for _ in range(12):
            robot.transitions.publish(float_array([0.0] * 10**6, 'junk'))
        dropped = lambda: monitor.number('learner_node', 'malformed')  # noqa: E731
        wait_for(lambda: dropped() >= 1, LIMIT_S, 'refusal')
        robot.layout.publish(String(data=LAYOUT.to_yaml()))
        wait_for(lambda: dropped() == 12, LIMIT_S, 'refusal of what was kept')


def test_a_second_learner_of_a_folder_or_of_a_topic_is_refused_by_name(
    domain_id: int, tmp_path: Path
) -> None:
    def second(output_dir: Path) -> subprocess.Popen[str]:
        spec = NodeSpec('learner_node', True, (), {'output_dir': str(output_dir)})
        command = [
            *(sys.executable, '-m', 'residual_rl_ros.ros.nodes.learner_node'),
            *spec.ros_arguments(),
        ]
        return subprocess.Popen(
            command,
            env=ros_environment(domain_id),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    young = f'from residual_rl_ros.ros.common import qos; qos.YOUNG_S = {YOUNG_S}'
    with learner(domain_id, tmp_path, young) as (monitor, robot):
        wait_for(lambda: monitor.values('learner_node') != {}, LIMIT_S, 'the first')
        time.sleep(2.0 * YOUNG_S)  # Of two that start together either may stay.
        others = [second(tmp_path / 'run'), second(tmp_path / 'other')]
        try:
            outputs = [process.communicate(timeout=LIMIT_S)[0] for process in others]
        finally:
            for process in others:
                process.kill()
        assert [process.returncode for process in others] == [2, 2], outputs
        folder = f'belongs to another learner .*process {robot.learner.pid} on'
        assert re.search(folder, outputs[0])
        assert re.search('node publishes /learner_node/actor already', outputs[1])
        assert robot.learner.poll() is None
        # A killed learner leaves both to the next.
        robot.learner.kill()
        robot.learner.wait()
        third = second(tmp_path / 'run')
        try:
            robot.layout.publish(String(data=LAYOUT.to_yaml()))
            mailbox = ActorMailbox(LAYOUT)
            wait_for(lambda: robot.hears(mailbox, 1), LIMIT_S, 'weights of the third')
            assert mailbox.header is not None
            assert mailbox.header.run.startswith(f'{third.pid}@')
        finally:
            third.kill()
            third.communicate()


def test_numbers_that_are_not_plausible_cost_their_messages(domain_id: int, tmp_path: Path) -> None:
    with learner(domain_id, tmp_path) as (monitor, robot):
        robot.layout.publish(String(data=LAYOUT.to_yaml()))
        robot.send(0, 10)
        message = LAYOUT.encode(STREAM[10])
        for name, value in (
            *(('observation', 1e30), ('reward', 1e30), ('step', 1e30), ('epoch', 2.0**53)),
            ('epoch', 2.0**53 - 1.0),  # A robot at the last epoch there is.
        ):
            bad = message.copy()
            bad[LAYOUT.columns[name]] = value
            robot.transitions.publish(float_array(bad, LAYOUT.label))
        robot.send(10, 30)
        number = partial(monitor.number, 'learner_node')
        wait_for(lambda: number('transitions') == 30, LIMIT_S, 'learning')
        assert number('malformed') == 5
        assert number('epoch') == 2, 'one after that of the stream'


def test_a_demonstration_that_cannot_be_used_ends_the_learner_with_one_line(
    domain_id: int, tmp_path: Path
) -> None:
    broken = tmp_path / 'd.safetensors'
    broken.write_bytes(b'none')
    given = {'preset': 'resfit', 'demonstrations': [str(broken)]}
    with learner(domain_id, tmp_path, **given) as (_, robot):
        robot.layout.publish(String(data=LAYOUT.to_yaml()))
        assert robot.learner.wait(LIMIT_S) == 2
    (line,) = [line for line in (tmp_path / 'log').read_text().splitlines() if 'error:' in line]
    assert line.startswith(f'error: {broken}: is no file of demonstrations')
    assert not (tmp_path / 'run/checkpoints/latest').exists()
