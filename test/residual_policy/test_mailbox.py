# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which actor decides is a matter of counts, so that a run can be repeated exactly."""

from __future__ import annotations

from collections import Counter

import pytest
from actor_builders import make_actor, mislabelled
from transition_builders import make_layout

from residual_rl_ros.errors import WeightsError
from residual_rl_ros.residual_policy.exploration import WARM_UP, Exploration
from residual_rl_ros.residual_policy.mailbox import MAX_WEIGHTS_BYTES, REFUSALS, ActorMailbox
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights

LAYOUT = make_layout()
ACTOR = make_actor(LAYOUT).to_numpy()


def message(
    sequence: int,
    epoch: int = 1,
    enabled: bool = True,
    since: int = 0,
    until: int = 0,
    run: str = '',
) -> bytes:
    exploration = Exploration() if enabled else WARM_UP
    header = WeightsHeader(epoch, sequence, exploration, since, until, run=run)
    return encode_weights(ACTOR, header)


def make_mailbox(scheduled: bool = False) -> ActorMailbox:
    return ActorMailbox(LAYOUT, scheduled)


def in_use(mailbox: ActorMailbox) -> tuple[int, int] | None:
    return mailbox.header.version if mailbox.header else None


def test_an_empty_slot_has_no_actor_and_is_not_enabled() -> None:
    mailbox = make_mailbox()
    mailbox.begin_decision()
    assert mailbox.actor is None
    assert not mailbox.enabled


def test_weights_are_swapped_at_a_decision_and_not_before() -> None:
    mailbox = make_mailbox()
    header = mailbox.submit(message(0))
    assert header.version == (1, 0)
    assert mailbox.actor is None
    mailbox.begin_decision()
    assert in_use(mailbox) == (1, 0)
    assert mailbox.actor is not None


def test_the_newest_of_several_offers_is_used_at_once_in_real_time() -> None:
    mailbox = make_mailbox()
    for sequence in range(3):
        mailbox.submit(message(sequence, since=10 * sequence))
    mailbox.begin_decision()
    assert in_use(mailbox) == (1, 2)
    assert mailbox.accepted == 3


def test_a_warm_up_actor_is_held_but_may_not_act() -> None:
    mailbox = make_mailbox()
    mailbox.submit(message(0, enabled=False))
    mailbox.begin_decision()
    assert mailbox.actor is not None
    assert not mailbox.enabled
    mailbox.submit(message(1))
    mailbox.begin_decision()
    assert mailbox.enabled


@pytest.mark.parametrize(('epoch', 'sequence'), [(2, 5), (2, 4), (1, 6), (1, 99)])
def test_weights_that_are_not_newer_are_stale(epoch: int, sequence: int) -> None:
    mailbox = make_mailbox()
    mailbox.submit(message(5, epoch=2))
    with pytest.raises(WeightsError, match=r'are not newer than \(2, 5\)') as error:
        mailbox.submit(message(sequence, epoch=epoch))
    assert error.value.reason == 'stale'
    mailbox.begin_decision()
    assert in_use(mailbox) == (2, 5)


def test_a_lower_sequence_of_a_newer_epoch_is_newer() -> None:
    mailbox = make_mailbox()
    mailbox.submit(message(5, epoch=2))
    mailbox.submit(message(0, epoch=3))
    mailbox.begin_decision()
    assert in_use(mailbox) == (3, 0)


def test_refused_messages_are_counted_by_reason_and_change_nothing() -> None:
    mailbox = make_mailbox()
    mailbox.submit(message(3))
    mailbox.begin_decision()
    good = message(4)
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    foreign = encode_weights(
        make_actor(make_layout(decision_steps=3)).to_numpy(), WeightsHeader(1, 4)
    )
    unfit = encode_weights(mislabelled(ACTOR), WeightsHeader(1, 4))
    broken = make_actor(LAYOUT)
    broken.heads.bias.data.fill_(float('nan'))
    infinite = encode_weights(broken.to_numpy(), WeightsHeader(1, 4))
    giant = bytes(MAX_WEIGHTS_BYTES + 1)
    for offer in (b'', good[:50], flipped, foreign, unfit, infinite, message(3), giant):
        with pytest.raises(WeightsError):
            mailbox.submit(offer)
    once = ('digest', 'layout', 'shape', 'non_finite', 'stale', 'oversized')
    assert mailbox.refused == Counter({'malformed': 2, **dict.fromkeys(once, 1)})
    assert mailbox.accepted == 1
    mailbox.begin_decision()
    assert in_use(mailbox) == (1, 3)


def test_every_reason_is_listed_from_the_start() -> None:
    assert dict(make_mailbox().refused) == dict.fromkeys(REFUSALS, 0)


def test_a_scheduled_actor_takes_over_at_exactly_the_decision_it_names() -> None:
    mailbox = make_mailbox(scheduled=True)
    mailbox.submit(message(0, since=0, until=3))
    mailbox.submit(message(1, since=2, until=9))
    mailbox.submit(message(2, since=4, until=9))
    used = []
    for _ in range(6):
        mailbox.begin_decision()
        used.append(in_use(mailbox))
    assert [version[1] for version in used] == [0, 0, 1, 1, 2, 2]


