# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What travels from the robot to the learner: the transition, and how it ends its episode.

A **transition** is one residual *decision*: `decision_steps` control steps during which one output
of the actor (k x m numbers) is executed. Its action blocks therefore hold k x m numbers, in step
order, and its reward is the sum over those steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.numerics import Array
from residual_rl_ros.robot.observation import MAX_STAMP_S

MAX_COUNT = 2**53 - 1
"""Largest epoch, episode, step or sequence: a float64 holds every whole number up to it."""
MAX_REWARD = 1e6
"""Largest plausible reward of a decision. Its square, the largest loss, is far within float32."""

HEADER_LIMITS: Mapping[str, tuple[float, float]] = {
    'stamp': (-MAX_STAMP_S, MAX_STAMP_S),
    'epoch': (0, MAX_COUNT),
    'episode': (0, MAX_COUNT),
    'step': (0, MAX_COUNT),
    'policy_sequence': (-1, MAX_COUNT),
    'source': (0, 3),
    'reward': (-MAX_REWARD, MAX_REWARD),
    'terminated': (0, 1),
    'truncated': (0, 1),
    'success': (-1, 1),
}
"""Smallest and largest value of the scalars at the head of every transition, in message order."""
HEADER = tuple(HEADER_LIMITS)
"""The names of these scalars."""
WHOLE = np.array([type(low) is int for low, _ in HEADER_LIMITS.values()])
"""Which of them are whole numbers."""


class Source(IntEnum):
    """Who decided the executed action."""

    BASE = 0
    RESIDUAL = 1
    """Base + residual; where the share of decisions with a residual still grows, it can be zero."""
    TAKEOVER = 2
    RANDOM = 3
    """Base + a held random residual, in an episode that only explores: no actor decided."""


class Success(IntEnum):
    """Outcome label of an episode, independent of why it ended."""

    UNLABELLED = -1
    FAILURE = 0
    SUCCESS = 1


NOTHING: Array = np.zeros(0)
"""A block of a layout that has none."""
NOTHING.setflags(write=False)


def _nothing() -> Array:
    return NOTHING


@dataclass(frozen=True)
class Transition:
    """One residual decision, decoded. Blocks are float64; actions are in command units."""

    stamp: float
    """ROS time of the observation [s]."""
    epoch: int
    """Learner epoch of the actor in use."""
    episode: int
    """Episode number, counted by the policy node from 0."""
    step: int
    """Control step within the episode at which the decision was made; consecutive decisions
    differ by `decision_steps`, so a larger difference reveals a lost message."""
    policy_sequence: int
    """Sequence of the actor in use, -1 before the first."""
    source: Source
    """Who decided the executed action."""
    reward: float
    """Reward summed over the decision's control steps."""
    terminated: bool
    """The task ended: no bootstrap."""
    truncated: bool
    """A time limit or an operator ended the episode: bootstrap."""
    success: Success
    """Outcome label, meaningful on the last transition of an episode."""
    observation: Array
    """Observation at the decision, shape (n,)."""
    base_action: Array
    """Base action chunk that the residual is around, shape (k * m,). Where the robot chooses among
    proposals, the chosen one; the base policy's first is then in its place in `proposals`."""
    residual_action: Array
    """Actor output in [-1, 1] before scaling, shape (k * m,); zero while the residual is off."""
    executed_action: Array
    """What was published after clamps, slew limits and takeover, shape (k * m,)."""
    next_observation: Array
    """Observation after the decision's last control step, shape (n,)."""
    next_base_action: Array
    """Base action chunk at the next observation, shape (k * m,)."""
    prior: Array = attribute(default_factory=_nothing)
    """Density of the base action, shape (P,); see `Prior`. Size 0 in layouts without."""
    next_prior: Array = attribute(default_factory=_nothing)
    """Density of the next base action, shape (P,)."""
    proposals: Array = attribute(default_factory=_nothing)
    """What else the base policy would have done, shape ((N - 1) * k * m,): other draws of its
    noise."""
    next_proposals: Array = attribute(default_factory=_nothing)
    """The same at the next observation."""
    add_on: Array = attribute(default_factory=_nothing)
    """Add-on reward of the decision and its weight then, shape (2,)."""

    @classmethod
    def from_numbers(cls, header: Array, blocks: Mapping[str, Array]) -> Transition:
        """Return the transition of a message whose numbers are allowed.

        Args:
            header: the scalars of `HEADER`.
            blocks: every array of the layout, by its name here.
        """
        scalars = dict(zip(HEADER, header.tolist(), strict=True))
        return cls(
            stamp=scalars['stamp'],
            epoch=int(scalars['epoch']),
            episode=int(scalars['episode']),
            step=int(scalars['step']),
            policy_sequence=int(scalars['policy_sequence']),
            source=Source(int(scalars['source'])),
            reward=scalars['reward'],
            terminated=bool(scalars['terminated']),
            truncated=bool(scalars['truncated']),
            success=Success(int(scalars['success'])),
            **blocks,
        )


class End(IntEnum):
    """How a transition ended its episode."""

    NOT = 0
    TRUNCATED = 1
    TERMINATED = 2
    FAILED = 3
    """Terminated, and labelled a failure."""


def end_of(transition: Transition) -> End:
    """Return how a transition ended its episode."""
    if transition.terminated:
        return End.FAILED if transition.success is Success.FAILURE else End.TERMINATED
    return End.TRUNCATED if transition.truncated else End.NOT


def ends_of(
    terminated: npt.NDArray[Any], truncated: npt.NDArray[Any], success: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return `end_of` many transitions, by their flags and labels, shape as these."""
    by_label = np.where(success == Success.FAILURE, End.FAILED, End.TERMINATED)
    cut_off = np.where(truncated != 0.0, End.TRUNCATED, End.NOT)
    return np.where(terminated != 0.0, by_label, cut_off)
