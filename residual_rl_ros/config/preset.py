# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Presets: a recipe names its update rule and the numbers in which it differs from the defaults.

In YAML the numbers stand in sections; every key has its place in one of them. Keys are unique, so
that `--set key=value` and `overrides` need no section.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from inspect import get_annotations
from typing import Any, ClassVar

import numpy as np
import torch

from residual_rl_ros.algorithms.rule import RULES, Rule, RuleConfig, find_rule
from residual_rl_ros.config import find_preset
from residual_rl_ros.errors import ConfigError, ResourceError
from residual_rl_ros.residual_policy.exploration import MAX_RANDOM_DECISIONS
from residual_rl_ros.resources import resource_path
from residual_rl_ros.schema import from_mapping, parameter, read_yaml, unknown_key
from residual_rl_ros.transitions.layout import TransitionLayout

REMOVED = {
    'actor_delay_updates': 'it was 0 in every preset; delete the line',
    'demonstration_half_life': 'set demonstration_weight: the share falls as the robot acts',
    'n_step_share': 'it was 0 in every preset; delete the line, and set n_step to a number of '
    'decisions',
    'reward_scale': 'it was 1 in every preset; delete the line, or scale the reward at its source',
}
"""Keys of earlier versions, and what became of them."""
RENAMED_RULES = {'resfit': 'td3', 'wsrl': 'cal_ql'}
"""Presets with names of their own that people write where an update rule is asked for."""


@dataclass(frozen=True)
class WarmupConfig:
    """Numbers of the time before the residual acts."""

    section: ClassVar[str] = 'collection'

    warmup_transitions: int = parameter(
        2500, 'base-only transitions before the first gradient step (M), at least', 2
    )
    warmup_episodes: int = parameter(
        0, 'finished episodes that the warm-up has at least, whatever their length', 0
    )
    warmup_noise: float = parameter(
        0.0,
        'uniform noise on the base action meanwhile, in units of the residual bound; of discrete '
        'actions, the probability of a random one',
        0.0,
        1.0,
    )
    policy_warmup_transitions: int = parameter(
        0, "after these: transitions with the pre-trained actor and no update (WSRL's K)", 0
    )


@dataclass(frozen=True)
class ExplorationConfig:
    """Numbers of how far and how widely the residual acts."""

    section: ClassVar[str] = 'collection'

    progressive_transitions: int = parameter(
        0, 'transitions over which the share of decisions with a residual grows from 0 to 1', 0
    )
    bound_ramp_transitions: int = parameter(
        0, 'transitions over which the residual bound grows from 0 to its full size', 0
    )
    bound_ramp_episodes: float = parameter(
        0.0, 'the same as so many episodes of the length that they have in the warm-up', 0.0
    )
    full_bound_cost: float = parameter(
        0.0,
        'cost to go of a base action, -Q(s, b), at which the bound is whole after half of these '
        'transitions; what costs more, being far from success, has it sooner; 0 grows it '
        'everywhere alike',
        0.0,
    )
    wide_exploration_share: float = parameter(
        0.0, 'share of episodes that explore more widely', 0.0, 1.0
    )
    wide_exploration_scale: float = parameter(
        1.0, "largest factor on the actor's noise in these, drawn log-uniformly from 1", 1.0
    )
    random_exploration_share: float = parameter(
        0.0,
        'times the share of the latest 50 judged episodes that failed and nobody helped in, the '
        'share of episodes in which a random residual acts; after the warm-up and a rollback these '
        'are few at first',
        0.0,
        1.0,
    )
    random_exploration_decisions: int = parameter(
        10, 'in these, decisions after which it is drawn anew', 1, MAX_RANDOM_DECISIONS
    )


@dataclass(frozen=True)
class GuardNumbers:
    """Numbers of the guard."""

    section: ClassVar[str] = 'guard'

    guard_share: float = parameter(
        0.1,
        'of the episodes that are not random, the share without residual, to compare with; 0 turns '
        'the guard off; a half until it knows the base, nine tenths while it doubts the residual',
        0.0,
        1.0,
    )
    guard_drop: float = parameter(
        0.3,
        'loss of success that is to raise doubt quickly; of returns it is one of their grade from '
        '0 to 1, and 0.3 are one standard deviation',
        maximum=1.0,
        above=0.0,
    )
    guard_false_alarm_episodes: float = parameter(
        100000.0,
        'least mean number of episodes between false alarms, whatever base and residual go through '
        'together; the budget is that of 10,000 episodes at first',
        above=1.0,
    )
    guard_bound_floor: float = parameter(
        1.0,
        'share of the residual bound, in episodes that do not explore more widely, when the guard '
        'doubts the residual; 1 keeps all',
        maximum=1.0,
        above=0.0,
    )
    guard_unlabelled: str = parameter(
        'auto',
        'what an episode is that a time limit ended without a label: failure, ignored, or auto, '
        'which is failure where only successes are ever labelled; with auto the guard watches '
        'returns while nothing was ever labelled',
        choices=('auto', 'failure', 'ignored'),
    )

    def unlabelled_fails(self, only_success_is_labelled: bool) -> bool:
        """Return whether an episode failed that a time limit ended without a label."""
        known = self.guard_unlabelled == 'failure'
        return known or (self.guard_unlabelled == 'auto' and only_success_is_labelled)


