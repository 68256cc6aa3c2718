# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl export`: a run becomes one file, or one line that says why not and no file."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run_command
from deployment_builders import write_run, write_task_actor

import residual_rl_ros.deployment.export as export_module
from residual_rl_ros.deployment.fused_policy import METADATA_KEY
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.training.identity import StoredRun

TASK = 'push_to_goal'
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp('run'), TASK)


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    monkeypatch.setenv('COLUMNS', '300')
    monkeypatch.setattr(export_module, 'PARITY_DECISIONS', 5)

    def invoke(*arguments: object) -> tuple[int, str, str]:
        code = run_command('export', *map(str, arguments), monkeypatch=monkeypatch)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return invoke


def metadata(path: Path) -> dict[str, Any]:
    model = onnx.load(str(path))
    texts = {entry.key: entry.value for entry in model.metadata_props}
    values: dict[str, Any] = json.loads(texts[METADATA_KEY])
    return values


def test_a_run_becomes_one_file_with_its_metadata_and_checksum(
    run: Path, export: Export, tmp_path: Path
) -> None:
    out = tmp_path / 'deep' / 'fused.onnx'
    code, printed, said = export(run, '--out', out, '--batch', 1)
    assert code == 0, said
    assert printed == f'{hashlib.sha256(out.read_bytes()).hexdigest()}  {out}\n'
    assert '5 decisions beside the controller' in said
    assert 'not in the graph: observation checks, finite command' in said
    told = metadata(out)
    assert told['kind'] == 'gaussian'
    assert told['decision_steps'] == 4
    base = resource_path('models', f'{TASK}.onnx').read_bytes()
    assert told['base_policy_sha256'] == hashlib.sha256(base).hexdigest()
    assert told['parity'] < 1e-7
    assert told['max_step'] == [0.125] * 7
    assert [path.name for path in out.parent.iterdir()] == ['fused.onnx']


def test_an_actor_without_a_run_wants_a_task_or_a_robot_and_a_base(
    export: Export, tmp_path: Path
) -> None:
    actor, out = tmp_path / 'actor.safetensors', tmp_path / 'fused.onnx'
    write_task_actor(actor, TASK, bound_scale=0.0)
    code, _, said = export(actor, '--out', out, '--batch', 1)
    assert code == 2
    assert 'does not say which task it is of: give --task' in said
    code, _, said = export(actor, '--out', out, '--robot', TASK)
    assert code == 2
    assert 'give --robot together with --base' in said
    code, _, said = export(actor, '--out', out, '--batch', 1, '--robot', TASK, '--base', TASK)
    assert code == 0, said
    assert 'the base acts alone' in said
    assert metadata(out)['bound_scale'] == 0.0


def test_another_base_than_that_of_the_training_is_refused(export: Export, tmp_path: Path) -> None:
    run, out = write_run(tmp_path / 'run', TASK, base_policy_sha256='0' * 64), tmp_path / 'f.onnx'
    code, _, said = export(run, '--out', out, '--batch', 1)
    assert code == 2
    assert f'trained with a base policy of sha256 {"0" * 64}' in said
    assert len(said.splitlines()) == 1
    code, _, said = export(run, '--out', out, '--batch', 1, '--task', 'peg_insert')
    assert code == 2
    assert 'the actor is for actions' in said
    assert not out.exists()


def test_a_run_of_a_task_that_is_not_shipped_says_what_to_give(
    export: Export, tmp_path: Path
) -> None:
    run = write_run(tmp_path / 'run', TASK, named='Silent-v0')
    code, _, said = export(run, '--out', tmp_path / 'f.onnx')
    assert code == 2
    assert 'or give --robot together with --base' in said


def test_no_actor_no_file_and_no_open_batch_are_one_line_each(
    run: Path, export: Export, tmp_path: Path
) -> None:
    out = tmp_path / 'fused.onnx'
    (tmp_path / 'empty').mkdir()
    code, _, said = export(tmp_path / 'empty', '--out', out)
    assert (code, 'holds no actor' in said, len(said.splitlines())) == (2, True, 1)
    code, _, said = export(run, '--out', out)
    assert code == 2
    assert 'has a fixed batch of 1, expected an open one; give --batch 1' in said
    out.write_text('mine')
    code, _, said = export(run, '--out', out, '--batch', 1)
    assert (code, 'exists; choose another file' in said) == (2, True)
    assert out.read_text() == 'mine'


