# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the package computed on e8f1ba4, before it was rebuilt: `test_unchanged` compares with it.

Recorded anew since: `short_wsrl` when its actor got four batches and its returns a lower bound;
`best_of_n` (called `dawn` then), `short_best_of_n` and the lockstep episodes when the entropy
ceased to count in the target where the base is preferred; `short_plain` when its preset became
plain; the candidate of `best_of_n` when candidates began to be taken every 25 episodes; the
commands, one by one, when the recorder was found to miss some, and the raw bag when OpenBLAS was
told its instructions (`conftest.py`), both from code that had just given the figures before. Run as
a script to record figures anew, which is right only after a change of behaviour that was wanted:
`.venv/bin/python test/support/unchanged.py NAME...`, where a name is that of a run or `lockstep`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

DATA = Path(__file__).resolve().parents[1] / 'data'
FIGURES = DATA / 'unchanged.json'
SEED = 7
LOCKSTEP_EPISODES, LOCKSTEP_COMMANDS = 20, 900
UNHEARD, HEARD = '....', 0.25
"""A command that the recorder has not heard, and the least share that it must have heard: beside
a fast simulator it loses some. The simulator does not, as it waits for each."""
SMALL = {'warmup_transitions': 100, 'batch_size': 32}
RUNS: dict[str, tuple[str, str, int, dict[str, float]]] = {
    'best_of_n': ('peg_insert', 'best_of_n', 12000, {}),
    'resfit': ('push_to_goal', 'resfit', 6000, {}),
    'short_best_of_n': ('peg_insert', 'best_of_n', 1200, {**SMALL, 'bound_ramp_transitions': 100}),
    'short_resfit': ('push_to_goal', 'resfit', 600, {**SMALL, 'critic_only_updates': 10}),
    'short_wsrl': (
        *('push_to_goal', 'wsrl', 800),
        {**SMALL, 'offline_updates': 10, 'policy_warmup_transitions': 40},
    ),
    'short_policy_decorator': (
        *('peg_insert', 'policy_decorator', 1200),
        {**SMALL, 'initial_alpha': 1.0, 'hold_residual': True},
    ),
    'short_plain': (
        *('peg_insert', 'sac_residual_plain', 1200),
        {**SMALL, 'refit_normalizer': False},
    ),
}
"""Task, preset, control steps and numbers of each run; the two long ones train as shipped."""
FILES = {
    'algorithm': 'algorithm.safetensors',
    'good': 'good.safetensors',
    'candidate': 'candidate.safetensors',
    'replay': 'memory.replay.safetensors',
}
"""Files of a checkpoint, by their names on e8f1ba4."""
ADDED = ('normalizer_transitions', 'episode_decisions', 'end', 'range')
"""Tensors that were none on e8f1ba4."""
SAME_INSTRUCTIONS = {
    'ATEN_CPU_CAPABILITY': 'avx2',
    'MKL_CBWR': 'AVX2',
    'ONEDNN_MAX_CPU_ISA': 'AVX2',
    'NPY_DISABLE_CPU_FEATURES': 'AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL '
    'AVX512_SPR',
    'OPENBLAS_CORETYPE': 'Haswell',
    'OMP_NUM_THREADS': '1',
    'OPENBLAS_NUM_THREADS': '1',
}
"""Environment in which processors of different makes sum in the same order."""


def digest(values: np.ndarray) -> str:
    """Return the sha256 of type, shape and numbers."""
    array = np.ascontiguousarray(values)
    head = f'{array.dtype.str}{array.shape}'.encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


TRAIN = """
import json, sys
from residual_rl_ros.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ['residual-rl', *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
"""Runs command lines one after the other: instructions are chosen when torch is loaded, once."""


def train(names: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each run of `RUNS` leaves: a digest of every tensor, and every episode."""
    commands = []
    for name in names:
        task, preset, steps, numbers = RUNS[name]
        command = ['train', '--task', task, '--preset', preset, '--steps', str(steps)]
        command += ['--seed', str(SEED), '--evaluate', '0', '--out', str(folder / name)]
        command += ['--demonstrations', '20']  # Then, of each preset that samples any.
        for key, value in numbers.items():
            command += ['--set', f'{key}={value}']
        commands.append(command)
    done = subprocess.run(
        [sys.executable, '-c', TRAIN, json.dumps(commands)],
        env={**os.environ, **SAME_INSTRUCTIONS},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: _left_in(folder / name) for name in names}


def _left_in(out: Path) -> dict[str, Any]:
    """Return the digest of every tensor of a run, and its episodes."""
    checkpoint = out / 'checkpoints' / 'latest'
    tensors = {}
    for file, stored in FILES.items():
        for key, value in load_file(checkpoint / stored).items():
            if key not in ADDED:
                tensors[f'{file}/{key}'] = digest(np.asarray(value))
    history = json.loads((checkpoint / 'learner.json').read_text())['state']['history']
    episodes = [[e['control_steps'], e['success'], e['residual']] for e in history]
    return {'tensors': tensors, 'episodes': episodes}


def lockstep(folder: Path) -> dict[str, Any]:
    """Return digests of what a policy node commands in lockstep, with a learner, over ROS.

    `commands` holds four digits for each of the first `LOCKSTEP_COMMANDS`, by its stamp, or
    `UNHEARD`.
    """
    from mcap_ros2.reader import read_ros2_messages
    from processes import wait_for

    from residual_rl_ros.config.run import load_run
    from residual_rl_ros.ros.bringup.demo import quick
    from residual_rl_ros.ros.bringup.domains import claim_domain
    from residual_rl_ros.ros.bringup.monitor import Monitor
    from residual_rl_ros.ros.bringup.node_spec import NodeSpec
    from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
    from residual_rl_ros.ros.bringup.simulation import finetune_topology

    config = quick(load_run('peg_insert'))
    resolved = config.resolve()
    base, robot, robot_file = resolved.policy, resolved.robot, resolved.robot_file
    *waiting, simulator = finetune_topology(
        config, robot_file, base.path, folder, SEED, config.control_steps
    )
    bag = folder / 'bag'
    parameters = {'output_dir': str(bag), 'raw': True, 'diagnostics_period_s': 0.1}
    recorder = NodeSpec('recorder_node', False, (robot_file,), parameters)
    with claim_domain() as domain:
        environment = {**ros_environment(domain), **SAME_INSTRUCTIONS}
        with (
            Monitor(domain) as monitor,
            Bringup([recorder], folder / 'log', environment),
            Bringup(waiting, folder / 'logs', environment) as bringup,
        ):
            recorded = 'recorder_node', 'messages'
            # Without a simulator that is the layout: from now on the policy sends all to it.
            wait_for(lambda: monitor.number(*recorded) > 0, 60.0, 'a record of the layout')
            bringup.start(simulator)
            wait_for(lambda: bringup.ended('mujoco_sim_node'), 120.0, 'end of the run')
            bringup.check()
    (file,) = bag.glob('*.mcap')
    command = f'/{robot.commands[0].topic}'
    commands = [UNHEARD] * LOCKSTEP_COMMANDS
    period_ns = round(1e9 / robot.control_rate_hz)
    transitions = []
    for message in read_ros2_messages(str(file), topics=[command, '/policy_node/transitions']):
        data = np.array(message.ros_msg.data)
        if message.channel.topic == command:
            # A simulator that waits repeats its stamp, and gets the same answer again.
            stamp_ns = int(message.ros_msg.layout.dim[0].label.removeprefix('stamp_ns:'))
            step = stamp_ns // period_ns - 1
            if step < LOCKSTEP_COMMANDS:
                commands[step] = digest(data)[:4]
        else:
            transitions.append(data)
    episode = np.array(transitions)[:, 2]
    assert episode[-1] >= LOCKSTEP_EPISODES
    first = np.array(transitions)[episode < LOCKSTEP_EPISODES]
    return {
        'transitions': digest(first),
        'commands': ' '.join(commands),
        'count': f'{len(first)} decisions',
    }


def decode() -> dict[str, dict[str, str]]:
    """Return digests of the numbers that two recordings hold."""
    from bag_builders import read
    from raw_bag_builders import rebuild

    rows, problems = read(DATA / 'transitions_bag')
    made, rebuilder, complaints = rebuild(DATA / 'raw_bag')
    layout = rebuilder.controller.layout
    return {
        'transitions_bag': {
            'problems': str(problems),
            **{f'robot {robot!r}': digest(values) for robot, values in rows.items()},
        },
        'raw_bag': {
            'problems': str(complaints),
            'transitions': digest(np.array([layout.encode(t) for t in made])),
        },
    }


def main() -> None:
    """Record the figures that are named."""
    import tempfile

    figures = json.loads(FIGURES.read_text(encoding='utf-8'))
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:]:
            if name == 'lockstep':
                figures[name] = lockstep(Path(folder) / name)
            else:
                figures['runs'] |= train([name], Path(folder))
    FIGURES.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
