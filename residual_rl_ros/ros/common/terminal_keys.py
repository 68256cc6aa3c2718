# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keys as they are pressed in a terminal."""

from __future__ import annotations

import os
import re
import select
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from residual_rl_ros.control.takeover_controls import NAMED_KEYS

SEQUENCE_S = 0.1
"""A terminal sends what one key makes within this time; Escape alone is a key, too [s]."""
KEY = re.compile(r'\x1b+(?:\[\[.?|[\[O][0-?]*[ -/]*[@-~]?|[^\x1b])?|.', re.DOTALL)
"""What a terminal sends of one key: a sequence (CSI, SS3, Alt with a character), or a character."""
BEGUN = re.compile(r'\x1b+(?:\[\[|[\[O][0-?]*[ -/]*)?')
"""A sequence whose end is missing."""
MARK_PASTES, MARK_NO_PASTES = b'\x1b[?2004h', b'\x1b[?2004l'
"""Have the terminal say what is pasted, and no longer."""
PASTE, PASTED = '[200~', '[201~'
"""With which it says so, before and after; behind an escape character."""
PASTE_S = 0.5
"""A paste whose end does not come has ended after so much silence [s]."""
MOST_AT_ONCE = 3
"""More different keys in one read are a paste, which a terminal has not marked."""


class Keyboard:
    """The keys of a terminal, by their names.

    What a key sends is read as a whole: one without a name, such as F9 or Alt with a letter, is no
    key, whatever letters its sequence holds. What is pasted is none either.

    Args:
        descriptor: of the terminal.
        stop: a key that is not lost with Alt, or among many that come at once; empty: none.
        clock: monotonic time [s].
    """

    def __init__(
        self, descriptor: int, stop: str = '', clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pasted = False
        """Whether the latest read has passed over what was pasted."""
        self._descriptor, self._stop, self._clock = descriptor, stop, clock
        self._begun, self._pasting, self._typed_at = '', False, 0.0

    def read(self, limit_s: float) -> list[str] | None:
        """Return the keys that are pressed within a time, None when the terminal has closed.

        Args:
            limit_s: how long to wait for the first [s].
        """
        typed, now = _read(self._descriptor, limit_s), self._clock()
        return None if typed is None else self._take(typed, now)

    def _take(self, typed: str, now: float) -> list[str]:
        """Return the keys that are complete with what was typed at a time [s]."""
        silent_s = now - self._typed_at
        if silent_s > SEQUENCE_S:
            self._begun = ''
        self._pasting &= silent_s <= PASTE_S
        if typed:
            self._typed_at = now
        sent = KEY.findall(self._begun + typed)
        self._begun = sent.pop() if sent and BEGUN.fullmatch(sent[-1]) else ''
        self.pasted, keys = self._pasting and bool(typed), []
        for each in sent:
            if each.lstrip('\x1b') in (PASTE, PASTED):
                self._pasting = each.endswith(PASTE)
                self.pasted = True
            elif not self._pasting:
                keys += self._named(each)
        if len(set(keys)) > MOST_AT_ONCE:
            self.pasted, keys = True, [self._stop] if self._stop in keys else []
        return keys

    def _named(self, sent: str) -> list[str]:
        """Return the name of the key that sends this, nothing if it has none."""
        if self._stop and sent.lstrip('\x1b') == self._stop:
            return [self._stop]
        return [NAMED_KEYS.get(sent, sent)] if sent in NAMED_KEYS or len(sent) == 1 else []


@contextmanager
def single_keys(keys: IO[Any], stop: str = '') -> Iterator[Keyboard]:
    """Deliver keys one by one, without Enter and echo, and none that would stop the output.

    Args:
        keys: the terminal.
        stop: see `Keyboard`.
    """
    descriptor = keys.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    now = termios.tcgetattr(descriptor)
    now[0] &= ~(termios.IXON | termios.IXOFF)
    termios.tcsetattr(descriptor, termios.TCSANOW, now)
    _tell(descriptor, MARK_PASTES)
    try:
        yield Keyboard(descriptor, stop)
    finally:
        _tell(descriptor, MARK_NO_PASTES)
        # If the terminal has closed there is nothing to restore.
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int, limit_s: float) -> str | None:
    """Return what is typed within a time [s], None when the terminal has closed.

    All of it: what stayed in a buffer would wait for the next key.
    """
    if not select.select([descriptor], [], [], limit_s)[0]:
        return ''
    try:
        return os.read(descriptor, 1024).decode(errors='replace') or None
    except OSError:
        return None


def _tell(descriptor: int, sequence: bytes) -> None:
    """Ask a terminal for something, unless it takes no output: that would keep a hold waiting."""
    with suppress(OSError):
        if select.select([], [descriptor], [], 0.0)[1]:
            os.write(descriptor, sequence)
