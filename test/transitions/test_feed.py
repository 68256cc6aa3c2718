# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever a robot sends and the learner does not get is counted; nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transition_builders import make_layout, make_transition

from residual_rl_ros.errors import MalformedTransitionError
from residual_rl_ros.transitions.feed import EPOCHS_AHEAD, TransitionFeed
from residual_rl_ros.transitions.transition import Transition

LAYOUT = make_layout()
K = LAYOUT.decision_steps


def stream(lengths: list[int]) -> list[Transition]:
    """Return episodes of so many decisions each."""
    return [
        make_transition(LAYOUT, episode=episode, step=K * number, truncated=number == length - 1)
        for episode, length in enumerate(lengths)
        for number in range(length)
    ]


def receive(feed: TransitionFeed, transition: Transition) -> None:
    feed.decode(LAYOUT, LAYOUT.encode(transition), LAYOUT.label, 1)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_loss_is_found_and_never_exaggerated(lengths: list[int], data: st.DataObject) -> None:
    sent = stream(lengths)
    lost = data.draw(st.sets(st.integers(1, len(sent)), max_size=len(sent)))
    feed = TransitionFeed('')
    arrived = [number for number in range(len(sent)) if number not in lost]
    for number in arrived:
        receive(feed, sent[number])
    between = sum(number < arrived[-1] for number in lost)
    assert feed.counts['transitions'] == len(arrived)
    assert feed.counts['missing'] <= between
    assert (feed.counts['missing'] > 0) == (between > 0)


def test_one_lost_message_inside_an_episode_is_one() -> None:
    feed = TransitionFeed('')
    for number, transition in enumerate(stream([8])):
        if number != 3:
            receive(feed, transition)
    assert feed.counts['missing'] == 1


def test_a_decision_that_a_hold_has_cut_short_is_one() -> None:
    feed = TransitionFeed('')
    first, second = stream([2])
    receive(feed, first)
    receive(feed, replace(second, step=second.step + 1))
    assert feed.counts['missing'] == 1


def test_a_robot_that_begins_again_has_lost_nothing() -> None:
    feed = TransitionFeed('left')
    for transition in stream([3, 3]) + stream([2]):
        receive(feed, transition)
    assert feed.counts['missing'] == 0


def test_what_is_no_transition_is_counted() -> None:
    feed = TransitionFeed('')
    with pytest.raises(MalformedTransitionError, match='label'):
        feed.decode(LAYOUT, [0.0] * LAYOUT.size, 'transition:v1:0', 1)
    assert feed.counts == {'transitions': 0, 'malformed': 1, 'missing': 0}


def test_an_epoch_that_no_learner_has_counted_to_is_refused() -> None:
    """The learner goes on after the epoch of a robot: else a wrong one would be the last."""
    feed = TransitionFeed('')
    near, far = (make_transition(LAYOUT, epoch=1 + EPOCHS_AHEAD + more) for more in (0, 1))
    assert feed.decode(LAYOUT, LAYOUT.encode(near), LAYOUT.label, 1).epoch == 1001
    with pytest.raises(MalformedTransitionError, match='epoch 1002, and this learner is in epoch'):
        feed.decode(LAYOUT, LAYOUT.encode(far), LAYOUT.label, 1)
    assert feed.counts['malformed'] == 1
