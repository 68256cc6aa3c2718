# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Presets: every number of a learner in one YAML file."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

import yaml

from residual_rl_ros.algorithms.actor_critic import ActorCritic, RuleConfig
from residual_rl_ros.algorithms.cal_ql import Wsrl, WsrlConfig
from residual_rl_ros.algorithms.sac import Sac, SacConfig
from residual_rl_ros.algorithms.td3 import Resfit, ResfitConfig
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.residual_policy.architecture import CRITIC_NORMALIZATIONS, MAX_CANDIDATES
from residual_rl_ros.resources import find_file, resource_path
from residual_rl_ros.robot.action_spec import integer

RULES: dict[str, tuple[type[ActorCritic], type[RuleConfig]]] = {
    'sac': (Sac, SacConfig),
    'resfit': (Resfit, ResfitConfig),
    'wsrl': (Wsrl, WsrlConfig),
}
"""Update rules by the name a preset gives, with the type of their numbers."""

DEFAULT_PRESET = 'dawn'

SIGNED = ('reward_offset', 'target_entropy_per_dimension')
MAY_BE_ZERO = (
    *('warmup_noise', 'offline_updates', 'policy_warmup_transitions', 'critic_only_updates'),
    *('actor_delay_updates', 'progressive_transitions', 'bound_ramp_transitions'),
    *('full_bound_cost', 'demonstration_share', 'residual_candidates'),
    *('wide_exploration_share', 'guard_share'),
    *('exploration_std', 'target_std', 'cql_weight', 'neutral_prior'),
)
SHARES = (
    *('gamma', 'tau', 'actor_averaging', 'warmup_noise', 'demonstration_share'),
    *('wide_exploration_share', 'guard_share', 'guard_drop', 'guard_bound_floor'),
)


@dataclass(frozen=True)
class LearnerConfig:
    """The update rule's numbers and those of the loop around it; in YAML they are one flat map."""

    algorithm: str
    """Update rule, a key of `RULES`."""
    rule: RuleConfig
    """Numbers of the update rule."""
    warmup_transitions: int
    """Base-only transitions before the first gradient step (M)."""
    refit_normalizer: bool
    """Fit the observation normaliser again whenever the replay holds twice what it was fitted on;
    if not, it stays as the warm-up left it."""
    warmup_noise: float
    """Uniform noise on the base action meanwhile, in units of the residual bound."""
    offline_updates: int
    """Offline updates on the warm-up data; then the buffer is emptied (WSRL)."""
    policy_warmup_transitions: int
    """After these: transitions with the pre-trained actor and no update (WSRL's K)."""
    critic_only_updates: int
    """Updates of the critics alone after the warm-up; refused with an entropy in the target."""
    actor_delay_updates: int
    """Online updates before the first one of the actor: the critics see its noise first."""
    progressive_transitions: int
    """Transitions over which the share of decisions with a residual grows from 0 to 1."""
    bound_ramp_transitions: int
    """Transitions over which the residual bound grows from 0 to its full size; see the next."""
    full_bound_cost: float
    """Cost to go of a base action, -Q(s, b), at which the bound is whole after half of those
    transitions; what costs more, being far from success, has it sooner. 0: it grows everywhere
    alike."""
    residual_candidates: int
    """Residuals that the robot draws for a decision; the critics choose one of them, or the base
    alone if none has an advantage over it (EXPO). 0: the one that the actor draws is executed."""
    wide_exploration_share: float
    """Share of episodes that explore more widely."""
    wide_exploration_scale: float
    """Largest factor on the actor's noise in these; drawn log-uniformly from 1 to this."""
    guard_share: float
    """Share of episodes without residual, for the guard to compare with; 0 turns it off. Until
    the guard knows the base it is a half."""
    guard_drop: float
    """Loss of success against the base that the guard shall find quickly."""
    guard_false_alarm_episodes: float
    """Least mean number of episodes between the guard's false alarms."""
    guard_bound_floor: float
    """Share of the residual bound that is left in careful episodes (those that do not explore
    widely) when the guard is halfway to an alarm; 1 keeps all."""
    demonstration_share: float
    """Share of every batch that is drawn from the demonstration buffer, once it holds any."""
    replay_capacity: int
    """Transitions kept, in the replay and in the demonstration buffer each."""
    batch_size: int
    """Transitions per update."""
    utd: float
    """Updates of the critics per transition received after warm-up; every `actor_interval`-th of
    them updates the actor too."""
    publish_interval: int
    """Transitions between two weight publications."""

    def __post_init__(self) -> None:
        """Check ranges and refuse what does not fit together."""
        for name, value in self.to_mapping().items():
            if not isinstance(value, str):
                _check_range(name, value)
        rule = self.rule
        if rule.critic_normalization not in CRITIC_NORMALIZATIONS:
            raise ConfigError(
                f'preset: critic_normalization is {rule.critic_normalization!r}, expected one of '
                f'{", ".join(CRITIC_NORMALIZATIONS)}'
            )
        if rule.critic_target_heads > rule.critic_heads:
            raise ConfigError(
                f'preset: critic_target_heads {rule.critic_target_heads} exceeds critic_heads '
                f'{rule.critic_heads}'
            )
        if self.residual_candidates > MAX_CANDIDATES:
            raise ConfigError(
                f'preset: residual_candidates is {self.residual_candidates}, expected <= '
                f'{MAX_CANDIDATES}'
            )
        if self.residual_candidates and not rule.critic_hidden_sizes:
            raise ConfigError(
                f'preset: residual_candidates is {self.residual_candidates} and '
                'critic_hidden_sizes empty; critics that choose need a hidden layer'
            )
        if self.full_bound_cost and not self.residual_candidates:
            raise ConfigError(
                f'preset: full_bound_cost is {self.full_bound_cost} and residual_candidates 0; '
                'only critics that choose can tell the cost: set residual_candidates above 0, or '
                'full_bound_cost to 0'
            )
        if self.full_bound_cost and rule.reward_offset >= 0.0:
            raise ConfigError(
                f'preset: full_bound_cost is {self.full_bound_cost} and reward_offset '
                f'{rule.reward_offset}; without a price on every decision no base action costs '
                'anything, and the bound would not grow: set full_bound_cost to 0'
            )
        if self.wide_exploration_scale < 1.0:
            raise ConfigError(
                f'preset: wide_exploration_scale is {self.wide_exploration_scale}, expected >= 1'
            )
        if self.warmup_transitions < 2:
            raise ConfigError(
                f'preset: warmup_transitions is {self.warmup_transitions}, expected >= 2: the '
                'observation normaliser needs a spread'
            )
        if self.guard_false_alarm_episodes <= 1.0:
            raise ConfigError(
                f'preset: guard_false_alarm_episodes is {self.guard_false_alarm_episodes}, '
                'expected > 1; guard_share 0 turns the guard off'
            )
        if self.warmup_transitions > self.replay_capacity:
            raise ConfigError(
                f'preset: warmup_transitions {self.warmup_transitions} exceeds replay_capacity '
                f'{self.replay_capacity}'
            )
        rule_type = RULES[self.algorithm][0]
        soft = isinstance(rule, SacConfig) and rule.entropy_in_target
        if self.critic_only_updates and soft:
            raise ConfigError(
                f'preset: critic_only_updates is {self.critic_only_updates} and entropy_in_target '
                'true: beside a nearly deterministic residual the entropy outweighs the reward, '
                'and critics that are trained alone diverge (DAWN); set critic_only_updates to 0, '
                'entropy_in_target to false, or use algorithm resfit'
            )
        if self.offline_updates and rule_type is not Wsrl:
            raise ConfigError(
                f'preset: offline_updates is {self.offline_updates}, but {self.algorithm} has no '
                'offline update; set it to 0 or use algorithm wsrl'
            )

    def make_rule(self, layout: Any, generator: Any) -> ActorCritic:
        """Return networks and update rule for a transition layout."""
        make: Any = RULES[self.algorithm][0]
        rule: ActorCritic = make(self.rule, layout, generator)
        return rule

    def to_mapping(self) -> dict[str, Any]:
        """Return the flat map that `from_mapping` reads."""
        values = asdict(self)
        rule = values.pop('rule')
        return {**values, **rule}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = 'preset') -> LearnerConfig:
        """Return the configuration of a flat map, such as a preset file holds.

        Raises:
            ConfigError: unknown algorithm, unknown or missing key, or a value of the wrong type.
        """
        algorithm = values.get('algorithm')
        if algorithm not in RULES:
            raise ConfigError(
                f'{source}: algorithm is {algorithm!r}, expected one of {", ".join(RULES)}'
            )
        rule_type = RULES[algorithm][1]
        own = {field.name for field in fields(cls)} - {'rule'}
        of_rule = {field.name for field in fields(rule_type)}
        if set(values) != own | of_rule:
            raise ConfigError(
                f'{source}: unknown keys {sorted(map(str, set(values) - own - of_rule))}, missing '
                f'keys {sorted((own | of_rule) - set(values))}'
            )
        hints = {**get_type_hints(cls), **get_type_hints(rule_type)}
        converted = {key: _convert(key, value, hints[key]) for key, value in values.items()}
        rule = rule_type(**{name: converted[name] for name in of_rule})
        return cls(rule=rule, **{name: converted[name] for name in own})


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    return sorted(file.stem for file in resource_path('config', 'presets').glob('*.yaml'))


