# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what it holds, and what its latest checkpoint tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from residual_rl_ros.errors import FormatError, OutputError
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.learner.episodes import RECENT_EPISODES, EpisodeRecord
from residual_rl_ros.residual_policy.actor_file import (
    CHECKPOINTS,
    checkpoint_exists,
    readable_checkpoint,
)
from residual_rl_ros.resources import write_text

SUMMARY = 'summary.json'


def prepare_output(out: Path, resume: bool = False) -> None:
    """Make the output folder.

    Args:
        out: the folder.
        resume: whether the run that it holds is to go on.

    Raises:
        OutputError: it cannot be written, or holds a run that is not to go on.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / '.writable'
        probe.write_text('', encoding='utf-8')
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f'output folder {str(out)!r} cannot be written: {error.strerror}; choose another '
            'with --out'
        ) from error
    if resume:
        return
    # What an interrupted save left behind is no run.
    if (out / SUMMARY).exists() or checkpoint_exists(out / CHECKPOINTS / 'latest'):
        raise OutputError(
            f'output folder {str(out)!r} already holds a run; go on with it where the command '
            'takes --resume, choose another with --out, or remove it'
        )


def describe_learning(out: Path, rate_hz: float) -> dict[str, Any]:
    """Return the counts and the history of a run's latest checkpoint; zeros if there is none."""
    state = _learner_state(out)
    steps = state.get('control_steps', 0)
    history = read_history(out)
    passed = first_at(0.9, history)
    return {
        'episodes': len(history),
        'failed_episodes': sum(record.outcome() is False for record in history),
        'control_steps': steps,
        'robot_minutes': _minutes(steps, rate_hz),
        'operator_minutes': _minutes(state.get('operator_steps', 0), rate_hz),
        'takeovers': state.get('takeovers', 0),
        'updates': state.get('updates', 0),
        'rollbacks': len(state.get('rollbacks', [])),
        'guard_watches': state.get('guard_watches'),
        'minutes_to_90_percent': None
        if passed is None
        else _minutes(passed.control_steps, rate_hz),
        'operator_minutes_to_90_percent': (
            None if passed is None else _minutes(passed.operator_steps, rate_hz)
        ),
    }


def _minutes(control_steps: int, rate_hz: float) -> float:
    return round(control_steps / rate_hz / 60.0, 2)


def read_history(out: Path) -> list[EpisodeRecord]:
    """Return the episodes of a run's latest checkpoint, none if there is no checkpoint."""
    return [EpisodeRecord(**record) for record in _learner_state(out).get('history', [])]


def _learner_state(out: Path) -> dict[str, Any]:
    """Return the learner's counters in a run's latest checkpoint; empty if there is none."""
    # Here, because it loads torch, which a recorder does not need.
    from residual_rl_ros.learner.checkpoint import STATE

    path = readable_checkpoint(out / CHECKPOINTS / 'latest') / STATE
    if not path.is_file():
        return {}
    try:
        state: dict[str, Any] = read_run_json(path)['state']
    except (FormatError, KeyError, TypeError) as error:
        raise OutputError(f'{str(path)!r} cannot be read: {error}') from error
    return state


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; see `write_text`."""
    write_text(path, json.dumps(value, indent=2) + '\n')


def steps_to(level: float, history: list[EpisodeRecord]) -> int | None:
    """Return the control steps after which success over 50 episodes first reached a level."""
    passed = first_at(level, history)
    return None if passed is None else passed.control_steps


def first_at(level: float, history: list[EpisodeRecord]) -> EpisodeRecord | None:
    """Return the episode with which success over 50 episodes first reached a level.

    Only episodes with a residual count, and those with a takeover as failures: they are what the
    learner is judged by.
    """
    window: list[bool] = []
    for record in history:
        if not record.rates_residual:
            continue
        window = [*window[1 - RECENT_EPISODES :], bool(record.outcome())]
        if len(window) == RECENT_EPISODES and sum(window) >= level * RECENT_EPISODES:
            return record
    return None
