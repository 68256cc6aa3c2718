# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters in one tensor: the network sees what happens to it, each head has its own norm."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from residual_rl_ros.residual_policy.torch_networks import Critic, FlatParameters


@pytest.fixture
def critic() -> Critic:
    torch.manual_seed(0)
    return Critic(3, 5, (8, 8))


def values(critic: Critic) -> Tensor:
    """Q of four fixed inputs, shape (3, 4)."""
    x = torch.linspace(-1.0, 1.0, 20).view(4, 5)
    q: Tensor = critic(x[:, :3], x[:, 3:])
    return q


def test_flattening_changes_no_value_and_what_is_done_to_the_vector_is_done_to_the_network(
    critic: Critic,
) -> None:
    before = values(critic).detach()
    flat = FlatParameters(critic, 3)
    torch.testing.assert_close(values(critic), before, rtol=0, atol=0)
    assert flat.vector.shape == (3, sum(p.numel() for p in critic.parameters()) // 3)
    flat.vector.data[1] = 0.0
    assert not values(critic)[1].any()
    torch.testing.assert_close(values(critic)[[0, 2]], before[[0, 2]])


def test_gradient_and_norms_are_those_of_backward_for_each_head(critic: Critic) -> None:
    plain = deepcopy(critic)
    values(plain).square().sum().backward()  # type: ignore[no-untyped-call]
    flat = FlatParameters(critic, 3)
    for _ in range(2):  # The second does not add to the first.
        norms = flat.differentiate(values(critic).square().sum())
    expected = torch.cat(
        [p.grad.reshape(3, -1) for p in plain.parameters() if p.grad is not None], 1
    )
    assert flat.vector.grad is not None
    torch.testing.assert_close(flat.vector.grad, expected)
    torch.testing.assert_close(norms, expected.norm(dim=1))


def test_a_copy_follows_by_a_share_and_shares_no_memory(critic: Critic) -> None:
    flat = FlatParameters(critic, 3)
    slow = deepcopy(critic)
    flat_slow = FlatParameters(slow, 3)
    before = flat_slow.vector.detach().clone()
    with torch.no_grad():
        flat.vector += 1.0
    torch.testing.assert_close(flat_slow.vector.detach(), before, rtol=0, atol=0)
    flat_slow.follow(flat, 0.25)
    torch.testing.assert_close(flat_slow.vector.detach(), before + 0.25)


def test_a_loaded_state_reaches_the_vector(critic: Critic) -> None:
    flat = FlatParameters(critic, 3)
    state = {name: torch.full_like(value, 2.0) for name, value in critic.state_dict().items()}
    critic.load_state_dict(state)
    assert (flat.vector == 2.0).all()


def test_each_head_is_limited_by_itself_and_the_norms_are_those_before(critic: Critic) -> None:
    flat = FlatParameters(critic, 3)
    weight = torch.tensor([[1000.0], [1.0], [1.0]])
    before = flat.differentiate((weight * values(critic)).sum())
    assert flat.vector.grad is not None
    kept = flat.vector.grad[1:].clone()
    limit = float(before[1:].max()) + 1.0
    norms = flat.differentiate((weight * values(critic)).sum(), limit)
    torch.testing.assert_close(norms, before)
    assert float(flat.vector.grad[0].norm()) == pytest.approx(limit, rel=1e-5)
    torch.testing.assert_close(flat.vector.grad[1:], kept)
