# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison must not lose, repeat or misread a run; its figures must follow from the runs."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run_command
from PIL import Image
from rich.console import Console

from residual_rl_ros.comparison.compare import (
    CompareOptions,
    Variant,
    compare_cells,
    run_comparison,
)
from residual_rl_ros.comparison.grid import finished
from residual_rl_ros.comparison.results import read_result
from residual_rl_ros.config.run import load_run
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.evaluation.figures import rated_episodes
from residual_rl_ros.learner.episodes import EpisodeRecord
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.training.identity import run_identity
from residual_rl_ros.training.run_folder import steps_to

SMALL = (
    'warmup_transitions=60:publish_interval=20:batch_size=16:utd=0.2:'
    'critic_hidden_sizes=[8]:actor_hidden_sizes=[8]'
)
STEPS = 400


def options(out: Path, *variants: str, seeds: tuple[int, ...] = (0, 1)) -> CompareOptions:
    config = replace(load_run('peg_insert').with_success('success:end'), control_steps=STEPS)
    return CompareOptions(
        [config],
        [Variant.parse(text) for text in variants],
        seeds,
        out,
        workers=1,
        curve_steps=100,
        curve_seeds=1,
        paired_seeds=4,
    )


def history(*outcomes: bool, residual: bool = True) -> list[EpisodeRecord]:
    return [
        EpisodeRecord(10 * (index + 1), outcome, residual, takeover=False)
        for index, outcome in enumerate(outcomes)
    ]


def test_a_variant_is_a_preset_with_changed_numbers() -> None:
    variant = Variant.parse('best_of_n:utd=2:critic_normalization=none:actor_hidden_sizes=[8, 8]')
    assert variant.preset == 'best_of_n'
    config = variant.configured(load_run('peg_insert')).learner_config()
    assert (config.rule.utd, config.rule.critic_normalization) == (2.0, 'none')
    assert config.rule.actor_hidden_sizes == (8, 8)
    weaker = Variant.parse('best_of_n:residual_scale=[0.1, 0.2]:decision_steps=2:utd=4')
    changed = weaker.configured(load_run('peg_insert'))
    assert (changed.residual_scale, changed.decision_steps) == ((0.1, 0.2), 2)
    assert changed.overrides == {'utd': 4}
    with pytest.raises(ConfigError, match="residual_scale is 'much', expected a list"):
        Variant.parse('best_of_n:residual_scale=much').configured(load_run('peg_insert'))
    with pytest.raises(ResidualRLError, match="'utd' is no assignment"):
        Variant.parse('best_of_n:utd')
    with pytest.raises(ResidualRLError, match=r"'\[1' is no YAML value"):
        Variant.parse('best_of_n:utd=[1')


def test_steps_to_ninety_percent_counts_only_episodes_with_a_residual() -> None:
    good = history(*[True] * 50)
    assert steps_to(0.9, good) == 500
    assert steps_to(0.9, good[:49]) is None
    assert steps_to(0.9, history(*[True] * 80, residual=False)) is None
    assert steps_to(0.9, history(*[False] * 6, *[True] * 44)) is None
    assert steps_to(0.9, history(*[False] * 6, *[True] * 45)) == 510


def test_what_an_operator_rescued_is_a_failure_and_what_he_began_is_no_result() -> None:
    rescued = [replace(record, takeover=True) for record in history(*[True] * 60)]
    assert steps_to(0.9, rescued) is None
    assert rated_episodes(rescued) == rescued
    began = [replace(record, operator_began=True) for record in rescued]
    assert steps_to(0.9, began) is None
    assert rated_episodes(began) == []


def test_noise_of_the_warm_up_is_no_result() -> None:
    records = [replace(record, warmup=True) for record in history(*[True] * 60)]
    assert steps_to(0.9, records) is None
    assert rated_episodes(records) == []


def test_a_learning_curve_leaves_the_guards_episodes_out() -> None:
    warmup, residual = history(True, False, residual=False), history(True, True)
    guards = history(False, residual=False)
    assert rated_episodes([*warmup, residual[0], *guards, residual[1]]) == [*warmup, *residual]
    assert rated_episodes(warmup) == warmup


