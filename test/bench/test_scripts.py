# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every script of `benchmarks/` still runs, on as little as it can; with ROS: `test/ros/tools`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import typer
from benchmark_scripts import FOLDER, load_script

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.learner.episodes import EpisodeRecord

HERE = ('bag_warm_start', 'chunk_seams', 'guard_rates')
WITH_ROS = ('recorder_load', 'round_trips')


def test_every_script_has_a_test() -> None:
    assert sorted(path.stem for path in FOLDER.glob('*.py')) == sorted([*HERE, *WITH_ROS])


def test_rates_of_the_guard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('guard_rates', monkeypatch)
    monkeypatch.setattr(script, 'RUNS', 2)
    monkeypatch.setattr(script, 'EPISODES', 300)
    script.main()
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows[2:]] == ['40%', '60%', '80%']
    delay = int(rows[-1].split('|')[2].split()[0])
    assert delay < 100, 'a residual that never succeeds is noticed'


def test_seams_of_chunks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('chunk_seams', monkeypatch)
    script.main('push_to_goal', episodes=1)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[1] for row in rows] == [str(d) for d in (0, 1, 3, 10) for _ in range(3)]
    measured = [row for row in rows if 'too short' not in row]
    assert measured
    for row in measured:
        p95, _, largest, *_ = (float(cell) for cell in row.strip('| ').split('|')[2:])
        assert 0.0 <= p95 <= largest


def test_a_warm_start_from_a_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script('bag_warm_start', monkeypatch)
    bag = tmp_path / 'bag'
    script.collect(bag, transitions=40)
    (robot,) = summarise(Bag(bag)).robots
    assert robot.transitions >= 40
    script.run(tmp_path / 'bag_60', bag, control_steps=200)
    learner = load_checkpoint(tmp_path / 'bag_60' / 'checkpoints' / 'latest')
    assert learner.control_steps >= 200
    assert len(learner.replay) > learner.control_steps // 4, 'the bag is in it'


def test_the_table_of_warm_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('bag_warm_start', monkeypatch)

    def write(name: str, failures: int, successes: int) -> None:
        outcomes = [False] * failures + [True] * successes
        records = [
            EpisodeRecord(10 * (index + 1), outcome, residual=True, takeover=False)
            for index, outcome in enumerate(outcomes)
        ]
        latest = tmp_path / name / 'checkpoints' / 'latest'
        latest.mkdir(parents=True)
        state = {'state': {'history': [asdict(record) for record in records]}}
        (latest / 'learner.json').write_text(json.dumps(state))

    write('scratch_60', 100, 50)
    write('bag_60', 20, 50)
    write('scratch_61', 90, 0)
    write('bag_61', 10, 50)
    script.table(tmp_path)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[:2] == ['| 60 | 1450 | 650 | 800 |', '| 61 | > 900 | 550 | >= 350 |']
    assert rows[2].startswith('| mean | | | 575 (95 % interval 350 to 800')
    write('scratch_62', 90, 0)
    write('bag_62', 90, 0)
    with pytest.raises(typer.BadParameter, match='run it longer'):
        script.table(tmp_path)
