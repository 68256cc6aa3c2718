# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Actors arrive while a robot moves, good ones, bad ones and many."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, drive, real_time, weights

from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights


def test_repeated_weights_are_a_sign_of_life_and_no_stale_actor() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    message = weights(loop, 1)
    for _ in range(3):
        loop.receive_weights(message)
        loop.take_weights(wait=True)
    assert loop.controller.mailbox.accepted == 1
    assert loop.controller.mailbox.refused['stale'] == 0
    assert callbacks.warnings == []


@pytest.mark.parametrize('after', [{'epoch': 2}, {'rollbacks': 1}], ids=str)
def test_the_residual_fades_in_again_after_a_rollback(after: dict[str, int]) -> None:
    loop, _ = real_time(LinearPolicy(), ramp_s=1.0)
    loop.activate()

    def send(header: WeightsHeader) -> None:
        actor = make_actor(loop.controller.layout, gain=5.0).to_numpy()
        loop.receive_weights(encode_weights(actor, header))
        loop.take_weights(wait=True)

    header = WeightsHeader(1, 1, Exploration())
    send(header)
    now = drive(loop, 0.0, round(1.5 / PERIOD))
    send(replace(header, sequence=2))
    now = drive(loop, now, 1)
    assert loop.controller.residual.blend_ratio == 1.0
    send(replace(header, sequence=3, **after))
    now = drive(loop, now, 1)
    assert loop.controller.residual.blend_ratio == 0.0
    drive(loop, now, round(0.5 / PERIOD))
    assert loop.controller.residual.blend_ratio == pytest.approx(0.5, abs=0.1)


def test_weights_are_read_beside_the_control_loop_and_the_newest_is_used() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    at_work = threading.Event()
    loop._reader._worker.submit(at_work.wait)
    for sequence in range(8):
        loop.receive_weights(weights(loop, sequence))
    now = drive(loop, 0.0, 3)  # A control step does not wait for a reader at work.
    assert len(callbacks.commands) == 3
    assert loop.controller.mailbox.header is None
    at_work.set()
    loop.take_weights(wait=True)
    drive(loop, now, 1)
    mailbox = loop.controller.mailbox
    assert mailbox.header is not None
    assert mailbox.header.sequence == 7
    assert mailbox.refused['superseded'] == 4
    assert mailbox.accepted == 4


def test_weights_that_are_too_large_are_not_even_copied() -> None:
    class Large(bytes):
        def __len__(self) -> int:
            return 10**9

        def __bytes__(self) -> bytes:
            raise AssertionError('copied')

    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    loop.receive_weights(Large())
    assert loop.controller.mailbox.refused['oversized'] == 1
    assert 'of 1000000000 bytes' in callbacks.warnings[-1]


def test_refused_weights_are_said_and_counted_with_the_next_step() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    loop.receive_weights(b'nothing')
    loop.take_weights(wait=True)
    assert loop.controller.mailbox.refused['malformed'] == 1
    assert 'weights refused' in callbacks.warnings[-1]
