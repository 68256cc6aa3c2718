# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag of transitions is a training set only if nothing is lost and nothing is guessed."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_action_spec
from strategies import layouts, transitions
from transition_builders import make_layout, make_transition

from residual_rl_ros.errors import ConfigError, MalformedTransitionError
from residual_rl_ros.robot.names import check_names
from residual_rl_ros.robot.observation import MAX_STAMP_S
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import HEADER, MAX_COUNT, Transition

LAYOUT = make_layout()
MESSAGE = LAYOUT.encode(make_transition(LAYOUT))
BLOCKS = (
    'observation',
    'base_action',
    'residual_action',
    'executed_action',
    'next_observation',
    'next_base_action',
)


def positions() -> list[str]:
    """Return the name of every position of a message of `LAYOUT`, as errors must give it."""
    sizes = [3 if block.endswith('observation') else 4 for block in BLOCKS]
    named = zip(BLOCKS, sizes, strict=True)
    return [*HEADER, *(f'{block}[{i}]' for block, size in named for i in range(size))]


def changed(position: str, value: float) -> np.ndarray:
    message = MESSAGE.copy()
    message[positions().index(position)] = value
    return message


def assert_identical(found: Transition, expected: Transition) -> None:
    for field in fields(Transition):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, np.ndarray):
            assert one.tobytes() == other.tobytes(), field.name
        else:
            assert (type(one), repr(one)) == (type(other), repr(other)), field.name


