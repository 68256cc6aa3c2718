# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whoever looks on sees what the robot does and why, and costs a control step nothing."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from base_policy_builders import LinearPolicy, settle
from diagnostic_msgs.msg import DiagnosticArray
from loop_builders import ACTION, PERIOD, drive, feed, real_time, weights
from sensor_msgs.msg import JointState

from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.decision import CommandedStep
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.control.workspace import Workspace
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.common import message_types
from residual_rl_ros.ros.common.process import unlock_memory
from residual_rl_ros.ros.nodes import workspace_markers
from residual_rl_ros.ros.nodes.decision_topics import ACTIONS, DECISION_KEYS, DecisionTopics
from residual_rl_ros.ros.nodes.policy_node import PolicyNode
from residual_rl_ros.ros.nodes.policy_values import POLICY_CONCERNS
from residual_rl_ros.ros.nodes.workspace_markers import BOX, CHUNK, PLANNED, TOOL, WorkspaceMarkers
from residual_rl_ros.transitions.transition import Source


class Viewer:
    """A node whose topics are all subscribed to, or all but none."""

    def __init__(self, subscriptions: int = 1) -> None:
        self.sent: dict[str, list[Any]] = {}
        self.subscriptions = subscriptions
        self.warnings: list[str] = []

    def create_lifecycle_publisher(self, kind: Any, topic: str, depth: int) -> Any:
        del kind, depth
        messages = self.sent.setdefault(topic.removeprefix('~/'), [])
        return SimpleNamespace(
            publish=messages.append, get_subscription_count=lambda: self.subscriptions
        )

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.warnings.append)

    def clear(self) -> None:
        for messages in self.sent.values():
            messages.clear()

    def decision(self) -> dict[str, str]:
        """Return the values of the latest decision."""
        (status,) = self.sent['decision'][-1].status
        assert (status.name, status.hardware_id) == ('decision', 'arm')
        return {item.key: item.value for item in status.values}

    def action(self, name: str) -> np.ndarray:
        return np.array(self.sent[name][-1].position)


def watch(
    loop: RealTimeLoop, callbacks: Any, viewer: Viewer, rate_hz: float = 1000.0, now: Any = None
) -> DecisionTopics:
    """Show the decisions of a loop as its node does."""
    clock = now or (lambda: math.inf)
    shown = DecisionTopics(viewer, loop.controller, 'arm', 'base_link', rate_hz, clock)  # type: ignore[arg-type]
    send = callbacks.send_command

    def send_command(command: np.ndarray, stamp: float, holding: bool = False) -> None:
        send(command, stamp, holding)
        shown.note(command, stamp, holding)

    callbacks.send_command = send_command
    return shown


@pytest.fixture
def loop() -> Iterator[tuple[RealTimeLoop, Any]]:
    made, callbacks = real_time(LinearPolicy(), decision_steps=2)
    made.activate()
    yield made, callbacks
    made.close()


def test_the_actions_add_up_and_have_their_names(loop: Any) -> None:
    control, callbacks = loop
    control.receive_weights(weights(control, 1))
    control.take_weights(wait=True)
    viewer = Viewer()
    shown = watch(control, callbacks, viewer)
    now = drive(control, 0.0, 4)
    shown.publish()
    base, residual = viewer.action('base_action'), viewer.action('residual_action')
    assert np.abs(residual).max() > 0.0
    assert np.allclose(viewer.action('executed_action'), callbacks.commands[-1][1])
    assert np.allclose(base + residual, viewer.action('executed_action'))  # Inside of all limits.
    message = viewer.sent['base_action'][-1]
    assert tuple(message.name) == ACTION.names
    assert message.header.stamp.nanosec == round((now - PERIOD) * 1e9)
    bound = control.controller.bound.values
    values = viewer.decision()
    assert set(values) <= set(DECISION_KEYS)
    assert (values['source'], values['chosen'], values['late']) == ('residual', 'residual', '0')
    assert float(values['bound_share']) == pytest.approx(np.abs(residual / bound).max(), abs=1e-4)
    assert (values['epoch'], values['sequence'], values['episode']) == ('1', '1', '0')
    assert 'advantage' not in values


