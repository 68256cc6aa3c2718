# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers that off-policy rules share, by the section of a preset in which they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from residual_rl_ros.algorithms.rule import RuleConfig
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.architecture import (
    CRITIC_NORMALIZATIONS,
    MAX_CANDIDATES,
    MAX_HIDDEN_LAYERS,
    MAX_HIDDEN_SIZE,
)
from residual_rl_ros.schema import parameter

PRECISIONS = ('auto', 'float32', 'bfloat16')
"""What `precision` may be."""
DEVICES = ('auto', 'cpu', 'cuda')
"""What `device` may be."""
MAX_BATCH = 2**16
"""Most transitions of an update."""
FAR_SIGHTED = 1.5
"""Episodes of so many times the decisions that a discount looks ahead are too long for it."""


@dataclass(frozen=True)
class ReplayConfig:
    """Numbers of the memory and of what is drawn from it."""

    section: ClassVar[str] = 'replay'

    replay_capacity: int = parameter(
        200_000, 'transitions kept, in the replay and among the demonstrations each', 1
    )
    batch_size: int = parameter(256, 'transitions per update', 1, MAX_BATCH)
    utd: float = parameter(
        1.0, 'critic updates per transition after the warm-up', maximum=1000.0, above=0.0
    )
    n_step: int = parameter(1, 'decisions whose rewards are summed before the target', 1)
    demonstration_share: float = parameter(
        0.0,
        'share of every batch that is drawn from demonstrations, if there are any',
        0.0,
        1.0,
    )
    demonstration_weight: float = parameter(
        0.0,
        'how often a demonstration is drawn for once that a transition of a robot is, at most: it '
        'limits that share while demonstrations are few; 0: no limit',
        0.0,
    )

    @property
    def samples_demonstrations(self) -> bool:
        """Whether recorded demonstrations are of use."""
        return self.demonstration_share > 0.0

    def updates_for(self, transitions: int) -> int:
        """Return how many updates so many transitions pay for: `utd` each."""
        # The tolerance keeps 10 x 0.1 from being 0.999…
        return int(self.utd * transitions + 1e-6)


def too_deep(key: str, hidden_sizes: tuple[int, ...]) -> Iterator[str]:
    """Yield that a network has more hidden layers than any, if it has."""
    if len(hidden_sizes) > MAX_HIDDEN_LAYERS:
        yield f'{key} has {len(hidden_sizes)} layers, expected at most {MAX_HIDDEN_LAYERS}'


@dataclass(frozen=True)
class DiscountConfig:
    """How much later rewards count."""

    section: ClassVar[str] = 'objective'

    gamma: float = parameter(0.97, 'discount per decision', maximum=1.0, above=0.0)


@dataclass(frozen=True)
class MemoryConfig(DiscountConfig, ReplayConfig):
    """What a memory takes to draw batches."""

    section: ClassVar[str] = ''


@dataclass(frozen=True)
class ObjectiveConfig(DiscountConfig):
    """Numbers of what is maximised."""

    section: ClassVar[str] = 'objective'

    discount_episodes: float = parameter(
        0.0,
        'gamma is 1 - 1/H with H this many times the decisions of an episode in the warm-up; 0 '
        'takes gamma',
        0.0,
    )
    reward_offset: float = parameter(-1.0, 'added to the reward of every decision')
    failure_cost: float = parameter(
        0.0,
        'what never succeeding costs, -Q: reward_offset is -(1 - gamma) times this; 0 takes '
        'reward_offset',
        0.0,
    )
    tau: float = parameter(0.01, 'step of the target networks', maximum=1.0, above=0.0)
    actor_interval: int = parameter(1, 'critic updates per actor update', 1)
    actor_averaging: float = parameter(
        1.0,
        'step of the published actor towards the trained one; 1 publishes the trained one',
        maximum=1.0,
        above=0.0,
    )
    anchor_updates: int = parameter(
        0,
        'updates after the warm-up that regress the critics on the returns of the base in it; an '
        'episode that is cut off has one only where rewards are 0 and 1',
        0,
    )
    critic_only_updates: int = parameter(
        0, 'updates of the critics alone after the warm-up; not with entropy in the target', 0
    )
    base_in_target: bool = parameter(
        False, 'bootstrap from the base action where the critics prefer it to the residual (IBRL)'
    )
    neutral_prior: float = parameter(
        0.0,
        'weight in the loss of the critics of the prior that an untried residual is worth what the '
        'base is; Cal-QL, which has a prior of its own, does not use it offline',
        0.0,
    )
    neutral_prior_episodes: float = parameter(
        0.0,
        'episodes, of the length that they have in the warm-up, over which that weight falls to 0; '
        '0 keeps it',
        0.0,
    )
    refit_normalizer: bool = parameter(
        False, 'fit the observation normaliser again whenever the replay has doubled'
    )


