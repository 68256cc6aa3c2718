# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command line is what a user sees: its exit codes and its one-line errors are a contract."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import gymnasium
import pytest
import typer
from base_policy_builders import write_onnx_policy
from robot_builders import make_metadata

from residual_rl_ros.cli.main import _interrupt, app, main
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.tasks.hosting import check_environment


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    """Yield a function that runs the command line and returns exit code, stdout and stderr."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv('COLUMNS', '300')

    def invoke(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['residual-rl', *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    yield invoke
    signal.signal(signal.SIGTERM, handler)


def test_check_base_exits_with_zero_for_a_usable_model(run) -> None:
    for model in ('peg_insert', resource_path('models', 'peg_insert.onnx')):
        code, out, _ = run('check-base', model, '--robot', 'peg_insert')
        assert code == 0
        assert 'usable' in out
        assert 'fits peg_insert' in out


def test_check_base_exits_with_one_for_an_unusable_model(run, tmp_path: Path) -> None:
    (tmp_path / 'garbage.onnx').write_bytes(b'garbage')
    code, out, _ = run('check-base', tmp_path / 'garbage.onnx')
    assert code == 1
    assert 'problem:' in out
    assert 'is no loadable ONNX model' in out
    code, out, _ = run('check-base', tmp_path / 'none.onnx')
    assert code == 1
    assert 'does not exist' in out


def test_check_base_exits_with_one_for_another_robot(run) -> None:
    code, out, _ = run(
        'check-base', resource_path('models', 'peg_insert.onnx'), '--robot', 'push_to_goal'
    )
    assert code == 1
    assert 'names differ' in out


def test_check_base_prints_names_in_brackets(run, tmp_path: Path) -> None:
    names = ('finger[left]', 'finger[right]')
    write_onnx_policy(tmp_path / 'policy.onnx', make_metadata(action_names=names))
    code, out, _ = run('check-base', tmp_path / 'policy.onnx')
    assert code == 0
    assert 'finger[left]' in out


def test_check_base_diagnoses_a_base_policy(run) -> None:
    arguments = ('check-base', 'push_to_goal', '--diagnose', '--task', 'push_to_goal')
    code, out, err = run(*arguments, '--starts', 2, '--first-seed', 7, '--workers', 1, '--json')
    assert code == 0
    assert 'environment 7 to 8' in err
    found = json.loads(out)
    assert found['facts']['kind'] == 'bc, deterministic'
    assert found['diagnosis']['noises'] == 1
    assert found['diagnosis']['first_seed'] == 7
    assert found['diagnosis']['verdict'] in ('residual', 'nothing')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['check-base', 'peg_insert', '--diagnose'], 'with one of --task and --env'),
        (['check-base', 'peg_insert', '--task', 'peg_insert'], 'give --diagnose together'),
        (
            ['check-base', 'peg_insert', '--diagnose', '--task', 'push_to_goal', '--json'],
            'names differ',
        ),
        (['check-base', 'x.onnx', '--robot', 'r2d2'], "unknown robot 'r2d2'"),
        (['check-base', 'pegs'], "unknown base policy 'pegs'"),
        (['compare', '--presets', 'best_of_n', '--seeds', '4-0'], "seeds is '4-0'"),
        (['describe-robot', 'NoSuchEnv-v0'], "unknown task 'NoSuchEnv-v0'"),
        (['describe-robot', 'NoSuchEnv-v0'], 'for one of your own write module:Id'),
        (['describe-robot', 'FrozenLake-v1'], 'expected a one-dimensional Box'),
        (['train-base', '--task', 'tidy_up'], 'tidy_up'),
        (
            [
                'train-prior',
                '--env',
                'cart_pole',
                '--preset',
                'best_of_n',
                '--steps',
                '9',
                '--out',
                'p.onnx',
            ],
            'tells how likely its actions are',
        ),
        (['train', '--success', 'success:never'], "success is 'success:never', expected auto"),
        (['train', '--preset', 'x' * 300], "unknown preset 'xxx"),
        (['check-robot', 'x' * 300 + '.yaml'], 'File name too long'),
        (['train', '--scale', '0.2'], '--set residual_scale=0.2'),
        (['train', '--env', 'x', '--base', 'y', '--scale', 'nan'], '--scale is nan, expected'),
        (['compare', '--presets', 'best_of_n', '--out', '/dev/null/x'], 'cannot be written'),
        (['compare', '--presets', 'dawn', '--scale', '0.2'], 'PRESET:residual_scale=0.2'),
        (['evaluate', '/no/run'], "'/no/run' does not exist; expected checkpoints/latest/"),
        (['evaluate', 'x.onnx'], "x.onnx': weight message of "),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_two(
    run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_onnx_policy(tmp_path / 'x.onnx')
    where = [str(tmp_path / 'x.onnx') if part == 'x.onnx' else part for part in arguments]
    code, out, err = run(*where)
    assert code == 2
    assert out == ''
    assert len(err.splitlines()) == 1
    assert err.startswith('error: ')
    assert message in err


def test_a_takeover_file_that_does_not_fit_its_robot_is_one_line_with_all_that_is_wrong(
    run, tmp_path: Path
) -> None:
    file = tmp_path / 'pad.yaml'
    file.write_text(
        'input: joy\ndeadman: buttons.0\naxes:\n'
        '  - {action: elbow_joint.positions, control: axes.0, scale: 0.5}\n'
        '  - {action: wrist_1_joint.position, control: axes.1, scale: 9.0}\n'
        'buttons: {hold: buttons.0, success: axis.2}\n'
    )
    arguments = ('check-robot', 'ur_forward_position', '--takeover', file)
    code, out, err = run(*arguments)
    assert (code, out, len(err.splitlines())) == (2, '', 1)
    assert "axes[0].action 'elbow_joint.positions' is unknown; did you mean elbow_joint." in err
    assert "control 'buttons.0' is given 2 times, expected once" in err
    assert "'axis.2' is no control of input joy" in err
    assert 'axes[1].scale of wrist_1_joint.position is 9 rad/s, expected up to' in err
    file.write_text(
        'input: joy\naxes:\n  - {action: a, scale: 1e1}\nbuttons: {hold: buttons.1, halt: x}\n'
    )
    code, _, err = run(*arguments)
    assert code == 2
    for problem in (
        'deadman is missing',
        'axes[0].scale is',
        'write 1.0e+1',
        'buttons.halt is unknown',
    ):
        assert problem in err
    file.write_text('input: joy\nbuttons:\n  hold: buttons.1\n  hold: buttons.2\n')
    assert 'hold' in run(*arguments)[2]


@pytest.mark.parametrize('change', ['nope=1', 'utd=-1', 'residual_scale=much'])
def test_a_wrong_number_is_said_before_what_takes_seconds_is_imported(
    run, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setitem(sys.modules, 'residual_rl_ros.training.train', None)
    code, _, err = run('train', '--set', change)
    assert code == 2
    assert change.split('=')[0] in err


@pytest.mark.parametrize('command', ['train --preset', 'compare --presets', 'bag train b --preset'])
def test_an_unknown_preset_is_said_before_torch_is_imported(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    for module in ('config.preset', 'comparison.compare'):
        monkeypatch.setitem(sys.modules, f'residual_rl_ros.{module}', None)
    code, _, err = run(*command.split(), 'dwan', '--out', tmp_path / 'out')
    assert code == 2
    assert err.startswith("error: unknown preset 'dwan'; shipped: best_of_n, ")


def test_no_help_has_words_that_markdown_takes_for_tags() -> None:
    def helps(command: click.Command) -> Iterator[str]:
        yield command.help or ''
        yield from (getattr(parameter, 'help', '') or '' for parameter in command.params)
        for each in getattr(command, 'commands', {}).values():
            yield from helps(each)

    texts = list(helps(typer.main.get_command(app)))
    assert len(texts) > 200
    assert [text for text in texts if '<' in text] == []


def test_an_unknown_task_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, '-m', 'residual_rl_ros.cli.main', 'demo', '--task', 'tidy_up'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert finished.returncode == 2
    assert finished.stdout == ''
    assert finished.stderr.splitlines() == [finished.stderr.rstrip('\n')]
    assert finished.stderr.startswith(
        "error: unknown task 'tidy_up'; shipped: cart_pole, fetch_pick_and_place, "
    )
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_it_is_loading_says_nothing(tmp_path: Path) -> None:
    (tmp_path / 'typer.py').write_text('raise KeyboardInterrupt')
    finished = subprocess.run(
        [sys.executable, '-m', 'residual_rl_ros.cli', 'demo'],
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        timeout=60,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, b'', b'')


def test_a_described_robot_can_be_loaded_and_fits_its_environment(run, tmp_path: Path) -> None:
    code, out, _ = run('describe-robot', 'Pendulum-v1')
    assert code == 0
    file = tmp_path / 'pendulum.yaml'
    file.write_text(out)
    robot, _ = load_robot(str(file))
    env = gymnasium.make('Pendulum-v1')
    check_environment(env, robot)
    assert robot.observation_names == ('state.x0', 'state.x1', 'state.x2')
    assert (robot.action.lower, robot.action.upper) == (env.action_space.low, env.action_space.high)
    assert robot.control_rate_hz == env.unwrapped.metadata['render_fps']
    assert robot.action.max_step == pytest.approx(4.0)


@pytest.mark.parametrize('sign', [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_command_politely_does_what_ctrl_c_does(sign: signal.Signals) -> None:
    """A training that notes Ctrl-C, to save where its state is consistent, notes these too."""
    seen: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
        _interrupt(sign, None)
        assert seen == [signal.SIGINT]
        # A shell that closes with its terminal says it once more.
        assert (signal.getsignal(signal.SIGHUP) is signal.SIG_IGN) is (sign == signal.SIGHUP)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt):
            _interrupt(sign, None)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize(
    'command',
    [
        ('check-robot', 'peg_insert', '--namespace', 'a b'),
        ('security-policy', 'peg_insert', '--namespace', 'left', '--namespace', 'a-b'),
        ('layouts', '--namespace', 'a b'),
        ('dashboard', '--namespace', '1st'),
    ],
    ids=lambda command: command[0],
)
def test_a_namespace_that_is_none_is_refused_by_every_command(run, command) -> None:
    code, _, err = run(*command)
    assert code == 2
    assert f'namespace {command[-1]!r} is not one of ROS: expected letters, digits and _' in err


@pytest.mark.parametrize(
    ('command', 'option', 'value', 'most'),
    [
        ('bag export b --out o', '--fps', '1e9', '10000'),
        ('train-dynamics --env Pendulum-v1 --out m.safetensors', '--noise', '11', '10'),
        ('bag play b', '--wait', '1e9', '86400'),
    ],
)
def test_a_number_that_is_too_large_for_anything_is_refused(
    run, command: str, option: str, value: str, most: str
) -> None:
    code, _, err = run(*command.split(), option, value)
    assert code == 2
    assert f"'{option}': Input should be less than or equal to {most}" in err


def test_a_seed_that_no_generator_takes_is_refused(run, tmp_path: Path) -> None:
    code, _, err = run('train', '--task', 'peg_insert', '--seed', 2**63, '--out', tmp_path)
    assert code == 2
    assert '2147483647' in err


def test_an_output_that_is_full_is_no_verdict() -> None:
    with open('/dev/full', 'w') as full:
        ended = subprocess.run(
            [sys.executable, '-m', 'residual_rl_ros.cli.main', 'check-robot', 'peg_insert'],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (
        2,
        ['error: the output cannot be written: No space left on device'],
    )


def test_without_a_home_the_folder_of_the_logs_is_asked_for() -> None:
    environment = {key: value for key, value in os.environ.items() if key != 'HOME'}
    ended = subprocess.run(
        [sys.executable, '-m', 'residual_rl_ros.cli.main', 'customise', '--off'],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert 'HOME is not set' in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
