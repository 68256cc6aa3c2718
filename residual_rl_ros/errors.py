# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every error that this package raises on bad input: one class for each that a caller handles."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def shown(value: Any) -> str:
    """Return a value that came from outside as an error shows it: short, whatever it is.

    Aliases of aliases in a YAML text of 600 characters are gigabytes when they are written out.
    """
    return _SHORT.repr(value)


LONGEST_LINE = 4000
"""A longer message is cut: a value in it may be a whole file [character]."""


def one_line(text: str) -> str:
    """Return a text as one line that a terminal shows and does not obey.

    Names and values come from outside: control characters in them are written as escapes.
    """
    line = ' '.join(text[: 2 * LONGEST_LINE].split())
    if len(text) > LONGEST_LINE and (len(line) > LONGEST_LINE or len(text) > 2 * LONGEST_LINE):
        line = f'{line[:LONGEST_LINE]} … ({len(text)} characters)'
    if line.isprintable():
        return line
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class ResidualRLError(Exception):
    """Bad input or environment: one line naming the value, the expectation and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        """Return the line."""
        return one_line(super().__str__())


class FormatError(ResidualRLError):
    """A file or text is not of its format, or asks for more than the limits of its reader."""


class ConfigError(ResidualRLError):
    """A configuration is missing, incomplete, out of range or contradicts itself.

    Args:
        source: file or object that it stands in, or the whole sentence.
        problems: everything that is wrong with it, one sentence each.
    """

    def __init__(self, source: str, problems: Sequence[str] = ()) -> None:
        super().__init__(f'{source}: {"; ".join(problems)}' if problems else source)
        self.problems = tuple(problems)


class ResourceError(ResidualRLError):
    """A shipped file does not exist."""


class OutputError(ResidualRLError):
    """A result cannot be written: no such folder, no permission, no space."""


class TaskError(ResidualRLError):
    """An environment cannot be used, failed, or answered with something that is no number."""


class BasePolicyError(ResidualRLError):
    """A base policy cannot be used, or failed."""


class PolicyImportError(ResidualRLError):
    """A checkpoint of another framework cannot be made a base policy; nothing was written."""


class ChunkLateError(Exception):
    """The next chunk is not ready yet; the robot holds meanwhile."""


class ObservationError(ResidualRLError):
    """A channel is missing, stale, of the wrong size or not finite.

    Args:
        reason: what is wrong, with the channel.
        topic: topic of the channel.
        kind: what makes two of these the same, for reports.
    """

    def __init__(self, reason: str, topic: str = '', kind: str = '') -> None:
        super().__init__(reason)
        self.topic = topic
        self.kind = kind


class CommandError(ResidualRLError):
    """A message holds no command for this robot."""


class UnsafeCommandError(ResidualRLError):
    """A command may not be sent; the robot holds."""


class MalformedTransitionError(ResidualRLError):
    """An array is no transition of the layout."""


class WeightsError(ResidualRLError):
    """A weight message is refused.

    Args:
        reason: name under which refusals are counted.
        message: what is wrong with it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SealError(ResidualRLError):
    """What was received has no keyed digest, or that of another key."""


class CheckpointError(ResidualRLError):
    """A checkpoint cannot be written or read; the previous one is untouched."""


class BagError(ResidualRLError):
    """A recording cannot be used at all."""


class DemonstrationError(ResidualRLError):
    """A recorded demonstration cannot be used."""


class RewardError(ResidualRLError):
    """A reward function or success classifier cannot be used, or failed."""