def load_preset(
    name: str, overrides: Mapping[str, Any] = types.MappingProxyType({})
) -> LearnerConfig:
    """Read a preset.

    Args:
        name: name of a shipped preset, or path of a YAML file with the same keys.
        overrides: values that replace those of the file.

    Raises:
        ConfigError: unknown or missing key, or a value of the wrong type.
        ResourceError: unknown preset.
    """
    path = find_file('preset', ('config', 'presets'), name, '.yaml')
    try:
        values = {**yaml.safe_load(path.read_text(encoding='utf-8')), **overrides}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f'cannot read preset {str(path)!r}: {error}') from error
    return LearnerConfig.from_mapping(values, f'preset {name!r}')


def _check_range(name: str, value: Any) -> None:
    """Refuse a number that no update rule can use."""
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f'preset: {name} is {value}, expected finite numbers')
    if name in SHARES and value > 1:
        raise ConfigError(f'preset: {name} is {value}, expected <= 1')
    if isinstance(value, bool) or name in SIGNED:
        return
    if not all(number > 0 or (number == 0 and name in MAY_BE_ZERO) for number in numbers):
        expected = '>= 0' if name in MAY_BE_ZERO else '> 0'
        raise ConfigError(f'preset: {name} is {value}, expected {expected}')


def _convert(key: str, value: Any, kind: Any) -> Any:
    """Return a YAML value as the type of its field."""
    wanted = 'a list of whole numbers' if kind == tuple[int, ...] else kind.__name__
    try:
        if kind in (bool, str) and isinstance(value, kind):
            return value
        if kind is int:
            return integer(value)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if kind == tuple[int, ...] and not isinstance(value, str):
            return tuple(integer(item) for item in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f'preset: {key} is {value!r}, expected {wanted}') from error
    raise ConfigError(f'preset: {key} is {value!r}, expected {wanted}')
