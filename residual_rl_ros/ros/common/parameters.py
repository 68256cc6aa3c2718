# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ROS parameters as frozen dataclasses: described, with ranges, read-only unless it is safe."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields, replace
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.schema import Key, checked, types_of

Kind = TypeVar('Kind')
OTHERS = (
    'use_sim_time',
    'autostart',
    'start_type_description_service',
    'qos_overrides.',
    'base_policy_sha256',
)
"""Whose parameters are not a node's own: of rclpy, of `managed_node.run`, and one that stands in
robot files."""
SIM_TIME = 'use_sim_time'
"""One of them that would stop or change the clock of a robot that moves."""


def parser_complaint(error: Exception) -> str | None:
    """Return what ROS 2's parser has against a parameter file, None if an error is another."""
    said = ' '.join(str(error).split())
    if 'params file' not in said:
        return None
    reason = re.sub(r'( ?, at \S+:\d+)+$', '', said.partition(' Error: ')[2]) or said
    return (
        f"{reason}; ROS 2's YAML parser wants numbers of one type in a list (1.0, not 1, beside "
        '2.5) and knows no anchors (&name, *name, <<)'
    )


@contextmanager
def every_parameter_valued(name: str) -> Iterator[None]:
    """Say in one line that a node was started with a parameter that has no type.

    Raises:
        ConfigError: a parameter is there without a value.
    """
    try:
        yield
    except ValueError as error:
        if 'PARAMETER_NOT_SET' not in str(error):
            raise
        raise ConfigError(
            f'{name} cannot start: a parameter has no value, such as an empty list; leave it out'
        ) from error


def read_parameters(node: Node, kind: type[Kind], trees: Sequence[str] = ()) -> Kind:
    """Declare and read every field of a frozen dataclass as a ROS parameter.

    Args:
        node: the node, which has declared what it was started with.
        kind: dataclass of `parameter` fields.
        trees: prefixes of further parameters that the node reads, see `read_tree`.

    Raises:
        ConfigError: names every value that has another type than its field, or is out of range.
    """
    hints = types_of(kind)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for item in fields(kind):  # type: ignore[arg-type]
        value: Any = item.default
        if node.has_parameter(item.name):
            value = node.get_parameter(item.name).value
        hint = hints[item.name]
        try:
            values[item.name] = value = _checked(item, hint, value)
        except ConfigError as error:
            problems.append(str(error))
        else:
            _declare(node, item.name, value, _descriptor(item, hint))
    if problems:
        raise ConfigError(node.get_name(), problems)
    known = (*OTHERS, *(f'{tree}.' for tree in trees))
    for name in sorted(node.get_parameters_by_prefix('')):
        if name not in values and not name.startswith(known):
            node.get_logger().warning(
                f'parameter {name!r} is unknown to {node.get_name()} and has no effect'
            )
    return kind(**values)


def follow_parameters(
    node: Node,
    current: Kind,
    apply: Callable[[Kind], None],
    validate: Callable[[Kind], None] = lambda parameters: None,
) -> Callable[[], None]:
    """Let the live parameters change while the node runs; refuse all other changes.

    Those of `OTHERS` may be set, except for `SIM_TIME`, and have no effect: rclpy itself sets some
    when a topic is opened.

    Args:
        node: the node.
        current: its parameters.
        apply: takes the changed parameters, in the executor's thread.
        validate: raises a `ConfigError` where values that are right alone do not fit the rest.

    Returns:
        What ends it.
    """
    hints = types_of(type(current))
    known = {item.name: item for item in fields(current)}  # type: ignore[arg-type]
    latest = current

    def check(changes: list[Parameter]) -> SetParametersResult:
        values: dict[str, Any] = {}
        for change in changes:
            if change.name in known:
                item, hint = known[change.name], hints[change.name]
                try:
                    values[change.name] = _checked(item, hint, change.value)
                except ConfigError as error:
                    return SetParametersResult(successful=False, reason=str(error))
            elif change.name == SIM_TIME:
                reason = (
                    f'{SIM_TIME} of {node.get_name()} is {node.get_parameter(SIM_TIME).value}, and '
                    'would change the clock of a robot that moves: set it before the start, in the '
                    f'launch file or with --ros-args -p {SIM_TIME}:=...'
                )
                return SetParametersResult(successful=False, reason=reason)
            elif not change.name.startswith(OTHERS):
                reason = f'{change.name} is read once, at the start; restart {node.get_name()}'
                return SetParametersResult(successful=False, reason=reason)
        try:
            validate(replace(latest, **values))  # type: ignore[type-var]
        except ResidualRLError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def changed(changes: list[Parameter]) -> None:
        nonlocal latest
        values = {
            change.name: _checked(known[change.name], hints[change.name], change.value)
            for change in changes
            if change.name in known
        }
        if values:
            latest = replace(latest, **values)  # type: ignore[type-var]
            node.get_logger().info(f'parameters changed: {values}')
            apply(latest)

    def end() -> None:
        node.remove_on_set_parameters_callback(check)
        node.remove_post_set_parameters_callback(changed)

    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(changed)
    return end


def read_tree(node: Node, prefix: str) -> dict[str, Any]:
    """Return the parameters below a prefix as nested maps.

    Raises:
        ConfigError: there are none.
    """
    tree: dict[str, Any] = {}
    for key, item in node.get_parameters_by_prefix(prefix).items():
        description = f'{prefix}: read once, when {node.get_name()} is configured'
        descriptor = ParameterDescriptor(description=description, read_only=True)
        _declare(node, item.name, item.value, descriptor)
        *parents, leaf = key.split('.')
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        value = item.value
        branch[leaf] = value if isinstance(value, (str, int, float, bool)) else list(value)
    if not tree:
        raise ConfigError(
            f'{node.get_name()} has no parameters {prefix}.*; pass a robot file with '
            '--params-file (config/robots/)'
        )
    return tree


def _declare(node: Node, name: str, value: Any, descriptor: ParameterDescriptor) -> None:
    """Declare a parameter, or anew what came undescribed with the start of the node."""
    if node.has_parameter(name):
        if node.describe_parameter(name).description:
            return  # The node was configured before.
        node.undeclare_parameter(name)
    node.declare_parameter(name, _ros_value(value), descriptor, ignore_override=True)


def _checked(item: Field[Any], wanted: Any, value: Any) -> Any:
    """Return the value as the field's type.

    Raises:
        ConfigError: it is not of that type or out of range.
    """
    if hasattr(wanted, '__args__') and isinstance(value, (bool, int, float, str)):
        value = [value]  # One element of an array, as command lines write it.
    try:
        return checked(item, wanted, value)
    except ValueError as error:
        shown = list(value) if hasattr(value, 'tolist') else value
        raise ConfigError(
            f'parameter {item.name!r} is {shown!r}, expected {error}: {Key.of(item).description}'
        ) from error


def _descriptor(item: Field[Any], wanted: Any) -> ParameterDescriptor:
    key = Key.of(item)
    descriptor = ParameterDescriptor(description=key.description, read_only=not key.live)
    low, high = key.minimum, key.maximum
    if (low, high) == (None, None):
        return descriptor
    if wanted is int:
        first = -(2**63) if low is None else int(low)
        last = 2**63 - 1 if high is None else int(high)
        descriptor.integer_range = [IntegerRange(from_value=first, to_value=last, step=1)]
    elif wanted is float:
        first_float = -sys.float_info.max if low is None else float(low)
        last_float = sys.float_info.max if high is None else float(high)
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=first_float, to_value=last_float, step=0.0)
        ]
    return descriptor


def _ros_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
