# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison must not lose, repeat or misread a run; its figures must follow from the runs."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run_command
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from residual_rl_ros.comparison.compare import (
    aggregate,
    draw_curves,
    ratio_of_medians,
    run_comparison,
    to_markdown,
)
from residual_rl_ros.comparison.grid import (
    CompareOptions,
    RunResult,
    Variant,
    cell_config,
    episodes_far_below,
    excess_over_base,
    is_done,
    read_result,
    train_options,
    worst_success,
)
from residual_rl_ros.config.run import load_run
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.evaluation.figures import rated_episodes
from residual_rl_ros.learner.episodes import EpisodeRecord
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.training.run_folder import steps_to
from residual_rl_ros.training.train import run_identity

SMALL = (
    'warmup_transitions=60:publish_interval=20:batch_size=16:utd=0.2:'
    'critic_hidden_sizes=[8]:actor_hidden_sizes=[8]'
)
STEPS = 400


def options(
    out: Path, *variants: str, seeds: tuple[int, ...] = (0, 1), jobs: int = 1
) -> CompareOptions:
    config = replace(load_run('peg_insert').told_by('success:end'), control_steps=STEPS)
    return CompareOptions(
        [config],
        [Variant.parse(text) for text in variants],
        seeds,
        out,
        jobs,
        curve_steps=100,
        curve_seeds=1,
        paired_seeds=4,
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def history(*outcomes: bool, residual: bool = True) -> list[EpisodeRecord]:
    return [
        EpisodeRecord(10 * (index + 1), outcome, residual, takeover=False)
        for index, outcome in enumerate(outcomes)
    ]


def test_a_variant_is_a_preset_with_changed_numbers() -> None:
    variant = Variant.parse('dawn:utd=2:critic_normalization=none:actor_hidden_sizes=[8, 8]')
    assert variant.preset == 'dawn'
    config = cell_config(load_run('peg_insert'), variant).learner_config()
    assert (config.rule.utd, config.rule.critic_normalization) == (2.0, 'none')
    assert config.rule.actor_hidden_sizes == (8, 8)
    weaker = Variant.parse('dawn:residual_scale=[0.1, 0.2]:decision_steps=2:utd=4')
    changed = cell_config(load_run('peg_insert'), weaker)
    assert (changed.residual_scale, changed.decision_steps) == ((0.1, 0.2), 2)
    assert changed.overrides == {'utd': 4}
    with pytest.raises(ConfigError, match="residual_scale is 'much', expected a list"):
        cell_config(load_run('peg_insert'), Variant.parse('dawn:residual_scale=much'))
    with pytest.raises(ResidualRLError, match="'utd' is no assignment"):
        Variant.parse('dawn:utd')
    with pytest.raises(ResidualRLError, match=r"'\[1' is no YAML value"):
        Variant.parse('dawn:utd=[1')


def test_steps_to_ninety_percent_counts_only_episodes_with_a_residual() -> None:
    good = history(*[True] * 50)
    assert steps_to(0.9, good) == 500
    assert steps_to(0.9, good[:49]) is None
    assert steps_to(0.9, history(*[True] * 80, residual=False)) is None
    assert steps_to(0.9, history(*[False] * 6, *[True] * 44)) is None
    assert steps_to(0.9, history(*[False] * 6, *[True] * 45)) == 510


def test_what_an_operator_rescued_is_no_result() -> None:
    rescued = [replace(record, takeover=True) for record in history(*[True] * 60)]
    assert steps_to(0.9, rescued) is None
    assert worst_success(rescued) is None
    assert episodes_far_below(rescued, 2.0) == 0
    assert len(excess_over_base(rescued, 0.5)) == 0
    assert rated_episodes(rescued) == []


def test_the_worst_stretch_is_that_of_fifty_episodes() -> None:
    outcomes = [*[True] * 50, *[False] * 25, *[True] * 60]
    assert worst_success(history(*outcomes)) == pytest.approx(0.5)
    assert worst_success(history(True, False)) is None


def test_episodes_far_below_are_counted_in_a_row() -> None:
    half, third = (True, False) * 50, (True, False, False) * 25
    assert episodes_far_below(history(*half), 0.6) == 0
    assert episodes_far_below(history(*half), 0.7) == 51
    low = episodes_far_below(history(*half, *third, *half), 0.5)
    assert 20 < low < 75
    assert episodes_far_below(history(*third, residual=False), 0.5) == 0


def test_the_excess_is_that_of_the_episodes_with_a_residual_bin_by_bin() -> None:
    base = history(True, False, True, False, residual=False)
    steps = [100, 900, 2000, 2200, 6300]
    residual = [
        EpisodeRecord(step, success, True, takeover=False)
        for step, success in zip(steps, [True, True, False, True, False], strict=True)
    ]
    unlabelled = EpisodeRecord(300, None, True, takeover=False)
    np.testing.assert_allclose(
        excess_over_base([*base, *residual, unlabelled], 0.5), [1 / 6, 0.5, np.nan, -0.5]
    )
    np.testing.assert_allclose(excess_over_base(residual, 0.1), [2 / 3 - 0.1, 0.9, np.nan, -0.1])
    assert len(excess_over_base(base, 0.1)) == 0


def write_run(folder: Path, records: Sequence[EpisodeRecord]) -> Path:
    """Write what `read_result` reads of a run whose base succeeds on 80 % of the paired seeds."""
    rates = {key: {'success': rate} for key, rate in (('base', 0.8), ('final', 0.9))}
    folder.mkdir()
    summary = {**rates, 'rollbacks': 0, 'episodes': len(records), 'evaluations': []}
    (folder / 'summary.json').write_text(json.dumps(summary))
    latest = folder / 'checkpoints' / 'latest'
    latest.mkdir(parents=True)
    state = {'state': {'history': [asdict(record) for record in records]}}
    (latest / 'learner.json').write_text(json.dumps(state))
    return folder


def test_noise_of_the_warm_up_is_no_residual_of_an_actor() -> None:
    noise = [replace(record, warmup=True) for record in history(*[True] * 60)]
    assert steps_to(0.9, noise) is None
    assert worst_success(noise) is None
    assert len(excess_over_base(noise, 0.5)) == 0


@pytest.mark.parametrize('lost', ['checkpoints', 'half of the episodes', 'half of the file'])
def test_a_run_without_its_episodes_is_no_result(tmp_path: Path, lost: str) -> None:
    folder = write_run(tmp_path / 'run', history(*[True, False] * 50))
    state = folder / 'checkpoints' / 'latest' / 'learner.json'
    if lost == 'checkpoints':
        shutil.rmtree(folder / 'checkpoints')
    elif lost == 'half of the episodes':
        records = json.loads(state.read_text())['state']['history'][:50]
        state.write_text(json.dumps({'state': {'history': records}}))
    else:
        state.write_text(state.read_text()[:1000])
    with pytest.raises(ResidualRLError, match=r'100 episodes and its checkpoint|cannot be read'):
        read_result(folder)


def test_every_dip_is_held_against_the_base_only_episodes_of_the_same_run(tmp_path: Path) -> None:
    base, residual = history(*[True, False] * 10, residual=False), history(*[True, False] * 50)
    helped = [replace(record, takeover=True) for record in history(*[True] * 9, residual=False)]
    run = read_result(write_run(tmp_path / 'with', [*base, *helped, *residual]))
    assert (run.base, run.base_in_training) == (0.8, 0.5)
    assert (run.worst, run.far_below, run.excess.tolist()) == (0.5, 0, [0.0])
    (entry,) = aggregate({('peg', 'a'): [run]}, 1, rng())['tasks']['peg'].values()
    assert (entry['dip_mean'], entry['dip_of_mean']) == (0.0, 0.0)
    without = read_result(write_run(tmp_path / 'without', residual))
    assert (without.base_in_training, without.far_below) == (0.8, 51)
    np.testing.assert_allclose(without.excess, [-0.3])


def test_the_ratio_of_steps_has_an_interval_and_runs_that_never_got_there_count() -> None:
    fast, slow = np.array([100.0, 110.0, 120.0]), np.array([200.0, 220.0, 260.0])
    point, low, high = ratio_of_medians(fast, slow, rng())
    assert point == 2.0
    assert 200 / 120 <= low < 2.0 < high <= 2.6
    never = np.full(3, np.inf)
    assert ratio_of_medians(fast, never, rng()) == (np.inf, np.inf, np.inf)
    assert ratio_of_medians(never, fast, rng()) == (0.0, 0.0, 0.0)
    point, low, high = ratio_of_medians(never, never, rng())
    assert np.isnan(point)
    assert (low, high) == (0.0, np.inf)
    assert ratio_of_medians(fast, np.array([200.0, 220.0, np.inf]), rng())[2] == np.inf


def test_a_learning_curve_leaves_the_guards_episodes_out() -> None:
    warmup, residual = history(True, False, residual=False), history(True, True)
    guards = history(False, residual=False)
    assert rated_episodes([*warmup, residual[0], *guards, residual[1]]) == [*warmup, *residual]
    assert rated_episodes(warmup) == warmup


def test_more_variants_than_colours_are_all_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = np.array([[0.0, 0.1], [10.0, 0.5]])
    run = RunResult(0.5, 0.5, 0.5, curve, np.inf, np.zeros(0), None, 0, 0)
    shown = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path: shown.append(figure))
    draw_curves(tmp_path / 'x.png', {('peg', f'v{number}'): [run] for number in range(13)})
    lines = [line for line in shown[0].axes[0].lines if line.get_linewidth() == 2.0]
    assert [line.get_label() for line in lines] == [f'v{number}' for number in range(13)]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 13


