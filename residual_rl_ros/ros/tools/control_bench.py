# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How fast and how reliably the control loop runs beside a busy learner: `bench control`.

Beside this process, which plays a robot (n = 40, m = 7), run the real policy node, a real learner
node and the bare minimum: a node that at the same rate does what no policy node can do without, one
forward pass of the actor, in torch, and one publication. Both have the same priority, so what the
machine itself makes late is late in both.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rich.console import Console
from std_msgs.msg import Float64MultiArray, UInt8MultiArray

from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.latency import Latency
from residual_rl_ros.residual_policy.architecture import ActorArchitecture
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.torch_networks import ResidualActor
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.ros.bringup.domains import claim_domain
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import byte_array, float_array
from residual_rl_ros.ros.common.node_parameters import PolicyParameters
from residual_rl_ros.ros.common.process import take_privileges
from residual_rl_ros.ros.tools.bench_robot import (
    LAYOUT,
    RESIDUAL_SCALE,
    M,
    N,
    write_base_policy,
    write_robot,
)
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.transition import HEADER

EPISODE_STEPS = 200
COUNTED = (
    'ticks',
    'overruns',
    'missed_periods',
    'transitions',
    'holds',
    'first_chunk_holds',
    'late_chunks',
    'episode',
)
JOIN_S = 3.0
"""What a process that joins disturbs is over by then: it can hold up every publisher for a third of
a second (Fast DDS, #6535), and the diagnostics of that are up to a second late."""
LEARNER: dict[str, Any] = {'warmup_transitions': 300, 'warmup_episodes': 0, 'anchor_updates': 0}
"""Numbers of the learner, of which the others are the preset's: it is busy after these."""
START_LIMIT_S = 60.0
WEIGHTS_PERIOD_S = 0.25
WEIGHTS_MESSAGES = 80
WEIGHTS_EPOCH = 10**6
"""Distance between the epochs of two actors of this benchmark: the learner notices each and begins
the next epoch."""
WIDE = (470, 470)
"""Hidden layers of an actor of 1 MB."""


@dataclass
class _Robot:
    """Publishes observations and episode ends."""

    rate: float
    context: Any
    arrivals: dict[int, float] = field(default_factory=dict)
    """Number of an actor of this benchmark: stamp of the first decision that used it [s]."""

    def __post_init__(self) -> None:
        self.node = node = rclpy.create_node('bench_robot', context=self.context)
        self._observations = node.create_publisher(Float64MultiArray, 'state', qos.SENSOR)
        self._feedback = node.create_publisher(Float64MultiArray, STEP_FEEDBACK, qos.FEEDBACK)
        self.weights = node.create_publisher(UInt8MultiArray, 'learner_node/actor', qos.LATCHED)
        node.create_subscription(
            Float64MultiArray, 'policy_node/transitions', self._on_transition, qos.TRANSITIONS
        )
        self._rng = np.random.default_rng(0)
        self._step = 0
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(1.0 / self.rate, self._tick, clock=clock)

    def _tick(self) -> None:
        self._step += 1
        self._observations.publish(labelled_array(self._rng.normal(size=N)))
        if self._step % EPISODE_STEPS == 0:
            now = self.node.get_clock().now().nanoseconds * 1e-9
            success = float(self._rng.random() < 0.5)
            self._feedback.publish(labelled_array([now, 0.0, 0.0, 1.0, success]))

    def _on_transition(self, message: Float64MultiArray) -> None:
        stamp, epoch = message.data[0], message.data[HEADER.index('epoch')]
        number, rest = divmod(int(epoch), WEIGHTS_EPOCH)
        if number and not rest:
            self.arrivals.setdefault(number, stamp)


def make_actor(hidden: tuple[int, ...]) -> ResidualActor:
    """Return an actor for the robot of this benchmark."""
    return ResidualActor(ActorArchitecture(LAYOUT, hidden, True, M))


