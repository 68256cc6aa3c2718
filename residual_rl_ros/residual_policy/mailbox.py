# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the policy node keeps its actor: swapped between decisions, only for a newer sound one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from residual_rl_ros.errors import SealError, WeightsError
from residual_rl_ros.files.tensor_file import MAX_HEADER_BYTES
from residual_rl_ros.residual_policy.robot_policy import Decider, RobotPolicy, installed_kinds
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights
from residual_rl_ros.robot.onnx_session import InferenceWorker
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.seal import WEIGHTS, Key

REFUSALS = (
    'oversized',
    'unsealed',
    'malformed',
    'digest',
    'layout',
    'shape',
    'non_finite',
    'overflow',
    'stale',
    'replaced',
    'superseded',
)
"""Names under which refused weight messages are counted."""

MAX_WEIGHTS_BYTES = 8 * 2**20
"""Largest weight message; one of a residual with its critics has 0.3 to 5 MB. It is copied in a
control step."""
MAX_READING = 4
"""Weight messages that are read in a thread at once; the oldest that waits for it makes room for a
newer one."""
REPLACED_RUNS = 100
"""Runs of learners that are remembered: they never get the robot back."""

DecodedWeights = tuple[WeightsHeader, RobotPolicy, bytes]
"""A message that was read: its header and actor, and itself."""


