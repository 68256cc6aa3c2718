# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between episodes an arm goes home and its scene is reset; an operator takes over with a pad."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_drivers import ArmDriver
from processes import wait_for
from ready_robots import LIMIT_S, MOTION, begin, policy_node
from ros_fixtures import Caller
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger

from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.topology import takeover_spec
from residual_rl_ros.ros.nodes.policy_node import PolicyNode
from residual_rl_ros.transitions.transition import Source, Success, Transition

pytestmark = [pytest.mark.ros, pytest.mark.xdist_group('real_time')]

UR = 'ur5e_robotiq'
PAN = 'shoulder_pan_joint.position'
PAD = {
    'input': 'joy',
    'deadman': 'buttons.0',
    'axes': [{'action': PAN, 'control': 'axes.0', 'scale': 0.3}],
    'buttons': {'success': 'buttons.1', 'start': 'buttons.2'},
}


@contextmanager
def arm(
    domain_id: int, folder: Path, patch: pytest.MonkeyPatch, **parameters: Any
) -> Iterator[tuple[PolicyNode, ArmDriver]]:
    """Run the policy node of a UR5e, not yet configured, before a fake of its driver."""
    with policy_node(UR, folder, domain_id, patch, **parameters) as node:
        driver = ArmDriver(domain_id, UR)
        try:
            yield node, driver
        finally:
            driver.close()
            assert node._fault_reason == ''


def loop_of(node: PolicyNode) -> RealTimeLoop:
    assert isinstance(node._loop, RealTimeLoop)
    return node._loop


def serve_reset(driver: ArmDriver, answers: list[tuple[bool, str]]) -> list[float]:
    """Serve a reset of the scene, and return where the arm was at each call."""
    calls: list[float] = []

    def callback(request: Any, response: Any) -> Any:
        calls.append(float(driver.positions[0]))
        response.success, response.message = answers.pop(0)
        return response

    driver.nodes[0].create_service(Trigger, 'reset_scene', callback)
    return calls


def test_an_arm_goes_home_and_its_scene_is_reset_before_each_episode(
    domain_id: int,
    tmp_path: Path,
    call: Caller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = {'positions': {PAN: -0.2}, 'velocity_share': 0.8, 'acceleration_s': 0.2}
    robot = {'home': home, 'reset': {'service': 'reset_scene'}}
    with arm(domain_id, tmp_path, monkeypatch, robot=robot) as (node, driver):
        calls = serve_reset(driver, [(True, ''), (False, 'the tray is empty')])
        begin(node)
        assert node.active, node.failure
        loop = loop_of(node)
        for episode in range(2):
            assert call(Trigger, '/policy_node/start_episode').success
            wait_for(lambda n=episode: loop.episode == n, LIMIT_S, f'episode {episode}')
            wait_for(lambda: driver.positions[0] > 0.5 * MOTION, LIMIT_S, 'motion')
            assert call(Trigger, '/policy_node/mark_success').success
            wait_for(lambda n=episode: len(calls) == n + 1, LIMIT_S, 'the reset')
        np.testing.assert_allclose(calls, -0.2, atol=0.06)
        failure = 'reset failed: robot.reset.service /reset_scene: the tray is empty'
        wait_for(lambda: loop.preparation.doing.startswith(failure), LIMIT_S, 'the failure')
        assert call(Trigger, '/policy_node/go_home').success
        started = call(Trigger, '/policy_node/start_episode')
        assert started.message == 'starting, although the reset of the scene has failed'
        wait_for(lambda: loop.episode == 2, LIMIT_S, 'the episode')
        assert not call(Trigger, '/policy_node/go_home').success


class Pad:
    """A gamepad that says again and again how it is held, until it is unplugged."""

    def __init__(self, driver: ArmDriver) -> None:
        self.axes, self.buttons = [0.0], [0, 0, 0]
        self._publisher = driver.nodes[0].create_publisher(Joy, 'joy', 10)
        self._unplugged = threading.Event()
        self._thread = threading.Thread(target=self._say, daemon=True)
        self._thread.start()

    def _say(self) -> None:
        while not self._unplugged.wait(0.05):
            self._publisher.publish(Joy(axes=list(self.axes), buttons=list(self.buttons)))

    def unplug(self) -> None:
        self._unplugged.set()
        self._thread.join()


def rest(driver: ArmDriver) -> None:
    """Wait until an arm stands still although it is commanded."""

    def rests() -> bool:
        stands, told = driver.positions, len(driver.commands)
        wait_for(lambda: len(driver.commands) > told + 50, LIMIT_S, 'commands')
        return bool((driver.positions == stands).all())

    wait_for(rests, LIMIT_S, 'rest')


def test_an_operator_takes_over_with_a_pad_and_the_robot_stands_still_without_it(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'pad.yaml'
    path.write_text(yaml.safe_dump(PAD))
    (spec,) = takeover_spec(load_robot(UR)[1], str(path), ('',))
    made: list[Transition] = []
    said: list[str] = []
    with arm(domain_id, tmp_path, monkeypatch) as (node, driver):
        pad = Pad(driver)
        monkeypatch.setattr(node, 'send_transition', made.append)
        monkeypatch.setattr(node, 'warn', said.append)
        begin(node)
        assert node.active, node.failure
        loop = loop_of(node)
        with Bringup([spec], tmp_path / 'logs', ros_environment(domain_id)) as bringup:

            def starts() -> bool:
                pad.buttons = [0, 0, int(not pad.buttons[2])]
                return loop.in_episode

            wait_for(starts, LIMIT_S, 'an episode')
            pad.axes, pad.buttons = [-1.0], [1, 0, 0]
            wait_for(lambda: driver.positions[0] < -0.1, LIMIT_S, 'motion by hand')
            assert loop.taken_over
            wait_for(
                lambda: any(each.source is Source.TAKEOVER for each in made),
                LIMIT_S,
                'a transition',
            )
            pad.axes, pad.buttons = [0.0], [0, 0, 0]
            wait_for(lambda: not loop.taken_over, LIMIT_S, 'the policy has it back')
            pad.buttons = [0, 1, 0]
            wait_for(lambda: not loop.in_episode, LIMIT_S, 'the end of the episode')
            assert made[-1].success is Success.SUCCESS
            pad.axes, pad.buttons = [1.0], [1, 0, 0]
            wait_for(lambda: loop.taken_over, LIMIT_S, 'a takeover')
            pad.unplug()
            log = tmp_path / 'logs' / 'takeover_node.log'
            wait_for(lambda: 'nothing is heard of the operator' in log.read_text(), 60.0, 'log')
            rest(driver)
            assert loop.taken_over
            bringup.processes['takeover_node'].kill()
            silent = 'the operator has said nothing for 0.5 s: holding'
            wait_for(lambda: silent in said, LIMIT_S, 'the policy node holds')
            assert loop.taken_over