def test_aggregates_follow_from_the_runs() -> None:
    def runs(*finals: float, steps: float = 1000.0) -> list[RunResult]:
        excess = np.array([0.1, -0.2, 0.3])
        curve = np.zeros((0, 2))
        return [
            RunResult(
                0.6, 0.5, final, curve, steps, excess[: 2 + number] + 0.05 * number, 0.4, 3, 1
            )
            for number, final in enumerate(finals)
        ]

    results = {
        ('peg', 'a'): runs(0.9, 0.95, 1.0),
        ('peg', 'b'): runs(0.5, 0.6, 0.7, steps=float('inf')),
        ('push', 'a'): runs(0.9, 0.95, 1.0),
        ('push', 'b'): runs(0.5, 0.6, 0.7, steps=float('inf')),
    }
    report = aggregate(results, 3, rng())
    assert report['iqm']['a'][0] == pytest.approx(0.95)
    low, high = report['iqm']['b'][1:]
    assert 0.5 <= low <= 0.6 <= high <= 0.7
    assert report['probability_of_improvement']['a > b'][0] == 1.0
    assert report['tasks']['peg']['a']['steps_to_90_median'] == 1000
    assert report['tasks']['peg']['b']['steps_to_90_median'] is None
    assert report['tasks']['peg']['a']['dip_mean'] == pytest.approx(0.1)
    assert report['tasks']['peg']['a']['excess_over_base'] == pytest.approx([0.15, -0.15])
    assert report['tasks']['peg']['a']['dip_of_mean'] == pytest.approx(0.15)
    table = to_markdown(report)
    assert report['tasks']['peg']['b']['steps_ratio'] == [None, None, None]
    never_first = aggregate({key: results[key] for key in [('peg', 'b'), ('peg', 'a')]}, 3, rng())
    assert never_first['tasks']['peg']['a']['steps_ratio'] == [None, None, None]
    row = '| 60.0% | not reached (0/3) | ? [?, ?] | 15 points | 10 points | 3 3 3 | 3 |'
    assert row in table
    assert json.loads(json.dumps(report)) == report


