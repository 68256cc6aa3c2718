# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Updates/s of the same SAC in this package, Stable-Baselines3 and SBX (JAX), in one run.

`residual-rl bench learner`. Twin critics and actor of 2 x 256, batch 256, n = 40, m = 7, one actor
step for every critic step, one-step targets, no normalisation. Every repetition runs each library
in turn, in a process of its own with the same threads; ratios are within a repetition. `gpu` is
this package with `device: cuda`. The limit is what the float32 matrix products of an update alone
would take on the processor.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from residual_rl_ros.errors import ResidualRLError

N, M, WIDTH, BATCH = 40, 7, 256, 256
STORED = 20_000
"""Transitions to sample from."""
WARM_UP, UPDATES = 50, 400
"""Updates before the clock starts, and measured ones."""
MISSING = {
    'gpu': ('finds no GPU', 'torch finds none'),
    'sb3': ('ModuleNotFoundError', "not installed: pip install 'residual_rl_ros[bench]'"),
    'sbx': ('ModuleNotFoundError', "not installed: pip install 'residual_rl_ros[bench]'"),
}
"""What may be missing: how its error says so, and what the table says."""


def ours(threads: int, updates: int = UPDATES, device: str = 'cpu') -> float:
    """Return updates/s of this package."""
    import numpy as np
    import torch

    from residual_rl_ros.config.preset import load_preset
    from residual_rl_ros.transitions.layout import TransitionLayout
    from residual_rl_ros.transitions.transition import Source, Success, Transition

    torch.set_num_threads(threads)
    names = tuple(f'x{i}' for i in range(N)), tuple(f'a{i}' for i in range(M))
    ones = (1.0,) * M
    layout = TransitionLayout(*names, 1, tuple(-one for one in ones), ones, ones)
    config = load_preset(
        'sac_residual_plain',
        {
            **{'critic_sees_residual': False, 'actor_sees_base_action': False, 'n_step': 1},
            **{'actor_interval': 1, 'neutral_prior': 0.0, 'base_in_target': False},
            **{'gamma': 0.99, 'batch_size': BATCH, 'replay_capacity': STORED, 'device': device},
        },
    )
    rng = np.random.default_rng(0)
    rule = config.make_rule(layout, torch.Generator().manual_seed(0), rng)
    for step in range(STORED):
        o, b, u, o2, b2 = (rng.standard_normal(size) for size in (N, M, M, N, M))
        rule.observe(
            Transition(
                0.0, 1, 0, 2 * step, 0, Source.RESIDUAL, 0.0, False, False, Success.UNLABELLED,
                o, b, u, b + u, o2, b2,
            )
        )  # fmt: skip

    finish = torch.cuda.synchronize if device == 'cuda' else None
    return _rate(rule.update, updates, finish)


def on_gpu(threads: int, updates: int = UPDATES) -> float:
    """Return updates/s of this package with `device: cuda`, of one processor thread."""
    return ours(threads, updates, 'cuda')


def stable_baselines3(threads: int, updates: int = UPDATES) -> float:
    """Return updates/s of Stable-Baselines3."""
    import torch
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import configure

    torch.set_num_threads(threads)
    model = SAC('MlpPolicy', _env(), policy_kwargs={'net_arch': [WIDTH, WIDTH]}, device='cpu')
    model.set_logger(configure(None, []))
    _fill(model.replay_buffer)
    model.train(gradient_steps=WARM_UP, batch_size=BATCH)
    started = time.perf_counter()
    model.train(gradient_steps=updates, batch_size=BATCH)
    return updates / (time.perf_counter() - started)


