# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The queue between a chunked base policy and the control loop.

Inference runs in a worker thread. A new chunk is requested `prefetch_steps` control steps before
the running one is used up, and enters at the index given by the number of base actions *taken*
since the observation it was computed from; no latency is estimated. Chunks change only on a
decision boundary, so that the base action a residual was computed for is the one that is executed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.distribution import BaseDecision, BasePolicy, base_decision
from residual_rl_ros.base_policy.inputs import NO_IMAGES, Context, Images, Memory
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.base_policy.prefetch import AUTO, Prefetch, measure
from residual_rl_ros.errors import BasePolicyError, ChunkLateError
from residual_rl_ros.latency import Latency
from residual_rl_ros.numerics import Float32
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.onnx_session import InferenceWorker

INFERENCE_LIMIT_S = 30.0
"""An inference that takes longer hangs, also where a simulator waits for it [s]."""


class Mixing:
    """How rows of actions are brought together before their mean is taken: numbers as they are."""

    def alike(self, rows: Float32, reference: Float32) -> Float32:
        """Return actions in those of the numbers that mean the same which are nearest to others.

        Args:
            rows: the first columns are actions, shape (r, c).
            reference: likewise, shape (r, c).
        """
        del reference
        return rows

    def whole(self, rows: Float32) -> Float32:
        """Return means of actions that are alike as actions, shape (r, c)."""
        return rows


NUMBERS = Mixing()


@dataclass
class _Order:
    """A chunk that is being computed."""

    future: Future[Float32]
    origin: int
    """Number of base actions taken in this episode when its observation was made."""
    ahead: bool
    """Whether another chunk is in use meanwhile, so that nothing else is computed."""
    waited: int = 0
    """Control steps that began since then, before it was there."""


@dataclass(frozen=True)
class Chunk:
    """A chunk in use."""

    rows: Float32
    """See `BasePolicy.plan`."""
    origin: int
    """As in its order."""


def made_up_window(metadata: BasePolicyMetadata, rng: np.random.Generator) -> Float32:
    """Return observations that mean nothing, shape (n_obs_steps, n).

    They are not zeros: a policy that divides by the length of a quaternion has no answer to these.
    """
    shape = (metadata.n_obs_steps, len(metadata.observation_names))
    return rng.standard_normal(shape, dtype=np.float32)


