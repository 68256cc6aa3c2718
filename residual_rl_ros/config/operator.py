# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of a simulated operator, and how a command line writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from residual_rl_ros.errors import ConfigError
from residual_rl_ros.schema import from_mapping, parameter

SIMULATED = 'simulated'
DESCRIPTION = (
    'who helps in training: nobody (empty), or simulated, with changed numbers '
    'simulated:key=value,key=value'
)


@dataclass(frozen=True)
class OperatorConfig:
    """When a scripted expert takes over from the policy, and how well it does."""

    deadband: float = parameter(
        1.0,
        'difference between the commands of policy and expert that is none yet, in units of the '
        'residual bound; the largest of the dimensions counts',
        above=0.0,
    )
    watch_s: float = parameter(
        0.4,
        'time for which they differ by more before the operator decides to take over, and agree '
        'before he hands back [s]',
        0.0,
    )
    patience: float = parameter(
        0.5,
        'share of the time that the operator needs for the whole task, which he waits in every '
        'episode before he decides anything',
        0.0,
    )
    reaction_s: float = parameter(0.3, 'time from that decision to his first command [s]', 0.0)
    min_takeover_s: float = parameter(0.5, 'shortest takeover [s]', 0.0)
    max_takeover_s: float = parameter(5.0, 'longest takeover [s]', above=0.0)
    misses: float = parameter(
        0.1, 'probability that he overlooks what he would take over for', 0.0, 1.0
    )
    noise: float = parameter(
        0.1, 'standard deviation of his commands, in units of the residual bound', 0.0
    )

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if self.max_takeover_s < self.min_takeover_s:
            yield (
                f'max_takeover_s is {self.max_takeover_s}, expected at least min_takeover_s, which '
                f'is {self.min_takeover_s}'
            )

    @classmethod
    def parse(cls, text: str) -> OperatorConfig | None:
        """Read `simulated`, or `simulated:key=value,key=value`; None of an empty text.

        A comma can stand for the colon, where a colon already separates something else.

        Raises:
            ConfigError: it names no operator, or every wrong key.
        """
        if not text:
            return None
        name, *changes = re.split('[:,]', text)
        source = f'operator {text!r}'
        if name != SIMULATED:
            raise ConfigError(f'{source}: expected {SIMULATED} or {SIMULATED}:key=value,key=value')
        values: dict[str, float | str] = {}
        for change in changes:
            key, equals, value = change.partition('=')
            if not equals or key in values:
                how = 'given twice' if equals else 'no assignment'
                raise ConfigError(f'{source}: {change!r} is {how}, expected key=value once each')
            try:
                values[key] = float(value)
            except ValueError:
                values[key] = value  # The schema says what is expected.
        return from_mapping(cls, values, source)
