# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a robot is as old as it is, and what is not known is not shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from residual_rl_ros.ros.dashboard import charts
from residual_rl_ros.ros.dashboard.history import WINDOW, Episodes
from residual_rl_ros.ros.dashboard.view import Health, RobotView
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Success, Transition

LAYOUT = TransitionLayout(
    observation_names=('x',),
    action_names=('a', 'b'),
    decision_steps=2,
    action_min=(-1.0, -1.0),
    action_max=(1.0, 1.0),
    residual_bound=(0.2, 0.0),
)
DECISION = Transition(
    stamp=1.0,
    epoch=1,
    episode=0,
    step=0,
    policy_sequence=0,
    source=Source.RESIDUAL,
    reward=0.0,
    terminated=False,
    truncated=False,
    success=Success.UNLABELLED,
    observation=np.zeros(1),
    base_action=np.array([0.1, 0.2, 0.3, 0.4]),
    residual_action=np.array([0.5, 0.0, -0.5, 0.0]),
    executed_action=np.array([0.2, 0.2, 0.2, 0.4]),
    next_observation=np.zeros(1),
    next_base_action=np.zeros(4),
)


@dataclass
class Said:
    message: str = 'running'
    level: bytes = b'\0'
    values: dict[str, str] = field(default_factory=dict)
    received: float = 0.0


@dataclass
class Told:
    """Reports of a clock that a test turns."""

    now: float = 0.0
    said: dict[str, Said] = field(default_factory=dict)

    def status(self, node: str) -> Said | None:
        return self.said.get(node)

    def age(self, node: str) -> float:
        return self.now - self.said[node].received if node in self.said else math.inf

    def is_stale(self, node: str) -> bool:
        return self.age(node) > 3.0


@pytest.fixture
def reports() -> Told:
    return Told()


@pytest.fixture
def view(reports: Told) -> RobotView:
    view = RobotView(reports, 'policy_node', 'learner_node', lambda: reports.now)
    view.hear_layout(LAYOUT.to_yaml())
    return view


def tell(view: RobotView, transition: Transition) -> None:
    view.hear_transition(LAYOUT.encode(transition), LAYOUT.label)


def test_a_node_that_falls_silent_is_dead_whatever_it_said_last(
    view: RobotView, reports: Told
) -> None:
    assert view.state() == 'NOT HEARD YET'
    assert view.line('policy_node').health is Health.UNKNOWN
    assert view.line('policy_node').age_text == 'never heard'
    values = {'active': 'True', 'residual_on': 'True', 'held': 'False'}
    reports.said['policy_node'] = Said(values=values)
    reports.now = 1.0
    assert view.state() == 'RUNNING'
    assert view.line('policy_node').age_text == '1.0 s ago'
    reports.now = 7.0
    assert view.state() == 'DEAD FOR 7 s'
    assert view.line('policy_node').health is Health.DEAD
    assert view.line('policy_node').text == 'NOTHING HEARD FOR 7 s; it was: running'
    assert view.value('policy_node', 'active') is None
    assert view.switch('policy_node', 'held') is None


@pytest.mark.parametrize(
    ('values', 'level', 'state'),
    [
        ({'held': 'True', 'takeover': 'True'}, b'\0', 'HELD'),
        ({'takeover': 'True'}, b'\1', 'TAKEOVER'),
        ({'stops': 'the door is open', 'held': 'True'}, b'\0', 'STOPPED BY AN INPUT'),
        ({'active': 'False'}, b'\2', 'FAULT'),
        ({'active': 'False'}, b'\0', 'INACTIVE'),
        ({'waits_to_start': 'True'}, b'\0', 'WAITS TO START'),
        ({'preparing': 'reset failed: the belt'}, b'\1', 'RESET FAILED'),
        ({'residual_on': 'False'}, b'\0', 'RUNNING, BASE ALONE'),
        ({'in_episode': 'False'}, b'\0', 'READY, NO EPISODE'),
    ],
)
def test_the_state_is_what_matters_most(
    view: RobotView, reports: Told, values: dict[str, str], level: bytes, state: str
) -> None:
    reports.said['policy_node'] = Said(values=values, level=level)
    assert view.state() == state


def test_motion_is_base_executed_and_a_band_as_wide_as_the_bound(
    view: RobotView, reports: Told
) -> None:
    assert math.isinf(view.motion_age())
    reports.now = 5.0
    tell(view, DECISION)
    reports.now = 5.5
    assert view.motion_age() == 0.5
    motion = view.motion()
    assert motion is not None
    np.testing.assert_allclose(motion.base[:, 0], [0.1, 0.3])
    np.testing.assert_allclose(motion.executed[:, 0], [0.2, 0.2])
    low, high = motion.band
    np.testing.assert_allclose(low[:, 0], [-0.1, 0.1])
    np.testing.assert_allclose(high[:, 0], [0.3, 0.5])
    options = charts.motion(motion, 0)
    floor, width = options['series'][:2]
    np.testing.assert_allclose(floor['data'], [[-1, -0.1], [0, 0.1]])
    np.testing.assert_allclose(width['data'], [[-1, 0.4], [0, 0.4]])


