# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Delays and false alarms of the guard on simulated outcomes, for docs/explanation/guard.md.

`.venv/bin/python benchmarks/guard_rates.py`
"""

from __future__ import annotations

import numpy as np

from residual_rl_ros.learner.guard import Guard, GuardConfig

CONFIG = GuardConfig(drop=0.3, false_alarm_episodes=3000.0)
RUNS, EPISODES, WARM_UP, BASE_SHARE = 60, 2000, 200, 0.1


def episodes_to_alarm(base: float, residual: float, rng: np.random.Generator) -> int | None:
    """Return the residual episodes until the alarm of one run, None if there is none."""
    guard = Guard(CONFIG)
    for _ in range(WARM_UP):
        guard.record_outcome(bool(rng.random() < base), residual=False)
    count = 0
    for _ in range(EPISODES):
        on = bool(rng.random() >= BASE_SHARE)
        count += on
        if guard.record_outcome(bool(rng.random() < (residual if on else base)), residual=on):
            return count
    return None


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print('| base | residual 0 % | residual 0.3 x base | false alarms at residual = base |')
    print('|---|---|---|---|')
    for base in (0.4, 0.6, 0.8):
        cells = []
        for residual in (0.0, 0.3 * base):
            found = [episodes_to_alarm(base, residual, rng) for _ in range(RUNS)]
            delays = [EPISODES if delay is None else delay for delay in found]
            cells.append(f'{np.median(delays):.0f} ({max(delays)})')
        false = np.mean([episodes_to_alarm(base, base, rng) is not None for _ in range(RUNS)])
        print(f'| {base:.0%} | {cells[0]} | {cells[1]} | {false:.2f} |')


if __name__ == '__main__':
    main()
