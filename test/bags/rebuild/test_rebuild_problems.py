# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a raw bag is named; what cannot be understood is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_bag_builders import PERIOD, Live, joint_state, rebuild

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.errors import BagError
from residual_rl_ros.robot.stamps import stamped_label
from residual_rl_ros.robot.topics import JOINT_STATE
from residual_rl_ros.transitions.cdr import labelled_array


def test_what_was_not_recorded_is_named(tmp_path: Path) -> None:
    topics = [RecordedTopic('/cell/joint_states', JOINT_STATE)]
    recorder = Recorder(tmp_path / 'bag', topics, RecordOptions(), {}, lambda: 0.0)
    recorder.write('/cell/joint_states', 10**9, joint_state(1.0, np.zeros(2)))
    recorder.close()
    with pytest.raises(BagError, match=r'no usable message on /tool, /cell/command'):
        rebuild(tmp_path / 'bag')


def test_stamps_that_go_back_are_reported(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
        if tick == 5:
            old = joint_state(99.0, np.zeros(2))
            live.observe('arm', '/cell/joint_states', JOINT_STATE, 100_255_000_000, old)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert len(made) == len(live.made) + 1
    (problem,) = problems
    assert '/cell/joint_states' in problem
    assert '1 stamps go back' in problem


def test_a_problem_is_one_line_with_file_topic_and_place(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
        if tick == 5:
            live.recorder.write('/tool', 100_255_000_000, b'\0\1\0\0junk')
            live.recorder.write('/cell/command', 100_256_000_000, labelled_array([1.0], ''))
    live.recorder.close()
    _, _, problems = rebuild(tmp_path / 'bag')
    assert len(problems) == 2
    for problem, topic in zip(problems, ('/tool', '/cell/command'), strict=True):
        assert f'bag.mcap: {topic}: message ' in problem
        assert 'times' not in problem


def test_a_stale_channel_is_one_line_with_its_topic(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    rng = np.random.default_rng(0)
    for tick in range(40):
        now = 100.0 + PERIOD * tick
        arm = joint_state(now - 0.02, rng.uniform(-1.0, 1.0, 2))
        live.recorder.write('/cell/joint_states', round((now - 0.01) * 1e9), arm)
        if not 10 <= tick < 30:
            tool = labelled_array([0.0], '')
            live.recorder.write('/tool', round((now - 0.005) * 1e9), tool)
        live.send_command(np.zeros(2), now)
    live.recorder.close()
    made, _, (problem,) = rebuild(tmp_path / 'bag')
    assert ': /tool: message ' in problem
    assert "channel 'tool' is 0.205 s old, max_age_s is 0.2 s (17 times)" in problem
    assert {t.episode for t in made} == {0}  # A hold ends no episode.


def test_feedback_of_a_wrong_size_is_one_line(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
        live.record_feedback(tick, 0.1 * tick)
    live.recorder.close()
    _, _, (problem,) = rebuild(tmp_path / 'bag')
    assert '/cell/step_feedback: message ' in problem
    assert 'expected 5 finite numbers' in problem
    assert problem.endswith('(12 times)')


def test_a_restarted_simulator_is_refused(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    live.send_command(np.zeros(2), 10_000.0)  # A node that is deactivated holds, by its clock.
    for stamp in (100.0, 100.1, 100.1, 100.05):
        data = joint_state(stamp, np.zeros(2))
        live.recorder.write('/cell/joint_states', 10**9, data)
        live.send_command(np.zeros(2), stamp)
    live.recorder.write('/tool', 10**9, labelled_array([0.0], ''))
    live.recorder.close()
    with pytest.raises(
        BagError, match=r'/cell/joint_states: .* go back from 100.100 s to 100.050 s'
    ):
        rebuild(tmp_path / 'bag', lockstep=True)


def test_commands_of_another_clock_are_refused(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
    data = labelled_array(np.zeros(2), stamped_label(3.0))
    live.recorder.close()
    simulated = Live.start(tmp_path / 'simulated')
    for message in Bag(tmp_path / 'bag').messages():
        own = data if message.topic.name == '/cell/command' else bytes(message.data)
        simulated.recorder.write(message.topic.name, message.time_ns, own)
    simulated.recorder.close()
    with pytest.raises(BagError, match='97 s or more from when they were recorded'):
        rebuild(tmp_path / 'simulated')
