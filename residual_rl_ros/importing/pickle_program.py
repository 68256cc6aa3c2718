# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pickles of other frameworks, read without Python's unpickler: nothing of them is ever called.

A pickle is a program for a small stack machine. `pickletools` disassembles it, and this module runs
those instructions that make numbers, texts, lists, tuples, sets and dictionaries. A class or
function that the program names stays a name (`Label`): no module is imported and no attribute
looked up. What the program wants to call is looked up in a table of our own (`Calls`) or is one of
the listed classes whose arguments are kept unused (`Record`). Any other name ends the reading.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from residual_rl_ros.errors import FormatError, shown
from residual_rl_ros.files.limits import DEPTH, PICKLE_STEPS

LONGEST_INTEGER = 1024
"""Largest integer [bit]."""
Calls = Mapping[str, Callable[..., Any]]
"""What a program may call: by name, a function of ours that takes the program's arguments."""


@dataclass(frozen=True)
class Label:
    """Name of a class or function, as the program writes it."""

    name: str


@dataclass(eq=False, repr=False)
class Record:
    """Object of a listed class: what the program would have given to it; no method is called."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None

    def __repr__(self) -> str:
        """Return its name alone: records that hold another twice would be written out for ever."""
        return f'Record({self.name})'


class _Mark:
    """Where on the stack the items of a container begin."""


def read_program(
    data: bytes, calls: Calls, inert: Collection[str], load: Callable[[Any], Any], what: str
) -> Any:
    """Return what a pickle describes, made of plain containers, `Label`, `Record` and `calls`.

    Args:
        data: the pickle.
        calls: functions for the names that may be called.
        inert: names of classes whose objects become a `Record`.
        load: makes a persistent object, which in torch is a storage, of its identity.
        what: what it is, for the error.

    Raises:
        FormatError: it is damaged, asks for another name, or for more than the limits.
    """
    machine = _Machine(calls, frozenset(inert) | calls.keys(), load)
    try:
        content = machine.run(data)
        _check_size(content)
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
        raise FormatError(f'{what} cannot be read: {error}; nothing in it was executed') from error
    return content


class _Machine:
    """Stack, memo and the instructions that are known."""

    def __init__(self, calls: Calls, allowed: Collection[str], load: Callable[[Any], Any]) -> None:
        self._calls, self._allowed, self._load = calls, allowed, load
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Return what is on the stack at the end."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= PICKLE_STEPS:
                raise ValueError(f'it has more than {PICKLE_STEPS} instructions')
            step = INSTRUCTIONS.get(opcode.name)
            if step is None:
                raise ValueError(f'instruction {opcode.name} is not allowed')
            step(self, argument)
        if len(self._stack) != 1:
            raise ValueError(f'it ends with {len(self._stack)} values, expected 1')
        return self.pop()

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        if type(value) is int and value.bit_length() > LONGEST_INTEGER:
            raise ValueError(f'an integer has more than {LONGEST_INTEGER} bits')
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the newest value from the stack."""
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise ValueError('it takes a value where there is none')
        return self._stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take the values since the newest mark."""
        for index in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[index], _Mark):
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise ValueError('it has no mark for its items')

    def drop(self) -> None:
        """Drop the newest value or mark."""
        if not self._stack:
            raise ValueError('it drops a value where there is none')
        self._stack.pop()

    def _top(self, kind: type | tuple[type, ...]) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise ValueError('it adds to what is no container')
        return self._stack[-1]

    def remember(self, argument: Any) -> None:
        """Keep the newest value under a number."""
        value = self.pop()
        self._stack.append(value)
        key = len(self._memo) if argument is None else int(argument)
        self._memo[key] = value

    def recall(self, argument: Any) -> None:
        """Put a kept value on the stack again."""
        if int(argument) not in self._memo:
            raise ValueError(f'it has kept nothing under {argument}')
        self._stack.append(self._memo[int(argument)])

    def take(self, count: int) -> tuple[Any, ...]:
        """Take so many values."""
        return tuple(reversed([self.pop() for _ in range(count)]))

    def extend(self, items: list[Any]) -> None:
        """Add values to a list."""
        self._top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        """Add keys and their values to a dictionary."""
        self._top(dict).update(_pairs(items))

    def add_items(self, items: list[Any]) -> None:
        """Add values to a set."""
        self._top(set).update(map(_key, items))

    def label(self, module: Any, name: Any) -> None:
        """Push the name of a class or function, if it is one that may occur."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError('the name of a class is no text')
        full = f'{module}.{name}'
        if full not in self._allowed:
            raise ValueError(
                f'it asks for {shown(full)}, expected tensors and plain containers alone'
            )
        self._stack.append(Label(full))

    def call(self) -> None:
        """Replace a name and its arguments by what our table makes of them."""
        label, arguments = self.take(2)
        if not (isinstance(label, Label) and isinstance(arguments, tuple)):
            raise ValueError('it calls what is no name of a function')
        made = self._calls.get(label.name)
        try:
            self._stack.append(made(*arguments) if made else Record(label.name, arguments))
        except TypeError as error:
            raise ValueError(f'{label.name} has {len(arguments)} arguments') from error

    def build(self) -> None:
        """Keep the state of a record; the attributes of a dictionary are dropped."""
        state = self.pop()
        target = self._top((Record, dict))
        if isinstance(target, Record):
            target.state = state

    def load(self) -> None:
        """Replace an identity by its object."""
        self._stack.append(self._load(self.pop()))


