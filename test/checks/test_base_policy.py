# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A user learns from the report what a model is and why it cannot be used."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from base_policy_builders import _write_slower, write_onnx_policy
from image_policy import write_policy
from onnx import helper
from prior_builders import write_prior_policy
from rich.console import Console
from robot_builders import make_metadata

from residual_rl_ros.base_policy.metadata import METADATA_KEY
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.checks.base_policy import check_base_policy, try_base_policy
from residual_rl_ros.errors import BasePolicyError, ResourceError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.prior import Prior


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test writes its model."""
    return tmp_path / 'policy.onnx'


def ticks(seconds: float) -> Iterator[float]:
    """Yield the times of a clock that advances by the same amount at every look."""
    now = 0.0
    while True:
        yield now
        now += seconds


def clock_of(seconds: float) -> Callable[[], float]:
    times = ticks(seconds)
    return lambda: next(times)


@pytest.mark.parametrize('stochastic', [False, True])
def test_a_good_model_has_facts_and_no_problem(path: Path, stochastic: bool) -> None:
    metadata = make_metadata(kind='act', task='bench', dataset_sha256='cd' * 32)
    write_onnx_policy(path, metadata, stochastic=stochastic)
    report = check_base_policy(path, clock=clock_of(0.001))
    assert report.problems == []
    assert report.remarks == []
    facts = report.facts
    assert facts['kind'] == f'act, {"stochastic" if stochastic else "deterministic"}'
    assert facts['task'] == 'bench'
    assert facts['files'] == 'policy.onnx'
    assert hashlib.sha256(path.read_bytes()).hexdigest() in facts['size']
    assert 'cd' * 32 in facts['training data']
    assert facts['rate'] == '20 Hz, absolute actions'
    assert facts['chunk'] == '6 actions from 1 observation(s), executes [1, 5)'
    assert facts['3 observations'] == 'arm.position.a, arm.position.b, tool.z'
    assert facts['2 actions'] == 'a.position in [-1, 1]\nb.position in [-0.5, 0.5]'
    assert facts['inference'] == 'median 1.00 ms, 95% within 1.00 ms, worst 1.00 ms'


def test_a_graph_that_takes_too_long_is_named(path: Path) -> None:
    write_onnx_policy(path)
    endless = path.with_name('endless.onnx')
    _write_slower(path, endless, 10**6)
    (problem,) = try_base_policy(endless, longest_s=0.05).problems
    assert 'an inference takes longer than 0.05 s' in problem


def test_actions_in_another_unit_than_their_range_are_remarked(path: Path) -> None:
    write_onnx_policy(path, bias=np.tile([0.0, 57.3], (6, 1)))
    (remark,) = check_base_policy(path, clock=clock_of(0.001)).remarks
    assert remark.startswith("action 'b.position' was 1")
    assert 'half ranges from the middle of -0.5 to 0.5 or further' in remark


def test_metadata_that_are_there_twice_are_refused(path: Path) -> None:
    write_onnx_policy(path)
    again = onnx.ModelProto()
    helper.set_model_props(again, {METADATA_KEY: make_metadata(rate_hz=99.0).to_json()})
    path.write_bytes(path.read_bytes() + again.SerializeToString())
    with pytest.raises(BasePolicyError, match="has the metadata 'residual_rl' twice"):
        OnnxBasePolicy(path)


def test_every_fact_is_in_the_table(path: Path) -> None:
    write_onnx_policy(path)
    report = check_base_policy(path)
    printer = Console(width=250, file=io.StringIO())
    printer.print(report.table())
    text = printer.file.getvalue()
    assert all(name in text for name in report.facts)


def test_what_a_terminal_would_obey_is_shown_as_escapes(path: Path) -> None:
    write_onnx_policy(path, make_metadata(task='\x1b[31m\ud800'))
    out = io.StringIO()
    check_base_policy(path, clock=clock_of(0.001)).show(Console(file=out, width=200))
    assert '\\x1b[31m\\ud800' in out.getvalue()


def test_a_dimension_that_the_base_never_uses_is_remarked(path: Path) -> None:
    write_onnx_policy(path, make_metadata(action_min=(-1.0, 0.2), action_max=(1.0, 0.2005)))
    report = check_base_policy(path)
    assert report.problems == []
    assert report.remarks == ['the base never moves b.position: no residual there']


def test_an_inference_longer_than_a_control_period_is_remarked(path: Path) -> None:
    write_onnx_policy(path)
    report = check_base_policy(path, clock=clock_of(0.06))
    assert report.remarks == [
        'inferences take up to 60.0 ms of a 50.0 ms control period: set prefetch_steps, or leave '
        'it at auto'
    ]
    (slower,) = check_base_policy(path, clock=clock_of(0.2)).remarks
    assert 'inference takes 200 ms, and a chunk of 4 actions leaves 2 control steps' in slower


def test_a_model_that_returns_no_number_is_a_problem(path: Path) -> None:
    bias = np.zeros((6, 2))
    bias[0, 0] = np.nan
    write_onnx_policy(path, bias=bias)
    (problem,) = check_base_policy(path).problems
    assert "returned nan for action 'a.position'" in problem


def test_a_file_that_is_no_model_is_a_problem(path: Path) -> None:
    path.write_bytes(b'garbage')
    (problem,) = check_base_policy(path).problems
    assert 'is no loadable ONNX model' in problem
    (problem,) = check_base_policy(path.with_name('none.onnx')).problems
    assert 'does not exist' in problem


def test_the_robot_of_a_model_fits_and_another_is_a_problem(path: Path) -> None:
    model = resource_path('models', 'peg_insert.onnx')
    report = check_base_policy(model, 'peg_insert')
    assert report.problems == []
    assert report.facts['robot'] == 'fits peg_insert'
    (problem,) = check_base_policy(model, 'push_to_goal').problems
    assert 'observation names differ' in problem
    write_onnx_policy(path)
    (problem,) = check_base_policy(path, 'peg_insert').problems
    assert 'observation names differ' in problem


def test_a_wrong_robot_description_is_no_finding_about_the_model(path: Path) -> None:
    write_onnx_policy(path)
    with pytest.raises(ResourceError, match="unknown robot 'r2d2'"):
        check_base_policy(path, 'r2d2')


def append(path: Path, *nodes: onnx.NodeProto) -> None:
    """Compute the action of a model further; the last node makes it."""
    model = onnx.load(path)
    model.graph.node[-1].output[0] = 'before'
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


def test_a_graph_that_draws_random_numbers_is_not_called_deterministic(path: Path) -> None:
    write_onnx_policy(path)
    append(
        path,
        helper.make_node('RandomNormalLike', ['before'], ['noise'], seed=1.0),
        helper.make_node('Add', ['before', 'noise'], ['action']),
    )
    report = check_base_policy(path, clock=clock_of(0.001))
    assert report.problems == []
    assert report.facts['kind'] == 'bc, draws random numbers in its graph (RandomNormalLike)'
    (remark,) = report.remarks
    assert 'no run with it can be repeated' in remark


def test_a_model_that_answers_the_same_differently_is_not_called_deterministic(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason is: an operator that nobody knows, for example."""
    write_onnx_policy(path)
    rng = np.random.default_rng(0)
    infer = OnnxBasePolicy.infer
    monkeypatch.setattr(
        OnnxBasePolicy, 'infer', lambda *each: infer(*each) + rng.random(dtype=np.float32)
    )
    report = check_base_policy(path, clock=clock_of(0.001))
    assert report.facts['kind'] == 'bc, not reproducible'
    assert 'the same observation gave different actions' in report.remarks[0]


