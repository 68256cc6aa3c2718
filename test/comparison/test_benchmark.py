# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A benchmark is its protocol: nothing else runs, nothing of another one is reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import run_command
from foreign_tasks import register
from rich.console import Console
from transition_builders import random_transitions

from residual_rl_ros.comparison import benchmark
from residual_rl_ros.comparison.benchmark import (
    BenchmarkOptions,
    estimate_hours,
    expected_steps,
    method_lines,
    run_benchmark,
)
from residual_rl_ros.comparison.protocol import Method, parse_seeds, read_protocol
from residual_rl_ros.config.preset import load_preset, preset_names
from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.pretraining.experts import EXPERTS
from residual_rl_ros.pretraining.train_base import load_recipe, train_base_policy
from residual_rl_ros.tasks.hosting import finetune_for_environment
from residual_rl_ros.training import retrain
from residual_rl_ros.training.options import TrainOptions

TASK = 'Along-v0'
register()
NUMBERS: dict[str, Any] = {
    **{'control_steps': 120, 'curve_steps': 50, 'curve_scenes': 2, 'final_scenes': 3},
    'shared': {
        **{'utd': 0.1, 'batch_size': 8, 'warmup_transitions': 20},
        **{'critic_hidden_sizes': [8], 'actor_hidden_sizes': [8]},
    },
}
BEST_OF_N = {'name': 'best_of_n', 'preset': 'best_of_n', 'seeds': '0', 'tuning': 'none'}
TD3 = {
    **{'name': 'a td3', 'preset': 'resfit', 'seeds': '0', 'tuning': 'none'},
    'changed': {'critic_only_updates': 2, 'demonstration_share': 0.0},
}
RETRAIN = {
    **{'name': 'again', 'kind': 'retrain', 'seeds': '0', 'tuning': 'none'},
    'demonstrations': True,
}
RECIPE = {
    **{'environment': TASK, 'kind': 'bc', 'demonstrations': 2, 'demonstration_seed': 1_000_000},
    **{'task_overrides': {}, 'waypoint_noise': 0.0, 'n_obs_steps': 1, 'horizon': 4},
    **{'exec_start': 0, 'exec_steps': 4, 'gradient_steps': 3, 'batch_size': 8},
    **{'learning_rate': 1e-3, 'action_noise': 0.0},
}


class Expert:
    """An expert of a task in which everything succeeds."""

    def __init__(self, rng: np.random.Generator | None = None, **_: Any) -> None:
        self.rng = np.random.default_rng(0)

    def reset(self, env: Any) -> None:
        del env

    def act(self, env: Any) -> np.ndarray:
        del env
        return self.rng.uniform(-0.1, 0.1, 2)


def write(folder: Path, *methods: dict[str, Any], **changes: Any) -> Path:
    """Write a protocol of a small task."""
    task = {'run': 'along.yaml', 'recipe': 'along_bc.yaml', 'development': True}
    values = {**NUMBERS, 'tasks': [task], 'methods': list(methods or [BEST_OF_N, TD3, RETRAIN])}
    path = folder / 'protocol.yaml'
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))
    return path


def write_task(folder: Path) -> None:
    """Write the task's run, and a base policy trained by its recipe."""
    (folder / 'along_bc.yaml').write_text(yaml.safe_dump(RECIPE))
    recipe = load_recipe(str(folder / 'along_bc.yaml'))
    train_base_policy(recipe, 0, folder / 'along_bc.onnx', lambda step, loss: None)
    run = finetune_for_environment(TASK, folder / 'along_bc.onnx', 0.1, folder)
    values = {**asdict(run), 'residual_scale': 0.1, 'success': 'success:once'}
    (folder / 'along.yaml').write_text(yaml.safe_dump(values))


def options(path: Path, workers: int = 1, **changes: Any) -> BenchmarkOptions:
    return BenchmarkOptions(read_protocol(path), path.parent / 'out', workers, **changes)