class ActorMailbox:
    """Holds the actor in use and those waiting for their decision.

    Args:
        expected: layout of the running robot's decisions.
        scheduled: apply weights at the decision they name, and wait for them (lockstep);
            otherwise apply the newest as soon as it is there.
        max_bytes: larger messages are refused unread.
    """

    def __init__(
        self,
        expected: TransitionLayout,
        scheduled: bool = False,
        max_bytes: int = MAX_WEIGHTS_BYTES,
    ) -> None:
        installed_kinds()  # Not in a control step.
        self._expected = expected
        self._max_bytes = max_bytes
        self._scheduled = scheduled
        self._waiting: deque[DecodedWeights] = deque()
        self._in_use = b''
        self.key = Key()
        """Opens messages; without a secret it opens all."""
        self._newest: WeightsHeader | None = None
        self._decisions = 0
        self._patient = True
        self.header: WeightsHeader | None = None
        """Header of the actor in use."""
        self.actor: Decider | None = None
        """The actor in use, None before the first."""
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        """Refused messages by reason."""
        self.accepted = 0
        """Accepted messages."""
        self._replaced: deque[str] = deque(maxlen=REPLACED_RUNS)

    def submit(self, message: bytes) -> WeightsHeader:
        """Check a weight message and keep its actor for the next decision.

        Raises:
            WeightsError: the message is refused; it is counted and nothing changes.
        """
        self.check_size(len(message), message[:8])
        return self.accept(partial(self.decode, message))

    def install(self, actor: Decider) -> None:
        """Use what decides from now on, though no message carries it: it is of this process.

        A planner may need the simulator itself.
        """
        self.header, self.actor, self._in_use = WeightsHeader(1, 0), actor, b''

    def check_size(self, size: int, head: bytes = b'') -> None:
        """Refuse and count a message that is too large to be looked at.

        Args:
            size: its length [bytes].
            head: its first 8 bytes, which hold the length of its header.

        Raises:
            WeightsError: it is.
        """
        header = int.from_bytes(head[:8], 'little')
        if size > self._max_bytes:
            refusal = WeightsError(
                'oversized',
                f'weight message of {size} bytes, expected <= {self._max_bytes} '
                '(parameter max_weights_bytes)',
            )
        elif header > MAX_HEADER_BYTES:
            refusal = WeightsError(
                'malformed',
                f'weight message of {size} bytes has a header of {header} bytes, expected <= '
                f'{MAX_HEADER_BYTES}',
            )
        else:
            return
        self.refused[refusal.reason] += 1
        raise refusal

    def decode(self, message: bytes) -> DecodedWeights:
        """Return what a message holds; any thread may do this.

        Raises:
            WeightsError: it is unusable.
        """
        try:
            content = self.key.open(WEIGHTS, message)
        except SealError as error:
            raise WeightsError('unsealed', str(error)) from error
        return (*decode_weights(content, self._expected), message)

    def accept(self, result: Callable[[], DecodedWeights]) -> WeightsHeader:
        """Keep the actor of a message that was read, for the next decision.

        Args:
            result: returns or raises what `decode` did.

        Raises:
            WeightsError: the message is refused; it is counted and nothing changes.
        """
        try:
            header, actor, message = result()
            if header.run in self._replaced:
                raise WeightsError(
                    'replaced',
                    f'weights {header.version} are of learner {header.run!r}, whose place another '
                    'has taken: two learners publish; stop one of them',
                )
            if self._newest is not None and header.version <= self._newest.version:
                raise WeightsError(
                    'stale', f'weights {header.version} are not newer than {self._newest.version}'
                )
        except WeightsError as error:
            self.refused[error.reason] += 1
            raise
        if self._newest is None or header.epoch > self._newest.epoch:
            # A policy node that joins a running learner starts counting where the weights are.
            self._decisions = header.effective_from
            self._waiting.clear()
        if self._newest is not None and self._newest.run not in ('', header.run):
            self._replaced.append(self._newest.run)
        if not self._scheduled:
            self._waiting.clear()
        self._newest = header
        self._patient = True
        self._waiting.append((header, actor, message))
        self.accepted += 1
        return header

    def waits_for_weights(self) -> bool:
        """Return whether the next decision is scheduled for weights that are not here yet."""
        if not (self._scheduled and self._patient):
            return False
        return self._newest is None or self._decisions >= self._newest.next_effective_from

    def stop_waiting(self) -> None:
        """Go on with the actor at hand until the next message is accepted."""
        self._patient = False

    def begin_decision(self) -> None:
        """Swap in the actor that is due for this decision and count the decision."""
        while self._waiting and self._is_due(self._waiting[0][0]):
            self.header, self.actor, self._in_use = self._waiting.popleft()
        self._decisions += 1

    def cancel_decision(self) -> None:
        """Take back the count of a decision of which the learner hears nothing: it counts too."""
        self._decisions = max(0, self._decisions - 1)

    def begins_anew(self) -> bool:
        """Return whether the next decision swaps in an actor of another learner, or rolled back."""
        due = [header for header, _, _ in self._waiting if self._is_due(header)]
        return bool(
            self.header
            and due
            and (due[-1].epoch, due[-1].rollbacks) != (self.header.epoch, self.header.rollbacks)
        )

    def _is_due(self, header: WeightsHeader) -> bool:
        return not self._scheduled or header.effective_from <= self._decisions

    def state_dict(self) -> tuple[int, list[bytes]]:
        """Return the count of decisions and the messages in use and waiting, for a checkpoint."""
        messages = [message for _, _, message in self._waiting]
        return self._decisions, [self._in_use, *messages] if self._in_use else messages

    def load_state_dict(self, decisions: int, messages: list[bytes]) -> None:
        """Restore what `state_dict` returned into an empty mailbox.

        Raises:
            WeightsError: a message is refused.
        """
        for message in messages:
            self.submit(message)
        self._decisions = decisions

    @property
    def enabled(self) -> bool:
        """Whether the actor in use may act (not during warm-up)."""
        return self.header is not None and self.header.enabled


class WeightsReader:
    """Reads weight messages in a thread: a large actor takes longer to check than a control step.

    Args:
        mailbox: for which they are.
    """

    def __init__(self, mailbox: ActorMailbox) -> None:
        self._mailbox = mailbox
        self._worker = InferenceWorker('weights')
        self._reading: deque[Future[DecodedWeights]] = deque()
        self._newest = b''

    def __len__(self) -> int:
        """Return how many messages are being read, or were and are not taken yet."""
        return len(self._reading)

    def submit(self, message: bytes) -> None:
        """Begin to read a message; one that repeats the last is a sign of life and no more."""
        if message == self._newest:
            return
        self._newest = message
        if len(self._reading) >= MAX_READING and self._reading[1].cancel():
            del self._reading[1]
            self._mailbox.refused['superseded'] += 1
        self._reading.append(self._worker.submit(self._mailbox.decode, message))

    def take(self, wait: bool = False) -> Iterator[Callable[[], DecodedWeights]]:
        """Yield what was read, in order, for `ActorMailbox.accept`.

        Args:
            wait: for what is being read, too.
        """
        while self._reading and (wait or self._reading[0].done()):
            yield self._reading.popleft().result

    def close(self) -> None:
        """End the thread."""
        self._worker.close()