def measure(
    rate: float, seconds: float, console: Console, inference_s: float = 0.0
) -> dict[str, float]:
    """Run the robot and return the results.

    Args:
        rate: control rate [Hz].
        seconds: how long to measure [s]; the weights' latency takes another 20 s.
        console: where to say what is going on.
        inference_s: how long an inference of the base policy computes [s]; 0: next to nothing.

    Raises:
        ResidualRLError: a node ended.
    """
    torch.set_num_threads(1)
    with claim_domain() as domain_id, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = robot_topology(
            RobotRun(
                write_robot(folder / 'robot.yaml', rate),
                write_base_policy(folder / 'base.onnx', rate, inference_s),
                folder / 'learner',
                overrides=LEARNER,
                decision_steps=LAYOUT.decision_steps,
                residual_scale=(RESIDUAL_SCALE,),
                auto_start=True,
            )
        )
        # A robot hears one learner; here its actors come from this benchmark.
        nodes = tuple(
            replace(node, remappings={'~/actor': 'busy_learner/actor'})
            if node.executable == 'learner_node'
            else node
            for node in nodes
        )
        environment = ros_environment(domain_id)
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain_id)
        robot = _Robot(rate, context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(robot.node)
        thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
        thread.start()
        try:
            with (
                Monitor(domain_id) as monitor,
                Bringup(nodes, folder / 'logs', environment) as bringup,
            ):
                console.print('waiting until the learner is busy')
                _wait_for_updates(monitor, bringup)
                return _measure(monitor, bringup, robot, seconds, environment, console)
        finally:
            executor.shutdown(timeout_sec=1.0)
            thread.join(timeout=2.0)
            robot.node.destroy_node()
            context.try_shutdown()


def _wait_for_updates(monitor: Monitor, bringup: Bringup) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while monitor.number('learner_node', 'updates') < 1.0:
        _check(monitor, bringup)
        if time.monotonic() > deadline:
            raise ResidualRLError(
                f'the learner made no update within {START_LIMIT_S:g} s; raise --rate'
            )
        time.sleep(0.1)


def _check(monitor: Monitor, bringup: Bringup) -> None:
    """Refuse to measure nodes of which one ended, or a robot that stopped.

    Raises:
        ResidualRLError: a process has ended, or the policy node has a fault.
    """
    bringup.check()
    if reason := monitor.errors().get('policy_node'):
        raise ResidualRLError(
            f'the robot stopped ({reason}): free this computer of other work, or lower --rate or '
            '--inference'
        )


def _measure(
    monitor: Monitor,
    bringup: Bringup,
    robot: _Robot,
    seconds: float,
    environment: Mapping[str, str],
    console: Console,
) -> dict[str, float]:
    console.print(f'measuring for {seconds:.0f} s')
    command = [sys.executable, '-m', __name__, str(robot.rate), str(JOIN_S + seconds)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # It has joined.
        time.sleep(JOIN_S)
        policy = monitor.values('policy_node')
        before = {key: float(policy[key]) for key in COUNTED}
        updates = monitor.number('learner_node', 'updates')
        started, stolen = time.monotonic(), _stolen_s()
        printed, _ = process.communicate()
    stolen = _stolen_s() - stolen
    _check(monitor, bringup)
    bare = json.loads(printed)
    policy = monitor.values('policy_node')
    elapsed = time.monotonic() - started
    results = {key: float(policy[key]) - value for key, value in before.items()}
    results |= {
        'seconds': elapsed,
        'stolen_s': stolen,
        'prefetch_steps': float(policy['prefetch_steps']),
        'inference_p50_us': float(policy['inference_overall_p50_us']),
        'inference_p99_us': float(policy['inference_overall_p99_us']),
        'updates_per_s': (monitor.number('learner_node', 'updates') - updates) / elapsed,
        **{
            f'{stage}_{percentile}_us': float(policy[f'{stage}_overall_{percentile}_us'])
            for stage in ('reaction', 'tick')
            for percentile in ('p50', 'p99', 'max')
        },
        **bare,
    }
    console.print('measuring how long weights take')
    results |= _weights_latency(robot)
    time.sleep(2.0)  # For the last transitions, and for both to report.
    results['received'] = monitor.number('learner_node', 'transitions')
    results['missing'] = monitor.number('learner_node', 'missing')
    return results


def _stolen_s() -> float:
    """Return for how long the host of a virtual machine has run something else [s]."""
    names, values = 'user nice system idle iowait irq softirq steal', Path('/proc/stat').read_text()
    ticks = dict(zip(names.split(), values.split()[1:], strict=False))
    return float(ticks['steal']) / os.sysconf('SC_CLK_TCK')


def _weights_latency(robot: _Robot) -> dict[str, float]:
    """Send actors of 1 MB; return percentiles from publication to the first tick with them [ms]."""
    actor, sent = make_actor(WIDE), {}
    size = 0
    for number in range(1, WEIGHTS_MESSAGES + 1):
        header = WeightsHeader(WEIGHTS_EPOCH * number, 0, Exploration())
        message = encode_weights(actor.to_numpy(), header)
        size = len(message)
        sent[number] = time.time()
        robot.weights.publish(byte_array(message))
        time.sleep(WEIGHTS_PERIOD_S)
    waits = [1e3 * (robot.arrivals[n] - at) for n, at in sent.items() if n in robot.arrivals]
    return {
        'weights_bytes': size,
        'weights_sent': len(sent),
        'weights_used': len(waits),
        'weights_p50_ms': float(np.percentile(waits, 50)) if waits else float('nan'),
        'weights_p99_ms': float(np.percentile(waits, 99)) if waits else float('nan'),
    }


def to_markdown(results: Mapping[str, float]) -> str:
    """Return the results as a table."""
    value = results
    rows = [
        *(
            (f'{label} {percentile}', f'{value[f"{stage}_{percentile}_us"]:.0f} us')
            for stage, label in (
                ('reaction', 'observation to command'),
                ('tick', 'with the transition'),
                ('bare', 'bare: torch actor + publish'),
            )
            for percentile in ('p50', 'p99', 'max')
        ),
        *(
            (
                f'observation to command / bare, {percentile}',
                f'{value[f"reaction_{percentile}_us"] / value[f"bare_{percentile}_us"]:.2f}',
            )
            for percentile in ('p50', 'p99')
        ),
        ('ticks', f'{value["ticks"]:.0f} in {value["seconds"]:.0f} s'),
        *(
            (f'{label}, {who}', f'{value[prefix + key]:.0f}')
            for key, label in (
                ('overruns', 'overruns: period > 1.5 nominal'),
                ('missed_periods', 'late by more than a period'),
            )
            for who, prefix in (('policy node', ''), ('bare', 'bare_'))
        ),
        ('stolen from this virtual machine by its host', f'{value["stolen_s"]:.2f} s'),
        ('holds', f'{value["holds"]:.0f}'),
        (
            'holds until the first chunk of an episode',
            f'{value["first_chunk_holds"]:.0f} in {value["episode"]:.0f} episodes',
        ),
        ('holds for a later chunk', f'{value["late_chunks"]:.0f}'),
        ('prefetch_steps at the end', f'{value["prefetch_steps"]:.0f}'),
        *(
            (f'base policy, inference {each}', f'{1e-3 * value[f"inference_{each}_us"]:.1f} ms')
            for each in ('p50', 'p99')
        ),
        ('learner updates', f'{value["updates_per_s"]:.0f} /s'),
        ('transitions received', f'{value["received"]:.0f}'),
        ('transitions missing', f'{value["missing"]:.0f}'),
        ('weights', f'{value["weights_bytes"] / 1e6:.2f} MB'),
        ('weights used', f'{value["weights_used"]:.0f} of {value["weights_sent"]:.0f}'),
        ('weights to first tick p50', f'{value["weights_p50_ms"]:.1f} ms'),
        ('weights to first tick p99', f'{value["weights_p99_ms"]:.1f} ms'),
    ]
    return ''.join(
        ['| measure | value |\n|---|---|\n', *(f'| {name} | {text} |\n' for name, text in rows)]
    )


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def bare_minimum(rate: float, seconds: float) -> dict[str, float]:
    """Return the latency [us] of one forward pass and one publication at a rate, and overruns."""
    torch.set_num_threads(1)
    rclpy.init()
    node = rclpy.create_node('bare_minimum')
    publisher = node.create_publisher(Float64MultiArray, 'bare', qos.COMMAND)
    actor, rng, latency = make_actor((256, 256)), np.random.default_rng(0), Latency()
    observation, base = rng.normal(size=N), np.zeros(M)
    late = {'bare_overruns': 0.0, 'bare_missed_periods': 0.0}
    before = math.inf

    @torch.inference_mode()
    def tick() -> None:
        nonlocal before
        started = time.perf_counter()
        late['bare_overruns'] += rate * (started - before) > 1.5
        late['bare_missed_periods'] += rate * (started - before) > 2.0
        before = started
        inputs = [torch.from_numpy(x).float()[None] for x in (observation, base)]
        publisher.publish(float_array(actor.mean_action(*inputs)[0].numpy()))
        latency.add(time.perf_counter() - started)

    tick()  # The first one pays for initialisation.
    latency, before = Latency(), math.inf
    take_privileges(
        PolicyParameters.realtime_priority,
        PolicyParameters.lock_memory,
        lambda refusal: print(refusal, file=sys.stderr),
    )
    node.create_timer(1.0 / rate, tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    print('ready', flush=True)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    node.destroy_node()
    rclpy.try_shutdown()
    return {**latency.report('bare'), **late}


if __name__ == '__main__':
    print(json.dumps(bare_minimum(float(sys.argv[1]), float(sys.argv[2]))))