def sbx(threads: int, updates: int = UPDATES) -> float:
    """Return updates/s of SBX; XLA takes its threads from the cores that the process may use."""
    import os

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    from sbx import SAC
    from stable_baselines3.common.logger import configure

    model = SAC('MlpPolicy', _env(), policy_kwargs={'net_arch': [WIDTH, WIDTH]})
    model.set_logger(configure(None, []))
    _fill(model.replay_buffer)
    model.train(gradient_steps=updates, batch_size=BATCH)  # Compiles for this number of steps.
    started = time.perf_counter()
    model.train(gradient_steps=updates, batch_size=BATCH)
    return updates / (time.perf_counter() - started)


def limit(threads: int, updates: int = UPDATES) -> float:
    """Return updates/s if an update were its float32 matrix products and nothing else."""
    import torch

    torch.set_num_threads(threads)
    inputs = N + M
    x, w1 = torch.randn(2, BATCH, inputs), torch.randn(2, inputs, WIDTH)
    h, w2 = torch.randn(2, BATCH, WIDTH), torch.randn(2, WIDTH, WIDTH)
    o, v1 = torch.randn(BATCH, N), torch.randn(N, WIDTH)
    g, v2 = torch.randn(BATCH, WIDTH), torch.randn(WIDTH, WIDTH)

    def products() -> None:
        for _ in range(3):  # Forward: target, critic, critic under the actor.
            torch.bmm(x, w1)
            torch.bmm(h, w2)
        for _ in range(3):  # Backward through the wide layers: two weight, two input gradients.
            torch.bmm(h, w2)
        torch.bmm(x.transpose(1, 2), h)
        torch.bmm(h, w1.transpose(1, 2))
        for _ in range(2):  # Actor forward, twice.
            o @ v1
            g @ v2
        g.T @ g
        g @ v2.T
        o.T @ g

    return _rate(products, updates)


def _rate(
    update: Callable[[], Any], updates: int, finish: Callable[[], None] | None = None
) -> float:
    for _ in range(WARM_UP):
        update()
    started = time.perf_counter()
    for _ in range(updates):
        update()
    if finish is not None:  # A GPU is still computing when the last update returns.
        finish()
    return updates / (time.perf_counter() - started)


def _env() -> Any:
    import gymnasium
    import numpy as np

    class Nothing(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (N,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (M,), np.float32)

    return Nothing()


def _fill(buffer: Any) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(STORED):
        o, o2 = (rng.standard_normal((1, N)).astype(np.float32) for _ in range(2))
        a = rng.uniform(-1.0, 1.0, (1, M)).astype(np.float32)
        buffer.add(o, o2, a, np.zeros(1), np.zeros(1), [{}])


LIBRARIES: dict[str, Callable[[int, int], float]] = {
    'ours': ours,
    'gpu': on_gpu,
    'sb3': stable_baselines3,
    'sbx': sbx,
    'limit': limit,
}


def measure(threads: int, repetitions: int, updates: int = UPDATES) -> dict[str, list[float]]:
    """Return the updates/s of every library, one number a repetition; none where it is missing.

    Raises:
        ResidualRLError: a library failed.
    """
    rates: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    for _ in range(repetitions):
        for name in LIBRARIES:
            command = [sys.executable, '-m', __spec__.name, name, str(threads), str(updates)]
            result = subprocess.run(command, check=False, capture_output=True, text=True)
            if result.returncode == 0:
                rates[name].append(float(result.stdout.split()[-1]))
            elif name not in MISSING or MISSING[name][0] not in result.stderr:
                raise ResidualRLError(f'{name}: {result.stderr.strip().splitlines()[-1]}')
    return rates


def to_markdown(rates: Mapping[str, Sequence[float]]) -> str:
    """Return rates and ratios as a table, which says what is not installed."""
    lines = ['| | updates/s | ours / it |', '|---|---|---|']
    for name, values in rates.items():
        if not values:
            lines.append(f'| {name} | {MISSING[name][1]} | |')
            continue
        ratio = statistics.median(a / b for a, b in zip(rates['ours'], values, strict=True))
        lines.append(f'| {name} | {statistics.median(values):.0f} | {ratio:.2f} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(LIBRARIES[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3])))
