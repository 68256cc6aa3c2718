# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The base policy inside a larger graph, with the chunk in use as state.

What `base_policy/chunk_queue.py` does in lockstep without prefetching: a chunk is computed at the
decision for which the one before has no actions left. There is no control flow. With an open batch
the rows that need a chunk are gathered, and the network runs on these, which may be none. With a
fixed one, or a network that fails on no rows, it runs on all rows at every decision, and what is
not needed is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import compose, helper, inliner, version_converter

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy, read_policy_model
from residual_rl_ros.deployment.graph import GraphBuilder, integers, scalar
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.onnx_session import run_session

OPSET = 17
"""Opset of the graph; that of the base policy if it is newer."""
PREFIX = 'base/'
"""Begin of the names of the base policy's own tensors."""
BATCH = 'batch'
CONTROL_FLOW = ('If', 'Loop', 'Scan')


@dataclass(frozen=True)
class Port:
    """An input or output of the fused graph."""

    name: str
    shape: tuple[int, ...]
    """Without the batch."""
    kind: str = 'float32'
    """numpy's name of the type."""

    def value_info(self, batch: int | None) -> Any:
        """Return it as ONNX has it; None is an open batch."""
        sizes = [BATCH if batch is None else batch, *self.shape]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        return helper.make_tensor_value_info(self.name, kind, sizes)


@dataclass(frozen=True)
class BaseGraph:
    """A base policy as a part of a graph."""

    name: str
    """Of its file, for errors."""
    model: Any
    """ONNX model, of `OPSET` or newer and without functions."""
    metadata: BasePolicyMetadata
    given: tuple[Port, ...]
    """Inputs that change from inference to inference: observation, noise, images."""
    constants: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Inputs that do not, each with a batch of 1."""
    memories: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """Inputs that an output of the inference before fills: its name, and the shape without the
    batch."""
    columns: npt.NDArray[np.int64] | None = None
    """Which of the observations it is given; None: all."""
    idles: bool = False
    """Whether the network runs on no rows at all, as where all have a chunk."""

    @classmethod
    def of(cls, policy: OnnxBasePolicy) -> BaseGraph:
        """Return a base policy as a part of a graph.

        Raises:
            BasePolicyError: it cannot be one.
        """
        if policy.random_operators:
            raise BasePolicyError(policy.remarks[0])
        name, meta = policy.path.name, policy.metadata
        model = read_graph(read_policy_model(policy.path, policy.sha256).content, name)
        given = [Port('observation', (meta.n_obs_steps, len(meta.observation_names)))]
        if policy.stochastic:
            given.append(Port('noise', policy.noise_shape))
        for image in meta.images:
            window = meta.n_obs_steps, image.height, image.width, 3
            given.append(Port(image.name, window, 'uint8'))
        for memory in meta.memories:
            if memory.reset_steps:
                raise BasePolicyError(
                    f'{name} forgets its memory {memory.name!r} every {memory.reset_steps} '
                    'inferences, which cannot be exported; run policy_node'
                )
        memories = {each.name: (each.output, each.shape) for each in meta.memories}
        made = cls(name, model, meta, tuple(given), policy.constants, memories, policy.columns)
        return replace(made, idles=_runs_on_no_rows(made))

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Shape (horizon, m)."""
        return self.metadata.horizon, len(self.metadata.action_names)

    @property
    def state(self) -> tuple[Port, ...]:
        """What the graph needs to remember of a base policy."""
        memories = [Port(name, shape) for name, (_, shape) in self.memories.items()]
        return (Port('chunk', self.chunk_shape), Port('taken', (), 'int64'), *memories)


def is_onnx(domain: str) -> bool:
    """Return whether a domain is that of ONNX itself."""
    return domain in ('', 'ai.onnx')


def read_graph(content: bytes, name: str) -> Any:
    """Return a model of `OPSET` or newer, without functions.

    Args:
        content: the model.
        name: of its file, for the error.

    Raises:
        BasePolicyError: it is older and cannot be converted.
    """
    model = inliner.inline_local_functions(onnx.ModelProto.FromString(content))
    versions = [each.version for each in model.opset_import if is_onnx(each.domain)]
    if versions and min(versions) >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # The converter raises its own untyped errors.
        reason = ' '.join(str(error).split())[:200]
        raise BasePolicyError(
            f'{name} has opset {versions}, expected {OPSET} or newer, and cannot be converted '
            f'({reason}); export it again'
        ) from error


