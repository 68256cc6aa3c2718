# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a fused policy says of itself: all that a runner without this package needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

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
    """Inputs that a runner fills for a new chunk: observation, noise, pictures."""
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
