# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lockstep control steps per second, next to a bare ping-pong of the same messages.

`.venv/bin/python benchmarks/round_trips.py [--steps 8000]` prints one JSON line. Both figures come
from one run on the same machine, so their ratio says what the nodes cost beyond the middleware:
per control step the simulator sends clock, feedback and every channel, the policy one command and,
every `decision_steps`, one transition.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray

from residual_rl_ros.config.run import load_run
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.ros.bringup.domains import claim_domain
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelEncoder, float_array, to_time

LIMIT_S = 300.0


def bare_rate(robot: RobotConfig, transition_size: int, decision_steps: int, steps: int) -> float:
    """Return round trips per second of two processes that only exchange the messages."""
    context = multiprocessing.get_context('spawn')
    answering = context.Process(
        target=_answer, args=(robot, transition_size, decision_steps), daemon=True
    )
    answering.start()
    rclpy.init()
    node = rclpy.create_node('ping')
    channels = []
    for channel in robot.channels:
        writer = ChannelEncoder(channel)
        publisher = node.create_publisher(writer.message_type, channel.topic, qos.SENSOR)
        channels.append((writer, publisher, np.zeros(len(channel.observation_names))))
    feedback = node.create_publisher(Float64MultiArray, 'step_feedback', qos.FEEDBACK)
    clock = node.create_publisher(Clock, '/clock', qos.SENSOR)
    count = 0

    def send(_: Any = None) -> None:
        nonlocal count
        count += 1
        stamp = 0.05 * count
        clock.publish(Clock(clock=to_time(stamp)))
        feedback.publish(float_array([stamp, 0.0, 0.0, 0.0, -1.0]))
        for writer, publisher, values in channels:
            publisher.publish(writer.message(values, stamp))

    node.create_subscription(Float64MultiArray, robot.commands[0].topic, send, qos.COMMAND)
    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)
    publishers = [feedback, *(publisher for _, publisher, _ in channels)]
    # Every end must be matched first: a lost message would leave both sides waiting.
    while not (
        all(publisher.get_subscription_count() for publisher in publishers)
        and node.count_publishers(robot.commands[0].topic)
    ):
        executor.spin_once(timeout_sec=0.1)
    time.sleep(0.5)
    send()
    begin, first = time.perf_counter(), count
    while count - first < steps:
        executor.spin_once(timeout_sec=1.0)
    rate = (count - first) / (time.perf_counter() - begin)
    answering.kill()  # rclpy would turn a SIGTERM into a traceback.
    answering.join()
    node.destroy_node()
    rclpy.shutdown()
    return rate


def _answer(robot: RobotConfig, transition_size: int, decision_steps: int) -> None:
    """Answer every complete set of messages with a command and, now and then, a transition."""
    rclpy.init()
    node = rclpy.create_node('pong')
    command = node.create_publisher(Float64MultiArray, robot.commands[0].topic, qos.COMMAND)
    transitions = node.create_publisher(Float64MultiArray, 'transitions', qos.TRANSITIONS)
    received = answered = 0

    def receive(_: Any) -> None:
        nonlocal received, answered
        received += 1
        if received % (len(robot.channels) + 1) == 0:
            answered += 1
            command.publish(float_array(np.zeros(robot.action.size), 'stamp_ns:0'))
            if answered % decision_steps == 0:
                transitions.publish(float_array(np.zeros(transition_size), 'transition'))

    for channel in robot.channels:
        writer = ChannelEncoder(channel)
        node.create_subscription(writer.message_type, channel.topic, receive, qos.SENSOR)
    node.create_subscription(Float64MultiArray, 'step_feedback', receive, qos.FEEDBACK)
    rclpy.spin(node)


def lockstep_rate(task: str, steps: int, domain_id: int) -> float:
    """Return control steps per second of the three real nodes during warm-up."""
    config = load_run(task)
    config = replace(config, overrides={**config.overrides, 'warmup_transitions': 10**5})
    resolved = config.resolve()
    policy, robot_file = resolved.policy, resolved.robot_file
    with tempfile.TemporaryDirectory() as folder, Monitor(domain_id) as monitor:
        nodes = finetune_topology(config, robot_file, policy.path, Path(folder), 0, steps)
        with Bringup(nodes, Path(folder) / 'logs', ros_environment(domain_id)) as bringup:
            deadline = time.monotonic() + LIMIT_S
            while not bringup.ended('mujoco_sim_node'):
                bringup.check()
                if time.monotonic() > deadline:
                    raise SystemExit(f'no end within {LIMIT_S:.0f} s')
                time.sleep(0.1)
        return monitor.number('mujoco_sim_node', 'mean_steps_per_s')


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', default='peg_insert')
    parser.add_argument('--steps', type=int, default=8000)
    options = parser.parse_args()
    config = load_run(options.task)
    resolved = config.resolve()
    policy, robot = resolved.policy, resolved.robot
    layout = config.controller_config(0, False, False).build(policy, robot.action).layout
    with claim_domain() as domain_id:
        os.environ['ROS_DOMAIN_ID'] = str(domain_id)
        bare = bare_rate(robot, layout.size, layout.decision_steps, options.steps)
        nodes = lockstep_rate(options.task, options.steps, domain_id)
    load = os.getloadavg()[0]
    result = {
        'task': options.task,
        'steps': options.steps,
        'bare_round_trips_per_s': round(bare, 1),
        'lockstep_control_steps_per_s': round(nodes, 1),
        'ratio': round(nodes / bare, 3),
        'load_1_min': round(load, 2),
    }
    print(json.dumps(result))


if __name__ == '__main__':
    main()
