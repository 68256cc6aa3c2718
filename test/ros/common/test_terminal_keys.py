# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a key sends is one key, or none; of its letters, and of a paste, only the stop counts."""

from __future__ import annotations

import itertools
import os
import pty
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.ros.common.terminal_keys import (
    MARK_NO_PASTES,
    MARK_PASTES,
    PASTE_S,
    SILENCE_S,
    Keyboard,
    single_keys,
)

SEQUENCES = {
    'F1': '\x1bOP',
    'F1 of a console': '\x1b[[A',
    'F5': '\x1b[15~',
    **{f'F{6 + index}': f'\x1b[{17 + index}~' for index in range(5)},
    'F11': '\x1b[23~',
    'F12': '\x1b[24~',
    'Home': '\x1b[1~',
    'Home of xterm': '\x1b[H',
    'PageUp': '\x1b[5~',
    'Ctrl+Right': '\x1b[1;5C',
    'Ctrl+Right of PuTTY': '\x1bO5C',
    'Shift+Up of rxvt': '\x1b[a',
    'Ctrl+Up of rxvt': '\x1bOa',
    'Alt+q': '\x1bq',
    'Alt+Up': '\x1b\x1b[A',
    'Alt+Up of xterm': '\x1b[1;3A',
    'mouse': '\x1b[<0;10;10M',
    'mouse of X10': '\x1b[Masb',
    'colour': '\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\',
    'colour, ended by a bell': '\x1b]10;rgb:ffff/ffff/ffff\a',
    'version': '\x1bP>|XTerm(388)\x1b\\',
    'image': '\x1b_Gi=1;OK\x1b\\',
}
BEGINNINGS = ['\x1b', '\x1b[', '\x1b[[', '\x1b[1;', '\x1b[M', '\x1bO', '\x1b]', '\x1bP']
HOLDS = {
    'h': ['h', '\x1bh'],
    'space': [' ', '\x1b '],
    'up': ['\x1b[A', '\x1b\x1b[A', '\x1b[1;3A', '\x1bOA'],
}
TEXT = 'ros2 topic echo /joint_states'


@dataclass
class Terminal:
    """A terminal, who types into it, and who reads its keys."""

    leader: int
    keyboard: Keyboard
    now: float = 10.0

    def types(self, text: str, after_s: float = 0.01) -> list[str] | None:
        """Return the keys that are read after somebody has typed."""
        self.now += after_s
        os.write(self.leader, text.encode())
        return self.keyboard.read(5.0)

    def waits(self, time_s: float = 2.0 * SILENCE_S) -> None:
        """Read nothing for a time."""
        self.now += time_s
        assert self.keyboard.read(0.0) == []


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    leader, follower = pty.openpty()
    with os.fdopen(follower, 'rb+', buffering=0) as keys, single_keys(keys, 'h') as keyboard:
        made = Terminal(leader, keyboard)
        keyboard._clock = lambda: made.now
        yield made
    os.close(leader)


def test_keys_have_the_names_of_takeover_files(terminal: Terminal) -> None:
    assert terminal.types('a\x1b[A ') == ['a', 'up', 'space']
    assert terminal.types('aaaa') == ['a'] * 4


@pytest.mark.parametrize('sent', SEQUENCES.values(), ids=SEQUENCES)
def test_a_key_without_a_name_is_no_letter_and_no_digit(terminal: Terminal, sent: str) -> None:
    assert terminal.types(f'a{sent}b') == ['a', 'b']
    for end in range(1, len(sent)):
        assert terminal.types(sent[:end]) == []
        terminal.waits(SILENCE_S / 2)
        assert terminal.types(sent[end:]) == []
        # Who reads late knows of no silence.
        assert terminal.types(sent[:end]) == []
        assert terminal.types(sent[end:], 3.0 * SILENCE_S) == []


@pytest.mark.parametrize('begun', BEGINNINGS)
def test_what_is_struck_after_a_beginning_and_silence_counts(
    terminal: Terminal, begun: str
) -> None:
    assert terminal.types(begun) == []
    terminal.waits()
    assert terminal.types('q') == ['q']


def test_hold_counts_with_caps_lock_and_other_keys_do_not(terminal: Terminal) -> None:
    assert terminal.types('H') == ['h']
    assert terminal.types('G') == ['G']
    assert terminal.types('\x1b[H') == []  # Home.