def test_returns_of_two_tasks_are_never_put_together() -> None:
    def run(final: float, measure: str) -> RunResult:
        return RunResult(
            0.5, 0.5, final, np.zeros((0, 2)), np.inf, np.zeros(0), None, 0, 0, measure
        )

    results = {
        ('peg', 'a'): [run(0.5, 'success')],
        ('peg', 'b'): [run(0.75, 'success')],
        ('pendulum', 'a'): [run(-900.0, 'return')],
        ('pendulum', 'b'): [run(-300.0, 'return')],
    }
    report = aggregate(results, 1, rng())
    assert report['iqm'] == {'a': [0.5, None, None], 'b': [0.75, None, None]}
    assert report['iqm_of_returns']['pendulum']['b'] == [-300.0, None, None]
    assert report['probability_of_improvement']['a > b'][0] == 0.0
    table = to_markdown(report)
    assert '| `a` | 0.5 | -900 | -900 | -900.5 | 0 |' in table
    assert '| IQM of final return, pendulum, `b` | -300 | ? to ? |' in table
    returns = aggregate({key: results[key] for key in list(results)[2:]}, 1, rng())
    assert returns['iqm'] == {}
    assert 'IQM of final success' not in to_markdown(returns)


def test_one_seed_has_figures_and_no_interval() -> None:
    run = RunResult(0.5, 0.5, 0.75, np.zeros((0, 2)), np.inf, np.zeros(0), None, 0, 0)
    report = aggregate({('peg', 'a'): [run], ('peg', 'b'): [run]}, 1, rng())
    assert report['iqm'] == {'a': [0.75, None, None], 'b': [0.75, None, None]}
    assert report['probability_of_improvement'] == {'a > b': [0.5, None, None]}
    assert '| IQM of final success, `a` | 0.750 | ? to ? |' in to_markdown(report)