def test_a_random_residual_is_told_from_that_of_an_actor(loop: Any) -> None:
    control, callbacks = loop
    control.receive_weights(weights(control, 1, random_share=1.0))
    control.take_weights(wait=True)
    viewer = Viewer()
    shown = watch(control, callbacks, viewer)
    drive(control, 0.0, 4)
    shown.publish()
    values = viewer.decision()
    assert (values['source'], values['sequence']) == ('random', '1')
    residual = viewer.action('residual_action')
    bound = control.controller.bound.values
    share = np.abs(residual / bound).max()
    assert share > 0.0
    assert float(values['bound_share']) == pytest.approx(share, abs=1e-4)


def test_the_way_home_is_not_taken_for_a_late_base_policy(loop: Any) -> None:
    control, _ = loop
    viewer = Viewer()
    shown = DecisionTopics(viewer, control.controller, 'arm', 'base_link', 9.0, lambda: math.inf)  # type: ignore[arg-type]
    shown.note(np.zeros(2), 0.0, False, going_home=True)
    shown.publish()
    assert viewer.decision() == {'source': 'home', 'late': '0'}


def test_a_hold_a_takeover_and_a_late_base_are_told_apart() -> None:
    policy = LinearPolicy()
    loop, callbacks = real_time(policy, chunk_timeout_s=0.0, hold_limit_s=9.0)
    viewer = Viewer()
    shown = watch(loop, callbacks, viewer)
    loop.activate()
    now = drive(loop, 0.0, 1)
    settle(loop.controller.queue)
    now = drive(loop, now, 1)
    assert len(callbacks.commands) == 1
    late = loop.controller.late_chunks
    policy.gate.clear()
    for _ in range(8):
        shown.publish()
        if loop.controller.late_chunks > late:
            break
        viewer.clear()
        now = drive(loop, now, 1)
    policy.gate.set()
    settle(loop.controller.queue)
    assert viewer.decision() == {'source': 'hold', 'late': '1'}
    assert viewer.sent['executed_action']
    assert not viewer.sent['base_action']
    loop.held = True
    now = drive(loop, now, 1)
    shown.publish()
    assert viewer.decision() == {'source': 'hold', 'late': '0'}
    loop.held = False
    loop.set_takeover(True)
    loop.receive_takeover(np.array([0.1, -0.1]))
    for _ in range(4):
        now = drive(loop, now, 1)
        settle(loop.controller.queue)
        shown.publish()
    assert viewer.decision()['source'] == 'takeover'
    assert viewer.decision()['bound_share'] == '0.0'
    loop.close()


def test_no_decision_is_shown_without_a_subscriber_or_a_rate_or_before_it_is_time(
    loop: Any,
) -> None:
    """The command is there at every control step: an operator who takes over goes on from it."""
    control, callbacks = loop
    now, viewer = [10.0], Viewer()
    shown = watch(control, callbacks, viewer, 10.0, lambda: now[0])
    for tick in range(41):  # At 20 Hz, two seconds.
        feed(control, tick * PERIOD)
        control.tick(tick * PERIOD)
        shown.publish()
        now[0] += PERIOD
    assert len(viewer.sent['decision']) == pytest.approx(20, abs=1)
    assert len(viewer.sent['executed_action']) == len(callbacks.commands) > 30
    viewer.clear()
    viewer.subscriptions = 0
    shown.note(np.zeros(2), 3.0, holding=False)
    now[0] += 1.0
    shown.publish()
    assert not any(viewer.sent.values())
    shown.rate_hz, viewer.subscriptions = 0.0, 1
    shown.note(np.zeros(2), 3.0, holding=False)
    now[0] += 1.0
    shown.publish()
    assert {name for name, messages in viewer.sent.items() if messages} == {'executed_action'}
    assert set(viewer.sent) == {*ACTIONS, 'decision'}


class Message:
    """A message whose fields are whatever is set; `pose.position` and the like exist."""

    ADD, CUBE, SPHERE, LINE_STRIP = 0, 1, 2, 4

    def __init__(self, **fields: Any) -> None:
        self.header = SimpleNamespace()
        self.pose = SimpleNamespace(orientation=SimpleNamespace())
        self.lifetime = SimpleNamespace()
        self.__dict__.update(fields)


@pytest.fixture(params=['stand-in', 'real'])
def messages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have marker messages: a stand-in's, and those of visualization_msgs where they are."""
    if request.param == 'real':
        pytest.importorskip('visualization_msgs.msg', reason='needs visualization_msgs')
    else:
        monkeypatch.setattr(workspace_markers, 'message_class', lambda name: Message)


