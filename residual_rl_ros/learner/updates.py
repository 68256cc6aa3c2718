# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The updates of a rule: taken, counted and measured, and undone where they leave no numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from residual_rl_ros.algorithms.rule import Rule
from residual_rl_ros.learner.kept_networks import FiniteNetworks, Networks

MAX_OWED_UPDATES = 1000
"""After a burst of transitions: updates that are still taken for it."""
MEASURE_EVERY = 50
"""Transitions between two sets of metrics, at least: one costs as much as several updates."""


class Updates:
    """Takes the updates that are due.

    Args:
        rule: what is updated.
        generator: its source of random numbers.
        warn: told what is wrong.
    """

    def __init__(self, rule: Rule, generator: torch.Generator, warn: Callable[[str], None]) -> None:
        self._rule, self._warn = rule, warn
        self.online = 0
        """Updates taken while online."""
        self.dropped = 0
        """Updates that were due and never will be taken: they fell due faster than they could be
        taken, or there was nothing to learn from."""
        self.pretraining = 0
        """Updates taken at the end of the warm-up, offline or of the critics alone."""
        self.finite = FiniteNetworks(rule, generator)
        """The latest networks that were; see `recover`."""
        self.metrics: dict[str, float] = {}
        """Of the last update before a publication, and of a batch then; see `MEASURE_EVERY`."""
        self._latest: dict[str, torch.Tensor] = {}
        self._measured_at = 0

    def take(self, due: int, pulse: Callable[[], None]) -> None:
        """Take online updates until so many were taken or dropped.

        Args:
            due: in all.
            pulse: called before every update; what it raises ends the updates.
        """
        while self.online + self.dropped < due:
            pulse()
            metrics = self._rule.update()
            self._latest |= metrics
            if metrics:
                self.online += 1
            else:
                self.dropped += 1

    def postpone(self, due: int) -> None:
        """Owe the updates that are due, up to `MAX_OWED_UPDATES`, and drop the rest."""
        owed = due - self.online - self.dropped
        self.dropped += max(0, owed - MAX_OWED_UPDATES)

    def prepare(self, pulse: Callable[[], None]) -> None:
        """Let the rule use what the warm-up has collected."""
        before = self.pretraining

        def counted() -> None:
            if self.pretraining == before:
                self.recover()  # Keeps what was fitted to the warm-up.
            pulse()
            self.pretraining += 1

        self._latest |= self._rule.prepare(counted)
        self.recover()
        if self._rule.remark:
            self._warn(self._rule.remark)

    def relearn(self, count: int, pulse: Callable[[], None]) -> None:
        """Take so many updates at once, for a reward that has changed."""
        for _ in range(count):
            pulse()
            self._latest |= self._rule.update()
            self.pretraining += 1
        self.recover()

    @property
    def are_finite(self) -> bool:
        """Whether the metrics of the latest updates are finite."""
        return all(map(math.isfinite, self._latest.values()))

    def recover(self) -> None:
        """Return to the latest finite networks if the present ones are not; else keep these.

        What is published and saved is finite by this: it is called after pre-training and after
        updates whose metrics are not finite, and before metrics, a message and a checkpoint.
        """
        reason = self.finite.check()
        if reason:
            self._latest.clear()
            early = f'{self.pretraining} updates on the warm-up'
            self._warn(f'after {f"{self.online} updates" if self.online else early} {reason}')

    def finite_networks(self) -> Networks:
        """Return the present networks, or the latest finite ones if these are not."""
        self.recover()
        return self._rule.state_dict()

    def measure_due(self, transitions: int) -> bool:
        """Return whether metrics are to be measured after so many transitions."""
        return not self._measured_at or transitions - self._measured_at >= MEASURE_EVERY

    def measure(self, transitions: int, others: Mapping[str, float]) -> None:
        """Collect metrics, in a new dictionary.

        Args:
            transitions: received so far.
            others: metrics of the learner.
        """
        self._measured_at = transitions
        metrics = {name: float(value) for name, value in self._latest.items()}
        metrics |= self._rule.diagnose()
        for source, share in self._rule.memory.composition().items():
            metrics[f'replay_{source.name.lower()}_share'] = share
        self.metrics = {**metrics, **others}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values, for a checkpoint."""
        return {
            'updates': self.online,
            'dropped_updates': self.dropped,
            'pretraining_updates': self.pretraining,
            'measured_at': self._measured_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.online = int(state['updates'])
        self.dropped = int(state['dropped_updates'])
        self.pretraining = int(state['pretraining_updates'])
        self._measured_at = int(state['measured_at'])
