# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every script of `benchmarks/` still runs, on as little as it can; with ROS: `test/ros/tools`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from actor_builders import make_actor
from benchmark_scripts import FOLDER, load_script
from deployment_builders import write_run
from foreign_tasks import register, write_base
from PIL import Image
from planner_builders import known_planner

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.summary import summarise
from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.evaluation import paired
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.learner.episodes import EpisodeRecord
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.tasks.hosting import finetune_for_environment, host

HERE = (
    'bag_warm_start',
    'chunk_seams',
    'customisation',
    'customisation_knobs',
    'customisation_mppi',
    'customise_shelf',
    'failure_to_success',
    'fused_policy',
    'guard_rates',
    'guard_worlds',
)
WITH_ROS = ('command_channels', 'recorder_load', 'round_trips')


def test_every_script_has_a_test() -> None:
    assert sorted(path.stem for path in FOLDER.glob('*.py')) == sorted([*HERE, *WITH_ROS])


def test_rates_of_the_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('guard_rates', monkeypatch)
    for name, number in (('RUNS', 5), ('EPISODES', 120), ('LATE', 60)):
        monkeypatch.setattr(script, name, number)
    script.main(figure=tmp_path / 'rates.png')
    rows = capsys.readouterr().out.splitlines()
    worlds = [row.split(' | ')[0] for row in rows[2 : 2 + len(script.WORLDS)]]
    assert worlds == [f'| {world}' for world in script.WORLDS]
    never = next(row for row in rows if row.startswith('| 80% | 0% |'))
    assert int(never.split('|')[3].split(',')[0]) < 20, 'it is noticed'
    of_returns = rows.index('| returns of both | false alarm in 2,000 episodes | base-only share |')
    shown = rows[of_returns + 2 : of_returns + 2 + len(script.RETURN_WORLDS)]
    assert [row.split(' | ')[0] for row in shown] == [f'| {each}' for each in script.RETURN_WORLDS]
    with Image.open(tmp_path / 'rates.png') as image:
        assert image.width > 600


def test_knobs_of_customisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script('customisation_knobs', monkeypatch)
    script.main(tmp_path / 'knobs.png')
    inside = (script.ACTIONS > -0.45) & (script.ACTIONS < -0.15)
    assert script.customised(0.3, 0.3)[inside].sum() < 0.01 * script.prior()[inside].sum()
    with Image.open(tmp_path / 'knobs.png') as image:
        assert image.width > 1000


def test_shelf_of_the_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('customise_shelf', monkeypatch)
    run = load_run('push_to_goal_shelf').resolve()
    controller = run.evaluation_controller(None)
    controller.queue.close()
    rule = run.learner.make_rule(controller.layout, torch.Generator(), np.random.default_rng(0))
    message = encode_weights(rule.robot_policy(), WeightsHeader(1, 1))
    monkeypatch.setattr(script, 'read_actor', lambda folder: message)
    script.main(tmp_path, out=tmp_path / 'shelf.png', episodes=1)
    base, customised, test = capsys.readouterr().out.splitlines()
    assert base.startswith('base: success')
    assert customised.startswith('customised: success')
    assert 'p = 1' in test
    assert (tmp_path / 'shelf.png').stat().st_size > 1000


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


def test_a_fused_policy_beside_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('fused_policy', monkeypatch)
    run = write_run(tmp_path / 'run', 'push_to_goal')
    script.main(run, 'push_to_goal', steps=60)
    found, controller, fused = capsys.readouterr().out.splitlines()
    assert found.startswith('15 decisions of 4 control steps')
    assert float(found.split('largest difference ')[1].split(',')[0]) < 1e-6
    for row in (controller, fused):
        median, _, high, _ = (float(cell.split()[1]) for cell in row.split(', '))
        assert 0.0 < median <= high


def test_an_animation_of_a_repaired_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('failure_to_success', monkeypatch)
    actor = make_actor(load_run('peg_insert').resolve().evaluation_controller(None).layout)
    path = tmp_path / 'actor.safetensors'
    path.write_bytes(encode_weights(actor.to_numpy(), WeightsHeader(1, 1)))
    repairs = True

    def evaluated(*arguments: Any, **options: Any) -> Iterator[Episode]:
        given = signature(paired.evaluate).bind(*arguments, **options).arguments
        for seed in given['seeds']:
            success = repairs and given['actor_message'] is not None
            yield Episode(seed, success, 8, float(success))

    def filmed(*arguments: Any) -> list[np.ndarray]:
        given = signature(paired.film).bind(*arguments).arguments
        shade = 200 if given['actor_message'] else 5
        return [np.full((8, 8, 3), shade + 4 * n, np.uint8) for n in range(given['frames'])]

    monkeypatch.setattr(script, 'evaluate', evaluated)
    monkeypatch.setattr(script, 'film', filmed)
    script.main(path, out=tmp_path / 'shown.webp', first_seed=3, episodes=2)
    assert capsys.readouterr().out == f'seed 3: 8 and 8 steps, {tmp_path / "shown.webp"}\n'
    with Image.open(tmp_path / 'shown.webp') as animation:
        assert animation.n_frames > 1
    repairs = False
    with pytest.raises(ResidualRLError, match='no seed of 3 to 4 was repaired'):
        script.main(path, out=tmp_path / 'none.webp', first_seed=3, episodes=2)


def test_a_warm_start_from_a_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script('bag_warm_start', monkeypatch)
    bag = tmp_path / 'bag'
    script.collect(bag, transitions=40)
    (robot,) = summarise(Bag(bag)).robots
    assert robot.transitions >= 40
    script.run(tmp_path / 'bag_60', bag, control_steps=200)
    learner = load_checkpoint(tmp_path / 'bag_60' / 'checkpoints' / 'latest')
    assert learner.control_steps >= 200
    assert len(learner.rule.memory) > learner.control_steps // 4, 'the bag is in it'


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


def test_prior_greedy_and_residual_mppi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script('customisation_mppi', monkeypatch)
    register()
    base, model, out = (tmp_path / name for name in ('base.onnx', 'model', 'out.json'))
    config = finetune_for_environment('Silent-v0', write_base(base), 2.0, tmp_path)
    layout = config.resolve().controller(0, explore=False, scheduled=False).layout
    model.write_bytes(encode_weights(known_planner(layout, add_on=()), WeightsHeader(1, 0)))
    weights = []

    def played(config: Any, seeds: Any, message: Any, workers: int) -> Iterator[Episode]:
        if message is not None:
            weights.append(decode_weights(message)[1].architecture.config.prior_weight)
        run = config.resolve()
        controller, env = run.evaluation_controller(message), host(config, run.robot)
        for seed in seeds:
            yield paired.run_episode(env, controller, seed, seed, add_on=run.add_on)

    monkeypatch.setattr(script, 'evaluate', played)
    box = 'keep_out_box:point=[state.x0],lower=[0.0],upper=[1.0]'
    numbers = {'samples': 4, 'horizon': 2, 'episodes': 2}
    script.main('Silent-v0', base, model, [box], 0.5, out=out, **numbers)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(' | ')[0] for row in rows[2:]] == ['| prior', '| greedy', '| residual']
    assert weights == [0.0, 0.5]
    methods = json.loads(out.read_text())['methods']
    assert methods['prior']['add_on_return'] == -12.0  # In the box at each of twelve steps.
    assert methods['residual']['return_difference'] == 0.0
