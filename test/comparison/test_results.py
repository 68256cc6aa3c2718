# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of a report must follow from the outcomes of the runs, with what is not known said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from residual_rl_ros.comparison.protocol import Judgement
from residual_rl_ros.comparison.report import draw_curves, show, summarise, to_markdown
from residual_rl_ros.comparison.results import RunResult, read_result
from residual_rl_ros.errors import ResidualRLError

STEPS = (0, 1000, 2000, 3000)


def run(*rates: float, measure: str = 'success', **changes: Any) -> RunResult:
    """Return a run whose evaluations, the base's first, have these rates on ten scenes."""
    outcomes = np.array([[float(scene < 10 * rate) for scene in range(10)] for rate in rates])
    steps = np.array(STEPS[: len(rates)], dtype=np.float64)
    result = RunResult(
        measure, steps, outcomes, outcomes[0], outcomes[-1], 3000, 20.0, 50, 20, 1, None, 60.0, 'a'
    )
    return replace(result, **changes)


def entry(report: dict[str, Any], method: str) -> dict[str, Any]:
    (methods,) = report['tasks'].values()
    return dict(methods[method])


def test_the_figures_follow_from_the_outcomes() -> None:
    runs = [run(0.5, 0.4, 0.8, 1.0), run(0.5, 0.7, 0.8, 1.0, failed_episodes=40)]
    report = summarise({('peg', 'a'): runs}, Judgement(), ())
    found = entry(report, 'a')
    assert found['base']['point'] == 0.5
    assert found['gain']['point'] == 0.5
    assert found['steps_to_level']['point'] == pytest.approx(2500.0)
    assert found['minutes_to_level']['point'] == pytest.approx(2500 / 20 / 60)
    assert found['steps_to_gain']['point'] == pytest.approx(2000.0)
    assert found['area']['point'] == pytest.approx((0.525 + 0.675 + 0.9) / 3)
    assert found['worst_below_base']['mean'] == pytest.approx(0.05)
    assert found['worst_below_base']['worst_seed'] == pytest.approx(0.1)
    assert (found['failed_episodes'], found['rollbacks']) == (30.0, 2)
    assert found['operator_minutes'] is None
    assert found['ratio_to_first'] is None
    assert json.loads(json.dumps(report)) == report


def test_what_is_not_reached_is_said_and_counts_in_ratio_and_interval() -> None:
    fast, slow, never = (
        [run(0.5, *rates) for rates in three]
        for three in (
            [(0.9, 1.0, 1.0)] * 3,
            [(0.6, 0.8, 1.0)] * 3,
            [(0.5, 0.6, 0.6), (0.5, 0.6, 0.7), (0.5, 0.6, 0.7)],
        )
    )
    results = {('peg', 'fast'): fast, ('peg', 'slow'): slow, ('peg', 'never'): never}
    report = summarise(results, Judgement(), ())
    assert entry(report, 'slow')['ratio_to_first']['point'] == pytest.approx(2.5)
    found = entry(report, 'never')
    assert found['steps_to_level']['point'] == found['steps_to_level']['high'] == 'never'
    assert found['ratio_to_first']['point'] == 'never'
    text = to_markdown(report)
    assert 'not reached' in text
    unknown = summarise({('peg', 'never'): never, ('peg', 'too'): never}, Judgement(), ())
    assert entry(unknown, 'too')['ratio_to_first'] is None


@pytest.mark.parametrize('seeds', [1, 2])
def test_two_seeds_have_figures_and_no_interval(seeds: int) -> None:
    found = entry(summarise({('peg', 'a'): [run(0.5, 1.0)] * seeds}, Judgement(), ()), 'a')
    assert found['gain'] == {'point': 0.5, 'low': None, 'high': None}
    assert found['curve']['low'] is None


def test_the_interval_of_a_success_stays_within_0_and_1() -> None:
    runs = [run(0.1, rate) for rate in (0.5, 1.0, 1.0)]
    found = entry(summarise({('peg', 'a'): runs}, Judgement(), ()), 'a')
    assert found['final']['high'] == max(found['curve']['high']) == 1.0
    assert found['base']['low'] >= 0.0


def test_development_tasks_and_returns_are_not_counted_over_all_tasks() -> None:
    runs = [run(0.5, 0.7, 0.9, 1.0)] * 3
    returns = [run(0.5, 0.7, measure='return')] * 3
    results = {('own', 'a'): runs, ('foreign', 'a'): runs, ('dense', 'a'): returns}
    report = summarise(results, Judgement(), ['own'])
    assert report['over_all_tasks']['methods']['a'] == pytest.approx(
        {
            **{'tasks': 1, 'large_gain': 1, 'reached': 1, 'gain': 0.5},
            **{'worst_below_base': 0.0, 'worst_seed': 0.0},
        }
    )
    text = to_markdown(report)
    assert '## own (development)' in text
    gained = text[text.index('## dense') :].splitlines()[4]
    assert gained.startswith('| a | 3 | 0.5 [')
    assert '| +0.2 [' in gained