def test_the_share_of_the_bound_is_told_of_actions_that_have_one(view: RobotView) -> None:
    tell(view, replace(DECISION, source=Source.BASE))
    assert view.shares() == []
    tell(view, DECISION)
    (share,) = view.shares()
    assert share.name == 'a'
    assert share.asked == pytest.approx(0.5)
    assert share.executed == pytest.approx(0.5)


def test_what_is_not_of_the_layout_is_named_and_shows_nothing(view: RobotView) -> None:
    view.hear_transition([1.0, 2.0], LAYOUT.label)
    assert 'shape (2,)' in view.problem
    tell(view, DECISION)
    assert view.problem == ''
    view.hear_transition(LAYOUT.encode(DECISION), 'transition:v1:another')
    assert 'another robot' in view.problem
    view.hear_layout('nonsense')
    assert 'transition layout' in view.problem
    motion = view.motion()
    assert motion is not None
    assert len(motion.base) == 2


def test_advantage_and_guard_are_those_of_the_learner_while_it_lives(
    view: RobotView, reports: Told
) -> None:
    assert view.advantage() is None
    values = {'q_policy': '0.5', 'q_base': '0.25', 'guard_statistic': '1.5', 'rollbacks': '2'}
    values['guard_watches'] = 'return'
    reports.said['learner_node'] = Said(values=values)
    view.look()
    view.look()
    assert list(view.advantages()) == [(0.0, 0.25)]
    assert view.guard().doubt == 1.5
    assert view.guard().rollbacks == 2
    assert view.guard().watches == 'return'
    assert view.guard().base_share is None
    reports.now = 9.0
    assert view.advantage() is None
    assert view.guard().doubt is None
    values['q_base'] = 'nan'
    reports.said['learner_node'].received = 9.0
    assert view.advantage() is None


def episode(number: int, source: Source, success: Success, first: Source | None = None) -> list:
    begin = replace(DECISION, episode=number, source=source if first is None else first)
    return [begin, replace(begin, step=2, source=source, terminated=True, success=success)]


def outcomes(*episodes: list) -> list[tuple[bool, bool]]:
    heard = Episodes()
    for transition in (item for transitions in episodes for item in transitions):
        heard.take(transition)
    return [(item.residual, item.success) for item in heard.outcomes]


def test_an_episode_with_a_takeover_is_a_failure_and_one_that_an_operator_began_is_nobodys() -> (
    None
):
    assert outcomes(
        episode(0, Source.BASE, Success.SUCCESS),
        episode(1, Source.RESIDUAL, Success.SUCCESS, first=Source.BASE),
        episode(2, Source.TAKEOVER, Success.SUCCESS, first=Source.RESIDUAL),
        episode(3, Source.RESIDUAL, Success.SUCCESS, first=Source.TAKEOVER),
        episode(4, Source.RESIDUAL, Success.UNLABELLED),
        episode(5, Source.RANDOM, Success.FAILURE),
    ) == [(False, True), (True, True), (True, False)]


def test_an_episode_whose_beginning_or_end_was_not_heard_counts_nowhere() -> None:
    whole = episode(7, Source.BASE, Success.FAILURE)
    # The policy node began again: the number comes a second time.
    assert outcomes(whole[1:], whole[:1], whole, whole) == [(False, False), (False, False)]


def test_a_curve_averages_over_the_latest_episodes_of_its_kind() -> None:
    heard = Episodes()
    for number in range(WINDOW + 1):
        success = Success.FAILURE if number == 0 else Success.SUCCESS
        for transition in episode(number, Source.RESIDUAL, success):
            heard.take(transition)
    curve = heard.curve(residual=True)
    assert curve[0] == (1, 0.0)
    assert curve[1] == (2, 0.5)
    assert curve[-1] == (WINDOW + 1, 1.0)
    assert heard.curve(residual=False) == []
    assert heard.latest(residual=True) == (WINDOW, WINDOW)


def test_a_terminal_gets_the_same_in_a_line(view: RobotView) -> None:
    for transition in episode(0, Source.RESIDUAL, Success.SUCCESS):
        tell(view, transition)
    assert view.summary() == (
        'NOT HEARD YET, base none yet, base + residual 1 of 1, residual 50% of its bound'
    )