def check_portable(model: Any, name: str) -> None:
    """Refuse what only ONNX Runtime runs.

    Args:
        model: the base policy.
        name: of its file, for the error.

    Raises:
        BasePolicyError: it has control flow, or operators that are not ONNX's.
    """
    found = {
        node.op_type if is_onnx(node.domain) else f'{node.domain}.{node.op_type}'
        for node in model.graph.node
        if node.op_type in CONTROL_FLOW or not is_onnx(node.domain)
    }
    if found:
        raise BasePolicyError(
            f'{name} has the operators {", ".join(sorted(found))}, expected no control flow and '
            "none but ONNX's own for a fixed batch; export it again, or leave --batch out and run "
            'it with ONNX Runtime'
        )


def add_base(graph: GraphBuilder, base: BaseGraph, steps: int, batch: int | None) -> str:
    """Add a base policy with its state and return the base action, float32 [B, k, m].

    The inputs of the graph are `base.given` and `base.state`; the outputs `next_` and the name of
    each state.

    Args:
        graph: where to.
        base: the policy.
        steps: control steps of a decision (k).
        batch: size of the batch; None leaves it open.
    """
    last = base.metadata.exec_steps - steps
    fresh = graph.add('Greater', 'taken', scalar(last, np.int64))
    rows = None
    if batch is None and base.idles:
        rows = graph.add('Squeeze', graph.add('NonZero', fresh), integers(0))
    _add_inputs(graph, base, rows, batch)
    _add_network(graph, base.model)
    for name, (output, shape) in {'chunk': ('action', base.chunk_shape), **base.memories}.items():
        _add_replacement(graph, name, PREFIX + output, fresh, rows, len(shape))
    first = graph.add('Where', fresh, scalar(0, np.int64), 'taken')
    graph.add('Add', first, scalar(steps, np.int64), output='next_taken')
    offsets = base.metadata.exec_start + np.arange(steps, dtype=np.int64)
    index = graph.add('Add', graph.add('Unsqueeze', first, integers(1)), offsets)  # (B, k)
    indices = graph.add('Unsqueeze', index, integers(2))
    return graph.add('GatherND', 'next_chunk', indices, batch_dims=1)


def _add_inputs(graph: GraphBuilder, base: BaseGraph, rows: str | None, batch: int | None) -> None:
    """Give the network its inputs: of all rows, or of those that need a chunk."""
    for name in [*(port.name for port in base.given), *base.memories]:
        given = name
        if name == 'observation' and base.columns is not None:
            given = graph.add('Gather', name, base.columns, axis=2)
        if rows is None:
            graph.add('Identity', given, output=PREFIX + name)
        else:
            graph.add('Gather', given, rows, axis=0, output=PREFIX + name)
    for name, value in base.constants.items():
        if batch is not None:
            graph.add('Identity', np.repeat(value, batch, axis=0), output=PREFIX + name)
            continue
        count = graph.add('Shape', rows or 'taken')
        sizes = graph.add('Concat', count, integers(*value.shape[1:]), axis=0)
        graph.add('Expand', value, sizes, output=PREFIX + name)


def _add_network(graph: GraphBuilder, model: Any) -> None:
    network = compose.add_prefix(model, PREFIX).graph
    graph.nodes += network.node
    graph.constants += network.initializer
    graph.sparse_constants += network.sparse_initializer


def _add_replacement(
    graph: GraphBuilder, name: str, new: str, fresh: str, rows: str | None, dimensions: int
) -> None:
    """Replace a state in the rows that have a new one."""
    if rows is None:
        mask = graph.reshape(fresh, -1, *[1] * dimensions)
        graph.add('Where', mask, new, name, output=f'next_{name}')
    else:
        places = graph.add('Unsqueeze', rows, integers(1))
        graph.add('ScatterND', name, places, new, output=f'next_{name}')


def _runs_on_no_rows(base: BaseGraph) -> bool:
    """Return whether a network with an open batch runs on one of 0."""
    if any(fixed_batch(base.model)):
        return False
    memories = [Port(name, shape) for name, (_, shape) in base.memories.items()]
    nothing = {
        each.name: np.zeros((0, *each.shape), each.kind) for each in (*base.given, *memories)
    }
    if base.columns is not None:
        nothing['observation'] = nothing['observation'][..., base.columns]
    nothing |= {name: value[:0] for name, value in base.constants.items()}
    options = ort.SessionOptions()
    options.log_severity_level = 4  # That it fails is an answer.
    session = ort.InferenceSession(
        base.model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    try:
        run_session(session, ['action'], nothing, base.name, BasePolicyError)
    except BasePolicyError:
        return False
    return True


def fixed_batch(model: Any) -> Iterator[int]:
    """Yield the sizes of the batch that inputs and outputs of a model are fixed to."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.name not in constants and sizes and sizes[0].HasField('dim_value'):
            yield sizes[0].dim_value
