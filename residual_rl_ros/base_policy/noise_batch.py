# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several noises in one call: the graph of a base policy with a batch of noise alone.

What does not depend on the noise, the encoded observation above all, is computed once for all of
them. The file is not touched, and may have a batch of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.numerics import Float32
from residual_rl_ros.robot.inference import InferenceConfig
from residual_rl_ros.robot.onnx_model import OnnxModel
from residual_rl_ros.robot.onnx_session import load_session, run_session

Inputs = dict[str, npt.NDArray[Any]]
TOLERANCE = 1e-5
"""A batch may differ from single calls by so many half ranges: it adds up in another order."""
PREFIX = 'residual_rl_batch_'
"""Begins the names of what is added to a graph."""


@dataclass(frozen=True)
class NoiseBatch:
    """A session that takes several noises."""

    session: ort.InferenceSession
    repeats: bool
    """Whether it wants all else as often, as a graph does whose whole batch is open."""
    exact: bool
    """Whether it gives the same bits as single calls."""

    def run(self, inputs: Inputs, noises: Float32, name: str) -> Float32:
        """Return the actions of each noise, shape (N, horizon, m).

        Args:
            inputs: all others, of batch 1.
            noises: shape (N, *noise_shape).
            name: what the policy is called in an error.

        Raises:
            BasePolicyError: the network failed.
        """
        if self.repeats:
            inputs = {key: np.repeat(each, len(noises), axis=0) for key, each in inputs.items()}
        given = {**inputs, 'noise': noises}
        actions: Float32 = run_session(self.session, ['action'], given, name, BasePolicyError)[0]
        return actions


def make_noise_batch(
    model: OnnxModel,
    inference: InferenceConfig,
    single: ort.InferenceSession,
    inputs: Inputs,
    noises: Float32,
    half_range: Float32,
) -> NoiseBatch | None:
    """Return what runs so many noises at once, if that gives what single calls give.

    Args:
        model: the base policy.
        inference: how to run it.
        single: the session that takes one noise.
        inputs: on which both are compared, without noise.
        noises: likewise, shape (N, *noise_shape).
        half_range: of the actions, shape (m,).
    """
    each = [
        run_session(single, ['action'], {**inputs, 'noise': noise[None]}, '', BasePolicyError)[0]
        for noise in noises
    ]
    wanted = np.concatenate(each)
    allowed = TOLERANCE * np.maximum(half_range, TOLERANCE)
    for repeats in (False, True):
        try:
            batch = _load(model, inference, len(noises), repeats)
            found = batch.run(inputs, noises, model.path.name)
        except BasePolicyError:  # The graph mixes the batch with something else.
            continue
        if found.shape == wanted.shape and (np.abs(found - wanted) <= allowed).all():
            return replace(batch, exact=np.array_equal(found, wanted))
    return None


def _load(model: OnnxModel, inference: InferenceConfig, count: int, repeats: bool) -> NoiseBatch:
    """Return a session for so many noises; see `NoiseBatch`."""
    if not repeats:
        model = replace(model, content=with_noise_batch(model.content, count))
    session = load_session(model, BasePolicyError, inference, count, quiet=True)
    return NoiseBatch(session, repeats, exact=False)


def with_noise_batch(content: bytes, count: int) -> bytes:
    """Return a graph with `count` noises, one of every other input, and the action alone.

    Operators broadcast by themselves, but for `Concat`: there, what does not depend on the noise is
    repeated.

    Args:
        content: the model.
        count: number of noises.
    """
    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in stored:  # Older files list weights among the inputs.
            continue
        size = count if value.name == 'noise' else 1
        value.type.tensor_type.shape.dim[0].dim_value = size
    del graph.value_info[:]
    action = next(each for each in graph.output if each.name == 'action')
    action.type.tensor_type.shape.dim[0].dim_value = count
    kept = [action]
    del graph.output[:]
    graph.output.extend(kept)
    nodes = _spread(graph.node, count, graph.initializer)
    del graph.node[:]
    graph.node.extend(nodes)
    made: bytes = model.SerializeToString()
    return made


def _spread(nodes: Any, count: int, initializers: Any) -> list[Any]:
    """Return nodes in which each `Concat` has the batch in all of its inputs."""
    varying = {'noise'}
    made: list[Any] = []
    numbers = {'one': [1], 'end': [np.iinfo(np.int64).max], 'count': [count]}
    for name, value in numbers.items():
        tensor = numpy_helper.from_array(np.array(value, dtype=np.int64), PREFIX + name)
        initializers.append(tensor)
    for node in nodes:
        varies = [name in varying for name in node.input]
        if node.op_type == 'Concat' and any(varies) and not all(varies) and _beside(node):
            for index, name in enumerate(node.input):
                if not varies[index]:
                    node.input[index] = _repeated(name, len(made), made)
        if any(varies):
            varying.update(node.output)
        made.append(node)
    return made


def _beside(node: Any) -> bool:
    """Return whether a `Concat` leaves the batch as it is; shapes are put one after another."""
    return any(each.name == 'axis' and each.i != 0 for each in node.attribute)


def _repeated(name: str, number: int, made: list[Any]) -> str:
    """Add the operators that repeat a tensor of batch 1; return the name of the result."""
    shape, rest, wanted, result = (
        f'{PREFIX}{what}_{number}' for what in ('shape', 'rest', 'wanted', 'repeated')
    )
    one, end, count = (PREFIX + each for each in ('one', 'end', 'count'))
    made += [
        helper.make_node('Shape', [name], [shape]),
        helper.make_node('Slice', [shape, one, end], [rest]),
        helper.make_node('Concat', [count, rest], [wanted], axis=0),
        helper.make_node('Expand', [name, wanted], [result]),
    ]
    return result
