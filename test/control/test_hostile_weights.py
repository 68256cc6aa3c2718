# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A control loop at 100 Hz goes on while weights arrive that were made to stop it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
from actor_builders import make_actor
from base_policy_builders import LinearPolicy
from loop_builders import feed, real_time, weights

from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.files.tensor_file import MAX_HEADER_BYTES, MAX_TENSORS, MAX_VALUES
from residual_rl_ros.residual_policy.mailbox import MAX_WEIGHTS_BYTES
from residual_rl_ros.residual_policy.weights import METADATA, WeightsHeader, encode_weights

PERIOD_S = 0.01
SENT_EVERY_S = 0.1
LASTS_S = 2.0
ATTEMPTS = 3
"""A virtual machine that stands still does not know it, and of the other threads one counts."""


def raw(header: bytes, body: bytes = b'') -> bytes:
    header += b' ' * (-len(header) % 8)
    return len(header).to_bytes(8, 'little') + header + body


def tensors(count: int) -> bytes:
    empty = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}
    return raw(json.dumps({f't{i}': empty for i in range(count)}).encode())


def names(count: int) -> bytes:
    layout = {'observation_names': [str(i) for i in range(count)]}
    fields = {'header': {}, 'kind': 'gaussian', 'architecture': {'layout': layout}}
    return raw(json.dumps({'__metadata__': {METADATA: json.dumps(fields)}}).encode())


def large(loop: RealTimeLoop) -> bytes:
    actor = make_actor(loop.controller.layout, hidden_sizes=(1024, 1024), gain=0.1).to_numpy()
    return encode_weights(actor, WeightsHeader(1, 1))


HOSTILE: dict[str, Callable[[RealTimeLoop], bytes]] = {
    '2.5 million names': lambda loop: names(2_500_000),
    '400,000 tensors': lambda loop: tensors(400_000),
    'as many names as a header holds': lambda loop: names(MAX_VALUES - 20),
    'as many tensors as are counted': lambda loop: tensors(MAX_TENSORS),
    'as many values as are counted': lambda loop: raw(b'[' + b'0,' * (MAX_VALUES - 1) + b'0]'),
    'a header of commas': lambda loop: raw(b'0,' * (MAX_HEADER_BYTES // 2 - 8)),
    'deep nesting': lambda loop: raw(b'{"a":' * 50_000),
    'as large as it may be': lambda loop: raw(b'{}', bytes(MAX_WEIGHTS_BYTES - 16)),
    'a large actor': large,
    'another kind': lambda loop: weights(loop, 1).replace(b'gaussian', b'dreaming'),
}


def waits() -> dict[str, float]:
    """Return how long each thread of this process has been kept from a processor [s]."""
    waited = {}
    for thread in os.listdir('/proc/self/task'):
        with open(f'/proc/self/task/{thread}/schedstat') as file:
            waited[thread] = 1e-9 * int(file.read().split()[1])
    return waited


def largest_gap(loop: RealTimeLoop, messages: list[array[int]]) -> float:
    """Return the longest time between two control steps while messages arrive [s].

    Without the time for which this thread, and one that it may have waited for, were kept from a
    processor by other processes: who reads weights may have been interrupted in the middle of it.
    """
    inbox: list[array[int]] = []
    stop = threading.Event()

    def send() -> None:
        for index in range(10**6):
            if stop.wait(SENT_EVERY_S):
                return
            inbox.append(messages[index % len(messages)])

    sender = threading.Thread(target=send)
    sender.start()
    begun = time.perf_counter()
    steps, gaps, before = [begun], [], waits()
    while steps[-1] - begun < LASTS_S:
        time.sleep(max(0.0, begun + len(steps) * PERIOD_S - time.perf_counter()))
        while inbox:
            loop.receive_weights(inbox.pop())
        now = len(steps) * PERIOD_S
        feed(loop, now)
        loop.tick(now)
        steps.append(time.perf_counter())
        after = waits()
        kept = {thread: waited - before.get(thread, 0.0) for thread, waited in after.items()}
        own = kept.pop(str(threading.get_native_id()))
        gaps.append(steps[-1] - steps[-2] - own - max(kept.values()))
        before = after
    stop.set()
    sender.join()
    return max(gaps)


@pytest.fixture
def privileged() -> Iterator[None]:
    """Put this thread before others, as a policy node is on a robot, where that is allowed."""
    thread = threading.get_native_id()
    usual = os.getpriority(os.PRIO_PROCESS, thread)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, thread, -19)
    yield
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, thread, usual)


@pytest.mark.slow
@pytest.mark.usefixtures('privileged')
@pytest.mark.parametrize('kind', HOSTILE)
def test_no_gap_of_a_loop_at_100_hz_exceeds_two_periods(kind: str) -> None:
    loop, _ = real_time(LinearPolicy())
    loop.activate()
    message = HOSTILE[kind](loop)
    # Repeated weights are a sign of life and are not read.
    messages = [array('B', message[:-1] + bytes([last])) for last in range(4)]
    gaps = []
    for _ in range(ATTEMPTS):
        gaps.append(largest_gap(loop, messages))
        if gaps[-1] <= 2.0 * PERIOD_S:
            break
    loop.close()
    print(f'{kind}: {len(message) / 1e6:.1f} MB, largest gap {1e3 * min(gaps):.1f} ms')
    assert sum(loop.controller.mailbox.refused.values()) >= 5
    assert min(gaps) <= 2.0 * PERIOD_S


def test_what_would_take_long_is_refused_unread() -> None:
    loop, callbacks = real_time(LinearPolicy())
    loop.activate()
    for make in (lambda: names(300_000), lambda: tensors(50_000)):
        loop.receive_weights(array('B', make()))
    assert loop.controller.mailbox.refused['malformed'] == 2
    assert len(loop._reader) == 0
    assert all('has a header of' in text for text in callbacks.warnings)
    loop.close()
