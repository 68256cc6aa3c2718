# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a key sends is one key, or none: no letter of it, and nothing that is pasted, counts."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from residual_rl_ros.ros.common.terminal_keys import (
    MARK_NO_PASTES,
    MARK_PASTES,
    PASTE_S,
    SEQUENCE_S,
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
    'Alt+q': '\x1bq',
    'Alt+Up': '\x1b\x1b[A',
}
TEXT = 'ros2 topic echo /joint_states'


@dataclass
class Terminal:
    """A terminal, who types into it, and who reads its keys."""

    leader: int
    keyboard: Keyboard
    now: float = 10.0

    def types(self, text: str, after_s: float = 1.0) -> list[str] | None:
        """Return the keys that are read after somebody has typed."""
        self.now += after_s
        os.write(self.leader, text.encode())
        return self.keyboard.read(5.0)


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
        assert terminal.types(sent[end:], SEQUENCE_S / 2) == []


def test_what_is_struck_after_escape_counts(terminal: Terminal) -> None:
    assert terminal.types('\x1b') == []
    assert terminal.types('q') == ['q']


def test_the_key_that_stops_is_not_lost_with_alt_or_right_after_escape(terminal: Terminal) -> None:
    assert terminal.types('\x1bh') == ['h']
    assert terminal.types('\x1b') == []
    assert terminal.types('h', SEQUENCE_S / 2) == ['h']


def test_what_a_terminal_marks_as_pasted_is_no_key(terminal: Terminal) -> None:
    assert MARK_PASTES in os.read(terminal.leader, 100)
    assert terminal.types(f'a\x1b[200~{TEXT}\x1b[201~b') == ['a', 'b']
    assert terminal.keyboard.pasted
    # It comes in parts, of which the marks are cut in two.
    assert terminal.types('\x1b[20') == []
    assert terminal.types('0~sss', 0.01) == []
    assert terminal.types('hs', 0.01) == []
    assert terminal.keyboard.pasted
    assert terminal.types('\x1b[2', 0.01) == []
    assert terminal.types('01~n', 0.01) == ['n']
    assert terminal.types('n') == ['n']
    assert not terminal.keyboard.pasted


def test_a_paste_without_an_end_takes_no_key_for_long(terminal: Terminal) -> None:
    assert terminal.types('\x1b[200~s') == []
    assert terminal.types('h', 2.0 * PASTE_S) == ['h']


def test_of_a_paste_that_is_not_marked_nothing_counts_but_to_stop(terminal: Terminal) -> None:
    assert terminal.types(TEXT.replace('h', '')) == []
    assert terminal.keyboard.pasted
    assert terminal.types(TEXT) == ['h']


def test_a_terminal_is_told_to_mark_pastes_no_more_and_one_that_has_closed_has_no_keys() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, 'rb+', buffering=0) as keys:
        with single_keys(keys):
            pass
        assert os.read(leader, 100).endswith(MARK_NO_PASTES)
        with single_keys(keys) as keyboard:
            assert keyboard.read(0.0) == []
            os.close(leader)
            assert keyboard.read(5.0) is None