@pytest.mark.parametrize('prior', [prior for prior in Prior if prior is not Prior.NONE])
@pytest.mark.parametrize('stochastic', [False, True])
def test_a_sound_density_is_shown(path: Path, prior: Prior, stochastic: bool) -> None:
    write_prior_policy(path, prior, stochastic=stochastic)
    report = check_base_policy(path, clock=clock_of(0.001))
    assert report.problems == []
    assert report.facts['prior'] == prior.value


@pytest.mark.parametrize('prior', [Prior.GAUSSIAN, Prior.SQUASHED_GAUSSIAN])
def test_a_mean_that_is_not_the_action_is_a_problem_once(path: Path, prior: Prior) -> None:
    write_prior_policy(path, prior, stochastic=False, offset=0.1)
    (problem,) = check_base_policy(path, clock=clock_of(0.001)).problems
    name = f"action 'a.position' at chunk step 0 is not what the mean of its prior {prior} says"
    assert problem == name


def test_logits_that_prefer_another_action_are_a_problem(path: Path) -> None:
    write_prior_policy(path, Prior.CATEGORICAL, stochastic=False, least=True)
    (problem,) = check_base_policy(path, clock=clock_of(0.001)).problems
    assert re.search(r"action '[ab].position' at .* not that of the largest of the logits", problem)


def test_a_log_std_that_no_density_has_is_a_problem(path: Path) -> None:
    write_prior_policy(path, Prior.GAUSSIAN, log_std=-30.0)
    (problem,) = check_base_policy(path, clock=clock_of(0.001)).problems
    assert 'has a log_std beyond 20 of either sign' in problem


def test_a_density_that_is_no_number_is_a_problem(path: Path) -> None:
    write_prior_policy(path, Prior.GAUSSIAN, log_std=float('-inf'))
    (problem,) = check_base_policy(path, clock=clock_of(0.001)).problems
    assert "returned -inf for log_std of action 'a.position'" in problem


def test_weights_beside_the_graph_are_named(path: Path) -> None:
    write_onnx_policy(path)
    onnx.save(
        onnx.load(path), str(path), save_as_external_data=True, location='weights', size_threshold=0
    )
    report = check_base_policy(path, clock=clock_of(0.001))
    assert report.facts['files'] == 'policy.onnx, weights'
    assert OnnxBasePolicy(path).sha256 in report.facts['size']
    (path.parent / 'weights').unlink()
    (problem,) = check_base_policy(path).problems
    assert "its weights 'weights' are not beside it" in problem


def test_what_a_model_takes_beside_its_observation_is_a_fact(path: Path) -> None:
    report = check_base_policy(write_policy(path))
    assert report.problems == []
    assert report.facts['further inputs'].split('\n') == [
        'camera: images of 2 x 3, 3 features',
        'count: memory of shape [1]',
        'goal: constant of shape [2]',
        'tokens: constant of shape [2]',
    ]
