# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The actor starts as no residual at all, and its probabilities must be right for SAC to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from actor_builders import make_actor
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from transition_builders import make_layout

from residual_rl_ros.transitions.layout import TransitionLayout


def batch(layout: TransitionLayout, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    observation = rng.standard_normal((size, layout.observation_size), dtype=np.float32)
    base = rng.uniform(-1, 1, (size, layout.decision_size)).astype(np.float32)
    return torch.from_numpy(observation), torch.from_numpy(base)


@pytest.mark.parametrize('sees_base_action', [False, True])
def test_a_new_actor_is_almost_no_residual(
    layout: TransitionLayout, sees_base_action: bool
) -> None:
    actor = make_actor(layout, hidden_sizes=(64, 64), sees_base_action=sees_base_action)
    for observation, base in zip(*batch(layout), strict=True):
        residual = actor.to_numpy().decide(observation.numpy(), base.numpy(), None)
        assert np.abs(residual).max() < 0.05


def test_the_mean_action_is_deterministic_and_needs_no_generator(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=1.0)
    observation, base = np.array([0.1, 0.2, 0.3]), np.zeros(4)
    first = actor.to_numpy().decide(observation, base, None)
    torch.rand(1)
    assert actor.to_numpy().decide(observation, base, None).tobytes() == first.tobytes()
    mean, _ = actor(torch.tensor([[0.1, 0.2, 0.3]]), torch.zeros(1, 4))
    np.testing.assert_allclose(first, torch.tanh(mean[0]).detach(), rtol=1e-6)


def test_exploration_is_the_generators_and_has_the_actors_spread(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=0.1)
    observation, base = np.zeros(3), np.zeros(4)
    one = actor.to_numpy().decide(observation, base, np.random.default_rng(7))
    assert (
        actor.to_numpy().decide(observation, base, np.random.default_rng(7)).tobytes()
        == one.tobytes()
    )
    assert (
        actor.to_numpy().decide(observation, base, np.random.default_rng(8)).tobytes()
        != one.tobytes()
    )
    rng = np.random.default_rng(0)
    sample = np.arctanh([actor.to_numpy().decide(observation, base, rng) for _ in range(4000)])
    mean, log_std = actor(torch.zeros(1, 3), torch.zeros(1, 4))
    std = log_std[0].detach().exp().numpy()
    np.testing.assert_allclose(sample.std(0) / std, 1.0, atol=0.06)
    np.testing.assert_allclose((sample.mean(0) - mean[0].detach().numpy()) / std, 0.0, atol=0.08)


@pytest.mark.parametrize('gain', [0.1, 1.0, 3.0])
def test_a_residual_is_always_in_the_unit_box(layout: TransitionLayout, gain: float) -> None:
    actor = make_actor(layout, gain=gain)
    residual, _ = actor.sample(*batch(layout, 1000), torch.Generator().manual_seed(0))
    assert residual.shape == (1000, 4)
    assert residual.abs().max() <= 1.0
    rng = np.random.default_rng(0)
    act = actor.to_numpy().decide
    acts = [act(np.full(3, 1e3), np.zeros(4), rng) for _ in range(100)]
    assert np.abs(acts).max() <= 1.0


def test_the_log_probability_is_that_of_a_tanh_gaussian(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=0.3).double()
    observation, base = (value.double() for value in batch(layout))
    mean, log_std = actor(observation, base)
    residual, log_probability = actor.sample(observation, base, torch.Generator().manual_seed(0))
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    expected = reference.log_prob(residual.double()).sum(-1)
    moderate = residual.abs().max(-1).values < 0.999  # atanh of the reference loses digits beyond.
    assert moderate.sum() > 20
    torch.testing.assert_close(
        log_probability[moderate].double(), expected[moderate], rtol=1e-4, atol=1e-4
    )


def test_the_log_probability_of_a_saturated_residual_is_finite(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=20.0)
    residual, log_probability = actor.sample(*batch(layout), torch.Generator().manual_seed(0))
    assert residual.abs().max() == 1.0
    assert torch.isfinite(log_probability).all()


def test_a_sample_carries_gradients_to_the_weights(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=0.1)
    residual, _ = actor.sample(*batch(layout), torch.Generator().manual_seed(0))
    residual.sum().backward()
    assert actor.heads.weight.grad is not None
    assert actor.heads.weight.grad.abs().sum() > 0.0


def test_a_held_residual_repeats_over_the_steps_of_its_decision() -> None:
    layout = make_layout(decision_steps=3)
    actor = make_actor(layout, gain=0.5, outputs=2)
    acted = actor.to_numpy().decide(np.ones(3), np.zeros(6), np.random.default_rng(0)).reshape(3, 2)
    assert acted[0, 0] != acted[0, 1]
    np.testing.assert_array_equal(acted, np.broadcast_to(acted[0], (3, 2)))
    observation, base = batch(layout)
    sampled, log_probability = actor.sample(observation, base, torch.Generator().manual_seed(0))
    steps = sampled.reshape(-1, 3, 2)
    assert torch.equal(steps, steps[:, :1].expand_as(steps))
    mean, log_std = actor(observation, base)
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    expected = reference.log_prob(steps[:, 0]).sum(-1)
    moderate = sampled.abs().max(-1).values < 0.99
    torch.testing.assert_close(log_probability[moderate], expected[moderate], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('sees', [True, False])
@pytest.mark.parametrize('layer_norm', [True, False])
@pytest.mark.parametrize('std', [None, 0.1])
def test_the_control_loop_gets_what_the_learner_computes(
    layout: TransitionLayout, sees: bool, layer_norm: bool, std: float | None
) -> None:
    changes = {'sees_base_action': sees, 'layer_norm': layer_norm, 'exploration_std': std}
    actor = make_actor(layout, gain=0.3, hidden_sizes=(16, 8), **changes)
    rng = np.random.default_rng(0)
    actor.normalizer.fit(torch.from_numpy(rng.normal(1.0, 2.0, (50, 3)).astype(np.float32)))
    act = actor.to_numpy().decide
    for _ in range(20):
        observation = rng.normal(size=layout.observation_size)
        base = rng.normal(size=layout.decision_size)
        inputs = [torch.tensor(value, dtype=torch.float32)[None] for value in (observation, base)]
        expected = actor.mean_action(*inputs)[0].detach()
        np.testing.assert_allclose(
            actor.to_numpy().decide(observation, base, None), expected, atol=1e-5
        )
        if std is None:
            spread = actor(*inputs)[1][0].detach().double().exp().numpy()
            drawn = np.random.default_rng(1).standard_normal(spread.shape)
            center = np.arctanh(expected.double().numpy())
            np.testing.assert_allclose(
                act(observation, base, np.random.default_rng(1)),
                np.tanh(center + spread * drawn),
                atol=1e-3,
            )


def test_only_an_actor_that_sees_the_base_action_depends_on_it(layout: TransitionLayout) -> None:
    for sees in (False, True):
        actor = make_actor(layout, gain=1.0, sees_base_action=sees)
        one = actor.to_numpy().decide(np.ones(3), np.zeros(4), None)
        other = actor.to_numpy().decide(np.ones(3), np.full(4, 0.3), None)
        assert (one.tobytes() != other.tobytes()) is sees


def test_base_actions_are_scaled_by_the_trained_range(layout: TransitionLayout) -> None:
    layout = make_layout(action_min=(0.0, 0.5), action_max=(4.0, 0.5), residual_bound=(0.1, 0))
    scaled = make_actor(layout).scale_action(torch.tensor([4.0, 0.5, 1.0, 0.501]))
    # Half the range of an action that the base never moves is 1.
    expected = torch.tensor([1.0, 0.0, -0.5, 0.001])
    torch.testing.assert_close(scaled, expected, rtol=1e-3, atol=1e-6)


def test_observations_are_normalised_inside_the_actor(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=1.0)
    reference = actor.to_numpy().decide([0.5, -0.5, 0.0], np.zeros(4), None)
    actor.normalizer.fit(torch.tensor([[90.0, 8.0, 5.0], [110.0, 12.0, 5.0]]))
    observation = actor.normalizer.mean + actor.normalizer.std * torch.tensor([0.5, -0.5, 0.0])
    observation = observation.numpy()
    np.testing.assert_allclose(
        actor.to_numpy().decide(observation, np.zeros(4), None), reference, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('layer_norm', [True, False])
@pytest.mark.parametrize('std', [None, 0.1])
def test_the_architecture_names_every_tensor(
    layout: TransitionLayout, layer_norm: bool, std: float | None
) -> None:
    actor = make_actor(
        layout, hidden_sizes=(16, 8, 4), layer_norm=layer_norm, exploration_std=std, outputs=2
    )
    shapes = {name: tuple(value.shape) for name, value in actor.state_dict().items()}
    assert actor.architecture.tensor_shapes() == shapes


def test_an_actor_for_the_robot_does_not_follow_the_learner(layout: TransitionLayout) -> None:
    actor = make_actor(layout, gain=1.0)
    frozen = actor.to_numpy()
    before = frozen.decide(np.ones(3), np.zeros(4), None)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(frozen.decide(np.ones(3), np.zeros(4), None), before)