@given(st.data())
def test_a_transition_survives_encode_and_decode_bit_for_bit(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    transition = data.draw(transitions(layout))
    message = layout.encode(transition)
    assert message.shape == (layout.size,)
    assert message.dtype == np.float64
    assert_identical(layout.decode(message, layout.label), transition)


def test_the_message_order_is_that_of_layout_v1() -> None:
    transition = make_transition(LAYOUT)
    expected = [12.5, 1, 3, 4, 2, 1, 0.25, 0, 0, -1]
    for block in BLOCKS:
        expected += getattr(transition, block).tolist()
    assert MESSAGE.tolist() == expected


def test_layout_v2_appends_what_the_base_policy_tells_and_the_add_on() -> None:
    layout = make_layout(prior='gaussian', proposals=3, customisable=True)
    transition = make_transition(layout)
    message = layout.encode(transition)
    added = [
        'prior',
        'next_prior',
        'proposals',
        'next_proposals',
        'add_on',
    ]
    assert message[: LAYOUT.size].tolist() == MESSAGE.tolist()
    assert [layout.columns[name].stop - layout.columns[name].start for name in added] == [
        *(8, 8, 8, 8, 2)
    ]
    expected = np.concatenate([getattr(transition, name) for name in added])
    assert message[LAYOUT.size :].tolist() == expected.tolist()


def test_only_a_layout_with_additions_is_of_version_2() -> None:
    assert (LAYOUT.version, LAYOUT.label.split(':')[1]) == (1, 'v1')
    assert set(LAYOUT.to_mapping()) == {
        'version',
        'decision_steps',
        'observation_names',
        'action_names',
        'action_min',
        'action_max',
        'residual_bound',
    }
    layout = make_layout(prior='squashed_gaussian', proposals=2)
    assert (layout.version, layout.label.split(':')[1]) == (2, 'v2')
    assert TransitionLayout.from_yaml(layout.to_yaml()) == layout
    assert layout.differences(LAYOUT) == [
        "prior is 'none', expected 'squashed_gaussian'",
        'proposals is 1, expected 2',
    ]


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'prior': 'beta'}, "prior is 'beta', expected one of none, gaussian"),
        ({'prior': ['gaussian']}, 'prior is'),
        ({'prior': 'categorical'}, 'a categorical prior is for discrete actions'),
        ({'proposals': 0}, 'proposals is 0, expected 1 to 64'),
        ({'proposals': 65}, 'proposals is 65, expected 1 to 64'),
        ({'discrete': True}, 'action_min of discrete actions is'),
    ],
)
def test_additions_that_contradict_the_layout_are_refused(changes: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_layout(**changes)


def test_a_decoded_transition_does_not_share_memory_with_the_message() -> None:
    message = MESSAGE.copy()
    transition = LAYOUT.decode(message, LAYOUT.label)
    message[:] = 0.0
    assert_identical(transition, make_transition(LAYOUT))


@given(layouts())
def test_a_layout_survives_yaml(layout: TransitionLayout) -> None:
    assert TransitionLayout.from_yaml(layout.to_yaml()) == layout


@pytest.mark.parametrize(
    'changes',
    [
        {'observation_names': ('x', 'y', 'z')},
        {'observation_names': LAYOUT.observation_names[::-1]},
        {'action_names': ('a.position', 'c.position')},
        {'action_names': LAYOUT.action_names[::-1]},
        {'decision_steps': 3},
        {'action_min': (-1.0, -0.5000000000000001)},
        {'action_max': (1.0, 0.5000000000000001)},
        {'residual_bound': (0.1, 0.05000000000000001)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_label_changes_with_every_field_of_the_layout(changes: dict[str, object]) -> None:
    other = replace(LAYOUT, **changes)
    assert other.label != LAYOUT.label
    with pytest.raises(MalformedTransitionError, match='label'):
        LAYOUT.decode(MESSAGE, other.label)


def test_the_label_names_format_and_version() -> None:
    assert LAYOUT.label.startswith('transition:v1:')
    assert len(LAYOUT.label.split(':')[2]) == 16


@pytest.mark.parametrize('label', ['', 'transition:v1:', 'transition:v2:' + LAYOUT.label[14:]])
def test_a_wrong_label_is_refused_by_name(label: str) -> None:
    with pytest.raises(MalformedTransitionError, match=f'label {label!r}, expected'):
        LAYOUT.decode(MESSAGE, label)


@pytest.mark.parametrize(
    'message',
    [MESSAGE[:-1], np.append(MESSAGE, 0.0), MESSAGE[:0], MESSAGE[None]],
    ids=['short', 'long', 'empty', 'two dimensions'],
)
def test_a_message_of_the_wrong_size_is_refused(message: np.ndarray) -> None:
    with pytest.raises(MalformedTransitionError, match=rf'shape .*expected \({LAYOUT.size},\)'):
        LAYOUT.decode(message, LAYOUT.label)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('position', positions())
def test_a_non_finite_number_is_refused_wherever_it_stands(position: str, value: float) -> None:
    with pytest.raises(MalformedTransitionError) as refusal:
        LAYOUT.decode(changed(position, value), LAYOUT.label)
    assert str(refusal.value) == f'{position} is {value}, expected a finite number'


@pytest.mark.parametrize(
    ('position', 'value'),
    [
        ('epoch', 0.5),
        ('epoch', -1.0),
        ('episode', 1.5),
        ('episode', -1.0),
        ('step', 0.25),
        ('step', -1.0),
        ('policy_sequence', 0.5),
        ('policy_sequence', -2.0),
        ('source', 4.0),
        ('source', -1.0),
        ('source', 0.5),
        ('terminated', 2.0),
        ('terminated', -1.0),
        ('truncated', 0.5),
        ('truncated', 2.0),
        ('success', 2.0),
        ('success', -2.0),
        ('success', 0.5),
    ],
)
def test_a_header_value_out_of_its_range_is_refused_by_name(position: str, value: float) -> None:
    with pytest.raises(MalformedTransitionError, match=f'^{position} is {value}, expected'):
        LAYOUT.decode(changed(position, value), LAYOUT.label)


@pytest.mark.parametrize('value', [1.0000001, -1.0000001, 40.0])
@pytest.mark.parametrize('index', range(4))
def test_a_residual_above_one_is_refused(index: int, value: float) -> None:
    with pytest.raises(
        MalformedTransitionError, match=rf'^residual_action.* is {value}, expected -1 to 1$'
    ):
        LAYOUT.decode(changed(f'residual_action[{index}]', value), LAYOUT.label)


@pytest.mark.parametrize('block', BLOCKS)
def test_a_block_of_the_wrong_size_is_not_encoded(block: str) -> None:
    transition = make_transition(LAYOUT)
    short = replace(transition, **{block: getattr(transition, block)[:-1]})
    with pytest.raises(MalformedTransitionError, match=f'^{block} has shape'):
        LAYOUT.encode(short)


@pytest.mark.parametrize('value', [1e30, -1e30, 1.000001e6, 1e300])
@pytest.mark.parametrize('position', ['reward', *positions()[len(HEADER) :]])
def test_a_finite_number_that_is_not_plausible_is_refused_by_name(
    position: str, value: float
) -> None:
    with pytest.raises(MalformedTransitionError) as refusal:
        LAYOUT.decode(changed(position, value), LAYOUT.label)
    assert str(refusal.value).startswith(f'{position} is {value}, expected -')


@pytest.mark.parametrize('position', ['epoch', 'episode', 'step', 'policy_sequence'])
@pytest.mark.parametrize('value', [2.0**53, 1e30, 1e300])
def test_a_count_that_float64_holds_with_gaps_is_refused(position: str, value: float) -> None:
    message = changed(position, MAX_COUNT)
    assert getattr(LAYOUT.decode(message, LAYOUT.label), position) == MAX_COUNT
    with pytest.raises(MalformedTransitionError, match=f'^{position} is .*a whole number from'):
        LAYOUT.decode(changed(position, value), LAYOUT.label)


def test_a_stamp_that_no_ros_clock_has_is_refused() -> None:
    assert LAYOUT.decode(changed('stamp', MAX_STAMP_S), LAYOUT.label).stamp == MAX_STAMP_S
    with pytest.raises(
        MalformedTransitionError, match=r'^stamp is 10000000000\.0, expected -2147483648'
    ):
        LAYOUT.decode(changed('stamp', 1e10), LAYOUT.label)


def test_an_operator_may_command_far_outside_of_what_the_base_was_trained_on() -> None:
    # A gripper in 1/255 that the base never moves; an arm that an operator moves by a turn.
    layout = make_layout(action_min=(-0.01, 0.0), action_max=(0.01, 0.0), residual_bound=(0.0, 0.0))
    taken = make_transition(layout, executed_action=np.array([6.3, 255.0, -6.3, 255.0]))
    assert layout.decode(layout.encode(taken), layout.label).executed_action[1] == 255.0


@pytest.mark.parametrize(
    'changes',
    [
        {'epoch': 10**39},
        {'step': 10**400},
        {'reward': 10**400},
        {'reward': 'much'},
        {'stamp': None},
        {'observation': [0.0, 0.0, 0.0]},
        {'observation': np.array(['a', 'b', 'c'])},
        {'observation': np.array([10**400, None, object()], dtype=object)},
        {'base_action': np.array([1e30, 0.0, 0.0, 0.0])},
        {'residual_action': None},
        {'source': np.nan},
    ],
    ids=range(11),
)
def test_whatever_a_transition_holds_encoding_it_raises_nothing_else(
    changes: dict[str, object],
) -> None:
    with pytest.raises(MalformedTransitionError):
        LAYOUT.encode(make_transition(LAYOUT, **changes))


def test_numbers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(MalformedTransitionError, match='no float64'):
        LAYOUT.decode(['much'] * LAYOUT.size, LAYOUT.label)


def test_a_non_finite_transition_is_not_encoded() -> None:
    transition = make_transition(LAYOUT, reward=np.nan)
    with pytest.raises(MalformedTransitionError, match=r'^reward is nan'):
        LAYOUT.encode(transition)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'observation_names': ()}, 'observation names are empty'),
        ({'observation_names': ('x', 'x')}, r"observation names are repeated: \['x'\]"),
        ({'action_names': ('', 'b')}, "action name '' is not a non-empty string"),
        ({'decision_steps': 0}, 'decision_steps is 0, expected 1 to 1000'),
        ({'decision_steps': 1001}, 'decision_steps is 1001, expected 1 to 1000'),
        ({'action_max': (1e39, 0.5)}, 'action_max is .*expected 2 finite values'),
        ({'action_max': (1.1e6, 0.5)}, r'action_max is .*within 1e\+06'),
        ({'decision_steps': 1000, 'action_names': tuple(map(str, range(30)))}, '120016 numbers'),
        ({'observation_names': ('n' * 100_001,)}, 'names have 100001 characters, expected'),
        ({'residual_bound': (-0.1, 0.0)}, "residual_bound of 'a.position' is -0.1, expected >= 0"),
        ({'action_min': (-1.0, 0.5)}, r"residual_bound of 'b.position' is 0.05, .*\(0.5 to 0.5\)"),
        ({'action_min': (0.0,)}, 'action_min is .*expected 2 finite values'),
        ({'action_max': (np.inf, 0.0)}, 'action_max is .*expected 2 finite values'),
        ({'residual_bound': (np.nan, 0.0)}, 'residual_bound is .*expected 2 finite values'),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_layout(**changes)


def edited(**changes: object) -> str:
    return yaml.safe_dump({**yaml.safe_load(LAYOUT.to_yaml()), **changes})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'is not YAML'),
        ('- 1', 'is a list, not a map'),
        ('', 'is a NoneType, not a map'),
        ('version: 1', 'is incomplete'),
        (edited(version=3), 'version 3, expected 1 or 2'),
        (edited(version=2), 'says version 2, its contents are of version 1'),
        (edited(action_names=None), 'is incomplete'),
        (edited(decision_steps='two'), 'is incomplete'),
        (edited(action_min=['low', 0.0]), 'is incomplete'),
        (edited(decision_steps=3), 'says label .*its names give'),
        (edited(observation_names=['x', 'y', 'z']), 'says label .*its names give'),
        (edited(label='transition:v1:0'), 'says label .*its names give'),
        (edited(residual_bound=[0.1]), 'residual_bound is .*expected 2 finite values'),
    ],
)
def test_a_layout_text_that_cannot_be_trusted_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransitionLayout.from_yaml(text)


