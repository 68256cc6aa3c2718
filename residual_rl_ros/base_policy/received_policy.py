# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A base policy that runs elsewhere: its chunks arrive, each with the stamp of its observation.

They enter as those of a policy that runs here: at the index given by the base actions taken since
the observation. Which actions these are follows from the stamp, and from when actions were taken.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.chunk_queue import NUMBERS, Chunk, ChunkQueue, Mixing
from residual_rl_ros.base_policy.distribution import BaseDecision
from residual_rl_ros.base_policy.inputs import NO_IMAGES, Context, Images
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, ChunkLateError, CommandError, shown
from residual_rl_ros.numerics import Float32
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.robot.stamps import to_seconds
from residual_rl_ros.schema import read_yaml

TOPIC = 'topic'
"""As name of a base policy: its chunks arrive."""
REFUSALS = ('malformed', 'two_publishers', 'stale', 'superseded', 'future')
JITTER = 0.1
"""A control step may be so much of a period off its time."""
REMEMBERED = 1000
"""Decisions whose times are known; a chunk that is older is stale."""


class ReceivedPolicy:
    """What is known of a base policy that runs elsewhere.

    Args:
        path: YAML file with the metadata, as that beside an ONNX file.
        now: ROS time [s].

    Raises:
        ConfigError: the file cannot be read.
        BasePolicyError: its content is wrong, or the policy tells a density.
    """

    stochastic = False
    noise_shape: ClassVar[tuple[int, ...]] = ()

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self.path = path
        self.now = now
        metadata = BasePolicyMetadata.from_mapping(read_yaml(path, 'base policy metadata'))
        self.metadata = replace(metadata, inputs=())  # Whoever plans has its images elsewhere.
        if self.metadata.prior is not Prior.NONE:
            raise BasePolicyError(
                f'{path}: prior is {self.metadata.prior}, but chunks from a topic have no density: '
                'remove it'
            )

    def plan(
        self, window: Float32, noises: Float32 | None = None, context: Context | None = None
    ) -> Float32:
        """Refuse: nobody here can ask it.

        Raises:
            BasePolicyError: always.
        """
        raise BasePolicyError('base_policy is a topic: its chunks arrive, nobody here plans them')

    def decode(self, message: Any) -> tuple[float, Float32]:
        """Return stamp [s] and actions, shape (steps, m), of a message.

        Args:
            message: a JointTrajectory. Its header has the stamp of the observation, its points
                have in `positions` the actions from that control step on, whatever their unit.

        Raises:
            CommandError: it is no chunk of this policy.
        """
        meta, points = self.metadata, message.points
        if tuple(message.joint_names) != meta.action_names:
            raise CommandError(
                f'base chunk names {shown(list(message.joint_names))}, the metadata '
                f'{list(meta.action_names)}'
            )
        most = meta.horizon - meta.exec_start
        if not meta.exec_steps <= len(points) <= most:
            raise CommandError(
                f'base chunk has {len(points)} points, expected {meta.exec_steps} to {most}'
            )
        stamp = to_seconds(message.header.stamp.sec, message.header.stamp.nanosec)
        if stamp <= 0.0:
            raise CommandError('base chunk has no stamp: expected that of its observation')
        if any(len(point.positions) != len(meta.action_names) for point in points):
            raise CommandError(f'base chunk has points without {len(meta.action_names)} positions')
        rows = np.array([point.positions for point in points], dtype=np.float64)
        with np.errstate(over='ignore'):
            actions = rows.astype(np.float32)
        if not np.isfinite(actions).all():
            raise CommandError('base chunk holds an action that is no finite number')
        starts = [point.time_from_start for point in points]
        times = np.array([to_seconds(each.sec, each.nanosec) for each in starts]) * meta.rate_hz
        if np.abs(times - np.arange(len(points))).max() > 0.5:
            raise CommandError(
                'base chunk has not one point for each control step, the first at 0: expected '
                f'time_from_start = i / {meta.rate_hz:g} s'
            )
        return stamp, actions


@dataclass(frozen=True)
class _Taken:
    """Base actions that were taken at once, for the control steps from a time on."""

    at: float
    """ROS time [s]."""
    first: int
    """Number of actions taken before."""
    end: int
    """And afterwards; the same where none was there."""