def test_a_robot_whose_orientation_is_commanded_is_refused_by_name(tmp_path: Path) -> None:
    one = np.ones(1)
    turned = ActionSpec(('yaw',), -one, one, one, orientations=((-1, -1, 0),))
    found: Any = SimpleNamespace(robot_file='arm.yaml', robot=SimpleNamespace(action=turned))
    with pytest.raises(ConfigError, match=r'arm.yaml commands orientations.*: run policy_node'):
        export_module._check_limits(
            found, export_module.ExportOptions(tmp_path, tmp_path / 'fused.onnx')
        )


def test_a_workspace_is_named_before_it_is_left_out(
    run: Path, export: Export, tmp_path: Path
) -> None:
    text = resource_path('config', 'robots', f'{TASK}.yaml').read_text(encoding='utf-8')
    joints = ', '.join(f'joint{index}' for index in range(1, 8))
    box = (
        '        workspace:\n'
        '          model: push_to_goal\n'
        '          point: tool\n'
        f'          joints: [{joints}]\n'
        '          lower: [-2.0, -2.0, -2.0]\n'
        '          upper: [2.0, 2.0, 2.0]\n'
    )
    robot, out = tmp_path / 'robot.yaml', tmp_path / 'fused.onnx'
    robot.write_text(text.replace('      observation:\n', f'{box}      observation:\n'))
    given = (run, '--out', out, '--batch', 1, '--robot', robot, '--base', TASK)
    code, _, said = export(*given)
    assert code == 2
    assert 'workspace limits' in said
    code, _, said = export(*given, '--without-workspace')
    assert code == 0, said
    assert 'takeover, workspace' in said
    assert metadata(out)['not_in_graph'][-1] == 'workspace'


def test_a_run_that_asked_for_its_chunks_early_is_told_of_it(
    run: Path, export: Export, tmp_path: Path
) -> None:
    text = resource_path('config', 'finetune', f'{TASK}.yaml').read_text(encoding='utf-8')
    early, out = tmp_path / 'early.yaml', tmp_path / 'fused.onnx'
    early.write_text(text.replace('decision_steps: 4', 'decision_steps: 2'))
    code, _, said = export(run, '--out', out, '--batch', 1, '--task', early)
    assert code == 0, said  # The actor says what k is.
    early.write_text(text.replace('prefetch_steps: 0', 'prefetch_steps: 2'))
    code, _, said = export(run, '--out', tmp_path / 'f.onnx', '--batch', 1, '--task', early)
    assert 'the run has prefetch_steps 2' in said
    assert code == 0, said


def test_a_run_that_takes_the_mean_of_chunks_is_refused(
    run: Path, export: Export, tmp_path: Path
) -> None:
    text = resource_path('config', 'finetune', f'{TASK}.yaml').read_text(encoding='utf-8')
    averaged, out = tmp_path / 'averaged.yaml', tmp_path / 'fused.onnx'
    averaged.write_text(f'{text}\ntemporal_ensemble: 0.01\n')
    code, _, said = export(run, '--out', out, '--batch', 1, '--task', averaged)
    assert code != 0
    assert 'the run has temporal_ensemble 0.01' in said
    assert not out.exists()


def test_a_full_disk_leaves_nothing(run: Path, export: Export, tmp_path: Path) -> None:
    out = tmp_path / 'full' / 'fused.onnx'
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        code, _, said = export(run, '--out', out, '--batch', 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert 'cannot be written: File too large' in said
    assert not list(out.parent.iterdir())


def test_a_graph_that_differs_from_the_controller_is_not_written(
    run: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export_module.fuse

    def wrong(parts: Any) -> Any:
        model = real(parts)
        node = next(each for each in model.graph.node if each.op_type == 'Tanh')
        node.op_type = 'Neg'
        return model

    monkeypatch.setattr(export_module, 'fuse', wrong)
    out = tmp_path / 'fused.onnx'
    code, _, said = export(run, '--out', out, '--batch', 1)
    assert code == 2
    assert 'commands of the fused graph differ by up to' in said
    assert not out.exists()


@pytest.mark.parametrize('given', [{'task': TASK}, {'robot': TASK, 'base': TASK}])
def test_the_base_has_the_density_that_the_run_was_trained_with(given: dict[str, str]) -> None:
    options = export_module.ExportOptions(Path('run'), Path('out'), **given)  # type: ignore[arg-type]
    stored = StoredRun({'prior_width': [0.2]})
    found = export_module._configuration(options, stored)
    assert found.prior_width == (0.2,)
