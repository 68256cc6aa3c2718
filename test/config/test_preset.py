# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A misspelt number in a preset must stop a run, not change it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from learner_builders import small_config

from residual_rl_ros.config.preset import learner_config, load_preset
from residual_rl_ros.errors import ConfigError, ResourceError
from residual_rl_ros.resources import resource_path

PRESETS = sorted(path.stem for path in resource_path('config', 'presets').glob('*.yaml'))


@pytest.mark.parametrize('name', PRESETS)
def test_a_shipped_preset_loads(name: str) -> None:
    config = load_preset(name)
    sizes = [name for name in asdict(config.rule) if name.endswith('hidden_sizes')]
    assert all(isinstance(getattr(config.rule, name), tuple) for name in sizes)
    assert learner_config(config.to_mapping()) == config


def test_overrides_replace_values_and_leave_the_others() -> None:
    plain, changed = load_preset('best_of_n'), load_preset('best_of_n', {'gamma': 0.5, 'utd': 2})
    assert (changed.rule.gamma, changed.rule.utd) == (0.5, 2.0)
    assert isinstance(changed.rule.utd, float)
    assert changed.rule.tau == plain.rule.tau


def test_lists_of_the_file_become_tuples_of_whole_numbers() -> None:
    assert small_config(actor_hidden_sizes=[3, 4]).rule.actor_hidden_sizes == (3, 4)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    names = ', '.join(PRESETS)
    with pytest.raises(ResourceError, match=rf"unknown preset 'dusk'; shipped: {names}; or"):
        load_preset('dusk')


def test_a_preset_is_read_by_path(tmp_path: Path) -> None:
    shipped = resource_path('config', 'presets', 'best_of_n.yaml').read_text()
    own = tmp_path / 'own.yaml'
    own.write_text(shipped.replace('utd: 2.0 ', 'utd: 0.25'))
    assert load_preset(str(own)) == load_preset('best_of_n', {'utd': 0.25})


@pytest.mark.parametrize('content', [b'{', b'- 1', b'\xff\xfe', None])
def test_a_preset_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    own = tmp_path / 'own.yaml'
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(ConfigError, match=r'own.yaml: cannot read preset'):
        load_preset(str(own))


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r'gama is unknown; did you mean gamma\?'):
        small_config(gama=0.9)


def test_every_error_of_a_file_is_named_at_once() -> None:
    changes = {'gama': 0.9, 'utd': -1, 'batch_size': 'many', 'reward_scale': 2.0}
    with pytest.raises(ConfigError) as caught:
        load_preset('best_of_n', changes)
    assert caught.value.problems == (
        'gama is unknown; did you mean gamma?',
        'reward_scale was removed: it was 1 in every preset; delete the line, or scale the reward '
        'at its source',
        "batch_size is 'many', expected a whole number >= 1 and <= 65536",
        'utd is -1, expected a number > 0.0 and <= 1000.0',
    )
    assert str(caught.value).startswith("preset 'best_of_n': gama is unknown")


def test_a_preset_names_what_differs_and_every_key_has_its_section(tmp_path: Path) -> None:
    own = tmp_path / 'own.yaml'
    own.write_text('algorithm: td3\nobjective: {gamma: 0.5}\n')
    config = load_preset(str(own))
    assert config.to_mapping()['gamma'] == 0.5
    assert config == learner_config({'algorithm': 'td3', 'gamma': 0.5})
    own.write_text('replay: {gamma: 0.5}\nnetworks: 3\n')
    with pytest.raises(
        ConfigError, match=r'replay.gamma is in the wrong section, .* objective; net'
    ):
        load_preset(str(own))


def test_a_preset_extends_another_and_none_itself(tmp_path: Path) -> None:
    heir = tmp_path / 'heir.yaml'
    heir.write_text(
        'extends: best_of_n\nreplay: {utd: 1.0}\nnetworks: {critic_normalization: none}\n'
    )
    changed, best_of_n = load_preset(str(heir)).to_mapping(), load_preset('best_of_n').to_mapping()
    assert {key for key in best_of_n if changed[key] != best_of_n[key]} == {
        'utd',
        'critic_normalization',
    }
    one, other = tmp_path / 'one.yaml', tmp_path / 'other.yaml'
    one.write_text(f'extends: {other}\n')
    other.write_text(f'extends: {one}\n')
    with pytest.raises(ConfigError, match=r'extends is .*expected another preset'):
        load_preset(str(one))
    other.write_text('extends: best_off\n')
    with pytest.raises(ConfigError, match=r"other.yaml: extends: unknown preset 'best_off'"):
        load_preset(str(one))


@pytest.mark.parametrize('name', PRESETS)
def test_a_shipped_preset_is_short(name: str) -> None:
    lines = resource_path('config', 'presets', f'{name}.yaml').read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith('#')]) <= 27
    assert 'algorithm: ' in '\n'.join(lines) or 'extends: ' in '\n'.join(lines)


@pytest.mark.parametrize(('old', 'new'), [('resfit', 'td3'), ('wsrl', 'cal_ql')])
def test_a_rule_of_an_earlier_version_says_its_new_name(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=f"'{old}' was renamed: write '{new}'"):
        learner_config({'algorithm': old})


