# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every update rule must learn the right values on problems whose values are known."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_builders import fill, make_rule, residual_presets
from torch import Tensor
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.algorithms import actor_critic, sac
from residual_rl_ros.algorithms.cal_ql import CalQl
from residual_rl_ros.algorithms.losses import critic_loss
from residual_rl_ros.algorithms.training_state import effective_rank
from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.architecture import CRITIC_NORMALIZATIONS
from residual_rl_ros.transitions.transition import Success, Transition

LAYOUT = make_layout()
PRESETS = residual_presets()


def stream(count: int = 200, change: Callable[[int, Any], Any] = lambda i, t: t) -> list[Any]:
    return [change(i, transition) for i, transition in enumerate(random_transitions(LAYOUT, count))]


def filled_rule(preset: str = 'best_of_n', seed: int = 0, **overrides: Any) -> Any:
    """Return a rule that has 200 transitions and draws 32 of them."""
    rule = make_rule(preset, seed=seed, **{'batch_size': 32, **overrides})
    fill(rule, stream())
    return rule


def parameters(module: torch.nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().clone() for value in module.parameters()])


@pytest.mark.parametrize('normalization', CRITIC_NORMALIZATIONS)
@pytest.mark.parametrize('preset', PRESETS)
def test_an_update_moves_every_network_and_its_metrics_are_finite(
    preset: str, normalization: str
) -> None:
    rule = filled_rule(preset, critic_normalization=normalization, actor_interval=1)
    before = {name: parameters(module) for name, module in rule._modules().items()}
    metrics = rule.update()
    for name, module in rule._modules().items():
        assert not torch.equal(parameters(module), before[name]), name
    metrics = {**metrics, **rule.diagnose()}
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert {'td_error', 'q_base', 'q_executed', 'q_policy', 'critic_rank'} <= set(metrics)
    assert {'critic_dormant_share', 'residual_magnitude', 'actor_grad_norm'} <= set(metrics)
    assert 0.0 <= metrics['base_preferred_share'] <= 1.0


def test_the_neutral_prior_falls_with_the_episodes_that_were_learned_from() -> None:
    rule = make_rule(
        'best_of_n', neutral_prior=1.0, neutral_prior_episodes=4.0, utd=2.0, batch_size=8
    )
    fill(rule, random_transitions(LAYOUT, 70, episode_decisions=7))
    rule.prepare(lambda: None)
    batch = rule.sample()
    s, nothing = rule.actor.normalizer(batch.observation), torch.zeros(())
    weights = []
    for episodes in (0, 1, 2, 4, 9):
        rule._updates = 2 * 7 * episodes
        rule._generator.manual_seed(0)
        weights.append(rule.with_neutral_prior(nothing, batch, s).item())
    assert weights == pytest.approx([weights[0] * share for share in (1.0, 0.75, 0.5, 0.0, 0.0)])
    assert weights[0] > 0.0


def test_a_dimension_without_a_bound_has_no_residual_for_the_critics() -> None:
    rule = make_rule('best_of_n', make_layout(residual_bound=(0.1, 0.0)))
    base = torch.zeros(1, 4)
    executed = torch.tensor([[0.05, 1e-6, 0.05, 0.4]])  # Rounding, and an operator.
    assert rule.critic_action(base, executed)[0, 4:].tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize('preset', ['best_of_n', 'resfit'])
def test_the_gradient_of_the_actor_is_limited(preset: str) -> None:
    rule = make_rule(preset)
    loss = 1e6 * rule.actor.mean_action(torch.ones(1, 3), torch.ones(1, 4)).sum()
    assert rule.step_actor(loss) > 1e3
    length = rule._flat_actor.vector.grad.norm()
    assert float(length) == pytest.approx(rule.config.max_grad_norm, rel=1e-4)


def test_the_length_of_episodes_decides_horizon_and_price_and_is_kept() -> None:
    scales = {'discount_episodes': 1.0, 'failure_cost': 20.0}
    rule = make_rule('best_of_n', n_step=2, batch_size=8, **scales)
    fill(rule, random_transitions(LAYOUT, 140, episode_decisions=14))
    rule.prepare(lambda: None)
    decided = rule.config
    assert decided.gamma == pytest.approx(1.0 - 1.0 / 14.0)
    assert decided.reward_offset == pytest.approx(-20.0 / 14.0)
    assert rule.derived() == {'gamma': decided.gamma, 'reward_offset': decided.reward_offset}
    other = make_rule('best_of_n', n_step=2, batch_size=8, **scales)
    other.load_state_dict(rule.state_dict())
    assert other.config == other.memory.config == decided


