# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The page holds the robot, and says what it does not know."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser, browser
from learner_builders import SMALL
from processes import wait_for
from sensor_msgs.msg import Image

from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.topics import IMAGE, Channel
from residual_rl_ros.ros.bringup.demo import quick
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.dashboard.robots import Robot, connect
from residual_rl_ros.ros.dashboard.server import open_port
from residual_rl_ros.ros.dashboard.telemetry import Camera
from residual_rl_ros.ros.dashboard.view import RobotView
from residual_rl_ros.ros.tools.operator import HOLD

LIMIT_S = 60.0
HOLD_S = 0.2
"""A hold must have reached the policy node by then [s]."""
MEMORY_MB = 400.0


class Obedient:
    """Commands that are carried out at once, and remembered."""

    def __init__(self) -> None:
        self.pressed: list[str] = []

    def press(self, letter: str) -> None:
        self.pressed.append(letter)

    def look(self) -> None:
        pass

    def outcome(self, letter: str) -> str:
        return f'{letter} is done' if letter in self.pressed else ''

    def outcomes(self) -> list[str]:
        return [f'{letter} is done' for letter in reversed(self.pressed)]

    def alarm(self) -> str:
        return 'HOLD NOT ACKNOWLEDGED' if 'h' in self.pressed else ''


def test_each_robot_has_its_hold_and_one_button_holds_all() -> None:
    pytest.importorskip('nicegui', reason='the page needs the extra dashboard')
    from nicegui.testing import user_simulation

    from residual_rl_ros.ros.dashboard.page import show

    monitor = Monitor(0)
    robots = [
        Robot(name, RobotView(monitor, f'{name}/policy_node', f'{name}/learner_node'), Obedient())
        for name in ('left', 'right')
    ]
    left, right = (robot.commands.pressed for robot in robots)

    async def visit() -> None:
        async with user_simulation(root=lambda: show(robots)) as user:
            await user.open('/')
            await user.should_see('left: NOT HEARD YET')
            await user.should_see('left/policy_node, never heard: nothing heard yet')
            user.find('hold left').click()
            await user.should_see('HOLD NOT ACKNOWLEDGED')
            assert (left, right) == (['h'], [])
            user.find('hold all').click()
            user.find('save left').click()
            await user.should_see('w is done')
            assert (left, right) == (['h', 'h', 'w'], ['h'])

    asyncio.run(visit())


def test_a_camera_makes_a_small_image_when_somebody_looks_and_names_what_is_none() -> None:
    now, asked = [0.0], []

    def deserialise(message: bytes) -> Image:
        asked.append(message)
        width = int(message)
        data = np.zeros(width * width * 3, np.uint8).tobytes()
        encoding = 'rgb8' if width > 1 else '32FC1'
        return Image(width=width, height=width, step=3 * width, encoding=encoding, data=data)

    channel = Channel('top', 'camera/image', IMAGE, ('a',), (), 1.0)
    camera = Camera(channel, deserialise, lambda: now[0])
    assert camera.jpeg() == b''
    assert math.isinf(camera.age())
    for _ in range(3):
        camera.hear(b'640')
    assert asked == []
    assert camera.jpeg() == camera.jpeg()
    assert camera.jpeg().startswith(b'\xff\xd8')
    assert len(camera.jpeg()) < 5000
    assert asked == [b'640']
    now[0] = 2.0
    assert camera.age() == 2.0
    camera.hear(b'1')
    assert camera.jpeg() == b''
    assert '32FC1' in camera.problem


def test_a_port_in_use_is_named() -> None:
    with open_port('127.0.0.1', 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResidualRLError, match=f'port {port} of 127.0.0.1.* it is in use'):
            open_port('127.0.0.1', port)
    with pytest.raises(ResidualRLError, match=r'of no\.such\.host\.invalid cannot be opened'):
        open_port('no.such.host.invalid', 0)


@pytest.fixture(scope='module')
def robot(worker_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bringup]:
    pytest.importorskip('nicegui', reason='the page needs the extra dashboard')
    folder = tmp_path_factory.mktemp('robot')
    config = quick(load_run('peg_insert'))
    config = replace(config, overrides={**config.overrides, **SMALL})
    run = config.resolve()
    nodes = finetune_topology(config, run.robot_file, run.policy.path, folder, 1, 0, False)
    with Bringup(nodes, folder / 'logs', ros_environment(worker_domain)) as bringup:
        # A process that is just starting is none of a node yet, to whoever counts them.
        with Monitor(worker_domain) as monitor:
            for node in nodes:
                wait_for(
                    lambda name=node.name: monitor.status(name) is not None, LIMIT_S, node.name
                )
        yield bringup


