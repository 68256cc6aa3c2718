# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Base policy, residual, bounds and limits of commands as one ONNX model.

A call is one decision: k commands from the newest observations, with every state an input and an
output. Networks are float32, as on the robot. What the controller computes in float64 is float64
here too, unless float32 is asked for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from residual_rl_ros.deployment.base_graph import (
    BaseGraph,
    Port,
    add_base,
    check_portable,
    fixed_batch,
)
from residual_rl_ros.deployment.graph import GraphBuilder, scalar
from residual_rl_ros.deployment.residual_graph import (
    DecisionTensors,
    add_composition,
    add_limits,
    add_residual,
)
from residual_rl_ros.errors import BasePolicyError, ConfigError
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.onnx_model import MAX_MODEL_BYTES

METADATA_KEY = 'residual_rl_fused'
SCHEMA_VERSION = 1
NOT_IN_GRAPH = (
    'observation_checks',
    'finite_command',
    'start_limit',
    'following_limit',
    'hold',
    'takeover',
)
"""What policy_node does beside the graph, for the robot's safety."""


@dataclass(frozen=True)
class FusedMetadata:
    """The contract of a fused policy (docs/reference/fused_policy.md)."""

    observation_names: tuple[str, ...]
    """In input order (n)."""
    action_names: tuple[str, ...]
    """In output order (m)."""
    rate_hz: float
    """Control rate [Hz]."""
    decision_steps: int
    """Commands of a decision (k)."""
    n_obs_steps: int
    """Newest observations in the input."""
    exec_steps: int
    """Actions of a chunk that are executed; a decision with `taken` > exec_steps - k computes a new
    chunk, and with `taken` = exec_steps an episode begins."""
    given: tuple[str, ...]
    """Inputs that a runner fills for a new chunk: observation, noise, images."""
    state: tuple[str, ...]
    """Inputs that the outputs `next_NAME` of the decision before fill; zero, but for `taken`, at
    the start of an episode."""
    noise_default: str
    """`normal`: standard normal noise; `zero`: zeros; empty without noise."""
    measured_by: tuple[str, ...]
    """Observation of each action (m) that `previous_command` is after a pause; empty: NaN is,
    before the first command."""
    lower: tuple[float, ...]
    """Smallest command (m)."""
    upper: tuple[float, ...]
    """Largest command (m)."""
    max_step: tuple[float, ...]
    """Largest change from one command to the next (m)."""
    residual_bound: tuple[float, ...]
    """Largest residual (m), at `blend_ratio` 1."""
    bound_scale: float
    """Share of that in use, at `blend_ratio` 1."""
    kind: str
    """Kind of the actor."""
    precision: str
    """Type of commands and of all numbers outside of networks."""
    batch: int | None
    """Fixed size of the batch; None: any."""
    base_policy_sha256: str
    actor_sha256: str
    not_in_graph: tuple[str, ...]
    """Parts of policy_node's safety that a runner must do itself."""
    parity: float | None = None
    """Largest difference of a command from the controller's when it was exported."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the JSON text for `metadata_props`; what is infinite is null there."""
        values = asdict(self)
        for name in ('lower', 'upper', 'max_step'):
            values[name] = [each if abs(each) < float('inf') else None for each in values[name]]
        return json.dumps(values, sort_keys=True, allow_nan=False)


IR_VERSION = 8
"""That of opset 17; of a newer base policy its own."""


@dataclass(frozen=True)
class FusedParts:
    """What is put into one graph."""

    base: BaseGraph
    policy: RobotPolicy
    """The actor."""
    exploration: Exploration
    """How it acts."""
    action: ActionSpec
    """Limits of the robot."""
    batch: int | None = None
    """Fixed size of the batch; None leaves it open."""
    precision: str = 'float64'
    """Type of the numbers outside of networks, `float64` or `float32`."""

    def __post_init__(self) -> None:
        """Check that there is a graph of them.

        Raises:
            BasePolicyError: the base policy has another batch, or what only ONNX Runtime runs.
            ConfigError: the actions are discrete, or the actor does not act as it would alone.
        """
        name, batch = self.base.name, self.batch
        fixed = {size for size in fixed_batch(self.base.model) if size != batch}
        if fixed and batch is None:
            raise BasePolicyError(
                f'{name} has a fixed batch of {min(fixed)}, expected an open one; give --batch '
                f'{min(fixed)}, or export it with an open first dimension'
            )
        if fixed:
            raise BasePolicyError(
                f'{name} has a fixed batch of {min(fixed)}, and --batch is {batch}; give --batch '
                f'{min(fixed)}, or export it with an open first dimension'
            )
        if batch is not None:
            check_portable(self.base.model, name)
        names = [port.name for port in (*self.inputs, *self.outputs)]
        if repeated := sorted({each for each in names if names.count(each) > 1}):
            raise BasePolicyError(
                f'{name} has inputs {", ".join(repeated)}, names that the fused graph needs '
                'itself; export it with others'
            )
        if self.action.is_discrete:
            raise ConfigError(
                'the robot has discrete actions, which cannot be exported; run policy_node'
            )
        explores = self.exploration
        if not explores.residual_probability:
            raise ConfigError(
                'the actor is of a warm-up, in which the base policy acts alone; train for longer'
            )
        others = explores.base_only_share + explores.random_share
        if explores.residual_probability < 1.0 or others > 0.0:
            raise ConfigError(
                'the actor is a message of a run, in which it does not decide everything; '
                'take the one of a checkpoint'
            )

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Inputs of the graph."""
        own = (Port('previous_command', (self.action.size,), self.precision),)
        return (*self.base.given, *own, Port('blend_ratio', (), self.precision), *self.base.state)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Outputs of the graph."""
        steps = self.policy.architecture.layout.decision_steps
        state = [Port(f'next_{each.name}', each.shape, each.kind) for each in self.base.state]
        return (Port('command', (steps, self.action.size), self.precision), *state)