@pytest.mark.parametrize(
    'value',
    [
        pytest.param(
            float('inf'),
        ),
        float('nan'),
    ],
)
def test_a_layout_text_with_a_non_finite_count_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match='incomplete'):
        TransitionLayout.from_yaml(edited(decision_steps=value))


@pytest.mark.parametrize(
    'changes',
    [
        {'version': '*i'},
        {'decision_steps': '*i'},
        {'observation_names': ['*i']},
        {'action_min': ['*i', 0.0]},
        {'label': '*i'},
    ],
    ids=str,
)
def test_aliases_of_aliases_are_not_written_out(changes: dict[str, object]) -> None:
    nested = 'a: &a [x, x]\n' + ''.join(
        f'{name}: &{name} [{", ".join([f"*{before}"] * 9)}]\n'
        for before, name in zip('abcdefgh', 'bcdefghi', strict=True)
    )
    text = nested + edited(**changes).replace("'*i'", '*i')
    with pytest.raises(ConfigError) as refusal:
        TransitionLayout.from_yaml(text)
    assert len(str(refusal.value)) < 1000


def test_a_layout_made_with_whole_numbers_survives_yaml() -> None:
    layout = make_layout(action_min=(-1, 0))
    assert TransitionLayout.from_yaml(layout.to_yaml()) == layout


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'names': ()}, 'action names are empty'),
        ({'names': ('a', 'a')}, 'action names are repeated'),
        ({'names': ('a', 3)}, 'action name 3 is not a non-empty string'),
        ({'lower': np.zeros(3)}, r'action lower has 3 values, expected 2'),
        ({'upper': np.ones(1)}, r'action upper has 1 values, expected 2'),
        ({'max_step': np.ones((2, 1))}, r'action max_step has 2 values, expected 2'),
        ({'lower': np.array([0.0, np.nan])}, 'action lower holds NaN'),
        ({'lower': np.array([2.0, 0.0])}, "'a.position': lower 2.0 is not below upper 2.0"),
        ({'max_step': np.array([1.0, 0.0])}, "'b.position': slew limit 0.0 is not positive"),
        ({'measured_by': ('x',)}, 'measured_by has 1 names, expected 2 or 0'),
    ],
)
def test_action_limits_that_contradict_themselves_are_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_action_spec(**changes)


def test_names_are_returned_in_their_order() -> None:
    assert check_names('action', ['b', 'a']) == ('b', 'a')


@pytest.mark.parametrize(
    'text',
    [
        *('x: 2001-99-99', '!!int "abc"', '[' * 3000, '!!bool x', '!!int ""', '!!timestamp x'),
        '{[1]: 2}',
        '!!float x',
        '!!binary x',
        '? {a: 1}',
        '&a [*a]',
        '!!python/name:os.system',
    ],
)
def test_a_text_that_yaml_stumbles_over_is_no_layout(text: str) -> None:
    with pytest.raises(ConfigError, match='transition layout'):
        TransitionLayout.from_yaml(text)


def test_the_blocks_of_a_message_are_in_the_order_of_a_transition() -> None:
    names = [item.name for item in fields(Transition)]
    assert list(make_layout(proposals=3, customisable=True).columns) == names
