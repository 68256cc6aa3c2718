# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a robot's computer runs the base policy: section `base_policy` of the robot YAML."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from residual_rl_ros.schema import map_parameter, parameter, written_otherwise

CPU = 'CPUExecutionProvider'
OPTIMISATIONS = ('disable', 'basic', 'extended', 'all')
"""How much ONNX Runtime may change a graph before it runs it."""
MAX_THREADS = 256


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Where and how ONNX Runtime runs a network, and the constants that it is given."""

    providers: tuple[str, ...] = parameter(
        (CPU,), 'execution providers of ONNX Runtime, the preferred one first', filled=True
    )
    threads: int = parameter(1, 'threads of ONNX Runtime on the CPU', 1, MAX_THREADS)
    optimisation: str = parameter(
        'all', 'how much ONNX Runtime may change the graph', choices=OPTIMISATIONS
    )
    constants: dict[str, Any] = map_parameter(
        'numbers of each constant input of the policy, by its name'
    )

    def problems(self) -> Iterator[str]:
        """Yield which constants are no numbers."""
        for name, values in self.constants.items():
            listed = values if isinstance(values, (list, tuple)) else [values]
            if not listed or not all(_is_number(each) for each in listed):
                hint = written_otherwise(values)
                yield f'constants.{name} is {values!r}, expected a list of finite numbers{hint}'

    @property
    def numbers(self) -> dict[str, tuple[float, ...]]:
        """The constants by name."""
        return {
            str(name): tuple(map(float, values if isinstance(values, (list, tuple)) else [values]))
            for name, values in self.constants.items()
        }


def _is_number(value: Any) -> bool:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return known and math.isfinite(value)


ON_CPU = InferenceConfig()
"""One thread of the processor, as suits networks of a few million weights."""
