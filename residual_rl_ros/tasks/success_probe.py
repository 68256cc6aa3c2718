# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find out how a task tells success, before a run depends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from residual_rl_ros.config.success import (
    AUTO,
    IS_SUCCESS,
    ONCE,
    RETURN,
    STOP,
    SUCCESS,
    SuccessCriterion,
)
from residual_rl_ros.errors import ConfigError, TaskError
from residual_rl_ros.tasks.checked import CheckedEnvironment, ambiguous, criterion_of, foreign
from residual_rl_ros.tasks.hosting import make_environment
from residual_rl_ros.tasks.published import PUBLISHED
from residual_rl_ros.tasks.registry import CAMERA_TASKS, TASK_NAMES
from residual_rl_ros.tasks.scene_env import SceneEnv

if TYPE_CHECKING:
    from residual_rl_ros.config.run import RunConfig

PROBE_STEPS, PROBE_SEED = 1000, 99_000
"""Longest probe, and its environment seed."""


def settled(config: RunConfig, say: Callable[[str], None]) -> RunConfig:
    """Return a run that says how its task tells success; see `settle_success`."""
    return config.with_success(settle_success(config.task, config.success, say))


def settle_success(task: str, success: str, say: Callable[[str], None]) -> str:
    """Return how a task tells success, found by a probe where that is `auto`.

    The probe is one episode of random actions, in an environment of its own. It ends as soon as
    success is told. A key that is named is looked for too.

    Args:
        task: task of this package, or gymnasium id.
        success: the setting, as `SuccessCriterion.parse` reads it.
        say: is told what was found.

    Returns:
        The setting, without `auto`.

    Raises:
        ConfigError: the task cannot be used, or tells another key than the one named.
        TaskError: the task fails, or tells success twice.
    """
    criterion = SuccessCriterion.parse(success)
    automatic = criterion.source == AUTO
    if task in TASK_NAMES or task in CAMERA_TASKS:
        own = SceneEnv.success_criterion
        if criterion.when and criterion.source != own.source:
            raise ConfigError(
                f'{task} tells no info[{criterion.source!r}] but info[{own.source!r}]; correct '
                f'success: {criterion} (--success)'
            )
        return str(own if automatic else criterion)
    if task in PUBLISHED and automatic:
        env = make_environment(task)
        env.close()
        return str(criterion_of(env))
    if not automatic and not criterion.when:
        return str(criterion)
    keys_found, steps = _probe(task, criterion.source)
    if automatic:
        if len(keys_found) > 1:
            raise TaskError(ambiguous(task))
        found = {IS_SUCCESS: f'{IS_SUCCESS}:{STOP}', SUCCESS: f'{SUCCESS}:{ONCE}'}
        settled = SuccessCriterion.parse(found[keys_found[0]] if keys_found else RETURN)
        if keys_found:
            say(f'{task} tells success by {settled.words} (success: {settled})')
        else:
            say(
                f'{task} has no success criterion: a probe of {steps} steps told neither '
                f'info[{IS_SUCCESS!r}] nor info[{SUCCESS!r}]; episodes are unlabelled, and returns '
                'are compared, by the guard too; if it tells success otherwise, say how with '
                '--success'
            )
        return str(settled)
    if criterion.source not in keys_found:
        if keys_found:
            raise ConfigError(
                f'{task} tells no info[{criterion.source!r}] but info[{keys_found[0]!r}]; correct '
                f'success: {criterion} (--success)'
            )
        say(
            f'a probe of {steps} steps of {task} told no info[{criterion.source!r}]; an episode '
            'that never tells it counts as failed'
        )
    return str(criterion)


def _probe(name: str, wanted: str) -> tuple[list[str], int]:
    """Return by which keys an environment tells success, and how many steps were looked at.

    Args:
        name: gymnasium id.
        wanted: the key that is looked for, or `auto` for those that are known.
    """
    env = make_environment(name, success=RETURN)
    checked = CheckedEnvironment(env)
    known = (IS_SUCCESS, SUCCESS)
    keys = known if wanted == AUTO else (wanted, *known)
    keys_found: dict[str, None] = {}
    steps = 0
    try:
        checked.reset(PROBE_SEED, 0)
        foreign(f'{name}: its action space', lambda: env.action_space.seed(PROBE_SEED))
        done = False
        while not (
            done or steps == PROBE_STEPS or wanted in keys_found or (wanted == AUTO and keys_found)
        ):
            _, feedback = checked.step(checked.random_command())
            steps, done = steps + 1, feedback.done
            keys_found |= {key: None for key in keys if checked.info.get(key) is not None}
    finally:
        env.close()
    return list(keys_found), steps