@dataclass(frozen=True)
class CriticConfig:
    """Numbers of the critics."""

    section: ClassVar[str] = 'networks'

    critic_heads: int = parameter(2, 'number of Q functions', 1)
    critic_target_heads: int = parameter(
        2, 'Q functions, drawn at random, whose minimum is the target (REDQ)', 1
    )
    critic_heads_repeat: bool = parameter(
        False, 'draw these with replacement (WSRL), so that one may be drawn more than once'
    )
    critic_hidden_sizes: tuple[int, ...] = parameter(
        (256, 256), 'hidden layers', 1, MAX_HIDDEN_SIZE
    )
    critic_normalization: str = parameter(
        'layer', 'of the hidden layers', choices=CRITIC_NORMALIZATIONS
    )
    critic_sees_residual: bool = parameter(
        True, 'give the critics the residual in units of its bound, beside the executed action'
    )
    critic_learning_rate: float = parameter(3e-4, 'Adam step size', above=0.0)
    max_grad_norm: float = parameter(
        50.0, 'gradient norm limit of the actor and of each critic', above=0.0
    )
    choosing_heads: int = parameter(
        0,
        'Q functions that choose on the robot, the first ones, all of which must see an advantage; '
        '0 takes as many as the target has',
        0,
    )
    residual_candidates: int = parameter(
        0,
        'residuals that the robot draws for a decision; the critics choose one of them, or the '
        'base action if none has an advantage over it (EXPO); 0 executes the one that is drawn',
        0,
        MAX_CANDIDATES,
    )


@dataclass(frozen=True)
class ActorConfig:
    """Numbers of the residual actor."""

    section: ClassVar[str] = 'networks'

    actor_hidden_sizes: tuple[int, ...] = parameter((256, 256), 'hidden layers', 1, MAX_HIDDEN_SIZE)
    actor_layer_norm: bool = parameter(False, 'LayerNorm in the hidden layers')
    actor_sees_base_action: bool = parameter(True, 'give the actor the base action')
    hold_residual: bool = parameter(
        True, 'decide one residual of m numbers and hold it over the k steps, instead of k x m'
    )
    actor_learning_rate: float = parameter(1e-4, 'Adam step size', above=0.0)
    imitation_weight: float = parameter(
        0.0,
        'weight in the loss of the actor of its squared distance to the residuals of '
        'demonstrations and takeovers, where the critics prefer these to its own',
        0.0,
    )


@dataclass(frozen=True)
class ComputationConfig:
    """Numbers of how updates are computed."""

    section: ClassVar[str] = 'computation'

    precision: str = parameter(
        'float32',
        'of the products of matrices: float32, bfloat16, or auto, which is bfloat16 where the '
        'processor computes with it; weights, optimisers, targets and losses stay float32',
        choices=PRECISIONS,
    )

    device: str = parameter(
        'cpu',
        'where updates are computed: cpu, cuda, or auto, which is cuda where there is a GPU; small '
        'networks are as fast on the processor',
        choices=DEVICES,
    )

    def find_device(self) -> torch.device:
        """Return where updates are computed.

        Raises:
            ConfigError: this computer has no such device.
        """
        available = torch.cuda.is_available()
        if self.device == 'cuda' and not available:
            raise ConfigError(
                f'device is cuda, but torch {torch.__version__} finds no GPU here; install a torch '
                'that fits its driver, or set device to auto or cpu'
            )
        return torch.device('cuda' if available and self.device != 'cpu' else 'cpu')

    @property
    def in_bfloat16(self) -> bool:
        """Whether products are computed in bfloat16 on this computer."""
        computes = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return self.precision == 'bfloat16' or (self.precision == 'auto' and computes)


@dataclass(frozen=True)
class ActorCriticConfig(
    ComputationConfig, ActorConfig, CriticConfig, ObjectiveConfig, MemoryConfig, RuleConfig
):
    """Numbers that every off-policy rule has."""

    section: ClassVar[str] = ''

    @property
    def tells_cost(self) -> bool:
        """Whether the robot's critics tell the cost of a base action: decisions have a price."""
        return self.residual_candidates > 0 and self.reward_offset < 0.0

    @property
    def preparation_updates(self) -> int:
        """Number of updates that `prepare` takes."""
        return self.anchor_updates + self.critic_only_updates

    def scaled(self, episode_decisions: float) -> Self:
        """Return it with the numbers that depend on the length of an episode.

        Args:
            episode_decisions: mean number of decisions of an episode in the warm-up.
        """
        gamma, offset = self.gamma, self.reward_offset
        if self.discount_episodes:
            gamma = 1.0 - 1.0 / max(2.0, self.discount_episodes * episode_decisions)
        if self.failure_cost:
            offset = -self.failure_cost * (1.0 - gamma)
        return replace(self, gamma=gamma, reward_offset=offset)

    def short_sight(self, episode_decisions: float) -> str:
        """Return that the discount is too short for the episodes of the warm-up, if it is.

        Args:
            episode_decisions: their mean number of decisions.
        """
        ahead = 1.0 / max(1.0 - self.gamma, 1e-9)
        if episode_decisions <= FAR_SIGHTED * ahead:
            return ''
        return (
            f'episodes of the warm-up have {episode_decisions:.0f} decisions, and gamma '
            f'{self.gamma:.4g} looks {ahead:.0f} ahead: preset self_scaling takes such numbers '
            'from the warm-up'
        )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if self.critic_target_heads > self.critic_heads:
            yield (
                f'critic_target_heads is {self.critic_target_heads}, expected at most '
                f'critic_heads, which is {self.critic_heads}'
            )
        if self.choosing_heads > self.critic_heads:
            yield (
                f'choosing_heads is {self.choosing_heads}, expected at most critic_heads, which is '
                f'{self.critic_heads}'
            )
        for key in ('actor_hidden_sizes', 'critic_hidden_sizes'):
            yield from too_deep(key, getattr(self, key))
        if self.residual_candidates and not self.critic_hidden_sizes:
            yield (
                f'residual_candidates is {self.residual_candidates} and critic_hidden_sizes '
                'empty; critics that choose need a hidden layer'
            )