@contextmanager
def dead(learner: subprocess.Popen) -> Iterator[None]:
    """Stop a learner so that it answers nothing, for a while."""
    learner.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        learner.send_signal(signal.SIGCONT)


def typical(durations: list[float]) -> float:
    """Return a duration of which the slower ones measure what else this machine does."""
    return sorted(durations)[len(durations) // 3]


@pytest.mark.ros
def test_a_hold_reaches_the_robot_in_time_with_a_dead_learner(
    robot: Bringup, domain_id: int
) -> None:
    from nicegui.testing import user_simulation

    from residual_rl_ros.ros.dashboard.page import show

    async def visit(robots: list[Robot]) -> list[float]:
        commands, view = robots[0].commands, robots[0].view
        holds = []
        async with user_simulation(root=lambda: show(robots)) as user:
            await user.open('/')
            while math.isinf(view.motion_age()) or view.line(view.learner).age_s > 1.0:
                await asyncio.sleep(0.1)
            with dead(robot.processes['learner_node']):
                await user.should_see('NOTHING HEARD FOR', retries=100)
                user.find('roll back robot').click()
                for _ in range(7):
                    began = time.monotonic()
                    user.find('hold robot').click()
                    while commands.outcome(HOLD) != 'holding':
                        await asyncio.sleep(0.001)
                    holds.append(time.monotonic() - began)
                    user.find('release robot').click()
                    await user.should_see('go on: released', retries=100)
        return holds

    with ExitStack() as stack:
        robots = connect(stack, [''], False, None, domain_id)
        assert typical(asyncio.run(asyncio.wait_for(visit(robots), LIMIT_S))) < HOLD_S


@pytest.mark.ros
@pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt-get install chromium')
def test_a_browser_holds_in_time_asks_nobody_else_and_knows_when_it_shows_the_past(
    robot: Bringup, domain_id: int, tmp_path: Path
) -> None:
    with open_port('127.0.0.1', 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'residual_rl_ros.cli.main', 'dashboard', '--port', str(port)]
    with (
        subprocess.Popen(command, env=ros_environment(domain_id)) as page,
        browser(tmp_path / 'profile') as tab,
    ):
        try:
            wait_for(lambda: _listens(port), LIMIT_S, 'the page')
            tab.open(f'http://127.0.0.1:{port}/')
            wait_for(lambda: 'latest transition' in tab.text(), LIMIT_S, 'motion')
            wait_for(lambda: 'learner_node, 0' in tab.text(), LIMIT_S, 'the learner')
            with dead(robot.processes['learner_node']):
                wait_for(lambda: 'NOTHING HEARD FOR' in tab.text(), LIMIT_S, 'a dead learner')
                tab.run(CLICK)
                holds = []
                for _ in range(7):
                    holds.append(_seconds(tab, 'HOLD', 'HOLD: holding'))
                    _seconds(tab, 'release', 'go on: released')
                assert typical(holds) < HOLD_S, holds
            _seconds(tab, 'HOLD', 'HOLD: holding')
            wait_for(lambda: 'robot: HELD' in tab.text(), LIMIT_S, 'its state')
            _seconds(tab, 'release', 'go on: released')
            assert {address.split('/')[2] for address in tab.requested} == {f'127.0.0.1:{port}'}
            assert _memory_mb(page.pid) < MEMORY_MB
            page.send_signal(signal.SIGSTOP)
            wait_for(lambda: 'NO CONNECTION' in tab.text(), LIMIT_S, 'the alarm')
            page.send_signal(signal.SIGCONT)
            wait_for(lambda: 'NO CONNECTION' not in tab.text(), LIMIT_S, 'the end of it')
        finally:
            page.send_signal(signal.SIGCONT)
            page.send_signal(signal.SIGINT)
        assert page.wait(LIMIT_S) == 130


CLICK = """
window.answered = (label, wanted) => new Promise(done => {
  const began = performance.now();
  [...document.querySelectorAll('button')].find(b => b.innerText.trim() === label).click();
  window.looking = setInterval(() => {
    const took = performance.now() - began;
    if (took < 10000 && !document.body.innerText.includes(wanted)) return;
    clearInterval(window.looking);
    done(took);
  }, 2);
});
0
"""
"""Clicks a button and tells how long its answer took to be on the page [ms]."""


def _seconds(tab: Browser, label: str, answer: str) -> float:
    return float(tab.run(f'window.answered({label!r}, {answer!r})')) / 1000.0


def _listens(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), 1.0).close()
    except OSError:
        return False
    return True


def _memory_mb(pid: int) -> float:
    """Return the most memory that a process has had [MB]."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM'))
