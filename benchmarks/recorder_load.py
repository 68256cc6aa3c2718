# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What recording costs: 200 Hz transitions (n = 40, m = 7) and four raw topics of `peg_insert`.

`python benchmarks/recorder_load.py --seconds 600` prints messages lost and the recorder's share of
a core; `--kills 20` instead kills the recorder at random moments and prints the worst loss.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import typer
from std_msgs.msg import String

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.domains import claim_domain
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.command_writers import CommandWriter
from residual_rl_ros.ros.common.encoders import ChannelEncoder, float_array
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.transitions.layout import TransitionLayout

RATE_HZ, N, M = 200.0, 40, 7


class Robot(NodeHost):
    """Publishes everything at 200 Hz."""

    def __init__(self, domain_id: int) -> None:
        super().__init__('robot', domain_id)
        names = tuple(f'x{i}' for i in range(N)), tuple(f'a{i}' for i in range(M))
        self.layout = TransitionLayout(*names, 1, (-1.0,) * M, (1.0,) * M, (0.1,) * M)
        self._robot, self.robot_file = load_robot('peg_insert')
        self.steps = 0

    def listen(self) -> None:
        """Open the topics of everything."""
        robot, create = self._robot, self.node.create_publisher
        self._latched = create(String, 'policy_node/transition_layout', qos.LATCHED)
        self._latched.publish(String(data=self.layout.to_yaml()))
        message = float_array(np.zeros(self.layout.size), self.layout.label)
        self._stream = create(type(message), 'policy_node/transitions', qos.TRANSITIONS)
        self._channels = [
            (create(writer.message_type, c.topic, qos.COMMAND), writer, len(c.observation_names))
            for c in robot.channels
            for writer in [ChannelEncoder(c)]
        ]
        self._writer = CommandWriter(robot.commands[0], 1.0 / RATE_HZ, lockstep=False)
        self._command = create(self._writer.message_type, robot.commands[0].topic, qos.COMMAND)

    def wait_for_recorder(self) -> None:
        """Wait until every topic has its reader."""
        publishers = [self._stream, self._command, *(p for p, _, _ in self._channels)]
        while not all(publisher.get_subscription_count() for publisher in publishers):
            time.sleep(0.1)

    def run(self, seconds: float) -> None:
        """Publish for a while."""
        begin = time.monotonic()
        row = np.zeros(self.layout.size)
        for tick in range(int(seconds * RATE_HZ)):
            time.sleep(max(0.0, begin + tick / RATE_HZ - time.monotonic()))
            for publisher, writer, size in self._channels:
                publisher.publish(writer.message(np.zeros(size), time.time()))
            self._command.publish(self._writer.message(np.zeros(M), time.time()))
            row[self.layout.columns['stamp']] = time.monotonic()
            row[self.layout.columns['step']] = self.steps
            self._stream.publish(float_array(row, self.layout.label))
            self.steps += 1


def recorder(folder: Path, robot_file: Path) -> NodeSpec:
    """Return the recorder of everything that the robot sends."""
    return NodeSpec('recorder_node', False, (robot_file,), {'output_dir': str(folder), 'raw': True})


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used [s]."""
    fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure_load(folder: Path, domain_id: int, seconds: float) -> None:
    """Print what was lost and the share of a core."""
    with Robot(domain_id) as robot:
        node = recorder(folder / 'bag', robot.robot_file)
        with Bringup([node], folder, ros_environment(domain_id)) as bringup:
            robot.wait_for_recorder()
            time.sleep(1.0)
            pid = bringup.processes['recorder_node'].pid
            before, began = cpu_seconds(pid), time.monotonic()
            robot.run(seconds)
            time.sleep(1.0)
            share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        counts = Counter(message.topic.name for message in Bag(folder / 'bag').messages())
    del counts['/policy_node/transition_layout']
    lost = {name: robot.steps - count for name, count in counts.items()}
    print(f'{robot.steps} steps sent in {seconds:g} s; lost by topic {lost}; {share:.1%} of a core')


def measure_kills(folder: Path, domain_id: int, kills: int) -> None:
    """Print the largest loss over kills at random moments."""
    rng = np.random.default_rng(0)
    losses = []
    for number in range(kills):
        with Robot(domain_id) as robot:
            bag = folder / f'bag_{number}'
            node = recorder(bag, robot.robot_file)
            with Bringup([node], folder, ros_environment(domain_id)) as bringup:
                robot.wait_for_recorder()
                robot.run(float(rng.uniform(1.0, 4.0)))
                bringup.processes['recorder_node'].send_signal(signal.SIGKILL)
                killed = time.monotonic()
        (summary,) = summarise(Bag(bag)).robots
        losses.append(killed - summary.episodes[-1].end)
        if summary.missing:
            raise SystemExit(f'kill {number}: {summary.missing} transitions missing inside')
    print(f'{kills} kills, every bag opens; lost at most {max(losses):.2f} s')


def main(seconds: float = 600.0, kills: int = 0) -> None:
    """Measure."""
    with claim_domain() as domain_id, tempfile.TemporaryDirectory() as name:
        if kills:
            measure_kills(Path(name), domain_id, kills)
        else:
            measure_load(Path(name), domain_id, seconds)


if __name__ == '__main__':
    typer.run(main)
