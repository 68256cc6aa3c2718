# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keys as they are pressed in a terminal."""

from __future__ import annotations

import codecs
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

ESC = '\x1b'
BEGUN = re.compile(
    r"""\x1b{1,2}(?:
        \[\[                          # a function key of the Linux console
        | \[M.{0,2}                   # the mouse of X10
        | [\[O][0-?]{0,99}[ -/]{0,9}  # CSI and SS3: arrows and most keys that are no character
        | []PX^_][^\a]{0,999}         # strings (OSC, DCS): what a terminal answers to programs
    )?""",
    re.DOTALL | re.VERBOSE,
)
"""A sequence whose end is missing: a character that is no part of it; of a string, the bell."""
MODIFIED = re.compile(r'\x1b+[\[O][0-?]*')
"""How a sequence begins, with or without Alt, Shift and Ctrl."""
MARK_PASTES, MARK_NO_PASTES = b'\x1b[?2004h', b'\x1b[?2004l'
"""Have the terminal say what is pasted, and no longer."""
PASTE, PASTED = '[200~', '[201~'
"""With which it says so, before and after; behind an escape character."""
SILENCE_S = 0.5
"""Sequences and pastes whose end does not come have ended after so much silence [s]."""
PASTE_S = 5.0
"""So has a paste after this time in which but few characters came at once, as of a hand [s]."""
MOST_AT_ONCE = 3
"""More different keys in one read are a paste, which a terminal has not marked."""


class Keyboard:
    """The keys of a terminal, by their names.

    What a key sends is read as a whole: one without a name, such as F9 or Alt with a letter, is no
    key, whatever letters its sequence holds. What is pasted is none either, nor what the terminal
    answers to programs. The key that stops counts in all of them: nothing shows that it was not
    struck right after a part of them. On its own it counts with Caps Lock too.

    Args:
        descriptor: of the terminal.
        stop: the key that stops; empty: none.
        clock: monotonic time [s].
    """

    def __init__(
        self, descriptor: int, stop: str = '', clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pasted = False
        """Whether the latest read has passed over what was pasted."""
        self._descriptor, self._stop, self._clock = descriptor, stop, clock
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._begun, self._pasting = '', False
        self._typed_at = self._pasting_since = 0.0

    def read(self, limit_s: float) -> list[str] | None:
        """Return the keys that are pressed within a time, None when the terminal has closed.

        Args:
            limit_s: how long to wait for the first [s].
        """
        typed, now = _read(self._descriptor, limit_s), self._clock()
        return None if typed is None else self._take(self._decoder.decode(typed), now)

    def _take(self, typed: str, now: float) -> list[str]:
        """Return the keys that are complete with what was typed, by a time [s]."""
        self.pasted = False
        if not self._pasting or len(set(typed)) > MOST_AT_ONCE:
            self._pasting_since = now
        keys = [key for character in typed if (key := self._add(character))]
        if len(set(keys)) > MOST_AT_ONCE:
            self.pasted = self._pasting = True
            keys = [key for key in keys if key == self._stop]
        # A read that found nothing tells of silence; the time between two that did does not: the
        # reader may have been late.
        if typed:
            self._typed_at = now
        elif now - self._typed_at > SILENCE_S:
            self._begun, self._pasting = '', False
        self._pasting &= now - self._pasting_since <= PASTE_S
        return keys

    def _add(self, character: str) -> str:
        """Return the key that a character completes, or that stops; empty: none."""
        if character == ESC:
            # It begins a sequence, unless it is the Alt of one.
            self._begun = '' if self._begun.strip(ESC) else self._begun[:1]
        sent = self._begun + character
        self._begun = sent if BEGUN.fullmatch(sent) else ''
        if (mark := sent.lstrip(ESC)) in (PASTE, PASTED):
            self._pasting = mark == PASTE
            self.pasted = True
        self.pasted |= self._pasting
        arrow = NAMED_KEYS.get(MODIFIED.sub(f'{ESC}[', sent))
        if self._stop in (arrow, NAMED_KEYS.get(character, character), sent.swapcase()):
            return self._stop
        if self._begun or self._pasting:
            return ''
        return NAMED_KEYS.get(sent, sent if len(sent) == 1 else '')


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


def _read(descriptor: int, limit_s: float) -> bytes | None:
    """Return what is typed within a time [s], None when the terminal has closed.

    All of it: what stayed in a buffer would wait for the next key.
    """
    if not select.select([descriptor], [], [], limit_s)[0]:
        return b''
    try:
        return os.read(descriptor, 4096) or None
    except OSError:
        return None


def _tell(descriptor: int, sequence: bytes) -> None:
    """Ask a terminal for something, unless it takes no output: that would keep a hold waiting."""
    with suppress(OSError):
        if select.select([], [descriptor], [], 0.0)[1]:
            os.write(descriptor, sequence)
