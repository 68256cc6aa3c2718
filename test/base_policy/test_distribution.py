# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Density and proposals belong to the same control steps as the action that is handed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.distribution import GaussianAround
from residual_rl_ros.errors import BasePolicyError, ConfigError
from residual_rl_ros.robot.prior import Prior

DECISIONS = 8
M = 2


class DrawingPolicy:
    """Says in every number of a chunk from which request, row, noise and column it is."""

    stochastic = True

    def __init__(self, horizon: int, exec_start: int, exec_steps: int, prior: Prior) -> None:
        self.metadata = make_metadata(
            observation_names=('time',),
            n_obs_steps=1,
            horizon=horizon,
            exec_start=exec_start,
            exec_steps=exec_steps,
            prior=prior,
        )

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.metadata.horizon, M

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        assert noises is not None
        rows = 0.01 * np.arange(self.metadata.horizon)[:, None]
        base = window[-1, 0] + rows + np.zeros(M)
        density = [base + 100.0 * (1 + i) for i in range(self.metadata.prior.size(M) // M)]
        first, *others = (base + noise for noise in noises)
        return np.concatenate([first, *density, *others], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """Sizes of a queue that is allowed."""

    prior: Prior
    proposals: int
    k: int
    prefetch: int
    blend: int
    spare: int
    exec_start: int

    def build(self, proposals: int | None = None) -> tuple[ChunkQueue, DrawingPolicy]:
        steps = self.k + self.k * -(-self.prefetch // self.k) + self.spare
        policy = DrawingPolicy(self.exec_start + steps + 2, self.exec_start, steps, self.prior)
        count = self.proposals if proposals is None else proposals
        return ChunkQueue(policy, self.k, self.prefetch, self.blend, count), policy


cases = st.builds(
    Case,
    prior=st.sampled_from(Prior),
    proposals=st.integers(1, 4),
    k=st.integers(1, 3),
    prefetch=st.integers(0, 4),
    blend=st.integers(0, 5),
    spare=st.integers(0, 4),
    exec_start=st.integers(0, 2),
)


def play(queue: ChunkQueue, k: int) -> list:
    """Play an episode whose observation is the control step; return what was handed out."""
    queue.reset(np.random.default_rng(1), others=np.random.default_rng(2))
    taken = []
    for decision in range(DECISIONS):
        queue.push_observation([decision * k])
        taken.append(queue.take())
        for step in range(1, k):
            queue.push_observation([decision * k + step])
    queue.close()
    return taken


def expected_rows(case: Case, policy: DrawingPolicy) -> list[np.ndarray]:
    """Return the rows of each decision, found step by step without any queue."""
    meta = policy.metadata
    own, others = np.random.default_rng(1), np.random.default_rng(2)
    shape = policy.noise_shape

    def request(step: int) -> tuple[np.ndarray, int]:
        noises = [own.standard_normal(shape, dtype=np.float32)]
        noises += [
            others.standard_normal(shape, dtype=np.float32) for _ in range(case.proposals - 1)
        ]
        return policy.plan(np.array([[step]], dtype=np.float32), np.stack(noises)), step

    def row(chunk: tuple[np.ndarray, int], step: int) -> np.ndarray | None:
        index = meta.exec_start + step - chunk[1]
        return chunk[0][index] if index < len(chunk[0]) else None

    active = before = pending = None
    seam, found = 0, []
    for now in range(0, DECISIONS * case.k, case.k):
        if active is None or active[1] + meta.exec_steps - now < case.k:
            before, active = active, pending or request(now)
            pending, seam = None, now
        left = (active[1] + meta.exec_steps - now) // case.k * case.k
        if pending is None and left - case.k < case.prefetch:
            pending = request(now)
        rows = []
        for step in range(now, now + case.k):
            new, old = row(active, step), None if before is None else row(before, step)
            share = np.float32(step - seam + 1) / np.float32(case.blend + 1)
            blends = old is not None and now - seam < case.blend and share < 1.0
            rows.append(share * new + (1 - share) * old if blends else new)
        found.append(np.stack(rows))
    return found


@given(cases)
def test_action_density_and_proposals_are_of_the_same_steps_of_the_same_chunks(
    case: Case,
) -> None:
    queue, policy = case.build()
    width = case.prior.size(M)
    for said, rows in zip(play(queue, case.k), expected_rows(case, policy), strict=True):
        near = {'rtol': 0.0, 'atol': 1e-4}  # Float32 of numbers up to 300.
        np.testing.assert_allclose(said.actions, rows[:, :M], **near)
        density = [rows[:, M + M * i : 2 * M + M * i].ravel() for i in range(width // M)]
        np.testing.assert_allclose(said.distribution.prior, np.concatenate([*density, []]), **near)
        assert len(said.distribution.prior) == case.prior.size(case.k * M)
        others = said.distribution.proposals
        assert len(others) == case.proposals - 1
        for index, proposal in enumerate(others):
            begin = M + width + M * index
            np.testing.assert_allclose(proposal, rows[:, begin : begin + M].ravel(), **near)


@given(cases)
def test_other_proposals_change_no_bit_of_what_the_base_does(case: Case) -> None:
    alone, many = (play(case.build(proposals)[0], case.k) for proposals in (1, 4))
    for one, other in zip(alone, many, strict=True):
        assert one.actions.tobytes() == other.actions.tobytes()
        assert one.distribution.prior.tobytes() == other.distribution.prior.tobytes()


def test_a_base_policy_without_noise_has_no_other_proposals() -> None:
    with pytest.raises(BasePolicyError, match='proposals is 3, but the base policy has no noise'):
        ChunkQueue(LinearPolicy(), proposals=3)


def test_a_stated_width_is_a_gaussian_around_the_action_even_where_chunks_blend() -> None:
    metadata = make_metadata(action_min=(-1.0, 0.0), action_max=(1.0, 0.0))
    policy = GaussianAround(LinearPolicy(metadata), (0.5,))
    queue = ChunkQueue(policy, 1, 0, 3)
    queue.reset(np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for _ in range(8):
        queue.push_observation(rng.normal(size=3))
        said = queue.take()
        mean, log_std = np.split(said.distribution.prior, 2)
        np.testing.assert_array_equal(mean, said.actions[0])
        # Half of the half range; the other action is never used, and is the same by any width.
        np.testing.assert_allclose(np.exp(log_std), [0.5, 1.0], rtol=1e-6)
    queue.close()


@pytest.mark.parametrize('width', [(), (0.1, 0.1, 0.1), (0.0,), (float('nan'),)])
def test_a_width_that_fits_no_action_is_refused(width: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r'prior_width is .*, expected 1 or 2 finite numbers'):
        GaussianAround(LinearPolicy(), width)


def test_a_width_is_refused_where_the_base_policy_tells_its_density() -> None:
    policy = LinearPolicy(make_metadata(prior=Prior.GAUSSIAN))
    with pytest.raises(ConfigError, match=r'tells its density itself.*remove prior_width'):
        GaussianAround(policy, (0.1,))