def test_a_grid_runs_once_is_continued_and_leaves_table_curves_and_figures(tmp_path: Path) -> None:
    names = (f'dawn:{SMALL}', f'sac_residual_plain:{SMALL}')
    one = options(tmp_path, *names, seeds=(0,))
    run_comparison(one, Console(quiet=True))
    first = tmp_path / 'peg_insert' / one.variants[0].folder / 'seed0'
    result = read_result(first)
    assert len(result.curve) >= 3
    assert (np.diff(result.curve[:-1, 0]) >= 100).all()
    written = (first / 'summary.json').stat().st_mtime_ns

    report = run_comparison(options(tmp_path, *names, jobs=2), Console(quiet=True))
    assert (first / 'summary.json').stat().st_mtime_ns == written
    entry = report['tasks']['peg_insert'][names[0]]
    assert entry['final'][0] == result.final
    assert len(entry['final']) == 2
    assert report == json.loads((tmp_path / 'compare.json').read_text())
    assert names[1] in (tmp_path / 'compare.md').read_text()
    with Image.open(tmp_path / 'compare.png') as figure:
        assert min(figure.size) > 300


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'control_steps': 80_000}, f'control_steps is {STEPS} there and 80000'),
        ({'residual_scale': (0.9,)}, r'residual_scale is .* and \[0\.9\] in this'),
        ({'base_policy': 'another.onnx'}, 'base_policy_sha256 is'),
    ],
)
def test_a_finished_run_of_another_configuration_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    plain = options(tmp_path, f'dawn:{SMALL}', seeds=(0,))
    if 'base_policy' in changes:
        model = onnx.load(find_base_policy('peg_insert'))
        model.doc_string = 'the same policy in another file'
        onnx.save(model, tmp_path / changes['base_policy'])
        changes = {'base_policy': str(tmp_path / changes['base_policy'])}
    (cell,) = (train_options(plain, plain.configs[0], plain.variants[0], 0),)
    cell.output_dir.mkdir(parents=True)
    summary = cell.output_dir / 'summary.json'
    summary.write_text(json.dumps({'run': run_identity(cell.config.resolve(), cell)}))
    assert is_done(cell)
    another = onnx.load(str(find_base_policy('peg_insert')))
    another.doc_string = 'the same numbers in another file'
    onnx.save(another, str(tmp_path / 'another.onnx'))
    monkeypatch.chdir(tmp_path)
    changed = replace(plain, configs=[replace(plain.configs[0], **changes)])
    with pytest.raises(ResidualRLError, match=reason):
        run_comparison(changed, Console(quiet=True))
    with pytest.raises(ResidualRLError, match='paired_seeds is 4 there and 100'):
        run_comparison(replace(plain, paired_seeds=100), Console(quiet=True))
    summary.write_text('{}')
    with pytest.raises(ResidualRLError, match='task is not recorded there'):
        is_done(cell)


