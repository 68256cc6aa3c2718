# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A loop of a network as repeated nodes of its graph, without having torch trace each turn.

torch exports the network with one turn of the loop. What the loop changes is then copied for every
turn in the ONNX graph; weights, and all that is the same in every turn, stay there once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

START = 'noise'
"""Input of the graph with which the loop begins."""
ROW = 'loop.row'
"""Further input of one turn: its row, shape (1, numbers)."""
END = 'loop.end'
"""Further output of one turn: what it makes of its start."""


class OneTurn(nn.Module):
    """A network whose loop makes one turn.

    Args:
        network: the network.
        loop: the part of it that runs through its buffer `rows`.
    """

    def __init__(self, network: nn.Module, loop: nn.Module) -> None:
        super().__init__()
        self.network, self.loop = network, loop

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the network, and what the loop made of its start.

        Args:
            *inputs: those of the network, then the row of the turn, shape (1, numbers).
        """
        made: list[Tensor] = []
        hook = self.loop.register_forward_hook(lambda module, given, end: made.append(end))
        rows, self.loop.rows = self.loop.rows, inputs[-1]
        try:
            outputs = self.network(*inputs[:-1])
        finally:
            self.loop.rows = rows
            hook.remove()
        return (outputs, *made) if isinstance(outputs, Tensor) else (*outputs, *made)


def unroll(model: Any, rows: npt.NDArray[np.float32]) -> None:
    """Repeat the nodes of one turn in a graph.

    Args:
        model: the graph of `OneTurn`, which is changed: it loses `ROW` and `END`.
        rows: of every turn, shape (turns, numbers).
    """
    graph = model.graph
    before, turn, after = _parts(graph.node)
    made = {name for node in turn for name in node.output}
    start, nodes = START, list(before)
    for index, row in enumerate(rows):
        last = index == len(rows) - 1
        constant = f'{ROW}.{index}'
        graph.initializer.append(numpy_helper.from_array(row[None], constant))
        # The last turn keeps its names, by which the rest of the graph knows it.
        names = {} if last else {name: f'{name}.{index}' for name in made}
        nodes += _copies(turn, {**names, START: start, ROW: constant})
        start = names.get(END, END)
    nodes += after
    del graph.node[:]
    graph.node.extend(nodes)
    _drop(graph.input, ROW)
    _drop(graph.output, END)


def _parts(nodes: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the nodes before the loop, of one turn, and after it, each in their order."""
    changing = {START, ROW}
    for node in nodes:  # In the order in which they run.
        if changing.intersection(node.input):
            changing.update(node.output)
    needed = {END}
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
    before = [node for node in nodes if not changing.intersection(node.output)]
    rest = [node for node in nodes if changing.intersection(node.output)]
    turn = [node for node in rest if needed.intersection(node.output)]
    after = [node for node in rest if not needed.intersection(node.output)]
    return before, turn, after


def _copies(nodes: Sequence[Any], names: dict[str, str]) -> list[Any]:
    """Return the nodes with other names of their tensors where `names` has some."""
    made = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        if node.name:
            copy.name = f'{node.name}.{names[ROW]}'
        made.append(copy)
    return made


def _drop(values: Any, name: str) -> None:
    """Take a value out of the inputs or outputs of a graph."""
    values.remove(next(value for value in values if value.name == name))
