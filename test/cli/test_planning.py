# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From data to a planner that plays, by the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actor_builders import make_actor
from foreign_tasks import register, write_base
from planner_builders import known_planner
from transition_builders import make_layout

from residual_rl_ros.cli.main import main
from residual_rl_ros.residual_policy.mppi import MppiPlanner
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights

FEW = ('--set', 'updates=3', '--set', 'batch_size=8', '--set', 'hidden=[8]')


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv('COLUMNS', '300')

    def invoke(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['residual-rl', *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return invoke


def read(path: Path) -> MppiPlanner:
    _, policy = decode_weights(path.read_bytes())
    assert isinstance(policy, MppiPlanner)
    return policy


def test_a_model_is_trained_in_an_environment_and_a_planner_made_of_it(
    run: Any, tmp_path: Path
) -> None:
    register()
    base, model = write_base(tmp_path / 'base.onnx'), tmp_path / 'model.safetensors'
    played = ('--env', 'Silent-v0', '--base', base, '--steps', 1200)
    code, out, err = run('train-dynamics', '--out', model, *played, *FEW, '--json')
    assert code == 0, err
    assert [each['name'] for each in json.loads(out)] == ['state.x0', 'state.x1', 'state.x2']
    assert '1200 decisions' in err
    assert not read(model).architecture.add_on
    assert len(read(model).architecture.held_out) == 3
    new = tmp_path / 'planner.safetensors'
    box = 'keep_out_box:point=[state.x0],lower=[0.0],upper=[1.0]'
    code, _, err = run(
        *('planner', model, '--out', new, '--add-on', box, '--weight', 2),
        '--set',
        'samples=16',
        '--set',
        'temperature=0.5',
    )
    assert code == 0, err
    made = read(new).architecture
    assert (made.add_on_weight, made.config.samples, made.config.temperature) == (2.0, 16, 0.5)
    assert made.add_on.to_list()[0]['name'] == 'keep_out_box'
    np.testing.assert_array_equal(
        read(new).tensors['dynamics.0.weight'], read(model).tensors['dynamics.0.weight']
    )


def refusals(tmp_path: Path) -> dict[str, tuple[tuple[object, ...], str]]:
    """Return commands that are refused, with what is said."""
    out = ('--out', tmp_path / 'out.safetensors')
    model, actor = tmp_path / 'model', tmp_path / 'actor'
    model.write_bytes(encode_weights(known_planner(), WeightsHeader(1, 0)))
    gaussian = make_actor(make_layout()).to_numpy()
    actor.write_bytes(encode_weights(gaussian, WeightsHeader(1, 0)))
    box = 'keep_out_box:point=[tool.q],lower=[0.0],upper=[1.0]'
    return {
        'no data': (('train-dynamics', *out), 'give one of bags or a run, --task, or --env'),
        'no base': (('train-dynamics', *out, '--env', 'Silent-v0'), 'together with --base'),
        'no number': (
            ('train-dynamics', *out, '--set', 'updates=0', '--task', 'peg_insert'),
            'updates is 0, expected a whole number >= 1',
        ),
        'no planner': (('planner', actor, *out), 'of kind gaussian, expected mppi'),
        'negative omega': (
            ('planner', model, *out, '--set', 'prior_weight=-1'),
            'prior_weight is -1, expected a number >= 0.0',
        ),
        'cold': (('planner', model, *out, '--set', 'temperature=0'), 'temperature is 0, expected'),
        'too long': (('planner', model, *out, '--set', 'horizon=9999'), 'expected <= 131072'),
        'code': (
            ('planner', model, *out, '--add-on', 'planner_builders:foreign_add_on'),
            'names code; install it as an entry point',
        ),
        'no name': (('planner', model, *out, '--add-on', box), "has no observation 'tool.q'"),
        'both': (('evaluate', model, '--planner', 'mcts'), 'or else --planner mcts'),
        'exists': (('planner', model, '--out', model), 'exists; choose another file with --out'),
        'no folder': (
            ('train-dynamics', '--task', 'peg_insert', '--out', model / 'below'),
            'cannot be written',
        ),
        'nothing': (('evaluate',), 'give a run, a checkpoint or a file'),
        'other planner': (('evaluate', '--planner', 'tree'), 'or else --planner mcts'),
        'no add-on': (('evaluate', '--planner', 'mcts'), 'no add-on to search for'),
        'no search': (
            ('evaluate', '--planner', 'mcts', '--set', 'temperature=0'),
            'temperature is 0, expected a number >= 1e-06',
        ),
    }


@pytest.mark.parametrize(
    'case',
    [
        'no data',
        'no base',
        'no number',
        'no planner',
        'negative omega',
        'cold',
        'too long',
        'no name',
        'code',
        'both',
        'exists',
        'no folder',
        'nothing',
        'other planner',
        'no add-on',
        'no search',
    ],
)
def test_bad_input_is_one_line(run: Any, tmp_path: Path, case: str) -> None:
    arguments, reason = refusals(tmp_path)[case]
    code, _, err = run(*arguments)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / 'out.safetensors').exists()