def test_a_grid_runs_once_is_continued_and_leaves_table_curves_and_figures(tmp_path: Path) -> None:
    names = (f'best_of_n:{SMALL}', f'sac_residual_plain:{SMALL}')
    one = options(tmp_path, *names, seeds=(0,))
    run_comparison(one, Console(quiet=True))
    first = tmp_path / 'peg_insert' / one.variants[0].folder / 'seed0'
    result = read_result(first)
    assert len(result.steps) >= 3  # The base's evaluation is the first.
    assert (result.outcomes.shape[1], len(result.final)) == (1, 4)
    assert (np.diff(result.steps[:-1]) >= 100).all()
    written = (first / 'summary.json').stat().st_mtime_ns

    report = run_comparison(options(tmp_path, *names), Console(quiet=True))
    assert (first / 'summary.json').stat().st_mtime_ns == written
    entry = report['tasks']['peg_insert'][names[0]]
    assert entry['final_each_seed'][0] == result.final.mean()
    assert (entry['seeds'], len(entry['final_each_seed'])) == (2, 2)
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
    plain = options(tmp_path, f'best_of_n:{SMALL}', seeds=(0,))
    if 'base_policy' in changes:
        model = onnx.load(find_base_policy('peg_insert'))
        model.doc_string = 'the same policy in another file'
        onnx.save(model, tmp_path / changes['base_policy'])
        changes = {'base_policy': str(tmp_path / changes['base_policy'])}
    cells = compare_cells(plain)
    (run,) = (cell.options for cell in cells)
    run.output_dir.mkdir(parents=True)
    summary = run.output_dir / 'summary.json'
    summary.write_text(json.dumps({'run': run_identity(run.config.resolve(), run)}))
    assert finished(cells) == {run.output_dir}
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
        finished(cells)


def test_a_run_that_fails_is_named_and_keeps_no_other_from_its_end(tmp_path: Path) -> None:
    both = options(tmp_path, f'best_of_n:{SMALL}')
    both = replace(both, configs=[replace(both.configs[0], control_steps=120)], curve_steps=0)
    failing, other = (cell.folder for cell in compare_cells(both))
    failing.parent.mkdir(parents=True)
    failing.write_text('in the way')
    reason = f'1 of 2 runs failed: {re.escape(str(failing))}: .* cannot be written'
    with pytest.raises(ResidualRLError, match=reason):
        run_comparison(both, Console(quiet=True))
    assert finished(compare_cells(both)[1:]) == {other}
    (entry,) = json.loads((tmp_path / 'compare.json').read_text())['tasks']['peg_insert'].values()
    assert (entry['seeds'], entry['gain']['low']) == (1, None)
    failing.unlink()
    written = (other / 'summary.json').stat().st_mtime_ns
    (entry,) = run_comparison(both, Console(quiet=True))['tasks']['peg_insert'].values()
    assert entry['seeds'] == 2
    assert (other / 'summary.json').stat().st_mtime_ns == written


def test_a_run_that_is_asked_for_twice_is_refused(tmp_path: Path) -> None:
    once = options(tmp_path, f'best_of_n:{SMALL}')
    for twice in (
        replace(once, seeds=(0, 1, 0)),
        replace(once, variants=[*once.variants, *once.variants]),
        replace(once, configs=[*once.configs, replace(once.configs[0], residual_scale=(0.01,))]),
    ):
        with pytest.raises(ResidualRLError, match='2 runs of this grid would share'):
            run_comparison(twice, Console(quiet=True))


def test_a_variant_with_a_wrong_number_stops_the_grid_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='utd is 0'):
        run_comparison(
            options(tmp_path, f'best_of_n:{SMALL}', 'best_of_n:utd=0.0'), Console(quiet=True)
        )
    assert list(tmp_path.iterdir()) == []


def test_recordings_go_to_the_presets_that_sample_demonstrations(tmp_path: Path) -> None:
    recordings = Recordings((tmp_path / 'd.hdf5',))
    given = replace(options(tmp_path, 'best_of_n', 'resfit'), recordings=recordings, seeds=(0,))
    best_of_n, resfit = (cell.options.recordings for cell in compare_cells(given))
    assert (best_of_n, resfit) == (Recordings(), recordings)
    with pytest.raises(ResidualRLError, match='no preset of this comparison samples'):
        run_comparison(replace(given, variants=given.variants[:1]), Console(quiet=True))


def test_an_environment_without_a_base_policy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ('compare', '--env', 'Pendulum-v1', '--presets', 'best_of_n', '--out', str(tmp_path))
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
def test_a_run_of_a_grid_runs_on_a_ray_cluster(
    ray_head: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = (
        *('compare', '--presets', f'best_of_n:{SMALL}', '--task', 'peg_insert', '--seeds', '0'),
        *('--steps', '200', '--evaluate', '2', '--out', str(tmp_path), '--ray', ray_head),
    )
    assert run_command(*command, monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    assert '1/1' in capsys.readouterr().err
    assert (tmp_path / 'compare.json').exists()
