# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The residual of a decision, its composition with the base and the limits of commands as a graph.

Networks are float32, as on the robot. Without exploration an actor has one proposal, tanh(mean);
critics that choose take it or leave it. Composition and limits are those of
`control/composition.py` and, of `control/safety.py`, slew and position. The limits of the body are
not in it: its model is no graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.deployment.graph import Constant, GraphBuilder, integers, scalar
from residual_rl_ros.errors import WeightsError
from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.residual_policy.architecture import (
    OBSERVATION_CLIP,
    ActorArchitecture,
    CriticArchitecture,
)
from residual_rl_ros.residual_policy.candidate_selection import CRITIC, BestOfNActor
from residual_rl_ros.residual_policy.numpy_actor import LAYER_NORM_EPS, GaussianActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.robot.action_spec import ActionSpec


def add_composition(
    graph: GraphBuilder, base: str, residual: str, bound: Array, bound_scale: str
) -> str:
    """Add base + bound_scale x bound x residual and return it, [B, k * m].

    Args:
        graph: where to.
        base: base action, [B, k * m].
        residual: in [-1, 1], [B, k * m].
        bound: largest residual, shape (k * m,), of the type that is computed in.
        bound_scale: in [0, 1], [B, 1].
    """
    one = scalar(1.0, bound.dtype)
    offset = graph.add('Mul', graph.clamp(residual, -one, one), bound)
    return graph.add('Add', base, graph.add('Mul', bound_scale, offset))


def add_limits(
    graph: GraphBuilder,
    planned: str,
    previous: str,
    action: ActionSpec,
    steps: int,
    kind: npt.DTypeLike,
    output: str,
) -> None:
    """Add slew and position limits of the commands of a decision, one after the other.

    Args:
        graph: where to.
        planned: composed actions, [B, k, m].
        previous: last command, or where the robot is, [B, m]. Of a robot that measures nothing it
            may be NaN: then the first step is free.
        action: the limits.
        steps: control steps of a decision (k).
        kind: type of the numbers.
        output: name of the commands, [B, k, m].
    """
    lower, upper, reach = limits_in(action, kind)
    commands = []
    for step in range(steps):
        wanted = graph.add('Gather', planned, scalar(step, np.int64), axis=1)
        safe = graph.clamp(wanted, lower, upper)
        low, high = graph.add('Sub', previous, reach), graph.add('Add', previous, reach)
        # Wherever the step begins, the position limits are outermost.
        limited = graph.clamp(graph.clamp(safe, low, high), lower, upper)
        if step == 0 and not action.measured_by:
            limited = graph.add('Where', graph.add('IsNaN', previous), safe, limited)
        previous = limited
        commands.append(graph.add('Unsqueeze', limited, integers(1)))
    graph.add('Concat', *commands, axis=1, output=output)


def limits_in(action: ActionSpec, kind: npt.DTypeLike) -> tuple[Constant, Constant, Constant]:
    """Return lower, upper and largest step in a type of numbers, none wider than they are."""
    lower, upper, reach = (
        values.astype(kind) for values in (action.lower, action.upper, action.max_step)
    )
    return (
        np.where(lower < action.lower, np.nextafter(lower, upper), lower),
        np.where(upper > action.upper, np.nextafter(upper, lower), upper),
        np.where(reach > action.max_step, np.nextafter(reach, scalar(0.0, kind)), reach),
    )


@dataclass(frozen=True)
class DecisionTensors:
    """Tensors that a residual is decided from."""

    observation: str
    """Newest observation, float32 [B, n]."""
    base: str
    """Base action, float32 [B, k * m]."""
    bound_scale: str
    """Share of the bound in use, [B, 1]."""
    full_bound_cost: float
    """See `Exploration`."""
    kind: npt.DTypeLike
    """Type of the numbers outside of networks."""