def test_short_episodes_leave_a_horizon_of_two_decisions() -> None:
    config = make_rule('best_of_n', discount_episodes=1.0).config
    assert config.scaled(0.0).gamma == config.scaled(1.0).gamma == 0.5


@pytest.mark.parametrize('preset', ['best_of_n', 'resfit'])
def test_the_actor_is_drawn_to_what_is_shown_only_where_the_critics_prefer_it(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = make_rule(preset, demonstration_share=0.5, imitation_weight=1.0, batch_size=8)
    fill(rule, stream(20))
    shown = make_transition(LAYOUT, executed_action=make_transition(LAYOUT).base_action + 0.02)
    for _ in range(8):
        rule.memory.add_demonstration(shown)
    batch = rule.sample()
    assert batch.demonstrations == 4
    s, loss = rule.actor.normalizer(batch.observation), torch.zeros(())
    u = rule.actor.mean_action(batch.observation[-4:], batch.base_action[-4:])
    wanted = rule.actor.as_residual(torch.full((4, 4), 0.02))
    torch.testing.assert_close(wanted, torch.tensor([[0.2, 0.4, 0.2, 0.4]]).expand(4, 4))
    for better, expected in ((1.0, (u - wanted).square().mean()), (-1.0, torch.zeros(()))):
        q = torch.tensor([[better] * 4 + [0.0] * 4])
        monkeypatch.setattr(rule, 'critic', lambda s, x, q=q: q)
        torch.testing.assert_close(rule.with_imitation(loss, batch, s), expected)


def test_few_demonstrations_are_not_drawn_again_and_again() -> None:
    rule = make_rule('best_of_n', demonstration_share=0.5, demonstration_weight=4.0, batch_size=64)
    counts = []
    for more in (2, 10, 20):
        fill(rule, stream(more))
        counts.append(rule.memory.sample().demonstrations)
        if more == 2:
            rule.memory.add_demonstration(make_transition(LAYOUT))
    # Of one demonstration beside 2, 12 and 32 transitions: none yet, 4/16, 4/36.
    assert counts == [0, 16, 7]


def test_as_many_critics_choose_on_the_robot_as_the_preset_says() -> None:
    for wanted, found in ((0, 2), (5, 5)):
        policy = make_rule('best_of_n', critic_heads=5, choosing_heads=wanted).robot_policy()
        assert policy.architecture.critic.heads == found


def test_a_supervised_residual_is_what_was_shown_and_needs_it() -> None:
    rule = make_rule('supervised', regression_updates=300, batch_size=32)
    fill(rule, stream(20))
    with pytest.raises(ConfigError, match='no demonstrations'):
        rule.prepare(lambda: None)
    for t in stream(50):
        rule.memory.add_demonstration(replace(t, executed_action=t.base_action + 0.02))
    rule.prepare(lambda: None)
    t = stream(50)[3]
    u = rule.robot_policy().decide(t.observation, t.base_action, None)
    np.testing.assert_allclose(u, [0.2, 0.4, 0.2, 0.4], atol=0.05)
    assert rule.updates_due(1000) == 0
    # Its critics were never trained, and it says nothing of them.
    assert set(rule.diagnose()) == {
        'residual_magnitude',
        'residual_saturation',
        'normalizer_transitions',
        'demonstrations',
    }


@pytest.mark.parametrize(
    ('preset', 'key'),
    [
        ('wsrl', 'anchor_updates'),
        ('supervised', 'anchor_updates'),
        ('supervised', 'critic_only_updates'),
    ],
)
def test_updates_that_a_rule_would_not_take_are_refused(preset: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f'{key} is 3, expected 0'):
        load_preset(preset, {key: 3})


@pytest.mark.parametrize(
    ('preset', 'updates'), [('best_of_n', 'critic_only_updates'), ('wsrl', 'offline_updates')]
)
def test_updates_on_the_warm_up_are_no_experience_of_the_robot(preset: str, updates: str) -> None:
    changes = {updates: 7, 'entropy_in_target': False, 'utd': 2.0}
    rule = make_rule(preset, anchor_updates=0 if preset == 'wsrl' else 5, **changes)
    fill(rule, stream(40))
    rule.prepare(lambda: None)
    assert rule.online_updates == 0
    fill(rule, stream(10))
    for _ in range(3):
        rule.update()
    assert rule.online_updates == 3
    other = make_rule(preset, anchor_updates=0 if preset == 'wsrl' else 5, **changes)
    other.load_state_dict(rule.state_dict())  # Which has no more tensors than it had before.
    assert other.online_updates == 3


def test_rlpd_maximises_the_mean_of_its_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sac, 'actor_loss', lambda q, *rest: seen.append(rest[2:]) or q.mean())
    for preset in ('best_of_n', 'rlpd'):
        filled_rule(preset, actor_interval=1).update()
    assert seen == [('minimum',), ('mean',)]
    rule = load_preset('rlpd').rule
    assert not rule.entropy_in_target
    assert rule.target_entropy_per_dimension == -0.5


