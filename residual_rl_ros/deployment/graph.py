# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write ONNX graphs operator by operator.

Only operators are used whose signature is the same from opset 17 on, so that a graph can take the
opset of the base policy that it is put around.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

Constant = npt.NDArray[Any]


class GraphBuilder:
    """Collects operators and constants; a tensor is the name that `add` returns."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        """Operators, in the order in which they run."""
        self.constants: list[Any] = []
        """Constant tensors."""
        self.sparse_constants: list[Any] = []
        """Constant tensors that are mostly zero."""
        self._known: dict[tuple[Any, ...], str] = {}

    def add(
        self, operator: str, *inputs: str | Constant, output: str = '', **attributes: Any
    ) -> str:
        """Add an operator with one output, and return the name of that.

        Args:
            operator: its type in ONNX.
            *inputs: names of tensors, or arrays as constants.
            output: name of the output; empty makes one.
            **attributes: of the operator.
        """
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        output = output or f'fused/{operator}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def constant(self, value: Constant) -> str:
        """Return the name of a constant; equal ones are one."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = name = f'fused/constant_{len(self.constants)}'
            self.constants.append(numpy_helper.from_array(np.array(value, order='C'), name))
        return self._known[key]

    def cast(self, tensor: str, kind: npt.DTypeLike) -> str:
        """Return a tensor with numbers of another type."""
        return self.add('Cast', tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def reshape(self, tensor: str, *shape: int) -> str:
        """Return a tensor in another shape; a size of 0 stays, one of -1 is what is left."""
        return self.add('Reshape', tensor, integers(*shape))

    def clamp(self, tensor: str, lower: str | Constant, upper: str | Constant) -> str:
        """Return a tensor between limits, as `numerics.clamp` does: what is NaN stays NaN."""
        return self.add('Min', self.add('Max', tensor, lower), upper)


def scalar(value: float, kind: npt.DTypeLike) -> Constant:
    """Return one number of a type, shape ()."""
    return np.array(value, dtype=kind)


def integers(*values: int) -> Constant:
    """Return a vector of whole numbers, as shapes and indices are."""
    return np.array(values, dtype=np.int64)