@pytest.mark.parametrize(
    ('preset', 'change', 'reason'),
    [
        ('best_of_n', {'critic_only_updates': 100}, 'entropy_in_target true'),
        ('wsrl', {'critic_only_updates': 100, 'entropy_in_target': True}, 'entropy_in_target true'),
        ('best_of_n', {'offline_updates': 100}, 'offline_updates is unknown'),
        ('best_of_n', {'critic_normalization': 'batch'}, 'none, layer, hyperspherical'),
        ('best_of_n', {'critic_target_heads': 3}, 'expected at most critic_heads, which is 2'),
        ('best_of_n', {'choosing_heads': 3}, 'expected at most critic_heads, which is 2'),
        ('best_of_n', {'algorithm': 'ppo'}, "algorithm is 'ppo', expected one of cal_ql, "),
        ('best_of_n', {'wide_exploration_scale': 0.5}, '>= 1'),
        ('best_of_n', {'random_exploration_share': 0.5}, 'a random residual knows no cost'),
        ('self_scaling', {'random_exploration_decisions': 0}, '>= 1'),
        ('self_scaling', {'utd': 1e6}, '<= 1000'),
        ('q_remix', {'random_exploration_share': 0.5}, 'chooses only among proposals'),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_reason(
    preset: str, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_preset(preset, change)


def test_the_preset_of_a_paper_has_nothing_of_ours() -> None:
    dawn, ours = load_preset('dawn').to_mapping(), load_preset('best_of_n').to_mapping()
    off = {'residual_candidates': 0, 'neutral_prior': 0.0, 'actor_averaging': 1.0, 'n_step': 1}
    off |= {'base_in_target': False, 'full_bound_cost': 0.0, 'wide_exploration_share': 0.0}
    assert {key: dawn[key] for key in off} == off
    assert not any(ours[key] == off[key] for key in off)


@pytest.mark.parametrize('preset', ['best_of_n', 'wsrl', 'resfit'])
def test_critics_may_be_trained_alone_where_no_entropy_is_in_the_target(preset: str) -> None:
    hard = {} if preset == 'resfit' else {'entropy_in_target': False}
    assert load_preset(preset, {'critic_only_updates': 100, **hard}).rule.preparation_updates >= 100


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('batch_size', 'many'),
        ('batch_size', 2.5),
        ('batch_size', None),
        ('gamma', 'high'),
        ('gamma', [0.9]),
        ('actor_layer_norm', 1),
        ('actor_layer_norm', 'yes'),
        ('critic_normalization', 3),
        ('hold_residual', None),
        ('actor_hidden_sizes', 64),
        ('actor_hidden_sizes', ['wide']),
    ],
)
def test_a_value_of_the_wrong_type_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf'{key} is .*, expected'):
        small_config(**{key: value})


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('batch_size', float('inf')),
        ('batch_size', True),
        ('utd', True),
        ('actor_hidden_sizes', '64'),
        ('actor_hidden_sizes', [0]),
        ('actor_learning_rate', -1.0),
        ('critic_learning_rate', float('nan')),
        ('reward_offset', float('nan')),
        ('max_grad_norm', 0.0),
        ('utd', float('inf')),
    ],
)
def test_a_value_that_cannot_work_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        small_config(**{key: value})


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('gamma', 0.0),
        ('gamma', 1.1),
        ('tau', -0.1),
        ('tau', 2.0),
        ('initial_alpha', 0.0),
        ('critic_heads', 0),
        ('batch_size', 0),
        ('utd', 0.0),
        ('utd', float('nan')),
        ('publish_interval', 0),
        ('residual_candidates', -1),
        ('residual_candidates', 65),
        ('full_bound_cost', -1.0),
        ('replay_capacity', 0),
        ('warmup_transitions', 0),
        ('warmup_transitions', 1),
        ('guard_false_alarm_episodes', 1.0),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf'{key} is {value}, expected'):
        small_config(**{key: value})


def test_critics_that_choose_need_a_hidden_layer() -> None:
    with pytest.raises(ConfigError, match='8 and critic_hidden_sizes empty'):
        small_config(critic_hidden_sizes=[])
    alone = small_config(critic_hidden_sizes=[], residual_candidates=0, full_bound_cost=0.0)
    assert alone.to_mapping()['residual_candidates'] == 0


@pytest.mark.parametrize('change', [{'residual_candidates': 0}, {'reward_offset': 0.0}])
def test_a_cost_of_the_base_needs_critics_that_choose_and_a_price_on_decisions(
    change: dict[str, float],
) -> None:
    with pytest.raises(ConfigError, match=r'full_bound_cost is 5.0, but the robot policy tells no'):
        small_config(**change)
    assert small_config(**change, full_bound_cost=0.0).full_bound_cost == 0.0


def test_a_warm_up_that_does_not_fit_the_memory_is_refused() -> None:
    message = r'warmup_transitions is 300, expected at most replay_capacity, which is 200'
    with pytest.raises(ConfigError, match=message):
        small_config(warmup_transitions=300)
