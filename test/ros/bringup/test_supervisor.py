# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One death costs one thing: what goes on, what ends with it, and what is started again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.processes import RESTART_WINDOW_S, RESTARTS, Restarts
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.ros.bringup.up import Supervisor, _has_closed

pytestmark = pytest.mark.ros


@dataclass
class Deaths:
    """Stands for the processes of a bring-up: what died, what was started and asked to stop."""

    codes: dict[str, int] = field(default_factory=dict)
    started: list[NodeSpec] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def processes(self) -> dict[str, Any]:
        return {name: SimpleNamespace(returncode=code) for name, code in self.codes.items()}

    def failures(self) -> dict[str, str]:
        return {
            name: f'{name} ended with code {code}'
            for name, code in self.codes.items()
            if name not in self.asked
        }

    def start(self, node: NodeSpec) -> None:
        self.started.append(node)
        del self.codes[node.name]

    def ask_to_stop(self, names: Iterable[str]) -> None:
        self.asked += names


def fleet(folder: Path) -> tuple[NodeSpec, ...]:
    """Return two robots, each with judge and recorder, and their learner."""
    _, robot_file = load_robot('peg_insert')
    run = RobotRun(
        robot_file,
        Path('b.onnx'),
        folder,
        namespaces=('left', 'right'),
        reward='package.module:make',
        record=folder / 'bag',
    )
    return robot_topology(run)


@pytest.mark.parametrize('name', ['left/recorder_node', 'left/reward_node'])
def test_a_dead_recorder_or_judge_is_named_and_takes_nothing_along(
    tmp_path: Path, name: str
) -> None:
    deaths = Deaths({name: -9})
    supervisor = Supervisor(fleet(tmp_path), deaths)  # type: ignore[arg-type]
    assert supervisor.look() == [f'{name} ended with code -9']
    assert supervisor.look() == []
    assert (deaths.asked, deaths.started) == ([], [])


def test_a_policy_takes_its_judge_and_its_recorder_along_and_no_other_robot(
    tmp_path: Path,
) -> None:
    deaths = Deaths({'left/policy_node': -9})
    supervisor = Supervisor(fleet(tmp_path), deaths)  # type: ignore[arg-type]
    (said,) = supervisor.look()
    assert said.startswith('left/policy_node ended with code -9; left/reward_node stops too; ')
    assert deaths.asked == ['left/reward_node', 'left/recorder_node']
    assert set(supervisor.ended) == {'left/policy_node', *deaths.asked}
    assert supervisor.look() == []
    deaths.codes['right/policy_node'] = 1
    with pytest.raises(ResidualRLError, match='right/policy_node ended with code 1'):
        supervisor.look()


def test_a_killed_learner_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    now = [0.0]
    deaths = Deaths()
    restarts = Restarts(lambda: now[0])
    supervisor = Supervisor(fleet(tmp_path), deaths, restarts)  # type: ignore[arg-type]
    for number in range(1, RESTARTS + 1):
        deaths.codes['learner_node'] = -9
        (said,) = supervisor.look()
        assert said == (
            f'learner_node ended with code -9: started again ({number} of 3 times in 10 minutes)'
        )
    deaths.codes['learner_node'] = -9
    now[0] = RESTART_WINDOW_S - 1.0
    assert supervisor.look() == ['learner_node ended with code -9; the robot goes on without it']
    assert len(deaths.started) == RESTARTS
    assert supervisor.look() == []


@pytest.mark.parametrize('code', [0, 2])
def test_a_learner_that_was_told_to_end_or_refuses_its_input_stays_ended(code: int) -> None:
    assert Restarts(lambda: 0.0).take(code) == ''


def test_restarts_of_long_ago_do_not_count() -> None:
    now = [0.0]
    restarts = Restarts(lambda: now[0])
    assert [bool(restarts.take(1)) for _ in range(4)] == [True, True, True, False]
    now[0] = RESTART_WINDOW_S
    assert restarts.take(-11) == 'started again (1 of 3 times in 10 minutes)'


def test_an_output_that_nobody_reads_any_more_is_noticed() -> None:
    """An SSH connection without a terminal ends like this, and no signal says so."""
    reader, writer = os.pipe()
    with os.fdopen(writer, 'w') as file:
        console = Console(file=file)
        assert not _has_closed(console)
        os.close(reader)
        assert _has_closed(console)
