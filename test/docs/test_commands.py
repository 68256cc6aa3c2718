# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of tutorial and how-tos: all are understood, the cheap ones are run."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from residual_rl_ros.cli.main import app
from residual_rl_ros.config.preset import preset_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / 'docs' / 'how-to').glob('*.md')), *(ROOT / 'docs').glob('tutorial/*.md')]
BLOCK = re.compile(r'^```bash\n(.*?)^```', re.MULTILINE | re.DOTALL)
RUN = ('check-base', 'check-robot', 'describe-robot', 'bag info', 'security-policy', 'layouts')
"""Commands that take less than a second or two, on files that the test puts in place."""


def bash_lines(page: Path) -> Iterator[str]:
    """Yield the command lines of a page; what continues on the next line is one."""
    for block in BLOCK.findall(page.read_text(encoding='utf-8')):
        for line in block.replace('\\\n', ' ').splitlines():
            if line.strip():
                yield ' '.join(line.split())


LINES = [(page, line) for page in PAGES for line in bash_lines(page)]


def words_of(line: str) -> list[str]:
    """Return the words of a command line, without its comment and what it writes to a file."""
    words = shlex.split(line, comments=True)
    return words[: words.index('>')] if '>' in words else words


def arguments_of(line: str) -> list[str] | None:
    """Return the arguments of a `residual-rl` command line; None if it is another one."""
    words = words_of(line)
    return words[1:] if words and Path(words[0]).name == 'residual-rl' else None


def lines_with(program: str) -> list[Any]:
    """Return the lines that begin with so and so, named by page."""
    return [
        pytest.param(line, id=f'{page.stem}: {line[:60]}')
        for page, line in LINES
        if ' '.join(words_of(line)).removeprefix('.venv/bin/').startswith(program)
    ]


def parse(arguments: list[str]) -> str:
    """Parse arguments as the command line does, without running it; return the command's name."""
    command: Any = typer.main.get_command(app)
    names = []
    context = command.context_class(command, info_name='residual-rl')
    while hasattr(command, 'commands'):  # typer may bring a click of its own.
        name, command, arguments = command.resolve_command(context, arguments)
        names.append(str(name))
    command.make_context(names[-1], list(arguments), parent=context)
    return ' '.join(names)


@pytest.mark.parametrize('line', lines_with('residual-rl '))
def test_a_command_of_a_page_is_understood(line: str) -> None:
    arguments = arguments_of(line)
    assert arguments
    parse(arguments)


def test_the_presets_of_the_pages_exist() -> None:
    named = {
        words[place + 1].partition(':')[0]
        for _, line in LINES
        for words in [arguments_of(line) or []]
        for place, word in enumerate(words)
        if word in ('--preset', '--presets')
    }
    assert named
    assert named <= set(preset_names())


@pytest.mark.parametrize('arguments', ['check-bases x', 'train --stepz 3', 'bag inform x'])
def test_a_command_that_does_not_exist_is_noticed(arguments: str) -> None:
    with pytest.raises(Exception, match=r'No such (command|option)'):
        parse(arguments.split())


@pytest.mark.parametrize('line', lines_with('make '))
def test_a_target_of_a_page_is_in_the_makefile(line: str) -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    assert re.search(rf'^{words_of(line)[1]}:', makefile, re.MULTILINE)


@pytest.mark.parametrize('line', lines_with('ros2 launch residual_rl_ros '))
def test_a_launch_file_of_a_page_exists_and_has_its_arguments(line: str) -> None:
    _, _, _, name, *arguments = words_of(line)
    assert (ROOT / 'launch' / name).is_file()
    source = ''.join(
        path.read_text(encoding='utf-8')
        for path in (
            ROOT / 'launch' / name,
            ROOT / 'residual_rl_ros' / 'ros' / 'bringup' / 'launch_arguments.py',
        )
    )
    for argument in arguments:
        assert f"'{argument.partition(':=')[0]}'" in source


@pytest.mark.parametrize('line', lines_with('ros2 run residual_rl_ros '))
def test_a_node_of_a_page_exists(line: str) -> None:
    assert (ROOT / 'residual_rl_ros' / 'ros' / 'nodes' / f'{words_of(line)[3]}.py').is_file()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with the files that the pages speak of."""
    shutil.copy(ROOT / 'config' / 'robots' / 'peg_insert.yaml', tmp_path / 'my_robot.yaml')
    axis = '{action: joint1.position, control: axes.0, scale: 0.5}'
    (tmp_path / 'my_pad.yaml').write_text(f'{{input: joy, deadman: buttons.4, axes: [{axis}]}}')
    shutil.copy(ROOT / 'models' / 'peg_insert.onnx', tmp_path / 'policy.onnx')
    shutil.copytree(ROOT / 'test' / 'data' / 'transitions_bag', tmp_path / 'bags' / 'monday')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runnable() -> list[Any]:
    """Return the lines that this test runs."""
    return [
        parameter
        for parameter in lines_with('residual-rl ')
        if ' '.join(arguments_of(str(parameter.values[0])) or []).startswith(RUN)
        and not re.search('--live|--diagnose', str(parameter.values[0]))
    ]


@pytest.mark.parametrize('line', runnable())
def test_a_cheap_command_of_a_page_runs(workplace: Path, line: str) -> None:
    arguments = [
        word
        for argument in arguments_of(line) or []
        for word in (map(str, workplace.glob(argument)) if '*' in argument else [argument])
    ]
    if arguments[0] == 'security-policy':
        pytest.importorskip('rclpy')
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output


def test_some_commands_are_found() -> None:
    assert len(lines_with('residual-rl ')) > 20
    assert len(runnable()) > 5
