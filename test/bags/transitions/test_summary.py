# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A summary must count what is there, and what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_builders import (
    L,
    open_recorder,
    stream,
    text_message,
    write_bag,
    write_layout,
    write_transitions,
)
from command_line import run

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions.reader import LAYOUT
from residual_rl_ros.bags.transitions.report import draw_bag
from residual_rl_ros.bags.transitions.summary import RobotSummary, summarise
from residual_rl_ros.errors import BagError
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.transition import Source, Success


def only(path: Path) -> RobotSummary:
    (summary,) = summarise(Bag(path)).robots
    return summary


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_episodes_outcomes_sources_and_rate_are_counted(storage: str, tmp_path: Path) -> None:
    transitions = stream(23)
    transitions[2] = replace(transitions[2], source=Source.TAKEOVER)
    summary = only(write_bag(tmp_path / 'bag', L, transitions, storage))
    assert summary.transitions == 23
    assert [e.decisions for e in summary.episodes] == [5, 5, 5, 5, 3]
    assert [e.ending for e in summary.episodes] == [
        *('terminated', 'truncated', 'terminated', 'truncated', 'open')
    ]
    assert summary.outcomes() == {'success': 2, 'failure': 2, 'open': 1}
    assert summary.sources == {Source.RESIDUAL: 22, Source.TAKEOVER: 1}
    assert summary.missing == 0
    assert summary.decision_s == pytest.approx(0.2)
    assert summary.episodes[0].success is Success.SUCCESS
    assert summary.episodes[0].reward == 1.0


def test_takeovers_are_counted_and_their_time_and_their_successes(tmp_path: Path) -> None:
    transitions = stream(20)
    for index in (1, 2, 4, 8, 9):  # Twice in the first episode of five, once in the second.
        transitions[index] = replace(transitions[index], source=Source.TAKEOVER)
    summary = only(write_bag(tmp_path / 'bag', L, transitions))
    assert [episode.takeovers for episode in summary.episodes] == [2, 1, 0, 0]
    found = summary.to_json()
    assert (found['takeovers'], found['helped_episodes'], found['helped_successes']) == (3, 2, 1)
    assert found['robot_minutes'] == pytest.approx(20 * 0.2 / 60.0)
    assert found['operator_minutes'] == pytest.approx(5 * 0.2 / 60.0)


def test_equal_stamps_leave_the_rate_unknown(tmp_path: Path) -> None:
    standing = [replace(t, stamp=100.0) for t in stream(10)]
    summary = only(write_bag(tmp_path / 'bag', L, standing))
    assert summary.to_json()['decision_rate_hz'] is None


def test_ranges_cover_every_value(tmp_path: Path) -> None:
    transitions = stream(23)
    summary = only(write_bag(tmp_path / 'bag', L, transitions))
    observations = np.stack([t.observation for t in transitions])
    executed = np.concatenate([t.executed_action.reshape(-1, 2) for t in transitions])
    np.testing.assert_array_equal(summary.observation_low, observations.min(0))
    np.testing.assert_array_equal(summary.observation_high, observations.max(0))
    np.testing.assert_array_equal(summary.action_low, executed.min(0))
    np.testing.assert_array_equal(summary.action_high, executed.max(0))


def test_actions_beyond_the_trained_range_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stream(20)
    made[3] = replace(made[3], executed_action=np.array([0.0, 0.0, 0.0, 1.01]))
    folder = str(write_bag(tmp_path / 'bag', L, made))
    assert run('info', folder, '--json', monkeypatch=monkeypatch) == 0
    (robot,) = json.loads(capsys.readouterr().out)[0]['robots']
    assert robot['trained_action'] == {'a.position': [-1.0, 1.0], 'b.position': [-0.5, 0.5]}
    assert robot['beyond_training'] == ['b.position']
    assert run('info', folder, monkeypatch=monkeypatch) == 0
    marked = [line for line in capsys.readouterr().out.splitlines() if ' beyond ' in line]
    assert len(marked) == 1
    assert 'b.position' in marked[0]


def test_an_episode_cut_in_two_by_a_split_is_one(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / 'bag', L, stream(60, 30), max_bytes=3_000)
    assert [e.decisions for e in only(folder).episodes] == [30, 30]


def test_a_restarted_policy_node_begins_new_episodes(tmp_path: Path) -> None:
    transitions = [*stream(7, 5), *stream(5, 5)]
    summary = only(write_bag(tmp_path / 'bag', L, transitions))
    assert [e.decisions for e in summary.episodes] == [5, 2, 5]


