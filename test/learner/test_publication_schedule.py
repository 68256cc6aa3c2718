# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which actor decides follows from counts alone, so that a lockstep run can be repeated exactly."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from learner_builders import small_config
from transition_builders import make_layout, random_transitions

from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.mailbox import ActorMailbox

LAYOUT = make_layout()
STREAM = random_transitions(LAYOUT, 400)
WARMUP, INTERVAL = 10, 5


class Counted:
    """A rule that takes no updates: only counts matter here."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def update(self) -> dict[str, Any]:
        return {}

    def diagnose(self) -> dict[str, float]:
        return {}


def drive(
    decisions: int,
    lazy: bool,
    restarts: tuple[int, ...] = (),
    backlog_limit: int = 10**6,
) -> list[tuple[int, int]]:
    """Run policy and learner against each other; return the actor version of each decision.

    Args:
        decisions: how many.
        lazy: the learner reads transitions only when the policy cannot go on without.
        restarts: decisions before which the learner begins a new epoch.
        backlog_limit: with more transitions waiting, the learner only stores.
    """
    learner = Learner(small_config(utd=0.2), LAYOUT, seed=0)
    learner.rule = Counted(learner.rule)
    mailbox = ActorMailbox(learner.layout, scheduled=True)
    mailbox.submit(learner.first_message())
    inbox: deque[Any] = deque()
    used = []

    def read() -> None:
        transition = inbox.popleft()
        message = learner.ingest(transition, learn=len(inbox) <= backlog_limit)
        if message is not None:
            mailbox.submit(message)

    for decision in range(decisions):
        if decision in restarts:
            while inbox:
                read()
            learner.begin_epoch(learner.epoch + 1)
            mailbox.submit(learner.first_message())
        while inbox and (mailbox.waits_for_weights() or not lazy):
            read()
        assert not mailbox.waits_for_weights(), f'deadlock at decision {decision}'
        mailbox.begin_decision()
        assert mailbox.header is not None
        used.append(mailbox.header.version)
        inbox.append(STREAM[decision % len(STREAM)])
    return used


@pytest.mark.parametrize('lazy', [False, True])
def test_the_schedule_never_deadlocks(lazy: bool) -> None:
    used = drive(500, lazy)
    assert used == sorted(used)
    assert used[-1][1] > 90


def test_which_actor_decides_does_not_depend_on_how_fast_the_learner_is() -> None:
    used = drive(200, lazy=False)
    assert used == drive(200, lazy=True)
    assert used[:WARMUP] == [(1, 0)] * WARMUP
    assert used[WARMUP : WARMUP + 2 * INTERVAL] == [(1, 1)] * 2 * INTERVAL
    assert used[WARMUP + 2 * INTERVAL : WARMUP + 3 * INTERVAL] == [(1, 2)] * INTERVAL


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('restart', [0, 1, 9, 10, 11, 14, 15, 16, 33])
def test_the_schedule_survives_a_new_epoch_at_any_decision(restart: int, lazy: bool) -> None:
    used = drive(120, lazy, restarts=(restart, restart + 27))
    assert used == sorted(used)
    assert {version[0] for version in used[restart + 27 :]} == {3}


@pytest.mark.parametrize('backlog_limit', range(2 * INTERVAL))
def test_a_backlog_delays_the_schedule_and_never_stops_it(backlog_limit: int) -> None:
    used = drive(500, lazy=True, backlog_limit=backlog_limit)
    assert used == sorted(used)
    assert used[-1][1] > 40
