# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bounded composition and the limits of commands as a graph.

What `control/composition.py` and, of `control/safety.py`, slew and position limits compute. The
limits of the body are not in it: its model is no graph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residual_rl_ros.deployment.graph import Constant, GraphBuilder, integers, scalar
from residual_rl_ros.robot.action_spec import ActionSpec

Array = npt.NDArray[np.float64]


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