def add_residual(graph: GraphBuilder, policy: RobotPolicy, decision: DecisionTensors) -> str:
    """Add what a robot policy decides and return the residual, [B, k * m] of `decision.kind`.

    Raises:
        WeightsError: policies of its kind have no graph.
    """
    write = _WRITERS.get(policy.kind)
    if write is None:
        raise WeightsError(
            'malformed',
            f'the actor is of kind {policy.kind}, which cannot be exported; expected one of '
            f'{", ".join(sorted(_WRITERS))}: train one with another preset, or run policy_node',
        )
    return write(graph, policy, decision)


def _gaussian(graph: GraphBuilder, policy: GaussianActor, decision: DecisionTensors) -> str:
    sizes = policy.architecture
    known = _known(graph, sizes, policy.tensors, decision)
    return _hold(graph, sizes, _mean(graph, sizes, policy.tensors, known, decision), decision)


def _best_of_n(graph: GraphBuilder, policy: BestOfNActor, decision: DecisionTensors) -> str:
    sizes, critics, tensors = policy.architecture.actor, policy.architecture.critic, policy.tensors
    known = _known(graph, sizes, tensors, decision)
    residual = _mean(graph, sizes, tensors, known, decision)
    if decision.full_bound_cost > 0.0:
        values = _values(graph, sizes, critics, tensors, known, [None])
        share = _share_by_cost(graph, values, tensors[f'{CRITIC}head.bias'], decision)
        residual = graph.add('Mul', residual, share)
    judged = graph.cast(graph.add('Mul', decision.bound_scale, residual), np.float32)
    values = _values(graph, sizes, critics, tensors, known, [None, judged])
    of_base, of_residual = (
        graph.add('Gather', values, scalar(index, np.int64), axis=1) for index in (0, 1)
    )
    differences = graph.add('Sub', of_residual, of_base)  # (heads, B)
    each = [
        graph.add('Gather', differences, scalar(head, np.int64), axis=0)
        for head in range(critics.heads)
    ]
    advantage = graph.reshape(graph.add('Min', *each), -1, 1)
    better = graph.add('Greater', advantage, scalar(0.0, np.float32))
    nothing = scalar(0.0, decision.kind)
    return _hold(graph, sizes, graph.add('Where', better, residual, nothing), decision)


_Writer = Callable[[GraphBuilder, Any, DecisionTensors], str]
_WRITERS: dict[str, _Writer] = {'gaussian': _gaussian, 'best_of_n': _best_of_n}


def _known(
    graph: GraphBuilder,
    sizes: ActorArchitecture,
    tensors: Mapping[str, Float32],
    decision: DecisionTensors,
) -> tuple[str, str]:
    """Return observation (B, n) and base action (B, k * m) as networks see them."""
    mean, std = tensors['normalizer.mean'], tensors['normalizer.std']
    observation = graph.add('Div', graph.add('Sub', decision.observation, mean), std)
    limit = scalar(OBSERVATION_CLIP, np.float32)
    centred = graph.add('Sub', decision.base, sizes.action_center)
    return (
        graph.clamp(observation, -limit, limit),
        graph.add('Div', centred, sizes.action_half_range),
    )


def _mean(
    graph: GraphBuilder,
    sizes: ActorArchitecture,
    tensors: Mapping[str, Float32],
    known: tuple[str, str],
    decision: DecisionTensors,
) -> str:
    """Return tanh(mean), shape (B, outputs)."""
    x = known[0]
    if sizes.sees_base_action:
        x = graph.add('Concat', *known, axis=-1)
    for linear, norm, _ in sizes.body_layers():
        x = graph.add('Gemm', x, tensors[f'{linear}.weight'], tensors[f'{linear}.bias'], transB=1)
        if norm:
            scale, shift = tensors[f'{norm}.weight'], tensors[f'{norm}.bias']
            x = _layer_norm(graph, x, scale, shift)
        x = graph.add('Relu', x)
    weight, bias = (tensors[f'heads.{part}'][: sizes.outputs] for part in ('weight', 'bias'))
    return graph.add(
        'Tanh', graph.cast(graph.add('Gemm', x, weight, bias, transB=1), decision.kind)
    )