def fuse(parts: FusedParts) -> Any:
    """Return the ONNX model, without metadata.

    Raises:
        WeightsError: actors of this kind have no graph.
        BasePolicyError: it would be too large for one file, or not be sound.
    """
    layout, batch, kind = parts.policy.architecture.layout, parts.batch, np.dtype(parts.precision)
    steps, m, n = layout.decision_steps, layout.action_size, layout.observation_size
    graph = GraphBuilder()
    base = graph.reshape(add_base(graph, parts.base, steps, batch), -1, steps * m)
    newest = graph.add('Gather', 'observation', scalar(-1, np.int64), axis=1)
    ratio = graph.clamp('blend_ratio', scalar(0.0, kind), scalar(1.0, kind))
    share = graph.add('Mul', ratio, scalar(parts.exploration.bound_scale, kind))
    bound_scale = graph.reshape(share, -1, 1)
    given = DecisionTensors(
        graph.reshape(newest, -1, n), base, bound_scale, parts.exploration.full_bound_cost, kind
    )
    residual = add_residual(graph, parts.policy, given)
    bound = np.tile(layout.residual_bound, steps).astype(kind)
    planned = add_composition(graph, graph.cast(base, kind), residual, bound, bound_scale)
    planned = graph.reshape(planned, -1, steps, m)
    add_limits(graph, planned, 'previous_command', parts.action, steps, kind, 'command')
    return _model(graph, parts)


def _model(graph: GraphBuilder, parts: FusedParts) -> Any:
    made = helper.make_graph(
        graph.nodes,
        'residual_rl_fused',
        [port.value_info(parts.batch) for port in parts.inputs],
        [port.value_info(parts.batch) for port in parts.outputs],
        graph.constants,
        sparse_initializer=graph.sparse_constants,
    )
    base = parts.base.model
    model = helper.make_model(
        made,
        producer_name='residual_rl_ros',
        opset_imports=list(base.opset_import),
        ir_version=max(IR_VERSION, base.ir_version),
    )
    size = model.ByteSize()
    if size > MAX_MODEL_BYTES:
        raise BasePolicyError(
            f'{parts.base.name} and the residual have {size} bytes together, expected <= '
            f'{MAX_MODEL_BYTES}: more does not fit into one ONNX file'
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise BasePolicyError(
            f'{parts.base.name} makes no sound graph together with the residual: {reason}'
        ) from error
    return model


def describe(
    parts: FusedParts, rate_hz: float, base_policy_sha256: str, actor_sha256: str
) -> FusedMetadata:
    """Return the metadata of a model.

    Args:
        parts: of the model.
        rate_hz: control rate of the robot [Hz].
        base_policy_sha256: identifies the base policy.
        actor_sha256: identifies the actor.
    """
    layout, base, action = parts.policy.architecture.layout, parts.base, parts.action
    given = tuple(port.name for port in base.given)
    return FusedMetadata(
        observation_names=layout.observation_names,
        action_names=layout.action_names,
        rate_hz=rate_hz,
        decision_steps=layout.decision_steps,
        n_obs_steps=base.metadata.n_obs_steps,
        exec_steps=base.metadata.exec_steps,
        given=given,
        state=tuple(port.name for port in base.state),
        noise_default=base.metadata.noise_default if 'noise' in given else '',
        measured_by=action.measured_by,
        lower=tuple(action.lower.tolist()),
        upper=tuple(action.upper.tolist()),
        max_step=tuple(action.max_step.tolist()),
        residual_bound=layout.residual_bound,
        bound_scale=parts.exploration.bound_scale,
        kind=parts.policy.kind,
        precision=parts.precision,
        batch=parts.batch,
        base_policy_sha256=base_policy_sha256,
        actor_sha256=actor_sha256,
        not_in_graph=(
            *NOT_IN_GRAPH,
            *(('workspace',) if action.workspace else ()),
            *(('self_collision',) if action.self_collision else ()),
        ),
    )


def serialize(model: Any, metadata: FusedMetadata) -> bytes:
    """Return a model with its metadata as bytes."""
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    content: bytes = model.SerializeToString()
    return content
