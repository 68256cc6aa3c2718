# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The losses of residual PPO are the equations of residual policy gradient."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transition_builders import make_transition

from residual_rl_ros.algorithms.residual_ppo import (
    MAX_IMPORTANCE,
    augmented_reward,
    clipped_surrogate,
    generalised_advantage,
)
from residual_rl_ros.base_policy.distribution import BaseDistribution
from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.learner.checkpoint import load_checkpoint, save_checkpoint
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Transition

numbers = st.floats(-10.0, 10.0)


@st.composite
def rollouts(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Draw TD errors of rows, and the row that follows each: robots in turn, cut anywhere."""
    count = draw(st.integers(1, 12))
    errors = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    following = np.full(count, -1)
    newest: dict[int, int] = {}
    for row in range(count):
        robot = draw(st.integers(0, 2))
        if robot in newest and draw(st.booleans()):
            following[newest[robot]] = row
        newest[robot] = row
    return errors, following


@settings(max_examples=60, deadline=None)
@given(rollouts(), st.floats(0.0, 1.0))
def test_the_advantage_is_the_discounted_sum_of_td_errors_to_the_end_of_its_segment(
    rollout: tuple[np.ndarray, np.ndarray], decay: float
) -> None:
    errors, following = rollout
    for row, found in enumerate(generalised_advantage(errors, following, decay)):
        expected, factor, at = 0.0, 1.0, row
        while at != -1:
            expected += factor * errors[at]
            factor, at = factor * decay, following[at]
        assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(numbers, numbers, numbers, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_the_reward_is_what_the_two_knobs_make_of_add_on_prior_and_entropy(
    r: float, log_prior: float, log_pi: float, omega: float, alpha: float
) -> None:
    values = [torch.tensor([x], dtype=torch.float64) for x in (r, log_prior, log_pi)]
    found = augmented_reward(*values, omega, alpha).item()
    # KL-regularised RL to the prior, and maximum entropy with an add-on, are two of its cases.
    kl, entropy = alpha * (log_pi - log_prior), -alpha * log_pi
    assert found == pytest.approx(r - kl + (omega - alpha) * log_prior, abs=1e-9)
    assert augmented_reward(*values, 0.0, alpha).item() == pytest.approx(r + entropy, abs=1e-9)
    assert augmented_reward(*values, 0.0, 0.0).item() == r


class TabularMdp:
    """A random MDP with the exact soft value of a softmax policy."""

    def __init__(self, seed: int, states: int = 3, actions: int = 3, gamma: float = 0.9) -> None:
        rng = np.random.default_rng(seed)
        shape = (states, actions)
        self.gamma = gamma
        self.reward = torch.tensor(rng.normal(size=shape))
        self.next = torch.tensor(rng.dirichlet(np.ones(states), size=shape))
        self.prior = torch.tensor(rng.normal(size=shape)).log_softmax(-1)
        self.start = torch.tensor(rng.dirichlet(np.ones(states)))
        self.logits = torch.tensor(rng.normal(size=shape))

    def augmented(self, log_pi: Tensor, omega: float, alpha: float) -> Tensor:
        return augmented_reward(self.reward, self.prior, log_pi, omega, alpha)

    def value(self, log_pi: Tensor, omega: float, alpha: float) -> Tensor:
        """Return V(s), that of the policy in the augmented MDP, by a linear solve."""
        pi = log_pi.exp()
        move = torch.einsum('sa,sat->st', pi, self.next)
        reward = (pi * self.augmented(log_pi, omega, alpha)).sum(-1)
        return torch.linalg.solve(torch.eye(len(move)).double() - self.gamma * move, reward)

    def visits(self, log_pi: Tensor) -> Tensor:
        """Return the discounted number of visits of each state."""
        move = torch.einsum('sa,sat->st', log_pi.exp(), self.next)
        identity = torch.eye(len(move)).double()
        return torch.linalg.solve(identity - self.gamma * move.T, self.start)


@pytest.mark.parametrize(
    ('omega', 'alpha'), [(0.0, 0.7), (0.7, 0.7), (1.5, 0.3), (0.0, 0.0)], ids=str
)
@pytest.mark.parametrize('seed', range(3))
def test_the_surrogate_has_the_gradient_of_the_soft_return_without_an_entropy_term(
    seed: int, omega: float, alpha: float
) -> None:
    mdp = TabularMdp(seed)
    logits = mdp.logits.clone().requires_grad_()
    log_pi = logits.log_softmax(-1)
    # J by autograd sees the entropy's own gradient too, which has zero mean.
    soft_return = (mdp.start * mdp.value(log_pi, omega, alpha)).sum()
    (expected,) = torch.autograd.grad(soft_return, logits)

    logits = mdp.logits.clone().requires_grad_()
    log_pi = logits.log_softmax(-1)
    old = log_pi.detach()
    v = mdp.value(old, omega, alpha)
    # One row for each (s, a), which counts as often as the policy comes there.
    error = mdp.augmented(old, omega, alpha) + mdp.gamma * mdp.next @ v - v[:, None]
    weight = mdp.visits(old)[:, None] * old.exp()
    loss = clipped_surrogate(log_pi, old, error, weight, 0.2) * error.numel()
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(-found, expected)

    # And by differences of J, which know nothing of either derivation.
    step = 1e-6
    for s, a in itertools.islice(itertools.product(range(3), range(3)), 4):
        ends = []
        for sign in (1.0, -1.0):
            moved = mdp.logits.clone()
            moved[s, a] += sign * step
            value = mdp.value(moved.log_softmax(-1), omega, alpha)
            ends.append((mdp.start * value).sum().item())
        assert -found[s, a].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_the_advantage_of_an_older_actor_counts_by_how_likely_its_action_is_now() -> None:
    # Two actions; rows of pi_b, reweighted, have the gradient of rows of pi_o.
    advantage = torch.tensor([1.0, -0.5])
    behaviour, proximal = torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.5])

    def gradient(drawn: Tensor, weight: Tensor) -> Tensor:
        logits = torch.zeros(2, requires_grad=True)
        log_pi = logits.log_softmax(-1)
        loss = clipped_surrogate(log_pi, proximal.log(), advantage, drawn * weight, 0.2)
        return torch.autograd.grad(loss, logits)[0]

    torch.testing.assert_close(
        gradient(behaviour, proximal / behaviour), gradient(proximal, torch.ones(2))
    )


def test_the_surrogate_has_no_gradient_beyond_the_clip_range() -> None:
    log_pi = torch.tensor([0.3, -0.3, 0.3, -0.3], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, -1.0, 1.0])
    loss = clipped_surrogate(log_pi, torch.zeros(4), advantage, torch.ones(4), 0.2)
    (found,) = torch.autograd.grad(loss, log_pi)
    assert found[:2].tolist() == [0.0, 0.0]
    assert (found[2:] != 0.0).all()


# --- the rule

OBSERVED = ('x', 'y')
GAUSSIAN = TransitionLayout(
    OBSERVED, ('u', 'v'), 1, (-1.0, -2.0), (1.0, 2.0), (2.0, 4.0), prior=Prior.SQUASHED_GAUSSIAN
)
DISCRETE = TransitionLayout(
    OBSERVED,
    ('left', 'stay', 'right'),
    1,
    (0.0,) * 3,
    (1.0,) * 3,
    (1.0,) * 3,
    prior=Prior.CATEGORICAL,
    discrete=True,
)
SMALL = {'rollout_length': 32, 'batch_size': 8, 'epochs': 2, 'hidden_sizes': [8]}
LOOP = {'warmup_transitions': 4, 'publish_interval': 16}


class Bandit:
    """Draws decisions of one step each; what the base tells is the same for all observations."""

    def __init__(self, layout: TransitionLayout, told: list[float], seed: int = 0) -> None:
        self.layout, self.told = layout, np.array(told)
        self.rng = np.random.default_rng(seed)
        self.count = 0

    def base(self) -> np.ndarray:
        m = self.layout.action_size
        if self.layout.discrete:
            return np.eye(m)[self.rng.integers(m)]
        return np.array(self.layout.action_max) * np.tanh(np.resize([*self.told[:m], 0.0], m))

    def step(self, policy: Any, version: tuple[int, int], reward: Any = None) -> Transition:
        """Return a decision of a policy; None is the base's."""
        observation, base = self.rng.normal(size=2), self.base()
        told = BaseDistribution(self.told, np.zeros((0, len(base))))
        residual = np.zeros(len(base))
        if policy is not None:
            residual = policy.decide(observation, base, self.rng, distribution=told)
        action = base + np.array(self.layout.residual_bound) * residual
        self.count += 1
        return make_transition(
            self.layout,
            epoch=version[0],
            policy_sequence=version[1],
            episode=self.count,
            step=0,
            source=Source.BASE if policy is None else Source.RESIDUAL,
            terminated=True,
            reward=reward(action) if reward else 0.0,
            observation=observation,
            base_action=base,
            residual_action=residual,
            executed_action=action,
            prior=self.told,
            next_prior=self.told,
        )


TOLD = {GAUSSIAN: [0.3, -0.2, -1.0, -0.5], DISCRETE: [1.0, 0.0, -1.0]}
BOTH = pytest.mark.parametrize('layout', [GAUSSIAN, DISCRETE], ids=['gaussian', 'categorical'])


def make_ppo(layout: TransitionLayout, preset: str = 'kl_ppo', **overrides: Any) -> Any:
    config = load_preset(preset, {**SMALL, **overrides})
    return config.make_rule(layout, torch.Generator().manual_seed(0), np.random.default_rng(0))


def learn(rule: Any, bandit: Bandit, phases: int, reward: Any = None) -> dict[str, Tensor]:
    """Let a rule act and learn, without delay; return the metrics of the last phase."""
    metrics: dict[str, Tensor] = {}
    for phase in range(phases):
        rule.published((1, phase))
        policy = rule.robot_policy()
        for _ in range(rule.config.rollout_length):
            rule.observe(bandit.step(policy, (1, phase), reward))
        while step := rule.update():
            metrics |= step
    return metrics


@BOTH
def test_without_an_add_on_equal_knobs_leave_the_base_exactly_as_it_is(layout: Any) -> None:
    rule = make_ppo(layout)
    before = {name: value.clone() for name, value in rule.actor.state_dict().items()}
    learn(rule, Bandit(layout, TOLD[layout]), 3)
    assert rule._updates == 3 * 2 * 4
    for name, value in rule.actor.state_dict().items():
        assert torch.equal(value, before[name]), name
    other = Bandit(layout, TOLD[layout], seed=1)
    log_ratio = []
    for _ in range(20):
        decision = other.step(rule.robot_policy(), (1, 0))
        block = torch.tensor(decision.prior).float()
        s, a = (torch.tensor(x).float() for x in (decision.observation, decision.executed_action))
        log_ratio.append((rule.actor(s, block, a) - rule.prior.log_prob(block, a)).item())
    assert log_ratio == [0.0] * 20


def soft_optimum(mdp: TabularMdp, omega: float, alpha: float) -> Tensor:
    """Return the optimal policy of the augmented MDP, shape (states, actions)."""
    value = torch.zeros(len(mdp.reward)).double()
    for _ in range(500):
        q = mdp.reward + omega * mdp.prior + mdp.gamma * mdp.next @ value
        value = alpha * torch.logsumexp(q / alpha, -1)
    return (q / alpha).softmax(-1)


@pytest.mark.parametrize(('omega', 'alpha'), [(1.0, 1.0), (1.0, 0.5)], ids=str)
def test_an_mdp_is_solved_by_the_soft_optimum_of_both_knobs(omega: float, alpha: float) -> None:
    mdp, rng, state = TabularMdp(0), np.random.default_rng(0), 0
    layout = replace(DISCRETE, observation_names=('s0', 's1', 's2'))
    rule = make_ppo(
        layout,
        reward='basic',
        prior_weight=omega,
        temperature=alpha,
        gamma=mdp.gamma,
        rollout_length=256,
        batch_size=64,
        epochs=6,
        learning_rate=0.01,
    )
    told, eye = mdp.prior.numpy(), np.eye(3)
    for number in range(10 * 256):
        phase, at = divmod(number, 256)
        if not at:
            rule.published((1, phase))
            policy = rule.robot_policy()
        base = eye[rng.integers(3)]
        distribution = BaseDistribution(told[state], np.zeros((0, 3)))
        residual = policy.decide(eye[state], base, rng, distribution=distribution)
        action = int((base + residual).argmax())
        following = int(rng.choice(3, p=mdp.next[state, action].numpy()))
        rule.observe(
            make_transition(
                layout,
                policy_sequence=phase,
                step=number,
                reward=mdp.reward[state, action].item(),
                observation=eye[state],
                base_action=base,
                residual_action=residual,
                executed_action=base + residual,
                next_observation=eye[following],
                prior=told[state],
                next_prior=told[following],
            )
        )
        state = following
        if at == 255:
            while rule.update():
                pass
    block = rule.actor.block(torch.eye(3), torch.tensor(told).float())
    wanted = soft_optimum(mdp, omega, alpha)
    assert float((block.detach().softmax(-1) - wanted).abs().max()) < 0.1
    assert float((mdp.prior.exp() - wanted).abs().max()) > 0.3


@BOTH
def test_an_action_of_the_actor_before_counts_by_how_likely_it_is_now(layout: Any) -> None:
    rule, bandit = make_ppo(layout, reward='basic'), Bandit(layout, TOLD[layout])
    gain = np.linspace(-1.0, 1.0, layout.action_size)
    learn(rule, bandit, 4, lambda action: float(gain @ action))
    policy, old = rule.robot_policy(), make_ppo(layout)
    rule.published((1, 4))
    rule.memory.published((1, 5), old.actor.state_dict())
    decisions = [bandit.step(policy, (1, 4)) for _ in range(5)]
    decisions += [bandit.step(old.robot_policy(), (1, 5)) for _ in range(5)]
    decisions.append(bandit.step(policy, (9, 9)))  # Of an actor that nobody knows.
    for decision in decisions:
        rule.observe(decision)
    rule.next_rows()
    importance = rule.memory.phase['importance']
    assert importance.shape == (10,)
    assert importance[:5].tolist() == [1.0] * 5
    batch = [
        torch.tensor(np.array([getattr(d, name) for d in decisions[5:10]])).float()
        for name in ('observation', 'prior', 'executed_action')
    ]
    expected = (rule.actor(*batch) - old.actor(*batch)).exp().clamp_max(MAX_IMPORTANCE)
    torch.testing.assert_close(importance[5:], expected, rtol=1e-4, atol=1e-4)
    assert (importance[5:] != 1.0).all()


def test_values_stand_in_where_a_rollout_or_a_time_limit_cuts_an_episode() -> None:
    rule = make_ppo(DISCRETE, prior_weight=0.0, temperature=0.0, reward='basic')
    bandit = Bandit(DISCRETE, TOLD[DISCRETE])
    rule.published((1, 0))
    rule.critic.mean.fill_(2.0)  # V is 2 everywhere.
    ends = [(True, False), (False, True), (False, False)]
    for number, (terminated, truncated) in enumerate(ends):
        decision = bandit.step(rule.robot_policy(), (1, 0))
        rule.observe(
            replace(
                decision, episode=number, terminated=terminated, truncated=truncated, reward=1.0
            )
        )
    rule.next_rows()
    found = rule.memory.phase['target'].tolist()
    assert found == pytest.approx([1.0, 1.0 + 0.99 * 2.0, 1.0 + 0.99 * 2.0])


def test_a_rollout_in_which_the_base_or_an_operator_decided_teaches_nothing() -> None:
    rule, bandit = make_ppo(DISCRETE), Bandit(DISCRETE, TOLD[DISCRETE])
    for _ in range(40):
        rule.observe(bandit.step(None, (1, 0)))
    assert rule.update() == {}
    assert len(rule.memory) == 0


def test_a_rollout_of_few_rows_makes_few_batches_and_no_nan() -> None:
    rule, bandit = make_ppo(DISCRETE), Bandit(DISCRETE, TOLD[DISCRETE])
    rule.published((1, 0))
    policy = rule.robot_policy()
    for decision in range(32):
        rule.observe(bandit.step(policy if decision % 10 == 0 else None, (1, 0)))
    taken = [rule.update() for _ in range(rule.updates_due(32))]
    learned = [metrics for metrics in taken if metrics]
    assert len(learned) == rule.config.epochs
    assert all(torch.isfinite(value).all() for metrics in learned for value in metrics.values())


@pytest.mark.parametrize(
    ('preset', 'overrides', 'told'),
    [
        ('residual_ppo', {'bound_ramp_transitions': 10}, 'bound_ramp_transitions is 10, but'),
        ('residual_ppo', {'progressive_transitions': 10}, 'progressive_transitions is 10, but'),
        ('soft_ppo', {'wide_exploration_share': 0.5}, 'wide_exploration_share is 0.5, but'),
        ('soft_ppo', {'random_exploration_share': 0.5}, 'random_exploration_share is 0.5, but'),
        ('kl_ppo', {'batch_size': 4096}, 'batch_size is 4096, expected at most rollout_length'),
        ('kl_ppo', {'temperature': -1.0}, 'temperature is -1.0'),
    ],
)
def test_numbers_that_do_not_fit_are_refused(preset: str, overrides: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_preset(preset, overrides)


def test_a_base_without_a_density_cannot_be_customised_but_needs_none_without_it() -> None:
    layout = replace(GAUSSIAN, prior=Prior.NONE)
    with pytest.raises(ConfigError, match='tells no density'):
        make_ppo(layout)
    learn(make_ppo(layout, 'soft_ppo'), Bandit(layout, []), 1, lambda action: float(action[0]))


def content(learner: Learner) -> dict[str, bytes]:
    """Return everything that a learner goes on from."""
    memory = learner.rule.memory.export()
    return {
        **{name: value.numpy().tobytes() for name, value in learner.rule.state_dict().items()},
        **{f'{part}.{k}': v.tobytes() for part in memory for k, v in memory[part].items()},
        'state': json.dumps(learner.state_dict(), sort_keys=True).encode(),
    }


class InterruptedPhaseError(Exception):
    """A learner is stopped in the middle of its updates."""


@BOTH
@pytest.mark.parametrize('saved_at', [3, 30, 50, 'in a phase'])
def test_a_learner_with_a_rollout_in_progress_resumes_bit_for_bit(
    layout: Any, saved_at: Any, tmp_path: Path
) -> None:
    add_on = {
        'reward': 'total',
        'add_on': [{'name': 'side_preference', 'position': 'x', 'side': 'high'}],
    }
    config = load_preset('residual_ppo', {**SMALL, **LOOP, **add_on})
    learner = Learner(config, layout, seed=3)
    mailbox = ActorMailbox(layout, scheduled=True)
    bandit = Bandit(layout, TOLD[layout])

    def decide(warm: bool) -> Transition:
        mailbox.begin_decision()
        assert mailbox.header is not None
        version = (mailbox.header.epoch, mailbox.header.sequence)
        policy = None if warm else mailbox.actor
        return bandit.step(policy, version, lambda action: float(action[0]))

    mailbox.submit(learner.first_message())
    pulses = itertools.count()

    def interrupt() -> None:
        if saved_at == 'in a phase' and next(pulses) == 5:
            raise InterruptedPhaseError

    for count in range(36 if saved_at == 'in a phase' else saved_at):
        with contextlib.suppress(InterruptedPhaseError):
            if message := learner.ingest(decide(count < 4), pulse=interrupt):
                mailbox.submit(message)
    assert bool(learner.rule.memory.phase) == (saved_at == 'in a phase')
    save_checkpoint(tmp_path / 'checkpoint', learner)
    resumed = load_checkpoint(tmp_path / 'checkpoint')
    assert content(resumed) == content(learner)
    for number in range(70):
        decision = bandit.step(learner.rule.robot_policy(), (1, max(0, learner.sequence - 1)))
        messages = [one.ingest(decision) for one in (learner, resumed)]
        assert messages[0] == messages[1], number
    assert content(resumed) == content(learner)
    assert learner.updates.online >= 2 * 8
    assert learner.rule.rollout_metrics['rollout_unknown_rows'] == 0.0


def test_in_lockstep_one_interval_of_a_rollout_is_of_the_actor_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_preset('residual_ppo', {**SMALL, **LOOP, 'reward': 'basic'})
    learner = Learner(config, GAUSSIAN, seed=0)
    rollouts: list[Any] = []
    begin = learner.rule.begin_phase
    monkeypatch.setattr(
        learner.rule, 'begin_phase', lambda rollout: rollouts.append(rollout) or begin(rollout)
    )
    mailbox = ActorMailbox(GAUSSIAN, scheduled=True)
    mailbox.submit(learner.first_message())
    bandit = Bandit(GAUSSIAN, TOLD[GAUSSIAN])
    for count in range(4 + 3 * 32):
        mailbox.begin_decision()
        assert mailbox.header is not None
        policy = mailbox.actor if count >= 4 else None
        decision = bandit.step(policy, mailbox.header.version, lambda action: float(action[0]))
        if message := learner.ingest(decision):
            mailbox.submit(message)
    # The actor of a phase acts from one interval of 16 decisions after it.
    assert [each.actor.tolist() for each in rollouts] == [[0] * 32] + 2 * [[0] * 16 + [1] * 16]
    assert all(
        torch.equal(a, b)
        for a, b in zip(rollouts[1].actors[1].values(), rollouts[2].actors[0].values(), strict=True)
    )
    assert [each.unknown for each in rollouts] == [0, 0, 0]