def _layer_norm(graph: GraphBuilder, x: str, scale: Float32, shift: Float32) -> str:
    epsilon = float(LAYER_NORM_EPS)
    return graph.add('LayerNormalization', x, scale, shift, axis=-1, epsilon=epsilon)


def _hold(
    graph: GraphBuilder, sizes: ActorArchitecture, residual: str, decision: DecisionTensors
) -> str:
    """Return a residual over the steps of its decision, (B, k * m)."""
    active = graph.add('Mul', residual, sizes.active.astype(decision.kind))
    return active if sizes.repeats == 1 else graph.add('Tile', active, integers(1, sizes.repeats))


def _values(
    graph: GraphBuilder,
    sizes: ActorArchitecture,
    critics: CriticArchitecture,
    tensors: Mapping[str, Float32],
    known: tuple[str, str],
    residuals: list[str | None],
) -> str:
    """Return Q_i of residuals without its output's bias, shape (heads, residuals, B).

    Args:
        graph: where to.
        sizes: of the actor.
        critics: their sizes.
        tensors: of both.
        known: see `_known`.
        residuals: (B, outputs) each, times the share of the bound; None is the base action.
    """
    observation, base = known
    ratio = sizes.residual_bound / sizes.action_half_range
    rows = []
    for residual in residuals:
        if residual is None:
            action, units = base, graph.add('Mul', base, scalar(0.0, np.float32))
        else:
            units = graph.add('Mul', residual, sizes.active)
            if sizes.repeats > 1:
                units = graph.add('Tile', units, integers(1, sizes.repeats))
            action = graph.add('Add', base, graph.add('Mul', units, ratio))
        seen = [observation, action, units] if critics.sees_residual else [observation, action]
        row = graph.add('Concat', *seen, axis=-1)
        rows.append(graph.add('Unsqueeze', row, integers(0)))
    x = graph.add('Concat', *rows, axis=0) if len(rows) > 1 else rows[0]
    for linear, norm, width in critics.body_layers():
        weight, bias = (tensors[f'{CRITIC}{linear}.{part}'] for part in ('weight', 'bias'))
        # Weights (heads, 1, inputs, width) and biases (heads, 1, 1, width) on all rows.
        x = graph.add('Add', graph.add('MatMul', x, weight[:, None]), bias[:, None])
        if norm:
            scale, shift = (tensors[f'{CRITIC}{norm}.{part}'] for part in ('weight', 'bias'))
            one, zero = np.ones(width, np.float32), np.zeros(width, np.float32)
            x = graph.add('Mul', _layer_norm(graph, x, one, zero), scale[:, None])
            x = graph.add('Add', x, shift[:, None])
        elif critics.normalization == 'hyperspherical':
            squares = graph.add('ReduceSum', graph.add('Mul', x, x), integers(-1), keepdims=1)
            least = scalar(1e-12, np.float32)
            length = graph.add('Max', graph.add('Sqrt', squares), least)
            x = graph.add('Mul', x, graph.add('Div', scalar(width**0.5, np.float32), length))
        x = graph.add('Relu', x)
    value = graph.add('MatMul', x, tensors[f'{CRITIC}head.weight'][:, None])
    return graph.add('Squeeze', value, integers(-1))


def _share_by_cost(
    graph: GraphBuilder, values: str, bias: Float32, decision: DecisionTensors
) -> str:
    """Return cost to go of the base action / full_bound_cost, within 0 and 1, shape (B, 1).

    Args:
        graph: where to.
        values: Q_i of the base action without its output's bias, shape (heads, 1, B).
        bias: that, shape (heads, 1, 1).
        decision: tells `full_bound_cost`.
    """
    total = graph.add('ReduceSum', graph.add('Add', values, bias), integers(0), keepdims=0)
    mean = graph.add('Div', total, scalar(len(bias), np.float32))
    value = graph.cast(graph.reshape(mean, -1, 1), decision.kind)
    share = graph.add('Div', value, scalar(-decision.full_bound_cost, decision.kind))
    return graph.clamp(share, scalar(0.0, decision.kind), scalar(1.0, decision.kind))