def _key(value: Any) -> Any:
    """Return a key; tuples within tuples could take for ever to hash."""
    if not isinstance(value, (str, bytes, int, float, type(None))):
        raise ValueError(f'a key is a {type(value).__name__}, expected a text or number')
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError('a dictionary has a key without a value')
    return dict(zip(map(_key, items[::2]), items[1::2], strict=True))


Step = Callable[[_Machine, Any], None]
_VALUES = (
    'INT',
    'BININT',
    'BININT1',
    'BININT2',
    'LONG',
    'LONG1',
    'LONG4',
    'FLOAT',
    'BINFLOAT',
    'UNICODE',
    'BINUNICODE',
    'SHORT_BINUNICODE',
    'BINUNICODE8',
    'BINBYTES',
    'SHORT_BINBYTES',
    'BINBYTES8',
)
"""Instructions that push their argument, a number or text."""
INSTRUCTIONS: dict[str, Step] = {
    **dict.fromkeys(_VALUES, _Machine.push),
    **dict.fromkeys(('PROTO', 'FRAME', 'STOP'), lambda machine, _: None),
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _Machine.remember),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _Machine.recall),
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), lambda machine, _: machine.call()),
    'NONE': lambda machine, _: machine.push(None),
    'NEWTRUE': lambda machine, _: machine.push(True),
    'NEWFALSE': lambda machine, _: machine.push(False),
    'MARK': lambda machine, _: machine.push(_Mark()),
    'POP': lambda machine, _: machine.drop(),
    'POP_MARK': lambda machine, _: (machine.pop_to_mark(), None)[1],
    'EMPTY_LIST': lambda machine, _: machine.push([]),
    'EMPTY_DICT': lambda machine, _: machine.push({}),
    'EMPTY_SET': lambda machine, _: machine.push(set()),
    'EMPTY_TUPLE': lambda machine, _: machine.push(()),
    'LIST': lambda machine, _: machine.push(machine.pop_to_mark()),
    'DICT': lambda machine, _: machine.push(_pairs(machine.pop_to_mark())),
    'TUPLE': lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    'FROZENSET': lambda machine, _: machine.push(frozenset(map(_key, machine.pop_to_mark()))),
    'TUPLE1': lambda machine, _: machine.push(machine.take(1)),
    'TUPLE2': lambda machine, _: machine.push(machine.take(2)),
    'TUPLE3': lambda machine, _: machine.push(machine.take(3)),
    'APPEND': lambda machine, _: machine.extend([machine.pop()]),
    'APPENDS': lambda machine, _: machine.extend(machine.pop_to_mark()),
    'SETITEM': lambda machine, _: machine.update([*machine.take(2)]),
    'SETITEMS': lambda machine, _: machine.update(machine.pop_to_mark()),
    'ADDITEMS': lambda machine, _: machine.add_items(machine.pop_to_mark()),
    'GLOBAL': lambda machine, argument: machine.label(*argument.split(' ', 1)),
    'STACK_GLOBAL': lambda machine, _: machine.label(*machine.take(2)),
    'BUILD': lambda machine, _: machine.build(),
    'BINPERSID': lambda machine, _: machine.load(),
}
"""What is known; every other instruction ends the reading."""


def _check_size(content: Any) -> None:
    """Count depth and values before anybody walks through them.

    Raises:
        ValueError: there are too many; a container within itself has no end.
    """
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEPTH:
            raise ValueError(f'more than {DEPTH} containers are within one another')
        if isinstance(value, (list, tuple)):
            inner = value
        elif isinstance(value, dict):
            inner = tuple(value.values())
        else:  # A record may hold its parent; who reads records counts for himself.
            continue
        if count + len(waiting) + len(inner) > PICKLE_STEPS:
            raise ValueError(f'it has more than {PICKLE_STEPS} values, counted at each use')
        waiting.extend((item, depth + 1) for item in inner)