class ChunkQueue:
    """Hands out base actions in decision-sized pieces.

    Args:
        policy: the base policy.
        decision_steps: control steps per residual decision (k).
        prefetch_steps: how many control steps before its first use a chunk is requested. 0 waits
            for inference at every seam: right in lockstep, a late tick on a robot. `AUTO` is 0
            until `warm_up` has measured inference, and then follows it.
        blend_steps: control steps over which a new chunk takes over from what the one before
            planned for them, linearly; 0 switches at once. Density and proposals are blended with
            the same shares as the action, so that each still belongs to it.
        proposals: number N of chunks that are drawn for one window, from as many noises; the first
            is what the policy does.
        mixing: what blending needs to know of the actions.
        clock: monotonic time, for the durations of inference [s].

    Raises:
        BasePolicyError: the executed part of a chunk cannot hold one decision after the prefetch,
            or the policy has no such proposals.
    """

    def __init__(
        self,
        policy: BasePolicy,
        decision_steps: int = 1,
        prefetch_steps: int = 0,
        blend_steps: int = 0,
        proposals: int = 1,
        mixing: Mixing = NUMBERS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        meta = policy.metadata
        auto = prefetch_steps == AUTO
        prefetch_steps = 0 if auto else prefetch_steps
        for name, value in (('prefetch_steps', prefetch_steps), ('blend_steps', blend_steps)):
            if value < 0:
                raise BasePolicyError(f'{name} is {value}, expected >= 0')
        # Requests are made on decision boundaries, so a chunk is up to this old when it enters.
        lead = decision_steps * -(-prefetch_steps // decision_steps)
        covered = self._covered(meta)
        if covered - lead < decision_steps:
            raise BasePolicyError(
                f'exec_steps {covered} of the base policy leaves no room for '
                f'prefetch_steps {prefetch_steps} + decision_steps {decision_steps}; lower one'
            )
        if proposals > 1 and not policy.stochastic:
            raise BasePolicyError(
                f'proposals is {proposals}, but the base policy has no noise input: all of them '
                'would be its action; set proposals to 1'
            )
        self.inference_limit_s = INFERENCE_LIMIT_S
        """An inference that takes longer is an error [s]."""
        self.latency = Latency()
        """Duration of inference."""
        self.prefetch_steps = prefetch_steps
        """Control steps before its first use at which a chunk is requested."""
        self.prefetch: Prefetch | None = None
        """What follows how long inference takes; None where the number is given."""
        self.begun = False
        """Whether a chunk has been used in this episode, or since a pause: from then on, one that
        is not there is late."""
        self.counts: dict[str, int] = {}
        """What became of chunks that were not asked for here."""
        self._auto = auto
        self._policy = policy
        self._mixing = mixing
        self._clock = clock
        self._meta = meta
        self._k = decision_steps
        self._blend = blend_steps
        self._others = proposals - 1
        self._worker = InferenceWorker('base-policy')
        self._window: deque[Float32] = deque(maxlen=meta.n_obs_steps)
        self._images: dict[str, deque[RgbImage]] = {
            each.name: deque(maxlen=meta.n_obs_steps) for each in meta.images
        }
        self._memory = Memory()
        self._rng = self._others_rng = np.random.default_rng(0)
        self._active: Chunk | None = None
        self._pending: _Order | None = None
        self._fading: Chunk | None = None
        self._seam = 0
        self._taken = 0

    def warm_up(self) -> None:
        """Run one inference, so that no control step pays for initialisation or for the thread.

        With `AUTO`, run some more, and choose `prefetch_steps`.

        Raises:
            BasePolicyError: inference failed.
        """
        self._rehearse()
        if self._auto:
            inference_s = measure(self._rehearse, self._clock)
            covered, period_s = self._covered(self._meta), 1.0 / self._meta.rate_hz
            self.prefetch = Prefetch(inference_s, period_s, self._k, covered)
            self.prefetch_steps = self.prefetch.steps

    def _rehearse(self) -> None:
        """Run one inference on numbers that mean nothing."""
        window = made_up_window(self._meta, np.random.default_rng(0))
        noises = None
        if self._policy.stochastic:
            noises = np.zeros((1 + self._others, *self._policy.noise_shape), dtype=np.float32)
        black = {
            each.name: np.zeros((self._meta.n_obs_steps, each.height, each.width, 3), np.uint8)
            for each in self._meta.images
        }
        self._result(self._worker.submit(self._policy.plan, window, noises, Context(black)))

    def reset(self, rng: np.random.Generator, others: np.random.Generator | None = None) -> None:
        """Start an episode: forget every chunk and observation, in-flight results included.

        Args:
            rng: source of the policy's noise during this episode.
            others: source of the noise of its other proposals, so that they change nothing of what
                it does; needed if there are any.
        """
        self._rng = rng
        self._others_rng = others or np.random.default_rng(0)
        self._taken = 0
        self.forget()

    def forget(self) -> None:
        """Drop every chunk and observation: after a pause neither describes the robot any more."""
        if self._pending is not None:
            self._pending.future.cancel()  # Nobody needs its result.
        self._active = self._pending = self._fading = None
        self.begun = False
        self._window.clear()
        self._memory = Memory()  # An inference that is still running writes to the one before.

    def push_observation(self, observation: npt.ArrayLike, images: Images = NO_IMAGES) -> None:
        """Append what was seen in this control step.

        Args:
            observation: shape (n,).
            images: the newest of each camera, as far as the policy wants them.

        Raises:
            BasePolicyError: an image is missing.
        """
        if self._pending is not None:
            self._pending.waited += not self._pending.future.done()
        newest = np.asarray(observation, dtype=np.float32)
        repeats = 1 if self._window else self._meta.n_obs_steps
        self._window.extend([newest] * repeats)
        for name, window in self._images.items():
            if name not in images:
                raise BasePolicyError(
                    f'the base policy wants images {name!r}, and there are none: name an image '
                    'channel so in the robot YAML'
                )
            window.extend([images[name]] * repeats)

    def take(self, timeout_s: float | None = None) -> BaseDecision:
        """Return the base actions of the next k control steps, and their distribution.

        To be called on a decision boundary, after `push_observation`. Requests the next chunk when
        the next boundary would be too late for it.

        Args:
            timeout_s: how long to wait for a chunk that is still being computed; None waits.

        Raises:
            ChunkLateError: the chunk was not ready in time; nothing was taken.
            BasePolicyError: inference failed.
        """
        chunk = self._active
        if chunk is None or self._usable(chunk) == 0:
            chunk = self._next(timeout_s)
        if self._pending is None and self._usable(chunk) - self._k < self.prefetch_steps:
            self._pending = self._request(ahead=True)
        start = self._index(chunk)
        rows = self._blended(chunk.rows[start : start + self._k])
        self._taken += self._k
        return base_decision(rows, self._meta.prior, len(self._meta.action_names))

    def _next(self, timeout_s: float | None) -> Chunk:
        """Wait for the next chunk and use it."""
        order = self._pending = self._pending or self._request(ahead=False)
        if timeout_s is None:
            rows = self._result(order.future)
        else:
            try:
                rows = order.future.result(timeout_s)
            except FutureTimeoutError as error:
                raise ChunkLateError from error
        self._fading, self._seam = self._active, self._taken
        self._active = self._arrived(order, rows)
        return self._active

    def _arrived(self, order: _Order, rows: Float32) -> Chunk:
        """Return what was ordered; the next may have to be ordered earlier."""
        self._pending, self.begun = None, True
        if self.prefetch is not None and order.ahead:
            self.prefetch_steps = self.prefetch.note(order.waited)
        return Chunk(rows, order.origin)

    def _result(self, future: Future[Float32]) -> Float32:
        """Return a chunk, however long it takes within reason."""
        try:
            return future.result(self.inference_limit_s)
        except FutureTimeoutError as error:
            raise BasePolicyError(
                f'the base policy has not answered within {self.inference_limit_s:g} s; it hangs, '
                'or this computer is too slow for it'
            ) from error

    def _index(self, chunk: Chunk) -> int:
        """Return the index in a chunk of the next action to take."""
        return self._meta.exec_start + self._taken - chunk.origin

    def _blended(self, new: Float32) -> Float32:
        """Return rows after a seam, mixed with what the chunk before planned for them."""
        since = self._taken - self._seam
        if self._fading is None or since >= self._blend:
            return new
        start = self._index(self._fading)
        old = self._fading.rows[start : start + self._k]
        share = (since + 1 + np.arange(len(old), dtype=np.float32)) / np.float32(self._blend + 1)
        share = share.clip(max=1.0)[:, None]
        mixed, into = new.copy(), new[: len(old)]
        old = self._mixing.alike(old, into)
        mixed[: len(old)] = self._mixing.whole(share * into + (1 - share) * old)
        return mixed

    @property
    def late_reason(self) -> str:
        """What is said of a hold because a chunk is late, with the remedy."""
        if self.prefetch is not None:
            return self.prefetch.late_reason
        return 'the base policy is late: raise prefetch_steps, up to half of exec_steps'

    @property
    def coming(self) -> Float32:
        """Actions of the chunk in use that are still to be taken, shape (rows, m), not blended."""
        actions = len(self._meta.action_names)
        if self._active is None:
            return np.zeros((0, actions), dtype=np.float32)
        start = self._index(self._active)
        return self._active.rows[start : start + self._usable(self._active), :actions]

    @property
    def foreseen(self) -> Float32:
        """What is planned after the actions taken, shape (rows, m), also what is never executed."""
        if self._active is None:
            return self.coming
        return self._active.rows[self._index(self._active) :, : len(self._meta.action_names)]

    def give_back(self, steps: int) -> None:
        """Return the last actions taken, which an episode's end kept from being executed."""
        self._taken -= steps

    def close(self) -> None:
        """End the worker thread, or leave one that hangs behind."""
        self._worker.close()

    def _covered(self, meta: BasePolicyMetadata) -> int:
        """Return how many actions of a chunk may be taken."""
        return meta.exec_steps

    def _usable(self, chunk: Chunk) -> int:
        """Return how many actions of the chunk may still be taken, in whole decisions."""
        remaining = chunk.origin + self._covered(self._meta) - self._taken
        return self._k * (remaining // self._k)

    def _request(self, ahead: bool) -> _Order:
        if not self._window:
            raise BasePolicyError('a chunk was requested before the first observation')
        noises = None
        if self._policy.stochastic:
            shape = self._policy.noise_shape
            if self._meta.noise_default == 'zero':
                noises = np.zeros((1, *shape), dtype=np.float32)
            else:
                noises = self._rng.standard_normal((1, *shape), dtype=np.float32)
            if self._others:
                more = self._others_rng.standard_normal((self._others, *shape), dtype=np.float32)
                noises = np.concatenate([noises, more])
        images = {name: np.stack(window) for name, window in self._images.items()}
        context = Context(images, self._memory)
        future = self._worker.submit(self._plan, np.stack(self._window), noises, context)
        return _Order(future, self._taken, ahead)

    def _plan(self, window: Float32, noises: Float32 | None, context: Context) -> Float32:
        """Return a chunk; runs in the worker."""
        started = self._clock()
        rows = self._policy.plan(window, noises, context)
        self.latency.add(self._clock() - started)
        return rows
