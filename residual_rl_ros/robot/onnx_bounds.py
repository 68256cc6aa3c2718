# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of an ONNX graph, so that a small file neither fills the memory nor runs for ever.

ONNX Runtime has none: it expands functions and folds constants while it loads a model. What depends
on inputs is not known here; `check-base` tries a model in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import onnx.numpy_helper

MAX_NODES = 10**6
"""Operators of a graph when its functions are written out."""
MAX_NUMBERS = 2**26
"""Numbers of a constant that the graph makes."""
MAX_ROUNDS = 10**6
"""Rounds of a loop whose number is known."""
SHAPE_INPUTS = {'ConstantOfShape': 0, 'Expand': 1}
"""Operators that make a tensor of the shape in this input."""
DIVISIONS = ('Div', 'Mod')
WHOLE = tuple(
    onnx.TensorProto.DataType.Value(f'{kind}{bits}')
    for kind in ('INT', 'UINT')
    for bits in (8, 16, 32, 64)
)
"""Types of tensors of whole numbers."""
Name = tuple[str, str]
"""Domain and type of an operator, or of a function."""


def check_bounds(
    model: Any, nodes: Iterable[Any], constants: Mapping[str, list[Any]], sparse: Iterable[Any]
) -> None:
    """Refuse a graph that needs too much, or divides whole numbers by zero.

    Args:
        model: the model.
        nodes: of all its graphs and functions.
        constants: tensors of its graphs, by name.
        sparse: its sparse tensors.

    Raises:
        ValueError: names the operator or function.
    """
    _check_functions(model)
    for tensor in sparse:
        _check_size('a sparse tensor', tensor.dims)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField('sparse_tensor'):
                _check_size(f'{node.op_type} {node.name!r}', attribute.sparse_tensor.dims)
        index = SHAPE_INPUTS.get(node.op_type)
        if index is not None:
            for values in _values(node, index, constants):
                _check_size(f'{node.op_type} {node.name!r}', values.ravel().tolist())
        if node.op_type == 'Loop':
            for values in _values(node, 0, constants):
                if values.size and values.max() > MAX_ROUNDS:
                    raise ValueError(
                        f'Loop {node.name!r} has {values.max()} rounds, expected up to {MAX_ROUNDS}'
                    )
        if node.op_type in DIVISIONS:
            for values in _values(node, 1, constants):
                if not values.all():
                    raise ValueError(
                        f'{node.op_type} {node.name!r} divides whole numbers by zero, which ends '
                        'the process'
                    )


def _check_functions(model: Any) -> None:
    """Refuse functions that call themselves, or are too long when they are written out."""
    functions: dict[Name, Any] = {(each.domain, each.name): each for each in model.functions}
    lengths: dict[Name, int] = {}
    waiting = list(functions)
    begun: set[Name] = set()
    while waiting:
        name = waiting[-1]
        if name in lengths:
            waiting.pop()
            continue
        called = [
            (node.domain, node.op_type)
            for node in functions[name].node
            if (node.domain, node.op_type) in functions
        ]
        unknown = [each for each in called if each not in lengths]
        if name in begun and unknown:
            raise ValueError(f'function {name[1]!r} calls itself')
        begun.add(name)
        if unknown:
            waiting += unknown
            continue
        length = len(functions[name].node) + sum(lengths[each] for each in called)
        if length > MAX_NODES:
            raise ValueError(
                f'function {name[1]!r} has {length} operators when it is written out, expected up '
                f'to {MAX_NODES}'
            )
        lengths[name] = length
        waiting.pop()
    calls = [lengths.get((node.domain, node.op_type), 1) for node in model.graph.node]
    if sum(calls) > MAX_NODES:
        raise ValueError(
            f'it has {sum(calls)} operators when its functions are written out, expected up to '
            f'{MAX_NODES}'
        )


def _check_size(what: str, dimensions: Iterable[int]) -> None:
    numbers = math.prod(dimensions)
    if numbers > MAX_NUMBERS:
        raise ValueError(f'{what} makes {numbers} numbers, expected up to {MAX_NUMBERS}')


def _values(node: Any, index: int, constants: Mapping[str, list[Any]]) -> Iterable[Any]:
    """Yield the whole numbers of the constants that an input of an operator may be."""
    if index >= len(node.input):
        return
    for tensor in constants.get(node.input[index], ()):
        if tensor.data_type in WHOLE and math.prod(tensor.dims) <= MAX_NUMBERS:
            yield onnx.numpy_helper.to_array(tensor)
