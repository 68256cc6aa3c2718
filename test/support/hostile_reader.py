# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Reads hostile files one after the other and prints a line of JSON about each: time, memory, end.

Run with the path of a list of [name, reader, path]. Memory is the highest of the process (Linux
forgets it when told to) above what it had before.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from base_policy_builders import write_onnx_policy
from demonstration_builders import MAP, read_all
from transition_builders import make_layout

from residual_rl_ros.bags.rebuild.real_time import read_marks
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.cli.main import main
from residual_rl_ros.cli.options import assignments
from residual_rl_ros.comparison.results import read_result
from residual_rl_ros.config.preset import learner_config, load_preset
from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.self_collision import SelfCollision
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.importing.torch_zip import TorchZip
from residual_rl_ros.learner.checkpoint import load_checkpoint, save_checkpoint
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.pretraining.train_base import load_recipe
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.robot.body_spec import SelfCollisionSpec
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.urdf import Urdf, read_urdf
from residual_rl_ros.training.run_folder import read_history
from residual_rl_ros.transitions.layout import TransitionLayout

STATUS = Path('/proc/self/status')


class _ToldError(Exception):
    """A command ended with an exit code that says that something is wrong."""


def _command(*arguments: str) -> None:
    """Run a command line; its output must be lines that a terminal does not obey."""
    sys.argv = ['residual-rl', *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    said = out.getvalue() + err.getvalue()
    assert all(c.isprintable() or c == '\n' for c in said), f'control characters: {said!r:.300}'
    if code:
        raise _ToldError(f'exit code {code}: {" ".join(err.getvalue().split())}')


def _dataset(path: Path) -> None:
    base = path.parent / 'policy.onnx'
    if not base.exists():
        write_onnx_policy(base)
    folder = path.parents[1]
    _command('bag', 'import', str(folder), '--base', str(base), '--out', str(folder / 'out'),
             '--by-position')  # fmt: skip


def _sidecar(path: Path) -> None:
    model = path.with_suffix('.onnx')
    write_onnx_policy(model, embed=False)
    OnnxBasePolicy(model)


def _tensors(path: Path) -> None:
    """Put the file into a good checkpoint."""
    good = path.parent / 'good'
    if not good.exists():
        config = learner_config({'algorithm': 'sac', 'hidden_sizes': [8]}, 'test')
        save_checkpoint(good, Learner(config, make_layout(), 0))
    shutil.copy(path, good / path.name)
    load_checkpoint(good)


def _body(path: Path) -> None:
    """Take everything from a URDF, as for limits and distances of an arm."""
    SelfCollision(SelfCollisionSpec(Urdf(*read_urdf(str(path)), ('a', 'b')), 0.02))


READERS: dict[str, Callable[[Path], Any]] = {
    'robot': lambda path: load_robot(str(path)),
    'preset': lambda path: load_preset(str(path)),
    'run': lambda path: load_run(str(path)),
    'marks': read_marks,
    'sidecar': _sidecar,
    'recipe': lambda path: load_recipe(str(path)),
    'assignment': lambda path: load_preset('best_of_n', assignments([path.read_text()])),
    'metadata': lambda path: BasePolicyMetadata.from_json(path.read_text()),
    'layout': lambda path: TransitionLayout.from_yaml(path.read_text()),
    'bag': lambda path: _command('bag', 'info', str(path)),
    'dataset': _dataset,
    'run folder': lambda path: read_history(path.parents[2]),
    'summary': lambda path: read_result(path.parent),
    'checkpoint': load_checkpoint,
    'weights': lambda path: decode_weights(read_actor(path)),
    'tensors': _tensors,
    'torch zip': TorchZip,
    'robomimic': lambda path: read_all(path, observation_map=MAP),
    'demonstrations': read_all,
    'urdf': _body,
}


def _memory(name: str) -> int:
    """Return a line of the process's status [byte]."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f'{name}:')]
    return 1024 * int(line.split()[1])


def read(reader: str, path: Path) -> dict[str, Any]:
    """Read one file and return what happened."""
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')
    before, began = _memory('VmRSS'), time.process_time()
    try:
        READERS[reader](path)
        end, reason = 'accepted', ''
    except (ResidualRLError, _ToldError) as error:
        end, reason = 'told', str(error)
    except BaseException:  # noqa: BLE001 - whatever it is, it is the result.
        end, reason = 'traceback', traceback.format_exc()
    return {
        'end': end,
        'reason': reason,
        'seconds': time.process_time() - began,
        'memory': _memory('VmHWM') - before,
    }


def run(listed: Path) -> None:
    """Read every file of a list."""
    np.zeros(1)
    for name, reader, path in json.loads(listed.read_text()):
        print(json.dumps({'name': name, **read(reader, Path(path))}), flush=True)


if __name__ == '__main__':
    run(Path(sys.argv[1]))