@dataclass(frozen=True)
class PublicationConfig:
    """Numbers of what is sent to the robot."""

    section: ClassVar[str] = 'collection'

    publish_interval: int = parameter(50, 'transitions between two weight messages', 1)


@dataclass(frozen=True)
class LoopConfig(PublicationConfig, GuardNumbers, ExplorationConfig, WarmupConfig):
    """Numbers of the learner around any update rule."""

    section: ClassVar[str] = ''


@dataclass(frozen=True)
class LearnerConfig(LoopConfig):
    """The numbers of a learner: those of the loop, and those of the update rule."""

    algorithm: str = 'sac'
    """Name of the update rule."""
    rule: RuleConfig = field(default_factory=RuleConfig)
    """Numbers of the update rule."""

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        yield from self.rule.problems()
        if self.full_bound_cost and not self.rule.tells_cost:
            yield (
                f'full_bound_cost is {self.full_bound_cost}, but the robot policy tells no cost of '
                'a base action: that needs critics that choose (residual_candidates above 0) and a '
                'price on every decision (reward_offset below 0); or set full_bound_cost to 0'
            )
        if self.full_bound_cost and self.random_exploration_share:
            yield (
                f'full_bound_cost is {self.full_bound_cost} and random_exploration_share is '
                f'{self.random_exploration_share}, but a random residual knows no cost: set one '
                'to 0'
            )
        for key in ('warmup_noise', 'random_exploration_share'):
            if getattr(self, key) and not self.rule.adds_residuals:
                yield (
                    f'{key} is {getattr(self, key)}, but {self.algorithm} chooses only among '
                    'proposals of the base; set it to 0'
                )
        ramps = ('bound_ramp_transitions', 'bound_ramp_episodes')
        shares = ('wide_exploration_share', 'random_exploration_share')
        for key in ('progressive_transitions', *shares, *ramps):
            if self.rule.on_policy and getattr(self, key):
                yield (
                    f'{key} is {getattr(self, key)}, but algorithm {self.algorithm} learns only '
                    'from decisions that its actor drew with its own noise; set it to 0'
                )
        capacity = getattr(self.rule, 'replay_capacity', self.warmup_transitions)
        if self.warmup_transitions > capacity:
            yield (
                f'warmup_transitions is {self.warmup_transitions}, expected at most '
                f'replay_capacity, which is {capacity}'
            )

    def check_proposals(self, proposals: int) -> None:
        """Refuse a rule that chooses among proposals of the base where a decision has but one.

        Args:
            proposals: of a decision.

        Raises:
            ConfigError: the rule chooses among proposals, and there is one.
        """
        if self.rule.proposals_advice and proposals < 2:
            raise ConfigError(
                f'{self.algorithm} chooses among proposals of the base, and proposals is '
                f'{proposals}: {self.rule.proposals_advice}'
            )

    @property
    def learns_add_on(self) -> bool:
        """Whether its rule takes add-on rewards, by the key `add_on`."""
        return any(item.name == 'add_on' for item in fields(self.rule))

    def make_rule(
        self, layout: TransitionLayout, generator: torch.Generator, rng: np.random.Generator
    ) -> Rule:
        """Return networks, memory and update rule for a transition layout."""
        rule: Rule = find_rule(self.algorithm)[0](self.rule, layout, generator, rng)
        return rule

    def to_mapping(self) -> dict[str, Any]:
        """Return the flat map that `learner_config` reads."""
        values = asdict(self)
        rule = values.pop('rule')
        return {'algorithm': self.algorithm, **values, **rule}


