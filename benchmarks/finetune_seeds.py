# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune with several learner seeds in one process each, and evaluate on the paired seeds.

`.venv/bin/python benchmarks/finetune_seeds.py --task peg_insert --seeds 1 2` prints one JSON line
for each seed. `test/ros/test_lockstep.py` shows that such a run learns bit for bit what the three
processes of `residual-rl demo` learn with the same seed; it only spares the middleware's time.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from residual_rl_ros.demo import PAIRED_SEEDS, git_commit, minutes_to, rate_summary
from residual_rl_ros.evaluation.episodes import run_episode
from residual_rl_ros.evaluation.intervals import mcnemar, wilson
from residual_rl_ros.evaluation.paired import EVALUATION_SEED, make_evaluation_controller
from residual_rl_ros.finetune import load_finetune
from residual_rl_ros.learner.checkpoint import save_checkpoint
from residual_rl_ros.learner.in_process import finetune
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.ros.topology import training_seed
from residual_rl_ros.sim.hosting import make_environment


def run(task: str, seed: int, out: str) -> dict[str, Any]:
    """Fine-tune one seed and return its figures."""
    torch.set_num_threads(1)
    started = time.monotonic()
    config = load_finetune(task)
    policy, robot, _ = config.load()
    env = make_environment(config.task)
    controller = config.controller_config(seed, explore=True, scheduled=True).build(
        policy, robot.action
    )
    learner = Learner(config.learner_config(), controller.layout, seed)
    finetune(env, controller, learner, config.control_steps, training_seed(seed))
    save_checkpoint(Path(out) / f'{task}_seed{seed}' / 'checkpoint', learner)
    outcomes = []
    for message in (None, learner.current_message()):
        evaluated = make_evaluation_controller(config, message)
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + PAIRED_SEEDS)
        outcomes.append([run_episode(env, evaluated, s, s).success for s in seeds])
    rate_hz = robot.control_rate_hz
    return {
        'task': task,
        'seed': seed,
        'base': rate_summary(wilson(outcomes[0])),
        'final': rate_summary(wilson(outcomes[1])),
        'paired_p_value': mcnemar(*outcomes),
        'episodes': len(learner.history),
        'robot_minutes': round(learner.control_steps / rate_hz / 60.0, 1),
        'minutes_to_90_percent': minutes_to(0.9, learner.history, rate_hz),
        'updates': learner.updates,
        'wall_s': round(time.monotonic() - started, 1),
        'git_commit': git_commit(),
    }


def main() -> None:
    """Run the seeds in parallel and print them in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--task', required=True)
    parser.add_argument('--seeds', type=int, nargs='+', required=True)
    parser.add_argument('--out', default='runs/finetune_seeds')
    options = parser.parse_args()
    workers = min(len(options.seeds), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
        count = len(options.seeds)
        for result in pool.map(run, [options.task] * count, options.seeds, [options.out] * count):
            print(json.dumps(result), flush=True)


if __name__ == '__main__':
    main()