def test_returns_with_an_add_on_stand_beside_success_and_are_missing_without_one() -> None:
    scenes = np.linspace(0.0, 1.0, 10)
    returns = np.array([[scenes, scenes - 2.0], [scenes + 0.25, scenes - 1.0]])
    results = {
        ('peg', 'with'): [run(0.5, 0.9, returns=returns)] * 3,
        ('peg', 'without'): [run(0.5, 0.9)] * 3,
    }
    report = summarise(results, Judgement(), ())
    apart = entry(report, 'with')['returns']
    for side, expected in (('base', [0.5, -1.5, -1.0]), ('final', [0.75, -0.5, 0.25])):
        assert [each['point'] for each in apart[side].values()] == pytest.approx(expected)
    assert apart['gain']['point'] == pytest.approx(1.25)
    assert apart['gain']['low'] == pytest.approx(apart['gain']['high'])
    assert 'returns' not in entry(report, 'without')
    head, _, first, second = to_markdown(report).splitlines()[2:6]
    assert head.endswith('| final return, total | total, final - base |')
    assert first.endswith('| +1.25 [+1.25, +1.25] |')
    assert second.endswith('| - | - | - | - | - | - | - |')
    plain = to_markdown(summarise({('peg', 'without'): results['peg', 'without']}, Judgement(), ()))
    assert 'return' not in plain


def test_a_report_is_drawn_and_shown_for_more_methods_than_colours(tmp_path: Path) -> None:
    results = {('peg', f'm{number}'): [run(0.5, 0.9)] * 2 for number in range(11)}
    report = summarise(results, Judgement(), ())
    draw_curves(tmp_path / 'x.png', report)
    assert (tmp_path / 'x.png').stat().st_size > 10_000
    shown = io.StringIO()
    show(report, Console(file=shown, width=600))
    for text in (shown.getvalue(), to_markdown(report)):
        assert all(f'm{number} ' in text for number in range(11))
        assert 'failed episodes' in text


def summary() -> dict[str, Any]:
    """Return what `read_result` reads of a run."""
    points = [[1000, [1, 0]], [2000, [1, 1]]]
    curve = {'measure': 'success', 'first_scene': 0, 'base': [0, 0], 'points': points}
    return {
        **{'evaluations': curve, 'scenes': {'base': [0, 1], 'final': [1, 1]}},
        **{'control_steps': 2000, 'control_rate_hz': 20.0, 'episodes': 3, 'failed_episodes': 1},
        **{'rollbacks': 0, 'wall_s': 1.0, 'git_commit': None},
    }


def test_a_run_is_read_with_the_outcome_of_every_scene(tmp_path: Path) -> None:
    (tmp_path / 'summary.json').write_text(json.dumps(summary()))
    found = read_result(tmp_path)
    np.testing.assert_array_equal(found.steps, [0, 1000, 2000])
    np.testing.assert_array_equal(found.outcomes, [[0, 0], [1, 0], [1, 1]])
    assert found.returns is None
    apart = {side: {'basic': [1, 2], 'add_on': [-1, -3]} for side in ('base', 'final')}
    with_add_on = summary()
    with_add_on['scenes']['returns'] = apart
    (tmp_path / 'summary.json').write_text(json.dumps(with_add_on))
    np.testing.assert_array_equal(read_result(tmp_path).returns, [[[1, 2], [-1, -3]]] * 2)
    without = summary()
    without['evaluations'] |= {'base': [], 'points': []}
    (tmp_path / 'summary.json').write_text(json.dumps(without))
    np.testing.assert_array_equal(read_result(tmp_path).outcomes, [[0, 1], [1, 1]])


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('scenes', {'base': [0], 'final': [1, 1]}),
        ('scenes', {'base': [], 'final': []}),
        ('control_rate_hz', 0.0),
        ('evaluations', {'measure': 'luck', 'first_scene': 0, 'base': [], 'points': []}),
        ('evaluations', {'measure': 'success', 'first_scene': 0, 'base': [0], 'points': [[2, 1]]}),
        ('episodes', None),
        ('scenes', {'base': [0, 1], 'final': [1, 1], 'returns': {'base': {'basic': [1, 1]}}}),
        (
            'scenes',
            {
                **{'base': [0, 1], 'final': [1, 1]},
                'returns': {side: {'basic': [1], 'add_on': [1]} for side in ('base', 'final')},
            },
        ),
    ],
)
def test_a_run_that_is_not_whole_is_no_result(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / 'summary.json').write_text(json.dumps({**summary(), key: value}))
    with pytest.raises(ResidualRLError, match='holds no finished run'):
        read_result(tmp_path)
