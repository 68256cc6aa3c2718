# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a task tells whether an episode succeeded: one setting, for runs, commands and nodes."""

from __future__ import annotations

from dataclasses import dataclass

from residual_rl_ros.errors import ConfigError

AUTO, RETURN, TERMINATED = 'auto', 'return', 'terminated'
IS_SUCCESS, SUCCESS = 'is_success', 'success'
"""Keys of `info` that environments tell success by: gymnasium-robotics, and Meta-World."""
STOP, ONCE, END = 'stop', 'once', 'end'
WHEN = {
    STOP: 'at any step, which then ends the episode with reward 1; every other reward is 0',
    ONCE: 'at any step; the episode goes on',
    END: 'at the last step',
}
"""When a key of `info` counts."""
DESCRIPTION = (
    'how the task tells success: auto; return (it has none: returns are compared); terminated '
    '(an end that is no time limit is a success); or a key of info, counted at any step '
    '(KEY:once), at the last one (KEY:end), or at the first, which then ends the episode (KEY:stop)'
)


@dataclass(frozen=True)
class SuccessCriterion:
    """How an environment tells success."""

    source: str = AUTO
    """`auto`, `return`, `terminated`, or a key of `info`."""
    when: str = ''
    """For a key: one of `WHEN`."""

    @classmethod
    def parse(cls, text: str) -> SuccessCriterion:
        """Read `auto`, `return`, `terminated`, `KEY` (the same as `KEY:once`) or `KEY:when`.

        Raises:
            ConfigError: it is none of them.
        """
        if text in (AUTO, RETURN, TERMINATED):
            return cls(text)
        key, colon, when = text.rpartition(':')
        if not colon:
            key, when = text, ONCE
        if not key.strip() or when not in WHEN:
            raise ConfigError(
                f'success is {text!r}, expected {AUTO}, {RETURN}, {TERMINATED} or a key of info, '
                f'such as {SUCCESS}, with one of {", ".join(f":{each}" for each in WHEN)}'
            )
        return cls(key, when)

    def __str__(self) -> str:
        return f'{self.source}:{self.when}' if self.when else self.source

    @property
    def words(self) -> str:
        """The criterion as the rest of a sentence."""
        if self.when:
            return f'info[{self.source!r}] {WHEN[self.when]}'
        return {
            AUTO: f'info[{IS_SUCCESS!r}] or info[{SUCCESS!r}], whichever the task tells',
            RETURN: 'nothing: episodes are unlabelled, and returns are compared',
            TERMINATED: 'a termination',
        }[self.source]