def test_an_action_that_the_base_never_moves_is_seen_in_command_units() -> None:
    layout = make_layout(action_min=(-1.0, 0.3), action_max=(1.0, 0.3), residual_bound=(0.1, 0.0))
    rule = make_rule('best_of_n', layout)
    base, executed = torch.tensor([[0.0, 0.3] * 2]), torch.tensor([[0.05, 0.5] * 2])  # An operator.
    seen = rule.critic_action(base, executed)[0]
    torch.testing.assert_close(seen, torch.tensor([0.05, 0.2] * 2 + [0.5, 0.0] * 2))
    # The robot sees the same.
    known = rule.robot_policy()._actor.normalize(np.zeros(3), executed[0].numpy())
    np.testing.assert_allclose(known[3:], seen[:4], rtol=1e-6)


@pytest.mark.parametrize('preset', ['best_of_n', 'resfit'])
def test_bfloat16_leaves_weights_and_losses_float32_and_gradients_where_they_point(
    preset: str,
) -> None:
    gradients = {}
    sizes = {'critic_hidden_sizes': [64, 64], 'actor_hidden_sizes': [64, 64]}
    for precision in ('float32', 'bfloat16'):
        rule = filled_rule(preset, precision=precision, actor_interval=1, **sizes)
        rule.fit_normalizer()
        metrics = rule.update()
        assert {value.dtype for value in metrics.values()} == {torch.float32}
        tensors = rule.state_dict().items()
        assert not [name for name, value in tensors if value.dtype is torch.bfloat16]
        flat = rule._flat_critic, rule._flat_actor
        gradients[precision] = torch.cat([each.vector.grad.flatten() for each in flat])
    one, other = gradients.values()
    assert not torch.equal(one, other)
    assert float(torch.cosine_similarity(one, other, dim=0)) > 0.999


@pytest.mark.skipif(torch.cuda.is_available(), reason='this computer has a GPU')
def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without() -> None:
    with pytest.raises(ConfigError, match='device is cuda, but torch'):
        make_rule('best_of_n', device='cuda')
    assert make_rule('best_of_n', device='auto').device == torch.device('cpu')


