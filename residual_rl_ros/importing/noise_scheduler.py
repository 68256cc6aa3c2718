# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The noise scheduler of diffusers that a configuration describes; its defaults are theirs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.networks.ddim import NoiseSchedule
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.importing.stored_config import StoredConfig

READ = (
    *('num_train_timesteps', 'beta_schedule', 'beta_start', 'beta_end', 'prediction_type'),
    *('clip_sample', 'clip_sample_range', 'steps_offset', 'set_alpha_to_one'),
)
UNUSED = ('dynamic_thresholding_ratio', 'sample_max_value')
"""Keys that say something of thresholding alone, which is refused."""
ALONE: dict[str, tuple[Any, ...]] = {
    'trained_betas': (None,),
    'thresholding': (False,),
    'timestep_spacing': ('leading',),
    'rescale_betas_zero_snr': (False,),
    # Of the noise that DDPM adds at each step, and DDIM does not.
    'variance_type': ('fixed_small', 'fixed_small_log', 'fixed_large', 'fixed_large_log'),
}
"""Keys of which only these values can be imported; the first is the default."""


def read_noise_schedule(config: StoredConfig, where: str, own: Collection[str]) -> NoiseSchedule:
    """Return how a policy was trained to denoise.

    Args:
        config: the configuration.
        where: path of its scheduler.
        own: keys there that belong to the framework.

    Raises:
        PolicyImportError: a key is unknown, or has a value that cannot be imported.
    """
    entries = config.map(where)
    unknown = [key for key in entries if key not in (*READ, *UNUSED, *ALONE, *own)]
    if unknown:
        raise PolicyImportError(
            f'{where} of {config.source} has {listed(unknown)}, which is not known; import it with '
            '--module'
        )
    for key, values in ALONE.items():
        found = values[0] if entries.get(key) is None else entries[key]
        if not any(type(found) is type(value) and found == value for value in values):
            raise PolicyImportError(
                f'{where}.{key} of {config.source} is {shown(found)}, expected '
                f'{" or ".join(map(str, values))}; import it with --module'
            )
    clip = config.get(f'{where}.clip_sample_range', float, 1.0)
    if clip <= 0.0:
        raise PolicyImportError(f'{where}.clip_sample_range is {clip}, expected > 0')
    return NoiseSchedule(
        train_steps=config.get(f'{where}.num_train_timesteps', int, 1000),
        beta_schedule=config.get(f'{where}.beta_schedule', str, 'linear'),
        beta_start=config.get(f'{where}.beta_start', float, 0.0001),
        beta_end=config.get(f'{where}.beta_end', float, 0.02),
        prediction=config.get(f'{where}.prediction_type', str, 'epsilon'),
        clip=clip if config.get(f'{where}.clip_sample', bool, True) else None,
        steps_offset=config.get(f'{where}.steps_offset', int, 0),
        set_alpha_to_one=config.get(f'{where}.set_alpha_to_one', bool, True),
    )