def test_of_several_due_actors_the_newest_is_used() -> None:
    mailbox = make_mailbox(scheduled=True)
    mailbox.submit(message(0))
    for _ in range(5):
        mailbox.begin_decision()
    mailbox.submit(message(1, since=2))
    mailbox.submit(message(2, since=4))
    mailbox.submit(message(3, since=6))
    mailbox.begin_decision()
    assert in_use(mailbox) == (1, 2)


def test_a_scheduled_slot_waits_for_its_first_weights() -> None:
    mailbox = make_mailbox(scheduled=True)
    assert mailbox.waits_for_weights()
    mailbox.submit(message(0, until=1))
    assert not mailbox.waits_for_weights()


def test_a_scheduled_slot_waits_at_the_decision_that_needs_the_next_weights() -> None:
    mailbox = make_mailbox(scheduled=True)
    mailbox.submit(message(0, until=2))
    for _ in range(2):
        assert not mailbox.waits_for_weights()
        mailbox.begin_decision()
    assert mailbox.waits_for_weights()
    mailbox.submit(message(1, since=2, until=4))
    assert not mailbox.waits_for_weights()


def test_after_stop_waiting_the_next_accepted_weights_make_it_wait_again() -> None:
    mailbox = make_mailbox(scheduled=True)
    mailbox.submit(message(0, until=1))
    mailbox.begin_decision()
    assert mailbox.waits_for_weights()
    mailbox.stop_waiting()
    assert not mailbox.waits_for_weights()
    for _ in range(4):
        mailbox.begin_decision()
    assert not mailbox.waits_for_weights()
    with pytest.raises(WeightsError):
        mailbox.submit(message(0))
    assert not mailbox.waits_for_weights()
    mailbox.submit(message(1, since=1, until=5))
    assert mailbox.waits_for_weights()


def test_a_real_time_slot_never_waits() -> None:
    mailbox = make_mailbox()
    assert not mailbox.waits_for_weights()
    mailbox.submit(message(0, until=0))
    assert not mailbox.waits_for_weights()


def test_a_new_epoch_starts_its_count_at_zero_and_drops_what_waits() -> None:
    mailbox = make_mailbox(scheduled=True)
    mailbox.submit(message(0, until=10))
    mailbox.submit(message(1, since=6, until=20))
    for _ in range(5):
        mailbox.begin_decision()
    mailbox.submit(message(0, epoch=2, since=0, until=3))
    used = []
    while not mailbox.waits_for_weights():
        mailbox.begin_decision()
        used.append(in_use(mailbox))
    assert used == [(2, 0)] * 3


def test_decisions_before_the_first_weights_do_not_count() -> None:
    mailbox = make_mailbox(scheduled=True)
    mailbox.stop_waiting()
    for _ in range(5):
        mailbox.begin_decision()
    mailbox.submit(message(0, until=2))
    mailbox.begin_decision()
    assert not mailbox.waits_for_weights()
    mailbox.begin_decision()
    assert mailbox.waits_for_weights()


def test_in_real_time_only_the_newest_actor_is_kept() -> None:
    mailbox = make_mailbox()
    for sequence in range(50):
        mailbox.submit(message(sequence))
    assert len(mailbox.state_dict()[1]) == 1


def test_a_learner_whose_place_another_has_taken_does_not_get_the_robot_back() -> None:
    mailbox = make_mailbox()
    mailbox.submit(message(1, epoch=1, run='first'))
    mailbox.submit(message(0, epoch=2, run='second'))
    for epoch in (2, 3, 50):
        with pytest.raises(WeightsError, match=r"of learner 'first', .*two learners publish") as e:
            mailbox.submit(message(9, epoch=epoch, run='first'))
        assert e.value.reason == 'replaced'
    mailbox.begin_decision()
    assert in_use(mailbox) == (2, 0)
    assert mailbox.refused['replaced'] == 3


def test_two_learners_of_one_epoch_do_not_take_turns() -> None:
    mailbox = make_mailbox()
    accepted = []
    for sequence in range(10):
        run = 'one' if sequence % 2 else 'other'
        try:
            accepted.append(mailbox.submit(message(sequence, run=run)).run)
        except WeightsError:
            continue
    assert accepted == ['other', *['one'] * 5]


def test_an_actor_without_a_learner_gives_way_to_one() -> None:
    mailbox = make_mailbox()
    mailbox.submit(message(1))
    mailbox.submit(message(2, run='learner'))
    mailbox.submit(message(3))
    assert mailbox.accepted == 3


def test_a_header_that_is_too_large_is_refused_before_the_message_is_read() -> None:
    mailbox = make_mailbox()
    with pytest.raises(WeightsError, match=r'has a header of \d+ bytes, expected <='):
        mailbox.check_size(1000, (10**6).to_bytes(8, 'little'))
    mailbox.check_size(1000, message(0)[:8])
    assert mailbox.refused['malformed'] == 1