def test_a_run_that_fails_is_named_and_keeps_no_other_from_its_end(tmp_path: Path) -> None:
    both = options(tmp_path, f'dawn:{SMALL}')
    both = replace(both, configs=[replace(both.configs[0], control_steps=120)], curve_steps=0)
    failing, other = (
        train_options(both, both.configs[0], both.variants[0], seed) for seed in both.seeds
    )
    failing.output_dir.parent.mkdir(parents=True)
    failing.output_dir.write_text('in the way')
    reason = f'1 of 2 runs failed: {re.escape(str(failing.output_dir))}: .* cannot be written'
    with pytest.raises(ResidualRLError, match=reason):
        run_comparison(both, Console(quiet=True))
    assert is_done(other)
    report = json.loads((tmp_path / 'compare.json').read_text())
    assert report['seeds'] == 1
    failing.output_dir.unlink()
    written = (other.output_dir / 'summary.json').stat().st_mtime_ns
    assert run_comparison(both, Console(quiet=True))['seeds'] == 2
    assert (other.output_dir / 'summary.json').stat().st_mtime_ns == written


def test_a_run_that_is_asked_for_twice_is_refused(tmp_path: Path) -> None:
    once = options(tmp_path, f'dawn:{SMALL}')
    for twice in (
        replace(once, seeds=(0, 1, 0)),
        replace(once, variants=[*once.variants, *once.variants]),
        replace(once, configs=[*once.configs, replace(once.configs[0], residual_scale=(0.01,))]),
    ):
        with pytest.raises(ResidualRLError, match='2 runs of this comparison would share'):
            run_comparison(twice, Console(quiet=True))


def test_a_variant_with_a_wrong_number_stops_the_grid_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='utd is 0'):
        run_comparison(options(tmp_path, f'dawn:{SMALL}', 'dawn:utd=0.0'), Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_recordings_go_to_the_presets_that_sample_demonstrations(tmp_path: Path) -> None:
    recordings = Recordings((tmp_path / 'd.hdf5',))
    given = replace(options(tmp_path, 'dawn', 'resfit'), recordings=recordings)
    dawn, resfit = (
        train_options(given, given.configs[0], variant, 0) for variant in given.variants
    )
    assert (dawn.recordings, resfit.recordings) == (Recordings(), recordings)
    with pytest.raises(ResidualRLError, match='no preset of this comparison samples'):
        run_comparison(replace(given, variants=given.variants[:1]), Console(quiet=True))


def test_an_environment_without_a_base_policy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ('compare', '--env', 'Pendulum-v1', '--presets', 'dawn', '--out', str(tmp_path))
    assert run_command(*command, monkeypatch=monkeypatch) == 2
    assert 'give either --task, or --env together with --base' in capsys.readouterr().err


RAY_HEAD = """
import sys
import ray
context = ray.init('local', num_cpus=1, include_dashboard=False, log_to_driver=False)
print(context.address_info['gcs_address'], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture
def ray_head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a Ray head of this machine on free ports; yield its address."""
    monkeypatch.setenv('RAY_AUTH_MODE', 'token')
    monkeypatch.setenv('RAY_AUTH_TOKEN', secrets.token_hex(32))
    environment = {**os.environ, 'RAY_USAGE_STATS_ENABLED': '0', 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen(
        [sys.executable, '-c', RAY_HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as head:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        try:
            assert address, head.communicate()[1]
            yield address
            head.communicate(timeout=60.0)
        finally:
            head.kill()


@pytest.mark.timeout(240)
def test_a_grid_runs_on_a_ray_cluster(
    ray_head: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = (
        *('compare', '--presets', f'dawn:{SMALL}', '--task', 'peg_insert', '--seeds', '0-1'),
        *('--steps', '200', '--evaluate', '2', '--out', str(tmp_path), '--ray', ray_head),
    )
    assert run_command(*command, monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    assert '2/2' in capsys.readouterr().err
    assert (tmp_path / 'compare.json').exists()