def test_learning_saving_and_resuming_load_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own optimisers import theirs, which takes more than a second and 60 MB."""
    monkeypatch.setitem(sys.modules, 'torch._dynamo', None)  # Whoever imports it fails.
    rule = filled_rule()
    rule.update()
    rule.load_state_dict(rule.state_dict())
    rule.critic_optimizer.zero_grad()


@pytest.mark.parametrize('value', [math.nan, math.inf, 1e38])
def test_metrics_of_broken_networks_are_no_error(value: float) -> None:
    rule = filled_rule()
    with torch.no_grad():
        rule.critic.body[0].weight.fill_(value)
    assert {'critic_rank', 'q_base'} <= rule.diagnose().keys()


@pytest.mark.parametrize('preset', PRESETS)
def test_the_actor_is_trained_at_its_interval_and_not_by_a_critic_only_update(preset: str) -> None:
    rule = filled_rule(preset, actor_interval=3)
    moved = []
    for count in range(6):
        before = parameters(rule.actor)
        rule.update(critic_only=count >= 3)
        moved.append(not torch.equal(parameters(rule.actor), before))
    assert moved == [False, False, True, False, False, False]


def test_hyperspherical_weights_stay_on_the_sphere() -> None:
    rule = filled_rule(critic_normalization='hyperspherical', critic_learning_rate=0.1)
    for _ in range(5):
        rule.update()
    for critic in (rule.critic, rule.target_critic):
        for layer in (critic.body[0], critic.body[3]):
            lengths = layer.weight.norm(dim=1)
            torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.parametrize('preset', PRESETS)
def test_the_critics_learn_the_reward_where_every_transition_ends(preset: str) -> None:
    rule = make_rule(
        preset,
        critic_learning_rate=3e-3,
        critic_hidden_sizes=[64, 64],
        max_grad_norm=50.0,
        reward_offset=0.0,
        full_bound_cost=0.0,
        neutral_prior=0.0,
        batch_size=64,
    )

    def pay(index: int, transition: Any) -> Any:
        reward = float(transition.observation[0] > 2.0)
        return replace(transition, terminated=True, reward=reward)

    fill(rule, stream(change=pay))
    rule.fit_normalizer()
    for _ in range(400):
        metrics = rule.update(critic_only=True)  # No target asks the actor.
    assert float(metrics['td_error']) < 0.2


def test_an_untried_residual_is_worth_what_the_base_is_and_a_tried_one_what_it_gave() -> None:
    """Every step of the base alone costs 1; what a residual does is not in the data."""

    def advantage(prior: float, transitions: list[Any]) -> float:
        rule = make_rule(critic_learning_rate=3e-3, neutral_prior=prior, batch_size=128)
        fill(rule, transitions)
        for _ in range(300):
            rule.update(critic_only=True)
        drawn = rule.memory.sample()
        s = rule.actor.normalizer(drawn.observation)
        return float(rule.random_advantage(s, drawn.base_action).detach().abs().mean())

    base_only = stream(change=lambda i, t: replace(t, executed_action=t.base_action))
    assert advantage(0.1, base_only) < 0.2 * advantage(0.0, base_only)
    bound = np.tile(LAYOUT.residual_bound, LAYOUT.decision_steps)
    rng = np.random.default_rng(1)

    def pay(index: int, transition: Any) -> Any:
        residual = np.tile(rng.uniform(-1.0, 1.0, LAYOUT.action_size), LAYOUT.decision_steps)
        executed = transition.base_action + bound * residual
        return replace(
            transition, executed_action=executed, terminated=True, reward=10.0 * residual[0]
        )

    paid = stream(change=pay)
    assert advantage(0.1, paid) > 1.0, 'what the data say outweighs the prior'


@pytest.mark.parametrize('preset', PRESETS)
def test_the_actor_finds_the_residual_that_pays(preset: str) -> None:
    """The reward of a one-step episode is the first residual; the best actor goes to its bound."""
    rule = make_rule(
        preset,
        **({} if preset == 'resfit' else {'initial_alpha': 0.01}),
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        critic_hidden_sizes=[64, 64],
        actor_interval=1,
        actor_averaging=1.0,
        max_grad_norm=50.0,
        batch_size=64,
        replay_capacity=500,
    )
    rng = np.random.default_rng(1)
    bound = np.tile(LAYOUT.residual_bound, LAYOUT.decision_steps)
    for transition in random_transitions(LAYOUT, 500):
        residual = np.tile(rng.uniform(-1.0, 1.0, LAYOUT.action_size), LAYOUT.decision_steps)
        executed = transition.base_action + bound * residual
        reward = 5.0 * float(residual[0])
        rule.observe(replace(transition, executed_action=executed, reward=reward, terminated=True))
    rule.fit_normalizer()
    found = 0.0
    for _ in range(12):
        for _ in range(50):
            rule.update()
        observations = rule.memory.observations()
        residual = rule.mean_actor.mean_action(observations, torch.zeros(500, len(bound)))
        found = float(residual[:, 0].mean())
        if found > 0.5:
            break
    assert found > 0.5


def end_at_once(number: int, transition: Transition) -> Transition:
    del number
    ended = {'terminated': True, 'truncated': False, 'success': Success.UNLABELLED}
    return replace(transition, reward=0.0, **ended)


def test_cal_ql_pushes_sampled_actions_down_but_not_below_the_known_return() -> None:
    def spread(calibrated: bool) -> tuple[float, float]:
        rule = make_rule('wsrl', cql_weight=5.0, critic_learning_rate=3e-3)
        assert isinstance(rule, CalQl)
        fill(rule, stream(change=end_at_once))
        known = rule.memory.lower_bounds(-1.0).numpy()
        assert (known == -1.0).all()
        returns = torch.from_numpy(known if calibrated else np.full_like(known, -np.inf))
        for _ in range(150):
            drawn = rule.memory.sample_replay(32)
            rule.update_offline(drawn, returns[drawn.row])
        s = rule.actor.normalizer(drawn.observation)
        u = rule.actor.mean_action(drawn.observation, drawn.base_action)
        q = rule.critic(
            s, rule.critic_action(drawn.base_action, drawn.base_action + rule.bound * u)
        )
        data = rule.critic(s, rule.critic_action(drawn.base_action, drawn.executed_action))
        return float(q.detach().mean()), float(data.detach().mean())

    policy, data = spread(calibrated=False)
    assert policy < data
    assert spread(calibrated=True)[0] > policy


DENSE: dict[str, Callable[[int], float]] = {
    'never negative': lambda i: 5.0 + i % 3,
    'rarely very negative': lambda i: -50.0 if i % 40 == 0 else -0.1,
}


@pytest.mark.parametrize('reward', DENSE.values(), ids=DENSE)
def test_the_anchor_regresses_on_no_return_that_is_not_known(
    reward: Callable[[int], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = []

    def watched(q: Tensor, y: Tensor) -> Tensor:
        targets.append(y)
        return critic_loss(q, y)

    monkeypatch.setattr(actor_critic, 'critic_loss', watched)
    rule = make_rule('self_scaling', anchor_updates=4, batch_size=64)
    fill(rule, stream(140, lambda i, t: replace(t, reward=reward(i))))  # Half of them are cut off.
    metrics = rule.prepare(lambda: None)
    assert all(math.isfinite(float(value)) for value in metrics.values())
    config = rule.config
    summed = (1.0 - config.gamma**7) / (1.0 - config.gamma)
    rewards = [reward(i) + config.reward_offset for i in range(140)]
    assert min(0.0, summed * min(rewards)) < float(torch.stack(targets).min())
    assert float(torch.stack(targets).max()) < max(0.0, summed * max(rewards))
    assert rule.remark == ''


def test_an_anchor_without_a_known_return_says_so_and_leaves_the_critics() -> None:
    rule = make_rule('self_scaling', anchor_updates=5)
    fill(rule, stream(70, lambda i, t: replace(t, reward=5.0, terminated=False)))
    before = parameters(rule.critic)
    assert rule.prepare(lambda: None) == {}
    assert torch.equal(parameters(rule.critic), before)
    assert 'anchor_updates is 5, but all 70 decisions' in rule.remark


def test_the_anchor_of_sparse_rewards_takes_a_cut_off_for_never_succeeding() -> None:
    rule = make_rule('self_scaling')
    fill(rule, stream(140))
    rule.fit()
    offset = rule.config.reward_offset
    found = rule.memory.known_returns(offset)
    assert torch.equal(found, rule.memory.lower_bounds(offset))
    assert float(found.min()) == pytest.approx(-rule.config.failure_cost)


@pytest.mark.parametrize('heads', [2, 4])
def test_the_target_bootstraps_from_the_base_where_it_is_preferred(heads: int) -> None:
    sizes = {'critic_heads': heads, 'critic_target_heads': heads}
    rule, plain = (make_rule(base_in_target=option, **sizes) for option in (True, False))
    fill(rule, stream())
    plain.load_state_dict(rule.state_dict())
    data = rule.memory.sample_replay(32)
    s, b = rule.actor.normalizer(data.next_observation), data.next_base_action
    u = rule.actor.uniform((len(b),), torch.Generator().manual_seed(1))
    residual, base = plain.target_value(s, b, u), plain.target_value(s, b, torch.zeros_like(u))
    assert 0 < int((base > residual).sum()) < len(b)
    torch.testing.assert_close(rule.target_value(s, b, u), torch.maximum(residual, base))


def test_the_effective_rank_counts_the_singular_values_that_matter() -> None:
    assert effective_rank(torch.diag(torch.tensor([1.0, 1.0, 1e-4]))) == 2.0
    for value in (math.nan, math.inf, 3e38):
        assert math.isnan(effective_rank(torch.full((4, 3), value)))


@pytest.mark.parametrize(
    ('gamma', 'said'),
    [(0.5, 'have 7 decisions, and gamma 0.5 looks 2 ahead: preset self_scaling'), (0.8, '')],
)
def test_a_discount_that_is_too_short_for_the_episodes_is_said(gamma: float, said: str) -> None:
    rule = make_rule('best_of_n', gamma=gamma)
    fill(rule, stream(140))  # Episodes of 7 decisions.
    rule.fit()
    assert said in rule.remark
    assert bool(said) is bool(rule.remark)