def learner_config(values: Mapping[str, Any], source: str = 'preset') -> LearnerConfig:
    """Return the configuration of a map, in sections or flat; keys that it lacks are defaults.

    Raises:
        ConfigError: names every unknown, removed or wrong key.
    """
    algorithm = values.get('algorithm', LearnerConfig.algorithm)
    if algorithm in RENAMED_RULES and algorithm not in RULES:
        raise ConfigError(
            source,
            [f'algorithm {algorithm!r} was renamed: write {RENAMED_RULES[algorithm]!r}'],
        )
    try:
        _, rule_type = find_rule(algorithm)
    except ConfigError as error:
        raise ConfigError(source, [str(error)]) from error
    problems: list[str] = []
    flat = _flatten(values, rule_type, problems)
    parts: dict[str, Any] = {}
    own = {item.name for item in fields(LoopConfig)}
    for name, kind, chosen in (
        ('loop', LoopConfig, {key: value for key, value in flat.items() if key in own}),
        ('rule', rule_type, {key: value for key, value in flat.items() if key not in own}),
    ):
        try:
            parts[name] = from_mapping(kind, chosen, source)
        except ConfigError as error:
            problems += error.problems
    if not problems:
        loop = {item.name: getattr(parts['loop'], item.name) for item in fields(LoopConfig)}
        made = LearnerConfig(algorithm=algorithm, rule=parts['rule'], **loop)
        problems += [problem for problem in made.problems() if problem not in problems]
    if problems:
        raise ConfigError(source, problems)
    return made


def sections(rule_type: type[RuleConfig]) -> dict[str, dict[str, Field[Any]]]:
    """Return the keys of every section of a preset of an update rule, in order."""
    found: dict[str, dict[str, Field[Any]]] = {}
    for kind in (LoopConfig, rule_type):
        for base in reversed(kind.__mro__):
            section = base.__dict__.get('section', '')
            known = {item.name: item for item in fields(kind)}
            for name in get_annotations(base):
                if section and name in known and name != 'section':
                    found.setdefault(section, {})[name] = known[name]
    return found


def _flatten(
    values: Mapping[str, Any], rule_type: type[RuleConfig], problems: list[str]
) -> dict[str, Any]:
    """Return the keys of all sections in one map; add to `problems` what stands elsewhere."""
    places = sections(rule_type)
    home = {key: name for name, keys in places.items() for key in keys}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in places:
            if not isinstance(value, Mapping):
                problems.append(f'{name} is {value!r}, expected a map of {", ".join(places[name])}')
                continue
            for key, item in value.items():
                if home.get(key, name) != name:
                    problems.append(f'{name}.{key} is in the wrong section, move it to {home[key]}')
                elif key not in home:
                    problems.append(f'{name}.{_unknown(key, home)}')
                else:
                    flat[key] = item
        elif name in home:
            flat[name] = value
        elif name != 'algorithm':
            problems.append(_unknown(name, {**home, **places}))
    return flat


def _unknown(key: Any, known: Mapping[str, Any]) -> str:
    """Return what is wrong with a key that does not exist, or what became of it."""
    if key in REMOVED:
        return f'{key} was removed: {REMOVED[key]}'
    return unknown_key(key, known)


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    return sorted(file.stem for file in resource_path('config', 'presets').glob('*.yaml'))


def load_preset(
    name: str, overrides: Mapping[str, Any] = types.MappingProxyType({})
) -> LearnerConfig:
    """Read a preset.

    Args:
        name: name of a shipped preset, or path of a YAML file.
        overrides: values that replace those of the file, by key.

    Raises:
        ConfigError: names every unknown, removed or wrong key.
        ResourceError: unknown preset.
    """
    values = _read(name, ())
    # An override wins over the same key in its section.
    kept = {
        key: {k: v for k, v in value.items() if k not in overrides}
        if isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
    return learner_config({**kept, **overrides}, f'preset {name!r}')


def _read(name: str, heirs: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a preset file, over that of the preset which it extends."""
    path = find_preset(name)
    values = read_yaml(path, 'preset')
    if not isinstance(values, Mapping):
        raise ConfigError(str(path), ['cannot read preset: the content is no map'])
    values = dict(values)
    parent = values.pop('extends', None)
    if parent is None:
        return values
    if not isinstance(parent, str) or parent in (name, *heirs):
        chain = ' extends '.join([*heirs, name, str(parent)])
        raise ConfigError(str(path), [f'extends is {parent!r}, expected another preset: {chain}'])
    try:
        merged = _read(parent, (*heirs, name))
    except ResourceError as error:
        raise ConfigError(str(path), [f'extends: {error}']) from error
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged
