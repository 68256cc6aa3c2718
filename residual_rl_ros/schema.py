# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration as frozen dataclasses: every key described once, with default and range.

Presets, runs, recipes, robots and ROS parameters are checked by this one mechanism. A file is
checked as a whole: all that is wrong with it is said at once, each with key, value and expectation.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from residual_rl_ros.errors import ConfigError, FormatError
from residual_rl_ros.files import yaml_text

Kind = TypeVar('Kind')

WANTED = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a string',
    dict[str, Any]: 'a map',
    tuple[dict[str, Any], ...]: 'a list of maps',
    tuple[int, ...]: 'a list of whole numbers',
    tuple[float, ...]: 'a list of numbers',
    tuple[str, ...]: 'a list of strings',
}
"""Types of values, and how an error names them."""
NUMBERS = (int, float, tuple[int, ...], tuple[float, ...])
"""Types of numbers."""
NAMESPACE = re.compile(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?', re.ASCII)
ROS_NAME = re.compile(r'(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)
"""Name of a topic, a service or an action; ROS ends the process that asks for another one."""
EXPONENT = re.compile(r'([+-]?(?=\.?\d)\d*)(\.\d*)?[eE]([+-]?)(\d+)', re.ASCII)
"""A number with an exponent; to YAML 1.1 it is a string unless it has both point and sign."""
MAX_LISTED_KEYS = 16
"""So many known keys are listed for an unknown one."""
KEY = 'key'
"""Under this name the metadata of a field hold its `Key`."""


@dataclass(frozen=True)
class Key:
    """What a configuration key is, and which values it takes."""

    description: str = ''
    """With its unit; for the reference and `ros2 param describe`."""
    minimum: float | None = None
    """Smallest allowed number; of a list, of each element."""
    maximum: float | None = None
    above: float | None = None
    """Number that it must exceed."""
    choices: tuple[str, ...] = ()
    """Allowed strings; none allows all."""
    filled: bool = False
    """Whether strings and lists must not be empty."""
    live: bool = False
    """Whether a ROS parameter can change while the node runs; others are read-only."""
    ros_name: bool = False
    """Whether it names a topic, a service or an action; empty passes if `filled` allows it."""
    words: Mapping[str, int] = field(default_factory=dict)
    """Words of files that stand for numbers."""

    @classmethod
    def of(cls, item: Field[Any]) -> Key:
        """Return that of a field; one that is no `parameter` takes every value of its type."""
        found: Key = item.metadata.get(KEY, _ANY)
        return found

    def expectation(self, wanted: Any) -> str:
        """Return in words what a value must be.

        Args:
            wanted: its type.
        """
        if self.ros_name:
            return 'a ROS name: words of letters, digits and _, / between them, no digit first'
        element = section_of(wanted)
        sections = 'a map' if is_dataclass(wanted) else 'a list of maps' if element else str(wanted)
        words = [WANTED.get(wanted, sections)]
        if self.filled:
            words = [words[0].replace('a ', 'a non-empty ', 1)]
        limits = (('>=', self.minimum), ('>', self.above), ('<=', self.maximum))
        words += [f'{sign} {limit}' for sign, limit in limits if limit is not None]
        if self.choices:
            named = ', '.join(choice for choice in self.choices if choice)
            return f'a list of {named}' if hasattr(wanted, '__args__') else f'one of {named}'
        numbers = ' '.join(words[:2]) + ''.join(f' and {word}' for word in words[2:])
        return numbers + ''.join(f' or {word}' for word in self.words)

    def takes(self, value: Any) -> bool:
        """Return whether a value of the right type, or an element of a list, is allowed."""
        return not (
            (self.filled and value == '')
            or (self.minimum is not None and value < self.minimum)
            or (self.maximum is not None and value > self.maximum)
            or (self.above is not None and not value > self.above)
            or (self.choices and value not in self.choices)
            or (self.ros_name and value and ROS_NAME.fullmatch(value) is None)
        )


_ANY = Key()


def parameter(
    default: Any,
    description: str,
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    above: float | None = None,
    choices: Sequence[str] = (),
    filled: bool = False,
    live: bool = False,
    ros_name: bool = False,
    words: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """Return a dataclass field that is a configuration key.

    Args:
        default: its default; `dataclasses.MISSING` requires the key.
        description: see `Key`, also of what follows.
        minimum: smallest allowed number.
        maximum: largest allowed number.
        above: number that it must exceed.
        choices: allowed strings.
        filled: strings and lists must not be empty.
        live: a ROS parameter that can change while the node runs.
        ros_name: it names a topic, a service or an action.
        words: words of files that stand for numbers.
    """
    key = Key(description, minimum, maximum, above, tuple(choices), filled, live, ros_name, words)
    return field(default=default, metadata={KEY: key})


def map_parameter(description: str) -> Any:
    """Return a field that is a map of any content, empty by default."""
    return field(default_factory=dict, metadata={KEY: Key(description)})


def types_of(kind: Any) -> Mapping[str, Any]:
    """Return the type of every field of a dataclass."""
    return _types_of(kind)


@functools.cache
def _types_of(kind: Hashable) -> Mapping[str, Any]:
    """Evaluate annotations, which takes milliseconds, once."""
    return MappingProxyType(get_type_hints(kind))


def section_of(wanted: Any) -> Any:
    """Return the dataclass of a list of sections, None if a type is no such list."""
    element = wanted.__args__[0] if hasattr(wanted, '__args__') else None
    return element if is_dataclass(element) else None


def checked(item: Field[Any], wanted: Any, value: Any) -> Any:
    """Return a value as the field's type.

    Whole numbers pass as `float`, whole floats as `int`; nothing is truncated, no string is parsed.
    Numbers must be finite, strings printable.

    Raises:
        ValueError: it is of another type, not finite or out of range; the text says what it must
            be.
    """
    key = Key.of(item)
    if wanted == dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(key.expectation(wanted))
        return dict(value)
    element = wanted.__args__[0] if hasattr(wanted, '__args__') else None
    if isinstance(value, str):
        value = key.words.get(value, value)
    try:
        if element is None:
            converted = _scalar(wanted, value)
            values: Sequence[Any] = (converted,)
        else:
            if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, '__iter__'):
                raise ValueError
            values = converted = tuple(_scalar(element, each) for each in value)
        if (key.filled and not len(converted)) or not all(map(key.takes, values)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        hint = written_otherwise(value) if wanted in NUMBERS else ''
        raise ValueError(key.expectation(wanted) + hint) from None
    return converted


def written_otherwise(value: Any) -> str:
    """Return how YAML has a number that it took for a string, empty if that is not the matter.

    Args:
        value: what was read where a number, or a list of numbers, is expected.
    """
    for each in value if isinstance(value, (list, tuple)) else (value,):
        found = EXPONENT.fullmatch(each) if isinstance(each, str) else None
        if found is not None:
            whole, part, sign, power = found.groups()
            written = f'{whole}{part or ".0"}e{sign or "+"}{power}'
            return '' if written == each else f'; to YAML {each} is a string: write {written}'
    return ''


def _scalar(wanted: Any, value: Any) -> Any:
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = float(value)
        if not math.isfinite(value):
            raise ValueError
        return value
    if wanted is int and isinstance(value, float) and value == int(value):
        return int(value)
    if wanted == dict[str, Any] and isinstance(value, Mapping):
        return dict(value)
    # A text with control characters is none that anybody wrote, and a terminal would obey it.
    if type(value) is not wanted or (wanted is str and not value.isprintable()):
        raise ValueError
    return value


def from_mapping(kind: type[Kind], values: Any, source: str) -> Kind:
    """Return a dataclass of `parameter` fields made of a map, such as a YAML file holds.

    Args:
        kind: the dataclass. Fields that are dataclasses are maps in their turn, and tuples of
            them lists of maps. A method `problems()`, if it has one, yields what does not fit
            together, a sentence each that names the key.
        values: the map; keys that it lacks take their defaults.
        source: file or object, for the errors.

    Raises:
        ConfigError: names every unknown, missing or wrong key.
    """
    problems: list[str] = []
    made = _build(kind, values, '', problems)
    if problems:
        raise ConfigError(source, problems)
    assert made is not None
    return made


def read_section(kind: type[Kind], values: Any, path: str, problems: list[str]) -> Kind | None:
    """Return a dataclass made of a section of a file, None if it is wrong.

    Args:
        kind: the dataclass.
        values: the section.
        path: its dotted key.
        problems: get what is wrong, with full keys.
    """
    try:
        return from_mapping(kind, values, path)
    except ConfigError as error:
        problems += [f'{path}.{problem}' for problem in error.problems]
        return None


def _build(kind: type[Kind], values: Any, prefix: str, problems: list[str]) -> Kind | None:
    """Return the dataclass, or None with the reasons added to `problems`."""
    if not isinstance(values, Mapping):
        problems.append(f'{prefix.rstrip(".") or "the content"} is {values!r}, expected a map')
        return None
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    before = len(problems)
    for key in values:
        if key not in known:
            problems.append(f'{prefix}{unknown_key(key, known)}')
    made: dict[str, Any] = {}
    for name, item in known.items():
        wanted = types_of(kind)[name]
        if name not in values:
            if item.default is MISSING and item.default_factory is MISSING:
                expected = Key.of(item).expectation(wanted)
                problems.append(f'{prefix}{name} is missing, expected {expected}')
            continue
        value = values[name]
        if is_dataclass(wanted):
            nested = _build(wanted, value, f'{prefix}{name}.', problems)  # type: ignore[arg-type]
            if nested is not None:
                made[name] = nested
            continue
        if section_of(wanted) is not None:
            made[name] = _build_list(item, wanted, value, f'{prefix}{name}', problems)
            continue
        try:
            made[name] = checked(item, wanted, value)
        except ValueError as error:
            problems.append(f'{prefix}{name} is {value!r}, expected {error}')
    if len(problems) > before:
        return None
    built = kind(**made)
    check = getattr(built, 'problems', None)
    if check is not None:
        problems += [f'{prefix}{problem}' for problem in check()]
    return built if len(problems) == before else None


def _build_list(
    item: Field[Any], wanted: Any, values: Any, path: str, problems: list[str]
) -> tuple[Any, ...]:
    """Return the dataclasses of a list of maps; `problems` gets the reasons why one cannot be."""
    key, is_list = Key.of(item), isinstance(values, (list, tuple))
    if not is_list or (key.filled and not values):
        problems.append(f'{path} is {values!r}, expected {key.expectation(wanted)}')
        return ()
    section = section_of(wanted)
    places = enumerate(values)
    return tuple(_build(section, each, f'{path}[{at}].', problems) for at, each in places)


def unknown_key(key: Any, known: Mapping[str, Any]) -> str:
    """Return what is wrong with a key that does not exist, and the remedy."""
    few = len(known) <= MAX_LISTED_KEYS
    listed = f'known are {", ".join(sorted(known))}' if few else 'the reference lists all keys'
    return f'{key} is unknown; {did_you_mean(str(key), known) or listed}'


def check_namespace(name: str) -> None:
    """Refuse a namespace that ROS does not know; empty is none.

    Raises:
        ConfigError: it is not one.
    """
    if name.strip('/') and NAMESPACE.fullmatch(name) is None:
        raise ConfigError(
            f'namespace {name!r} is not one of ROS: expected letters, digits and _ between '
            'slashes, such as left or cell/left'
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the end of an error, empty if no known name is like this one."""
    near = difflib.get_close_matches(name, known, 1)
    return f'did you mean {near[0]}?' if near else ''


def read_yaml(path: Path, what: str) -> Any:
    """Return the content of a configuration file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or asks for more than the limits of `files`.
    """
    try:
        return yaml_text.read_yaml(path)
    except FormatError as error:
        raise ConfigError(str(path), [f'cannot read {what}: {error}']) from error


def dotted(tree: Mapping[Any, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield what nested maps hold under dotted names, as ROS parameters have; empty maps too."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def leaves(kind: type[Any], prefix: str = '') -> Iterator[tuple[str, Field[Any], Any]]:
    """Yield dotted name, field and type of every key of a configuration, nested ones too."""
    for item in fields(kind):
        wanted = types_of(kind)[item.name]
        if is_dataclass(wanted):
            yield from leaves(wanted, f'{prefix}{item.name}.')  # type: ignore[arg-type]
        else:
            yield f'{prefix}{item.name}', item, wanted
