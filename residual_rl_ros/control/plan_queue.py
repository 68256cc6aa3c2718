# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of the next decision, computed in a thread while the present one is executed.

A control step waits for no plan: one that is not there at its decision is late, and the base policy
acts alone. None is begun while another is computed, so that plans never queue up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from residual_rl_ros.latency import Latency
from residual_rl_ros.numerics import Array
from residual_rl_ros.residual_policy.exploration import ExplorationSample
from residual_rl_ros.residual_policy.robot_policy import Planner
from residual_rl_ros.robot.onnx_session import InferenceWorker


@dataclass(frozen=True)
class _Order:
    """A plan that is wanted."""

    planner: Planner
    step: int
    """Control step of its decision."""
    weight: float
    """Of its add-on."""
    result: Future[Array] | None
    """None if the plan before was still computed."""


class PlanQueue:
    """Holds the plan for the next decision, if one was ordered.

    Args:
        clock: monotonic time, for the durations of plans [s].
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.late = 0
        """Decisions whose plan was not ready: the base acted alone."""
        self.latency = Latency()
        """Duration of a plan."""
        self._clock = clock
        self._worker: InferenceWorker | None = None
        self._order: _Order | None = None
        self._newest: Future[Array] | None = None

    def order(
        self,
        planner: Planner,
        step: int,
        observation: Array,
        action: Array,
        rng: np.random.Generator,
        sample: ExplorationSample,
    ) -> None:
        """Have a plan computed; where one still is, the plan for this decision will be late.

        Args:
            planner: the robot policy.
            step: control step of the decision that is planned.
            observation: as `Planner.decide_ahead` takes it; so with the others.
            action: what is executed until then.
            rng: source of random choices.
            sample: how it explores.
        """
        if self._newest is not None and not self._newest.done():
            self._order = _Order(planner, step, sample.weight, None)
            return
        if self._worker is None:
            self._worker = InferenceWorker('planner')

        def compute() -> Array:
            started = self._clock()
            residual = planner.decide_ahead(observation, action, rng, sample)
            self.latency.add(self._clock() - started)
            return residual

        self._newest = self._worker.submit(compute)
        self._order = _Order(planner, step, sample.weight, self._newest)

    def take(self, planner: Planner, step: int, weight: float = 1.0) -> Array | None:
        """Return the plan of a decision; None without one, or if it is late, which is counted.

        A plan of another planner or weight counts for nothing: what is wanted has changed.

        Args:
            planner: the robot policy.
            step: control step of the decision.
            weight: of the add-on.

        Raises:
            ResidualRLError: the planner failed.
        """
        order, self._order = self._order, None
        if order is None or (order.step, order.weight) != (step, weight):
            return None
        if order.planner is not planner:
            return None
        if order.result is None or not order.result.done():
            self.late += 1
            return None
        return order.result.result()

    def forget(self) -> None:
        """Drop the plan: the robot is not where it was expected to be."""
        self._order = None

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._worker is not None:
            self._worker.close()
