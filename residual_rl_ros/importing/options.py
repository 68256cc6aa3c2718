# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the command line says of an import, beside the checkpoint itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.mapping import PolicyMap

DEFAULT_DDIM_STEPS = 10
NOISE_DEFAULTS = ('normal', 'zero')


@dataclass(frozen=True)
class ImportOptions:
    """Options of `import-base`."""

    map: PolicyMap = field(default_factory=PolicyMap)
    """Names, units and rate."""
    dataset: Path | None = None
    """Folder of the dataset that the policy was trained on."""
    ddim_steps: int | None = None
    """Denoising steps of a diffusion policy; None is the number of a checkpoint that was made for
    DDIM, else `DEFAULT_DDIM_STEPS`."""
    range_std: float | None = None
    """Range of the trained actions in standard deviations from their mean, if nothing says it."""
    noise_default: str | None = None
    """Noise of the base action, one of `NOISE_DEFAULTS`; None is that of the architecture."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            PolicyImportError: one is out of range.
        """
        if self.range_std is not None and not self.range_std > 0.0:
            raise PolicyImportError(f'range_std is {self.range_std}, expected > 0')
        if self.noise_default not in (None, *NOISE_DEFAULTS):
            raise PolicyImportError(
                f'noise is {self.noise_default!r}, expected one of {", ".join(NOISE_DEFAULTS)}'
            )
