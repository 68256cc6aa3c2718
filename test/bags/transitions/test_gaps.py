# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a bag lacks must be counted, and its place told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bag_builders import START_NS, L, open_recorder, stream, write_bag, write_layout
from bag_builders import write_transitions as write
from command_line import run
from matplotlib import pyplot as plt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecordOptions
from residual_rl_ros.bags.transitions.inventory import SilentPeriod
from residual_rl_ros.bags.transitions.report import WORST, draw_bag
from residual_rl_ros.bags.transitions.summary import RobotSummary, summarise
from residual_rl_ros.robot.topics import FLOAT_ARRAY
from residual_rl_ros.transitions.cdr import labelled_array


def summary_without(lost: set[int], folder: Path, count: int = 20) -> RobotSummary:
    """Return the summary of a bag that lacks transitions, given by their numbers."""
    kept = [t for index, t in enumerate(stream(count)) if index not in lost]
    (summary,) = summarise(Bag(write_bag(folder, L, kept))).robots
    return summary


@pytest.mark.parametrize(
    ('lost', 'gaps', 'episodes'),
    [
        (set(), [], 4),
        ({2}, [(0, 4, 1)], 4),
        ({5, 6}, [(1, 0, 2)], 4),
        ({1, 3}, [(0, 2, 1), (0, 6, 1)], 4),
        ({0}, [(0, 0, 1)], 4),
        ({4}, [(0, 8, 1)], 4),  # The end of an episode.
        (set(range(5, 10)), [(1, 0, 1)], 3),  # A whole one: how long it was is not known.
        (set(range(3, 17)), [(0, 6, 5)], 2),  # An end, two whole ones, and two decisions.
        (set(range(15, 20)), [], 3),  # What comes after the last one is not known.
    ],
)
def test_lost_transitions_are_counted_in_their_place(
    lost: set[int], gaps: list[tuple[int, int, int]], episodes: int, tmp_path: Path
) -> None:
    summary = summary_without(lost, tmp_path / 'bag')
    assert [(gap.episode, gap.step, gap.missing) for gap in summary.gaps] == gaps
    assert summary.missing == sum(missing for _, _, missing in gaps)
    assert len(summary.episodes) == episodes


def test_a_decision_that_a_hold_has_cut_short_is_a_gap(tmp_path: Path) -> None:
    made = stream(20)
    made[7:10] = [replace(t, step=t.step + 1) for t in made[7:10]]
    (summary,) = summarise(Bag(write_bag(tmp_path / 'bag', L, made))).robots
    assert [(gap.episode, gap.step, gap.missing) for gap in summary.gaps] == [(1, 4, 1)]


def test_a_gap_is_placed_in_the_time_of_the_bag(tmp_path: Path) -> None:
    (gap,) = summary_without({7, 8}, tmp_path / 'bag').gaps
    assert gap.stamp == pytest.approx(100.0 + 0.2 * 9)
    assert gap.until_s == pytest.approx(0.8)  # The layout, then a transition every 0.1 s.


def test_every_robot_has_its_own_gaps(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag', 'left', 'right')
    for robot, lost in (('left', 3), ('right', 12)):
        write_layout(recorder, L, robot)
        write(recorder, L, [t for index, t in enumerate(stream(20)) if index != lost], robot)
    recorder.close()
    left, right = summarise(Bag(tmp_path / 'bag')).robots
    assert [(gap.episode, gap.step) for gap in left.gaps] == [(0, 6)]
    assert [(gap.episode, gap.step) for gap in right.gaps] == [(2, 4)]


def test_info_lists_the_largest_gaps_and_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = {1, 7, 13, 16, 21, 26, 31, 36, 37}
    kept = [t for index, t in enumerate(stream(40)) if index not in lost]
    folder = str(write_bag(tmp_path / 'bag', L, kept))
    assert run('info', folder, '--json', monkeypatch=monkeypatch) == 0
    (robot,) = json.loads(capsys.readouterr().out)[0]['robots']
    assert robot['missing_transitions'] == 9
    assert len(robot['gaps']) == 8
    assert robot['gaps'][-1]['episode'] == 7
    assert run('info', folder, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert '9 in 8 gaps' in text
    assert f'and {8 - WORST} more' in text
    listed = [line.split() for line in text.splitlines() if 's of the bag' in line]
    assert len(listed) == WORST
    assert listed[0][1:6:2] == ['7', '2', '2']  # Episode, step and decisions.


def test_the_figure_marks_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('residual_rl_ros.bags.transitions.report.plt.close', lambda figure: None)
    summary = summary_without({2, 12, 13}, tmp_path / 'bag')
    draw_bag(tmp_path / 'bag.png', 'a bag', [summary])
    figure = plt.gcf()
    monkeypatch.undo()
    (marks,) = [line for line in figure.axes[0].lines if line.get_label() == 'missing (3)']
    plt.close(figure)
    assert 60.0 * marks.get_xdata() == pytest.approx([0.6, 2.8])


def write_topics(folder: Path, times: Mapping[str, Sequence[float]], options: RecordOptions) -> Bag:
    """Write messages at the given times after the start [s]; return the bag."""
    topics = [RecordedTopic(name, FLOAT_ARRAY) for name in times]
    recorder = Recorder(folder, topics, options, {}, lambda: 0.0)
    for time, name in sorted((time, name) for name, of in times.items() for time in of):
        recorder.write(name, START_NS + round(time * 1e9), labelled_array([0.0] * 100, ''))
    recorder.close()
    return Bag(folder)


@pytest.mark.parametrize(
    'options',
    [RecordOptions(), RecordOptions('sqlite3'), RecordOptions(max_bytes=50_000)],
    ids=['mcap', 'sqlite3', 'split'],
)
def test_the_longest_silence_of_every_topic_is_told(options: RecordOptions, tmp_path: Path) -> None:
    always = [0.1 * number for number in range(101)]
    times = {
        '/arm': always,
        '/paused': [time for time in always if not 3.05 < time < 5.05],
        '/late': [time for time in always if time > 7.95],
        '/dead': [time for time in always if time < 2.05],
    }
    summary = summarise(write_topics(tmp_path / 'bag', times, options))
    assert summary.seconds == pytest.approx(10.0)
    found = {topic.name: topic.silence for topic in summary.topics}
    for always_heard in ('/arm', '/late'):  # A recorder may have been there before a topic was.
        assert found.pop(always_heard).seconds == pytest.approx(0.1)
    assert found == {
        '/dead': pytest.approx(SilentPeriod(8.0, 2.0)),
        '/paused': pytest.approx(SilentPeriod(2.1, 3.0)),
    }


def test_the_topics_beside_the_transitions_are_listed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_bag(tmp_path / 'bag', L, stream(20)))
    assert run('info', folder, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    layout, _, transitions, _ = text[text.index('topics, 2.0 s') :].splitlines()[4:8]
    assert layout.split('│')[4].strip() == ''  # A latched message alone is no silence.
    assert transitions.split('│')[4].strip() == '0.1 s'
