# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The runners of the how-to, which know nothing of this package, command what the controller does.

The C++ program is compiled if there are a compiler and the headers of ONNX Runtime: in a folder
that the compiler looks into, or below `ONNXRUNTIME_ROOT`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from deployment_builders import Fused, best_of_n, write_run, write_seeing_policy, write_task_actor

import residual_rl_ros.deployment.export as export_module
from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.deployment.export import ExportOptions, export_run
from residual_rl_ros.tasks.checked import CheckedEnvironment
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.transitions.transition import Success

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'how-to' / 'deploy.md'
TASKS = ('peg_insert', 'push_to_goal')
CLOSE = 1e-6


def block(language: str) -> str:
    """Return the code of a language on the page."""
    found = re.search(
        rf'^```{language}\n(.*?)^```', PAGE.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE
    )
    assert found
    return found[1]


@pytest.fixture(scope='module')
def runner() -> Any:
    """Return the class of the page."""
    names: dict[str, Any] = {}
    exec(compile(block('python'), str(PAGE), 'exec'), names)
    return names['FusedPolicy']


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the fused policy of each task."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, 'PARITY_DECISIONS', 5)
        for task in TASKS:
            folder = tmp_path_factory.mktemp(task)
            run, made[task] = write_run(folder / 'run', task), folder / 'fused.onnx'
            export_run(ExportOptions(run, made[task], batch=1), lambda text: None)
    return made


def test_the_runner_imports_nothing_of_this_package_and_is_short() -> None:
    code = block('python')
    assert 'residual_rl_ros' not in code
    assert len([line for line in code.splitlines() if line.strip()]) < 65


def controller_of(task: str, folder: Path) -> ResidualController:
    """Return the controller with the same actor as `files`."""
    run = load_run(task).resolve()
    return run.evaluation_controller(write_task_actor(folder / 'actor.safetensors', task))


def play(task: str, fused: Any, controller: ResidualController, steps: int) -> float:
    """Return the largest difference of commands in episodes that the controller plays."""
    run, done, episode, largest = load_run(task).resolve(), 0, 0, 0.0
    env = CheckedEnvironment(host(run.config, run.robot))
    while done < steps:
        seen = env.reset(episode, episode)
        controller.begin_episode(episode, seen, 0.0)
        fused.rng = np.random.default_rng([0, episode, 0])
        fused.begin(observation=seen)
        over = False
        while not over:
            for wanted in fused.decide():
                command = controller.command()
                assert command is not None
                largest = max(largest, float(np.abs(command - wanted).max()))
                seen, feedback = env.step(command)
                controller.step(seen, float(done), feedback)
                fused.observe(observation=seen)
                done, over = done + 1, feedback.done
                if over:
                    break
        episode += 1
    return largest


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize(
    'steps', [80, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_the_python_runner_commands_what_the_controller_does(
    task: str, steps: int, runner: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    controller = controller_of(task, tmp_path)
    try:
        assert play(task, runner(str(files[task])), controller, steps) < CLOSE
    finally:
        controller.queue.close()


def test_the_python_runner_feeds_images_and_a_memory(runner: Any, tmp_path: Path) -> None:
    fused = Fused(write_seeing_policy(tmp_path / 'base.onnx'), best_of_n())
    path = tmp_path / 'fused.onnx'
    path.write_bytes(fused.content)
    policy, controller = runner(str(path)), fused.controller()
    rng = np.random.default_rng(0)
    images = [{'wrist': rng.integers(256, size=(4, 5, 3), dtype=np.uint8)} for _ in range(9)]
    nothing = StepFeedback(0.0, False, False, Success.UNLABELLED)
    controller.begin_episode(0, np.ones(3), 0.0, images[0])
    policy.begin(observation=np.ones(3), **images[0])
    for first in (1, 3, 5, 7):
        for offset, wanted in enumerate(policy.decide()):
            np.testing.assert_allclose(controller.command(), wanted, atol=1e-6)
            seen = images[first + offset]
            controller.step(np.ones(3), 0.0, nothing, seen)
            policy.observe(observation=np.ones(3), **seen)
    assert policy.state['state_in'].any()
    controller.queue.close()


def test_the_python_runner_refuses_what_is_not_finite(runner: Any, files: dict[str, Path]) -> None:
    policy = runner(str(files['push_to_goal']))
    seen = np.zeros(23)
    policy.begin(observation=seen)
    policy.previous = np.full(7, np.nan)
    with pytest.raises(ValueError, match='command is not finite'):
        policy.decide()
    seen[3] = np.nan
    with pytest.raises(ValueError, match='observation is not finite'):
        policy.observe(observation=seen)


def cpp_program(folder: Path) -> Path:
    """Compile the program of the page, or skip and say why."""
    compiler = shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')
    if compiler is None:
        pytest.skip('there is no C++ compiler')
    root = os.environ.get('ONNXRUNTIME_ROOT')
    includes = [f'-I{root}/include'] if root else []
    includes += [f'-I{base}/include/onnxruntime' for base in ('/usr', '/usr/local')]
    source = folder / 'fused_policy.cpp'
    source.write_text(block('cpp'), encoding='utf-8')
    probe = subprocess.run(
        [compiler, '-E', '-xc++', *includes, '-include', 'onnxruntime_cxx_api.h', os.devnull],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if probe.returncode:
        pytest.skip("the headers of ONNX Runtime are not there (pip's onnxruntime has none)")
    # Its library is in the wheel.
    library = next((Path(onnxruntime.__file__).parent / 'capi').glob('libonnxruntime.so.*'))
    (folder / 'libonnxruntime.so').symlink_to(library)
    (folder / 'libonnxruntime.so.1').symlink_to(library)
    program = folder / 'fused_policy'
    flags = ['-std=c++17', '-Wall', '-Wextra', '-Werror', *includes]
    flags = [each.replace('-I', '-isystem') for each in flags]  # Warnings of ours alone.
    linked = [f'-L{folder}', '-lonnxruntime', f'-Wl,-rpath,{folder}']
    command = [compiler, *flags, str(source), *linked, '-o', str(program)]
    subprocess.run(command, check=True, timeout=120)
    return program


def test_the_cpp_program_commands_what_the_python_runner_does(
    runner: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    program = cpp_program(tmp_path)
    policy = runner(str(files['push_to_goal']))
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((40, 23)).astype(np.float32)
    policy.begin(observation=seen[0])
    lines = [' '.join(f'{each:.17g}' for each in row) for row in (policy.previous, *seen)]
    expected: list[Any] = []
    for step in range(len(seen)):
        expected += list(policy.decide()) if step % 4 == 0 else []
        if step + 1 < len(seen):
            policy.observe(observation=seen[step + 1])
    answer = subprocess.run(
        [str(program), str(files['push_to_goal'])],
        input='\n'.join(lines) + '\n',
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    commands = np.loadtxt(answer.stdout.splitlines())
    assert (commands == np.array(expected)).all()
