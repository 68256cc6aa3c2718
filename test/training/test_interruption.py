# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C must neither be lost nor come in the middle of something."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from residual_rl_ros.training.interruption import Interruption


def press(times: int, error: Exception | None = None) -> list[str]:
    """Press Ctrl-C in the context and return what was reached."""
    reached = []
    with contextlib.suppress(KeyboardInterrupt):
        with Interruption() as interruption:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            reached.append(f'end, wanted: {interruption.wanted}')
            if error is not None:
                raise error
        reached.append('after')
    return reached


def test_the_first_one_waits_until_the_end_and_the_handler_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert press(0) == ['end, wanted: False', 'after']
    assert press(1) == ['end, wanted: True']
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_one_interrupts_at_once() -> None:
    assert press(2) == []


def test_another_error_goes_first() -> None:
    with pytest.raises(ZeroDivisionError):
        press(1, ZeroDivisionError())


def test_a_thread_has_no_signals_to_take_over() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interruption():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