@pytest.mark.usefixtures('messages')
def test_markers_show_box_tool_chunk_and_composed_motion_in_the_base_frame() -> None:
    robot, _ = load_robot('ur_forward_position')
    assert robot.action.workspace is not None
    workspace, viewer = Workspace(robot.action.workspace), Viewer()
    markers = WorkspaceMarkers(viewer, workspace, 'base')  # type: ignore[arg-type]
    start = np.array([0.0, -1.6, 1.6, -1.6, -1.6, 0.0])
    ahead = start + np.linspace(0.0, 0.1, 3)[:, None]
    step = CommandedStep(0, 0, Source.RESIDUAL, ahead, ahead + 0.01, 1.0, 0.5, None)
    stamp = message_types.message_class('builtin_interfaces/msg/Time')(sec=3)
    markers.publish(start, step, ahead[-1:].repeat(2, axis=0), stamp)
    shown = {marker.ns: marker for marker in viewer.sent['markers'][-1].markers}
    assert set(shown) == {BOX, TOOL, CHUNK, PLANNED}
    assert {marker.header.frame_id for marker in shown.values()} == {'base'}
    assert [shown[BOX].scale.x, shown[BOX].scale.z] == pytest.approx([1.5, 0.85])
    assert shown[BOX].pose.position.z == pytest.approx(0.475)
    tool = shown[TOOL].pose.position
    assert np.allclose([tool.x, tool.y, tool.z], workspace.positions(start)[0])
    assert (len(shown[CHUNK].points), len(shown[PLANNED].points)) == (5, 3)
    last = shown[CHUNK].points[-1]
    assert np.allclose([last.x, last.y, last.z], workspace.positions(ahead[-1])[0])
    markers.publish(start, None, np.zeros((0, 6)), stamp)
    assert {marker.ns for marker in viewer.sent['markers'][-1].markers} == {BOX, TOOL}


def test_a_robot_without_visualization_msgs_is_shown_without_markers_and_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise ConfigError(f'{name} needs the package visualization_msgs')

    monkeypatch.setattr(workspace_markers, 'message_class', missing)
    robot, _ = load_robot('ur_forward_position')
    safety = SimpleNamespace(action=robot.action, workspace=Workspace(robot.action.workspace))  # type: ignore[arg-type]
    controller = SimpleNamespace(limiter=SimpleNamespace(safety=safety))
    viewer = Viewer()
    DecisionTopics(viewer, controller, 'ur', 'base_link', 10.0)  # type: ignore[arg-type]
    (warning,) = viewer.warnings
    assert 'no ~/markers' in warning
    assert 'visualization_msgs' in warning
    assert 'markers' not in viewer.sent


@pytest.mark.ros
def test_a_policy_node_publishes_them_and_a_status_for_each_concern(domain_id: int) -> None:
    resolved = load_run('push_to_goal').resolve()
    run = RobotRun(resolved.robot_file, resolved.policy.path, None)
    (spec,) = robot_topology(run)
    rclpy.init(args=spec.ros_arguments(), domain_id=domain_id)
    heard: dict[str, Any] = {}
    node, viewer = PolicyNode(), rclpy.create_node('viewer')
    executor = rclpy.executors.SingleThreadedExecutor()
    try:
        node.trigger_configure()
        node.trigger_activate()
        for topic, kind in (('executed_action', JointState), ('decision', DiagnosticArray)):
            full = f'/policy_node/{topic}'
            viewer.create_subscription(kind, full, lambda m, t=topic: heard.setdefault(t, m), 10)
        viewer.create_subscription(
            DiagnosticArray, '/diagnostics', lambda m: heard.setdefault('diagnostics', m), 10
        )
        executor.add_node(node)
        executor.add_node(viewer)
        deadline = time.monotonic() + 20.0
        while len(heard) < 3 and time.monotonic() < deadline:
            node.send_command(np.full(node.robot.action.size, 0.01), 5.0)
            executor.spin_once(timeout_sec=0.05)
            node._shown.publish()
    finally:
        node.trigger_deactivate()
        executor.shutdown()
        viewer.destroy_node()
        node.destroy_node()
        rclpy.try_shutdown()
        gc.unfreeze()
        unlock_memory()
    assert list(heard['executed_action'].name) == list(node.robot.action.names)
    assert heard['decision'].status[0].hardware_id == node.robot.name
    names = [status.name for status in heard['diagnostics'].status]
    assert names == ['/policy_node', *(f'/policy_node/{each.name}' for each in POLICY_CONCERNS)]
    assert {status.hardware_id for status in heard['diagnostics'].status} == {node.robot.name}
