# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An add-on is one function for robot, learner and bag; what is wrong is named."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from bag_builders import write_bag
from base_policy_builders import LinearPolicy
from hypothesis import given, settings
from hypothesis import strategies as st
from robot_builders import ACTIONS, OBSERVATIONS, make_action_spec
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ConfigError, RewardError
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.rewards.composition import AddOns, decision_reward, parse_option
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Transition

BOX = {'name': 'keep_out_box', 'point': ['tool.z'], 'lower': [0.0], 'upper': [0.5], 'margin': 0.3}
ALL = AddOns.of(
    [
        {**BOX, 'weight': 0.7},
        {'name': 'speed_limit', 'positions': list(OBSERVATIONS[:2]), 'rate_hz': 20.0, 'limit': 0.4},
        {
            'name': 'joint_comfort',
            'joints': list(OBSERVATIONS[:2]),
            'pose': [0.1, 0.2],
            'half_range': [1.0, 2.0],
        },
        {'name': 'smoothness', 'measured_by': list(OBSERVATIONS[:2]), 'weight': 3.0},
        {'name': 'side_preference', 'position': 'tool.z', 'side': 'low', 'weight': -2.0},
        {'name': 'mountain_car_less_left', 'action': 'a.position'},
    ]
)


class Wander(gymnasium.Env):
    """Integrates the command and adds noise; remembers what it saw."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.seen = [self.np_random.normal(size=3)]
        self.sent: list[np.ndarray] = []
        return self.seen[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.sent.append(action)
        moved = self.seen[-1] + np.append(action, 0.0) + 0.3 * self.np_random.normal(size=3)
        self.seen.append(moved)
        return moved, 0.0, False, len(self.sent) == 12, {}


@settings(max_examples=12, deadline=None)
@given(steps=st.sampled_from([1, 2, 4]), seed=st.integers(0, 2**31))
def test_live_and_replayed_rewards_are_equal_bit_for_bit(steps: int, seed: int) -> None:
    env, transitions = Wander(), list[Transition]()
    policy = LinearPolicy(stochastic=True)
    controller = ControllerConfig(steps, (0.1,), seed=1).build(policy, make_action_spec())
    run_episode(env, controller, seed, 0, transitions.append)
    controller.queue.close()
    reward = decision_reward(ALL, controller.layout)
    ends = range(0, 12, steps)
    live = [
        reward.of_decision(env.seen[i], np.ravel(env.sent[i : i + steps]), env.seen[i + steps])
        for i in ends
    ]
    layout = controller.layout
    table = TransitionTable(layout, np.array([layout.encode(each) for each in transitions]))
    assert len(live) == len(transitions) == 12 // steps
    assert live == [reward.of_transition(each) for each in transitions]
    assert live == reward.of_table(table).tolist()
    assert live == [reward.of_transition(each) for each in table]


def test_a_bag_can_be_given_another_add_on_afterwards(tmp_path: Path) -> None:
    layout = make_layout()
    stream = random_transitions(layout, 20)
    bag = Bag(write_bag(tmp_path / 'bag', layout, stream))
    reward = decision_reward(ALL, layout)
    read = [block.table for block in TransitionReader(bag).blocks()]
    assert [value for table in read for value in reward.of_table(table).tolist()] == [
        reward.of_transition(each) for each in stream
    ]


def test_a_decision_is_worth_the_sum_of_its_steps() -> None:
    reward = AddOns.of([BOX, ALL.to_list()[5]]).bind(OBSERVATIONS, ACTIONS, 4)
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 7, 3))
    actions = rng.normal(size=(7, 4, 2))
    steps = [reward(before, actions[:, step], after) for step in range(4)]
    whole = reward.of_decision(before, actions.reshape(7, 8), after)
    np.testing.assert_allclose(whole, np.sum(steps, axis=0), rtol=1e-14)
    assert whole.shape == (7,)


def test_candidates_and_rollouts_are_rows_of_any_shape() -> None:
    reward = decision_reward(ALL, make_layout())
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 5, 3, 3))
    actions = rng.normal(size=(5, 3, 4))
    whole = reward.of_decision(before, actions, after)
    assert whole.shape == (5, 3)
    assert whole[4, 1] == reward.of_decision(before[4, 1], actions[4, 1], after[4, 1])
    # One observation for all candidates.
    one = reward.of_decision(before[0, 0], actions, after[0, 0])
    assert one[4, 1] == reward.of_decision(before[0, 0], actions[4, 1], after[0, 0])


def test_weights_scale_and_nothing_is_nothing() -> None:
    row = random_transitions(make_layout(), 1)[0]
    once, thrice = (
        decision_reward(
            AddOns.of({**BOX, 'lower': [-50.0], 'upper': [50.0], 'weight': weight}), make_layout()
        )
        for weight in (1.0, 3.0)
    )
    assert once.of_transition(row) < 0.0
    assert thrice.of_transition(row) == 3.0 * once.of_transition(row)
    assert not AddOns()
    assert decision_reward(AddOns(), make_layout()).of_transition(row) == 0.0


def test_yaml_and_the_command_line_say_the_same() -> None:
    text = 'keep_out_box:point=[tool.z],lower=[0.0],upper=[0.5],margin=0.3'
    assert parse_option(text) == BOX
    assert AddOns.from_options([text, 'cart_pole_centre']).to_list() == [
        {**BOX, 'weight': 1.0},
        {'name': 'cart_pole_centre', 'weight': 1.0},
    ]
    assert AddOns.from_yaml('- {name: cart_pole_centre, weight: 2}').to_list() == [
        {'name': 'cart_pole_centre', 'weight': 2.0}
    ]
    assert AddOns.from_yaml('') == AddOns.of([]) == AddOns()
    assert AddOns.of(ALL.to_list()) == AddOns.from_yaml(ALL.to_yaml()) == ALL
    assert AddOns().to_yaml() == ''


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ('slowly', 'expected a list of maps'),
        ([{'weight': 1.0}], 'expected a map with a name'),
        ([{'name': 'keep_out'}], 'expected one of .*keep_out_box.*or package.module:factory'),
        ([{**BOX, 'weight': np.nan}], "weight of 'keep_out_box' is nan"),
        ([{**BOX, 'weight': 'much'}], "weight of 'keep_out_box' is 'much'"),
        ([{**BOX, 'weight': '1e-1'}], 'to YAML 1e-1 is a string: write 1.0e-1'),
        ([{**BOX, 'margins': 0.1}], 'did you mean margin'),
        ([{**BOX, 'lower': [1.0]}], 'is not below upper'),
        ([{**BOX, 'lower': [1.0, 2.0]}], 'lower has 2 numbers, expected 1'),
        ([{'name': 'no.such.module:reward'}], 'No module named'),
        ([{'name': 'math:pi'}], 'expected a factory'),
        ([{'name': 'speed_limit', 'limit': 1.0}], 'expected names of one of them'),
        ([{'name': 'smoothness', 'scale': [0.0]}], 'scale is'),
        ([BOX] * 33, '33 add-ons'),
    ],
    ids=str,
)
def test_what_is_no_add_on_is_named(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AddOns.of(values)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('keep_out_box:margin', 'no assignment'),
        ('keep_out_box:margin=1,margin=2', 'given twice'),
        ('keep_out_box:margin=[', 'add-on'),
        ('keep_out_box:name=other', 'given twice'),
    ],
)
def test_an_option_that_is_none_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AddOns.from_options([text])


def test_names_that_the_robot_has_not_are_named_with_those_that_it_has() -> None:
    add_ons = AddOns.of({**BOX, 'point': ['tool.y']})
    expected = (
        r"keep_out_box.*no observation 'tool.y'; did you mean tool.z\? it has arm.position.a, "
    )
    with pytest.raises(ConfigError, match=expected):
        decision_reward(add_ons, make_layout())
    with pytest.raises(ConfigError, match=r'no action .*it has a\.position, b\.position'):
        decision_reward(AddOns.of({'name': 'mountain_car_less_left'}), make_layout())
    many = make_layout(observation_names=tuple(f'x{i}' for i in range(1000)))
    with pytest.raises(ConfigError, match='and 960 more'):
        decision_reward(add_ons, many)


@pytest.mark.parametrize('part', ALL.to_list(), ids=lambda part: part['name'])
def test_no_add_on_turns_what_is_no_number_into_one(part: dict[str, Any]) -> None:
    reward = decision_reward(AddOns.of(part), make_layout())
    spoilt = replace(
        make_transition(make_layout()),
        executed_action=np.full(4, np.nan),
        next_observation=np.full(3, np.nan),
    )
    with pytest.raises(RewardError, match=f'add-on {part["name"]!r} gives nan'):
        reward.of_transition(spoilt)


def test_a_reward_that_is_no_number_is_refused_with_its_row_and_its_cause() -> None:
    reward = decision_reward(AddOns.of(BOX), make_layout())
    rows = np.ones((5, 3))
    rows[3, 2] = np.nan
    expected = r"'keep_out_box' gives nan in row 3: next_observation\[2\] \(tool.z\) is nan"
    with pytest.raises(RewardError, match=expected):
        reward.of_decision(np.ones((5, 3)), np.ones((5, 4)), rows)
    large = AddOns.of({'name': 'hopper_height', 'reads': 'tool.z', 'weight': 1e5})
    with pytest.raises(RewardError, match='expected a finite number up to 1e'):
        decision_reward(large, make_layout()).of_decision(*(np.full(n, 9.0) for n in (3, 4, 3)))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType('my_add_ons')
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def _low(observation_names: tuple[str, ...], action_names: tuple[str, ...], *, gain: float) -> Any:
    column = observation_names.index('tool.z')
    return lambda observation, action, after: -gain * after[..., column]


def test_a_function_of_ones_own_is_named_by_its_module(module: ModuleType) -> None:
    module.low = _low
    reward = decision_reward(AddOns.from_options(['my_add_ons:low:gain=2']), make_layout())
    row = make_transition(make_layout())
    assert reward.of_transition(row) == -2 * 2 * row.next_observation[2]


@pytest.mark.parametrize(
    ('factory', 'message'),
    [
        (lambda observations, actions: None, 'nothing to call'),
        (lambda observations: None, "add-on 'my_add_ons:mine': cannot be made: TypeError"),
        (lambda *names: lambda *arrays: 1.0, r'returned shape \(\) for rows of shape \(2,\)'),
        (lambda *names: lambda *arrays: 'high', 'expected numbers'),
        (lambda *names: lambda *arrays: 1 / 0, 'failed: ZeroDivisionError'),
    ],
)
def test_what_a_function_of_ones_own_does_wrong_is_named(
    module: ModuleType, factory: Any, message: str
) -> None:
    module.mine = factory
    with pytest.raises((ConfigError, RewardError), match=message):
        decision_reward(AddOns.from_options(['my_add_ons:mine']), make_layout()).of_transition(
            make_transition(make_layout())
        )


def test_an_entry_point_gives_an_add_on_its_name(
    tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.low = _low
    described = tmp_path / 'my_add_ons-1.0.dist-info'
    described.mkdir()
    (described / 'METADATA').write_text('Metadata-Version: 2.1\nName: my-add-ons\nVersion: 1.0\n')
    (described / 'entry_points.txt').write_text(
        '[residual_rl_ros.add_ons]\nstay_low = my_add_ons:low\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    reward = decision_reward(AddOns.from_options(['stay_low:gain=1.5']), make_layout())
    row = make_transition(make_layout())
    assert reward.of_transition(row) == -1.5 * 2 * row.next_observation[2]


@pytest.mark.parametrize('text', ['def broken(', 'raise RuntimeError("no")'])
def test_a_module_that_cannot_be_imported_is_one_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'bad_add_ons.py').write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"add-on 'bad_add_ons:mine': (SyntaxError|RuntimeError)"):
        AddOns.from_options(['bad_add_ons:mine'])