def test_robots_have_summaries_of_their_own(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag', 'left', 'right')
    for robot, count in (('left', 10), ('right', 5)):
        write_layout(recorder, L, robot)
        write_transitions(recorder, L, stream(count), robot)
    recorder.close()
    counts = {s.robot: s.transitions for s in summarise(Bag(tmp_path / 'bag')).robots}
    assert counts == {'left': 10, 'right': 5}


def test_info_prints_json_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bag(tmp_path / 'bag', L, stream(23))
    figure = tmp_path / 'bag.png'
    code = run('info', str(folder), '--json', '--figure', str(figure), monkeypatch=monkeypatch)
    assert code == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert described['custom_data'] == {'robot': 'a test'}
    assert described['robots'][0]['transitions'] == 23
    assert described['robots'][0]['decision_rate_hz'] == pytest.approx(5.0)
    assert figure.read_bytes().startswith(b'\x89PNG')


def test_a_figure_holds_every_robot_and_makes_its_folder(tmp_path: Path) -> None:
    summaries = [only(write_bag(tmp_path / 'bag', L, stream(23)))] * 2
    heights = []
    for count in (1, 2):
        path = tmp_path / 'new' / 'folder' / f'{count}.jpeg'
        draw_bag(path, 'a bag', summaries[:count])
        heights.append(int.from_bytes(path.read_bytes()[20:24], 'big'))  # PNG, whatever its name.
    assert heights[1] == 2 * heights[0]
    (tmp_path / 'file').touch()
    with pytest.raises(BagError, match=r'file/bag\.png.* cannot be written'):
        draw_bag(tmp_path / 'file' / 'bag.png', 'a bag', summaries)


def test_info_names_problems_and_exits_with_1_or_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bag(tmp_path / 'cut', L, stream(23))
    file = folder / 'cut.mcap'
    file.write_bytes(file.read_bytes()[:-20])
    assert run('info', str(folder), monkeypatch=monkeypatch) == 1
    captured = capsys.readouterr()
    assert 'missing decisions' in captured.out
    assert captured.err.count('problem:') == 1

    recorder = open_recorder(tmp_path / 'empty')
    recorder.write('/' + LAYOUT, 0, text_message(L.to_yaml()))
    recorder.close()
    assert run('info', str(tmp_path / 'empty'), monkeypatch=monkeypatch) == 2
    assert run('info', str(tmp_path / 'none'), monkeypatch=monkeypatch) == 2
    assert 'does not exist' in capsys.readouterr().err


def test_info_lists_the_topics_of_a_raw_bag_and_points_to_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = [RecordedTopic(name, FLOAT_ARRAY) for name in ('/command', '/tool', '/unused')]
    recorder = Recorder(tmp_path / 'raw', topics, RecordOptions(), {}, lambda: 0.0)
    for tick in range(5):
        recorder.write('/tool', tick * 10**8, labelled_array([0.0], ''))
    recorder.write('/command', 10**9, labelled_array([0.0], ''))
    recorder.close()
    assert run('info', str(tmp_path / 'raw'), '--json', monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    (described,) = json.loads(printed.out)
    assert described['topics'] == [
        {
            'topic': '/command',
            'type': FLOAT_ARRAY,
            'messages': 1,
            'rate_hz': None,
            'longest_silence_s': 0.0,
            'longest_silence_from_s': 0.0,
        },
        {
            'topic': '/tool',
            'type': FLOAT_ARRAY,
            'messages': 5,
            'rate_hz': pytest.approx(10.0),
            'longest_silence_s': pytest.approx(0.6),
            'longest_silence_from_s': pytest.approx(0.4),
        },
    ]
    assert printed.err.count('problem:') == 1
    assert 'bag rebuild' in printed.err
    assert run('info', str(tmp_path / 'raw'), monkeypatch=monkeypatch) == 2
    assert '10 Hz' in capsys.readouterr().out


def test_a_stray_file_does_not_hide_the_bags_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'notes.txt').touch()
    bag = write_bag(tmp_path / 'bag', L, stream(10))
    code = run('info', str(tmp_path / 'notes.txt'), str(bag), '--json', monkeypatch=monkeypatch)
    printed = capsys.readouterr()
    assert code == 2
    assert [described['bag'] for described in json.loads(printed.out)] == [str(bag)]
    assert 'notes.txt' in printed.err