@pytest.fixture(scope='module')
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder of a benchmark that has run."""
    folder = tmp_path_factory.mktemp('benchmark')
    with pytest.MonkeyPatch.context() as patch, (folder / 'said.txt').open('w') as said:
        patch.setitem(EXPERTS, TASK, Expert)
        patch.setattr(benchmark, 'MEASURE_S', 0.02)
        patch.setattr(retrain, 'ROUNDS', 2)
        write_task(folder)
        run_benchmark(options(write(folder)), Console(file=said, width=300))
        said.flush()
        yield folder


@pytest.fixture
def unrun(ran: Path, tmp_path: Path) -> Path:
    """Return a folder with the same task, in which nothing has run."""
    for name in ('along.yaml', 'along_bc.yaml'):
        shutil.copy(ran / name, tmp_path)
    return tmp_path


def test_a_protocol_runs_every_method_and_leaves_a_report(ran: Path) -> None:
    said = (ran / 'said.txt').read_text()
    assert 'all methods: utd 0.1, batch_size 8' in said
    assert 'a td3: preset resfit; algorithm td3' in said
    assert '3 runs to do: about 0.' in said
    report = json.loads((ran / 'out' / 'benchmark.json').read_text())
    methods = report['tasks']['along']
    assert list(methods) == ['best_of_n', 'a td3', 'again']
    assert report['development'] == ['along']
    # Everybody was measured on the same scenes, on which the base is the same.
    assert len({json.dumps(entry['base']) for entry in methods.values()}) == 1
    text = (ran / 'out' / 'benchmark.md').read_text()
    assert read_protocol(ran / 'protocol.yaml').sha256 in text
    assert '| a td3 | preset `resfit` | no | no | none |' in text
    assert (ran / 'out' / 'benchmark.png').exists()


def test_a_retrained_base_has_a_curve_with_steps_and_says_what_it_cost(ran: Path) -> None:
    summary = json.loads((ran / 'out/along/again/seed0/summary.json').read_text())
    points = summary['evaluations']['points']
    assert [at for at, _ in points] == sorted({at for at, _ in points})
    assert summary['control_steps'] >= 120
    assert summary['episodes'] == summary['failed_episodes'] + summary['successes_trained_on']
    assert len(summary['scenes']['final']) == 3


def test_every_scene_keeps_its_outcome_and_is_that_learner_seeds_own(ran: Path) -> None:
    summary = json.loads((ran / 'out/along/best_of_n/seed0/summary.json').read_text())
    curve = summary['evaluations']
    assert (curve['first_scene'], len(curve['base'])) == (200_000, 2)
    assert {len(row) for _, row in curve['points']} == {2}
    assert summary['scenes']['first_scene'] == 200_002
    assert summary['run']['protocol'] == read_protocol(ran / 'protocol.yaml').sha256
    numbers = read_protocol(ran / 'protocol.yaml').numbers
    assert [numbers.scene(seed) for seed in (0, 1, 799)] == [200_000, 201_000, 999_000]


def test_finished_runs_are_kept_and_a_report_runs_nothing(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    assert run_command('benchmark', '--out', 'out', monkeypatch=monkeypatch) == 2
    assert 'benchmarks/protocol.yaml: cannot read protocol' in capsys.readouterr().err
    command = ('benchmark', 'protocol.yaml', '--out', 'out', '--report')
    assert run_command(*command, '--methods', 'best_of_n', monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr()
    assert '1 runs, 1 of them done' in printed.err
    assert '## along (development)' in printed.out
    assert 'a td3' not in printed.out
    nothing = ('benchmark', 'protocol.yaml', '--out', str(tmp_path), '--report')
    assert run_command(*nothing, monkeypatch=monkeypatch) == 2
    assert 'no run of' in capsys.readouterr().err


def test_results_of_another_protocol_are_refused(ran: Path, unrun: Path) -> None:
    shutil.copytree(ran / 'out', unrun / 'out')
    path = write(unrun, level=0.8)
    with pytest.raises(ResidualRLError, match='is of another run: protocol is'):
        run_benchmark(options(path, 0), Console(quiet=True))


def test_a_method_with_an_operator_asks_for_the_simulated_one() -> None:
    method = Method('helped', 'none', preset='best_of_n', operator=True)
    made = method.configured(load_run('push_to_goal'), {})
    assert 'simulated' in (made.overrides.get('operator'), getattr(made, 'operator', None))


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'curve_scenes': 0}, 'curve_scenes is 0, expected a whole number >= 1'),
        ({'curve_stpes': 1}, 'curve_stpes is unknown; did you mean curve_steps'),
        ({'final_scenes': 999}, 'scenes_per_seed is 1000, expected at least 1001'),
        ({'tasks': []}, r'tasks is \[\], expected a list of maps of run'),
        ({'methods': [BEST_OF_N, BEST_OF_N]}, "methods: the name 'best_of_n' occurs twice"),
        (
            {'methods': [{**BEST_OF_N, 'preset': ''}]},
            r"methods\[0\]\.preset is '', expected one for a",
        ),
        ({'methods': [{**BEST_OF_N, 'seeds': 'all'}]}, r"methods\[0\]\.seeds is 'all', expected"),
        (
            {'methods': [{**BEST_OF_N, 'seeds': '800'}]},
            'the scenes of learner seed 800 reach 1001000',
        ),
        ({'methods': [{**BEST_OF_N, 'tuned': 'x'}]}, r'methods\[0\]\.tuned is unknown'),
    ],
)
def test_what_is_wrong_with_a_protocol_is_named(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_protocol(write(tmp_path, **changes))


def test_a_name_that_the_protocol_has_not_is_refused(unrun: Path) -> None:
    path = write(unrun)
    with pytest.raises(ConfigError, match="no method of the protocol is named 'sac', expected"):
        run_benchmark(options(path, methods=('sac',)), Console(quiet=True))
    with pytest.raises(ConfigError, match='no task of the protocol'):
        run_benchmark(options(path, tasks=('peg',)), Console(quiet=True))
    with pytest.raises(ConfigError, match='of which the protocol has none'):
        run_benchmark(options(path, seeds=(7,)), Console(quiet=True))


def test_shared_numbers_replace_those_of_a_task_and_not_those_of_a_method() -> None:
    config = replace(load_run('push_to_goal'), overrides={'utd': 9.0, 'gamma': 0.5})
    own = {'gamma': 0.8}
    method = Method('m', 'none', preset='best_of_n', changed=own, without=('batch_size',))
    made = method.configured(config, {'utd': 1.0, 'gamma': 0.9, 'batch_size': 1})
    assert made.overrides == {'utd': 1.0, 'gamma': 0.8}
    lines = method_lines([method, Method('n', 'none', preset='best_of_n')], config, {'utd': 1.0})
    assert lines == [
        'all methods: utd 1.0',
        'm: preset best_of_n',
        'n: preset best_of_n; gamma 0.95',
    ]


def test_the_shipped_protocol_is_whole() -> None:
    protocol = read_protocol(Path(__file__).parents[2] / 'benchmarks' / 'protocol.yaml')
    assert protocol.numbers.control_steps == 50_000
    assert len(protocol.tasks) == 10
    assert len(parse_seeds(protocol.methods[0].seeds)) == 10
    assert {method.tuning != '' for method in protocol.methods} == {True}


def fits_any_base(preset: str) -> bool:
    """Return whether a base policy need not tell a density, and actions are continuous."""
    learner = load_preset(preset)
    free = not getattr(learner.rule, 'prior_weight', 0.0)
    return free and learner.algorithm != 'residual_soft_q'


@pytest.mark.parametrize('preset', list(filter(fits_any_base, preset_names())))
def test_an_update_of_every_preset_can_be_timed(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, 'MEASURE_S', 0.02)
    run = load_run('push_to_goal_operators').with_preset(preset)
    run = run.changed({'batch_size': 8, 'proposals': 2}).resolve()
    layout = run.controller(0, explore=True, scheduled=True).layout
    pace = benchmark.Pace(1.0, 1.0, tuple(random_transitions(layout, 40)))
    assert benchmark.measure_update(run, pace) > 0.0


def test_hours_follow_from_finished_runs(
    ran: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(load_run('push_to_goal'), control_steps=1000)
    run = TrainOptions(config, 0, tmp_path, curve_steps=100, curve_seeds=5, paired_seeds=20)
    assert expected_steps(run, 30.0) == 1000 + 30 * (11 * 5 + 2 * 20)
    cells: list[Any] = []
    monkeypatch.setattr(
        'residual_rl_ros.comparison.benchmark.estimate_hours',
        lambda grid, *others: cells.extend(grid),
    )
    run_benchmark(options(ran / 'protocol.yaml', methods=('best_of_n',)), Console(quiet=True))
    (done,) = cells
    folder = done.folder.with_name('seed1')
    other = replace(done, options=replace(done.options, seed=1, output_dir=folder))

    def measured(*_: Any) -> None:
        raise AssertionError('a finished run says how long another takes')

    monkeypatch.setattr(benchmark, 'measure_pace', measured)
    wall_s = json.loads((done.folder / 'summary.json').read_text())['wall_s']
    found = estimate_hours([done, other], {done.folder}, 2, Console(quiet=True))
    assert found == pytest.approx(wall_s / 3600)
