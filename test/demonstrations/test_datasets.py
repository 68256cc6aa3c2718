# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets as demonstrations: our own exports, and frames of other tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from demonstration_builders import META, read_all
from transition_builders import make_layout

from residual_rl_ros.bags.lerobot.writer import LeRobotWriter
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Success, Transition

pytest.importorskip('pyarrow')

L = make_layout(decision_steps=1)
LENGTH = 5


def decisions(episode: int, solved: bool) -> list[Transition]:
    """Return an episode of the robot, whose last decision tells its outcome."""
    rng = np.random.default_rng(episode)
    seen = rng.uniform(-1.0, 1.0, (LENGTH + 1, 3)).astype(np.float32).astype(np.float64)
    made = []
    for step in range(LENGTH):
        last = step == LENGTH - 1
        action = rng.uniform(-0.5, 0.5, 2).astype(np.float32).astype(np.float64)
        made.append(
            Transition(
                **{'stamp': step / 20.0, 'epoch': 0, 'episode': episode, 'step': step},
                **{'policy_sequence': -1, 'source': Source.RESIDUAL},
                reward=float(last and solved),
                terminated=last and solved,
                truncated=last and not solved,
                success=Success(int(solved)) if last else Success.UNLABELLED,
                observation=seen[step],
                base_action=action,
                residual_action=np.full(2, 0.5),
                executed_action=action,
                next_observation=seen[step + 1],
                next_base_action=action,
            )
        )
    return made


OUTCOMES = (True, False, True)
EPISODES = [decisions(index, solved) for index, solved in enumerate(OUTCOMES)]


def write(folder: Path, of_another_tool: bool = False, **changes: Any) -> Path:
    """Write the episodes with the package's own writer, and take its own key away."""
    with LeRobotWriter(folder, L, META.rate_hz, 'a test', '') as writer:
        for episode in EPISODES:
            writer.write(TransitionTable(L, np.stack([L.encode(t) for t in episode])))
    path = folder / 'meta/info.json'
    info = json.loads(path.read_text())
    if of_another_tool:
        del info['residual_rl']
    path.write_text(json.dumps({**info, **changes}))
    return folder


def test_an_export_of_ours_gives_its_successful_transitions(tmp_path: Path) -> None:
    made, said, _ = read_all(write(tmp_path / 'set'), layout=L, metadata=None)
    assert [t.episode for t in made] == [0] * LENGTH + [2] * LENGTH
    np.testing.assert_array_equal(made[0].base_action, EPISODES[0][0].base_action)
    assert {t.source for t in made} == {Source.TAKEOVER}
    assert not any(t.residual_action.any() for t in made)
    assert '1 that failed are left out' in said[0]


def test_an_export_with_another_layout_is_refused_by_what_differs(tmp_path: Path) -> None:
    wanted = replace(L, residual_bound=(0.2, 0.05), decision_steps=2)
    with pytest.raises(ResidualRLError, match=r'decision_steps is 1, expected 2; .*bound\[0\] is'):
        read_all(write(tmp_path / 'set'), layout=wanted)


def test_frames_of_another_tool_get_the_base_in_their_shadow(tmp_path: Path) -> None:
    made, said, _ = read_all(write(tmp_path / 'set', of_another_tool=True), layout=L)
    assert [t.episode for t in made] == [0] * LENGTH + [2] * LENGTH
    policy = LinearPolicy(META)
    expected = policy.infer(EPISODES[0][0].observation[None].astype(np.float32))[META.exec_start]
    np.testing.assert_allclose(made[0].base_action, expected, atol=1e-6)
    for one, other in zip(made[:LENGTH], EPISODES[0], strict=True):
        np.testing.assert_array_equal(one.observation, other.observation)
        np.testing.assert_array_equal(one.executed_action, other.executed_action)
        assert (one.reward, one.terminated) == (other.reward, other.terminated)
    assert '1 that failed are left out' in said[0]


def test_names_and_rates_of_another_tool_are_refused_or_mapped(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set', of_another_tool=True)
    path = folder / 'meta/info.json'
    info = json.loads(path.read_text())
    info['features']['observation.state']['names'] = None
    path.write_text(json.dumps(info))
    with pytest.raises(ResidualRLError) as refused:
        read_all(folder, layout=L)
    assert 'lacks arm.position.a, arm.position.b, tool.z' in str(refused.value)
    assert 'it has observation.state[0..2];' in str(refused.value)
    names = {name: f'observation.state[{i}]' for i, name in enumerate(META.observation_names)}
    made, _, _ = read_all(folder, layout=L, observation_map=names)
    np.testing.assert_array_equal(made[0].observation, EPISODES[0][0].observation)
    path.write_text(json.dumps({**info, 'fps': 30}))
    with pytest.raises(ResidualRLError, match='recorded at 30 Hz, the robot runs at 20 Hz'):
        read_all(folder, layout=L, observation_map=names)
    info['features']['action']['names'] = ['a.position', 'gripper']
    path.write_text(json.dumps(info))
    with pytest.raises(ResidualRLError, match=r'actions a\.position, gripper, the base policy has'):
        read_all(folder, layout=L, observation_map=names)


def test_a_dataset_that_is_not_all_there_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set', of_another_tool=True, total_frames=99)
    with pytest.raises(ResidualRLError, match=r'holds 15 frames, .* says 99'):
        read_all(folder, layout=L)
