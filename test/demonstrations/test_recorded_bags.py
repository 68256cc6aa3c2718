# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags as demonstrations: transitions as they are, topics with the base in their shadow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_builders import (
    START_NS,
    TRANSITIONS,
    L,
    open_recorder,
    stream,
    write_bag,
    write_layout,
)
from demonstration_builders import read_all
from raw_bag_builders import (
    DESCRIPTION,
    Live,
    check_equal,
    lockstep_description,
    record_lockstep,
)

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.transition import Source, Success, Transition


def told(count: int) -> list[Transition]:
    """Return episodes of which every second one has failed."""
    return [
        replace(t, success=Success(t.episode % 2)) if t.terminated or t.truncated else t
        for t in stream(count)
    ]


def test_transitions_of_successful_episodes_are_taken_with_their_base_actions(
    tmp_path: Path,
) -> None:
    made, said, _ = read_all(write_bag(tmp_path / 'bag', L, told(20)), metadata=None)
    expected = [
        replace(t, source=Source.TAKEOVER, residual_action=np.zeros(4))
        for t in told(20)
        if t.episode % 2
    ]
    check_equal(made, expected)
    assert said == [
        f'{tmp_path / "bag"}: 2 demonstrations, 10 transitions; 2 that failed are left out'
    ]


def test_transitions_of_another_layout_or_base_policy_are_refused_by_name(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, told(20))
    with pytest.raises(ResidualRLError, match=r"action_names\[1\] is 'b.position', expected 'grip"):
        read_all(bag, layout=replace(L, action_names=('a.position', 'gripper')), metadata=None)
    (bag / 'recording.yaml').write_text('base_policy_sha256: abc\n')
    text = (bag / 'metadata.yaml').read_text()
    content = yaml.safe_load(text)
    content['rosbag2_bagfile_information']['custom_data'] = {'base_policy_sha256': 'abc'}
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(content))
    with pytest.raises(ResidualRLError, match='with base policy abc, the robot runs of the base'):
        read_all(bag)


def test_what_is_no_number_in_a_bag_is_named_and_left_out(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag')
    write_layout(recorder, L)
    for index, transition in enumerate(told(10)):
        row = L.encode(transition)
        if index == 7:
            row[L.columns['observation']] = np.nan
        recorder.write('/' + TRANSITIONS, START_NS + index * 10**8, labelled_array(row, L.label))
    recorder.close()
    made, said, learner = read_all(tmp_path / 'bag', metadata=None)
    assert len(made) == learner.rule.memory.demonstrations == 4
    assert any('observation[0] is nan, expected a finite number' in line for line in said)


@pytest.fixture(scope='module')
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a raw bag of an operator's demonstration, which notes its robot."""
    folder = tmp_path_factory.mktemp('raw') / 'bag'
    robot = {'/**': {'ros__parameters': {'robot': DESCRIPTION}}}
    noted = {'robot': yaml.safe_dump(robot), 'namespace': '/cell'}
    live = Live.start(folder, noted=noted)
    rng = np.random.default_rng(0)
    for tick in range(24):
        live.step(tick)
        live.takeover(tick, True, rng.uniform(-1.0, 1.0, 2))
    live.recorder.close()
    return folder


def test_topics_are_rebuilt_with_the_robot_that_the_bag_notes(raw: Path) -> None:
    made, said, _ = read_all(raw)
    assert len(made) > 5
    assert {t.source for t in made} == {Source.TAKEOVER}
    assert (made[-1].reward, made[-1].success) == (1.0, Success.SUCCESS)
    assert any(line.startswith(f'{raw}: 1 demonstrations') for line in said)


def test_topics_of_a_simulator_that_waits_are_rebuilt_by_their_stamps(tmp_path: Path) -> None:
    robot = {'/**': {'ros__parameters': {'robot': lockstep_description()}}}
    noted = {'robot': yaml.safe_dump(robot), 'namespace': '/cell'}
    _, live = record_lockstep(tmp_path / 'bag', noted)
    made, said, _ = read_all(tmp_path / 'bag')
    ended = [index for index, t in enumerate(live) if t.terminated]
    assert len(made) > ended[-1]
    for one, other in zip(made, live, strict=False):
        np.testing.assert_array_equal(one.executed_action, other.executed_action)
        assert (one.reward, one.terminated) == (other.reward, other.terminated)
    assert '1 do not say how they ended' in said[-1]  # The recording ends within an episode.


def test_topics_need_the_base_policy(raw: Path) -> None:
    with pytest.raises(ResidualRLError, match='holds no base actions; give the base policy'):
        read_all(raw, metadata=None)