@given(data=st.data(), stop=st.sampled_from(sorted(HOLDS)))
def test_hold_is_never_lost_and_nothing_else_fires_by_accident(
    data: st.DataObject, stop: str
) -> None:
    pieces = [*SEQUENCES.values(), *BEGINNINGS, '\x1b[200~gas\x1b[201~', *'gas', *HOLDS[stop]]
    typed = data.draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=6))
    ends = itertools.accumulate(map(len, typed))
    holds = {end for end, piece in zip(ends, typed, strict=True) if piece in HOLDS[stop]}
    sizes = itertools.cycle(data.draw(st.lists(st.integers(1, 5), min_size=1)))
    waits = itertools.cycle(data.draw(st.lists(st.sampled_from([0.01, 0.1, 0.2]), min_size=1)))
    text, begin, fired = ''.join(typed), 0, list[str]()
    reader, leader = os.pipe()
    with open(reader, 'rb'), open(leader, 'wb'):
        terminal = Terminal(leader, Keyboard(reader, stop, lambda: terminal.now))
        while begin < len(text):
            end = begin + next(sizes)
            keys = terminal.types(text[begin:end])
            terminal.waits(next(waits))
            assert stop in keys or holds.isdisjoint(range(begin + 1, end + 1))
            fired += [key for key in keys if key != stop]
            begin = end
        assert Counter(fired) <= Counter(piece for piece in typed if piece in 'gas')
        terminal.waits()
        assert terminal.types('s') == ['s']


def test_of_what_a_terminal_marks_as_pasted_nothing_counts_but_to_stop(terminal: Terminal) -> None:
    assert MARK_PASTES in os.read(terminal.leader, 100)
    assert terminal.types(f'a\x1b[200~{TEXT}\x1b[201~b') == ['a', 'h', 'b']
    assert terminal.keyboard.pasted
    # It comes in parts, of which the marks are cut in two.
    assert terminal.types('\x1b[20') == []
    assert terminal.types('0~sss') == []
    assert terminal.types('as') == []
    assert terminal.keyboard.pasted
    assert terminal.types('\x1b[2') == []
    assert terminal.types('01~n') == ['n']
    assert terminal.types('n') == ['n']
    assert not terminal.keyboard.pasted


@pytest.mark.parametrize('period_s', [0.033, 0.33])
def test_a_paste_without_an_end_takes_no_hold_and_other_keys_not_for_long(
    terminal: Terminal, period_s: float
) -> None:
    assert terminal.types('\x1b[200~s\x1b[20') == []
    for _ in range(int(PASTE_S / period_s) + 1):
        assert terminal.types('hs', period_s) == ['h']
    assert terminal.types('s') == ['s']
    assert terminal.types('\x1b[200~s') == []
    terminal.waits()
    assert terminal.types('s') == ['s']


def test_a_long_paste_stays_one(terminal: Terminal) -> None:
    assert terminal.types('\x1b[200~') == []
    for _ in range(2):
        assert terminal.types(TEXT.replace('h', ''), 0.6 * PASTE_S) == []
    assert terminal.types('s') == []


def test_of_a_paste_that_is_not_marked_nothing_counts_but_to_stop(terminal: Terminal) -> None:
    assert terminal.types(TEXT.replace('h', '')) == []
    assert terminal.keyboard.pasted
    assert terminal.types('s') == []  # Its last piece.
    assert terminal.types(TEXT) == ['h']


def test_a_character_of_several_bytes_may_come_in_pieces(terminal: Terminal) -> None:
    first, second = 'é'.encode()
    os.write(terminal.leader, bytes([first]))
    assert terminal.keyboard.read(5.0) == []
    os.write(terminal.leader, bytes([second]))
    assert terminal.keyboard.read(5.0) == ['é']


def test_a_terminal_is_told_to_mark_pastes_no_more_and_one_that_has_closed_has_no_keys() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, 'rb+', buffering=0) as keys:
        with single_keys(keys):
            pass
        for mark in (MARK_PASTES, MARK_NO_PASTES):
            assert os.read(leader, len(mark)) == mark
        with single_keys(keys) as keyboard:
            assert keyboard.read(0.0) == []
            os.close(leader)
            assert keyboard.read(5.0) is None