class ReceivedQueue(ChunkQueue):
    """Hands out base actions of chunks that arrive.

    A chunk runs for `exec_steps` from its observation on, then the newest that has arrived takes
    over. Where none has, the robot holds.

    Args:
        policy: what is known of the policy.
        decision_steps: control steps per residual decision (k).
        blend_steps: see `ChunkQueue`.
        mixing: likewise.
    """

    def __init__(
        self,
        policy: ReceivedPolicy,
        decision_steps: int,
        blend_steps: int,
        mixing: Mixing = NUMBERS,
    ) -> None:
        super().__init__(policy, decision_steps, blend_steps=blend_steps, mixing=mixing)
        self._now = policy.now
        self._steps: deque[_Taken] = deque(maxlen=REMEMBERED)
        self._newest: Chunk | None = None
        self._stamp = -math.inf
        self.counts = dict.fromkeys(('received', *(f'refused_{each}' for each in REFUSALS)), 0)

    def warm_up(self) -> None:
        """Do nothing: whoever plans warms up elsewhere."""

    def push_observation(self, observation: npt.ArrayLike, images: Images = NO_IMAGES) -> None:
        """Do nothing: whoever plans sees the robot by itself."""

    def forget(self) -> None:
        """Drop every chunk; one whose observation was before now is stale."""
        super().forget()
        self._newest, self._stamp = None, -math.inf
        self._steps.clear()
        self._steps.append(_Taken(self._now(), self._taken, self._taken))

    def receive(self, stamp: float, actions: Float32) -> None:
        """Take in a chunk, or refuse and count it.

        Args:
            stamp: of the observation that it was computed from, ROS time [s].
            actions: for the control steps from there on, shape (steps, m).
        """
        now, period_s = self._now(), 1.0 / self._meta.rate_hz
        if self._newest_time - now > period_s:  # The clock went back: no time so far counts.
            self.forget()
        origin = self._origin(stamp)
        if stamp - now > period_s:
            self.refuse('future')
        elif stamp <= self._stamp:
            self.refuse('superseded')
        elif origin is None or self._usable(Chunk(actions, origin)) == 0:
            self.refuse('stale')
        else:
            self._newest, self._stamp = Chunk(actions, origin), stamp
            self.counts['received'] += 1
            self.latency.add(max(now - stamp, 0.0))

    def refuse(self, reason: str) -> None:
        """Count a chunk that is of no use, by one of `REFUSALS`."""
        self.counts[f'refused_{reason}'] += 1

    def take(self, timeout_s: float | None = None) -> BaseDecision:
        """Return the base actions of the next k control steps; see `ChunkQueue.take`."""
        before = self._taken
        try:
            return super().take(timeout_s)
        finally:
            self._steps.append(_Taken(self._now(), before, self._taken))

    def give_back(self, steps: int) -> None:
        """Return the last actions taken: no chunk is for them."""
        super().give_back(steps)
        self._steps.append(replace(self._steps.pop(), end=self._taken))

    def _next(self, timeout_s: float | None) -> Chunk:
        """Use the newest chunk, if it goes as far as now."""
        chunk = self._newest
        if chunk is None or self._usable(chunk) == 0:
            raise ChunkLateError
        self._fading, self._seam = self._active, self._taken
        self._active, self._newest, self.begun = chunk, None, True
        return chunk

    @property
    def late_reason(self) -> str:
        """What is said of a hold because no chunk has come."""
        return (
            'the base policy is late: no chunk for this control step has arrived on '
            'base_policy/chunk'
        )

    def _index(self, chunk: Chunk) -> int:
        """Return the index in a chunk, which begins at its observation, of the next action.

        A chunk that came before actions were given back may be for one of them.
        """
        return max(self._taken - chunk.origin, 0)

    @property
    def _newest_time(self) -> float:
        """The newest time that is remembered [s]."""
        return max(self._stamp, self._steps[-1].at if self._steps else -math.inf)

    def _origin(self, stamp: float) -> int | None:
        """Return how many actions were taken before the control step that saw an observation.

        That is the first one after the stamp. None: it was before the robot began.
        """
        for taken in reversed(self._steps):
            since = (stamp - taken.at) * self._meta.rate_hz
            if since > -JITTER:
                return min(taken.first + max(math.ceil(since - JITTER), 0), taken.end)
        return None
