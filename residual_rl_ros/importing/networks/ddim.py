# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion policies: a chunk of actions out of noise, by the features of a window.

They are sampled by unrolled DDIM (Song et al., arXiv 2010.02502), eta = 0: all randomness is in the
first noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError, shown
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.importing.networks.window_encoder import WindowEncoder
from residual_rl_ros.importing.policy import listed
from residual_rl_ros.importing.stored_config import StoredConfig

LARGEST_BETA = 0.999
"""Of the cosine schedule, as in Nichol and Dhariwal, arXiv 2102.09672."""
MOST_STEPS = 200
"""Longest loop that is unrolled."""
PREDICTIONS = ('epsilon', 'sample', 'v_prediction')


@dataclass(frozen=True)
class NoiseSchedule:
    """How a diffusion policy was trained to denoise; names and values are those of diffusers."""

    train_steps: int = 100
    """Diffusion steps of the training."""
    beta_schedule: str = 'squaredcos_cap_v2'
    """`squaredcos_cap_v2`, `linear` or `scaled_linear`."""
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction: str = 'epsilon'
    """One of `PREDICTIONS`: what the network predicts."""
    clip: float | None = 1.0
    """The predicted clean chunk is clipped to so much; None does not clip."""
    steps_offset: int = 0
    """Added to each step."""
    set_alpha_to_one: bool = True
    """Whether the last step ends without any noise, or with that of step 0."""

    def signal(self) -> list[float]:
        """Return the share of the signal's variance at each step (`alphas_cumprod`).

        Raises:
            PolicyImportError: schedule or prediction are unknown, there are no steps, or a beta is
                no share.
        """
        if self.prediction not in PREDICTIONS:
            raise PolicyImportError(
                f'prediction_type is {self.prediction!r}, expected one of {", ".join(PREDICTIONS)}'
            )
        if not 1 <= self.train_steps <= 10_000:
            raise PolicyImportError(
                f'num_train_timesteps is {self.train_steps}, expected 1 to 10000'
            )
        return [float(value) for value in torch.cumprod(1.0 - self._betas(), dim=0)]

    def _betas(self) -> Tensor:
        if self.beta_schedule == 'squaredcos_cap_v2':

            def share(time: float) -> float:
                return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

            count = self.train_steps
            return torch.tensor(
                [
                    min(1.0 - share((step + 1) / count) / share(step / count), LARGEST_BETA)
                    for step in range(count)
                ],
                dtype=torch.float32,
                device='cpu',
            )
        if not (0.0 < self.beta_start < 1.0 and 0.0 < self.beta_end < 1.0):
            raise PolicyImportError(
                f'beta_start is {self.beta_start} and beta_end {self.beta_end}, expected numbers '
                'above 0 and below 1'
            )
        if self.beta_schedule == 'linear':
            return torch.linspace(self.beta_start, self.beta_end, self.train_steps, device='cpu')
        if self.beta_schedule == 'scaled_linear':
            ends = self.beta_start**0.5, self.beta_end**0.5
            root = torch.linspace(*ends, self.train_steps, device='cpu')
            return root**2
        raise PolicyImportError(
            f'beta_schedule is {self.beta_schedule!r}, expected squaredcos_cap_v2, linear or '
            'scaled_linear'
        )


@dataclass(frozen=True)
class DdimStep:
    """One step of the loop."""

    step: int
    """Diffusion step that the network is told."""
    signal: float
    """Share of the signal's variance before."""
    target: float
    """The same after."""


def ddim_steps(schedule: NoiseSchedule, count: int) -> list[DdimStep]:
    """Return the steps of the loop, from noise to the clean chunk, `leading` as diffusers has it.

    Args:
        schedule: of the training.
        count: number of steps.

    Raises:
        PolicyImportError: there are more steps than in the training, or none, or the offset leads
            out of it.
    """
    most = min(schedule.train_steps, MOST_STEPS)
    if not 1 <= count <= most:
        raise PolicyImportError(
            f'ddim_steps is {count}, expected 1 to {most}, as each of the {schedule.train_steps} '
            'steps of the training is a copy of the network; change --ddim-steps'
        )
    signal = schedule.signal()
    stride = schedule.train_steps // count
    steps = [int(step) + schedule.steps_offset for step in np.arange(count)[::-1] * stride]
    if steps[-1] < 0 or steps[0] >= schedule.train_steps:
        raise PolicyImportError(
            f'steps_offset is {schedule.steps_offset}: with it the steps go from {steps[-1]} to '
            f'{steps[0]}, expected 0 to {schedule.train_steps - 1}; change --ddim-steps'
        )
    last = 1.0 if schedule.set_alpha_to_one else signal[0]
    return [
        DdimStep(step, signal[step], signal[step - stride] if step >= stride else last)
        for step in steps
    ]


class DenoisingLoop(nn.Module):
    """Makes a clean chunk of noise, by one row of numbers for each step.

    Args:
        schedule: of the training.
        count: number of steps.

    Raises:
        PolicyImportError: see `ddim_steps`.
    """

    rows: Tensor
    """Of each step: what the network is told, then the factors of signal and noise before and
    after it, shape (steps, 5)."""

    def __init__(self, schedule: NoiseSchedule, count: int) -> None:
        super().__init__()
        self.schedule = schedule
        rows = [
            (each.step, *_factors(each.signal), *_factors(each.target))
            for each in ddim_steps(schedule, count)
        ]
        made = torch.from_numpy(np.array(rows, dtype=np.float32))
        self.register_buffer('rows', made, persistent=False)

    def forward(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor) -> Tensor:
        """Return the clean chunk.

        Args:
            predict: the network, of a noisy chunk (batch, time, m) and the steps (batch,).
            noise: standard normal, shape (batch, time, m).
        """
        chunk = noise
        for row in self.rows:
            step = row[0].expand_as(chunk[:, 0, 0])
            chunk = self._previous(chunk, predict(chunk, step), row)
        return chunk

    def _previous(self, x: Tensor, found: Tensor, row: Tensor) -> Tensor:
        """Return the chunk with less noise; equation 12 of the paper with eta = 0."""
        mean, std, next_mean, next_std = (row[index] for index in range(1, 5))
        if self.schedule.prediction == 'epsilon':
            clean, epsilon = (x - std * found) / mean, found
        elif self.schedule.prediction == 'sample':
            clean, epsilon = found, (x - mean * found) / std
        else:
            clean, epsilon = mean * x - std * found, mean * found + std * x
        limit = self.schedule.clip
        if limit is not None:
            # The noise is not computed anew from the clipped chunk: diffusers does not either.
            clean = clean.clamp(-limit, limit)
        return next_mean * clean + next_std * epsilon


def _factors(signal: float) -> tuple[float, float]:
    """Return what signal and noise are multiplied with."""
    return math.sqrt(signal), math.sqrt(1.0 - signal)


READ = (
    'num_train_timesteps',
    'beta_schedule',
    'beta_start',
    'beta_end',
    'prediction_type',
    'clip_sample',
    'clip_sample_range',
    'steps_offset',
    'set_alpha_to_one',
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


class ChunkDiffusion(nn.Module):
    """The whole policy; inputs are observation, noise (batch, horizon, m), images.

    Args:
        from_robot: first layer, of the state.
        encoder: of the window of observations.
        network: predicts what `schedule` says.
        schedule: of the training.
        steps: number of the loop.
        scale, offset: of the action after that, shape (m,).
        to_robot: last layer.

    Raises:
        PolicyImportError: the schedule is unknown.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        from_robot: nn.Module,
        encoder: WindowEncoder,
        network: ConditionalUnet1d,
        schedule: NoiseSchedule,
        steps: int,
        scale: Tensor,
        offset: Tensor,
        to_robot: nn.Module,
    ) -> None:
        super().__init__()
        self.from_robot, self.encoder, self.network = from_robot, encoder, network
        self.loop = DenoisingLoop(schedule, steps)
        self.to_robot = to_robot
        self.register_buffer('scale', scale)
        self.register_buffer('offset', offset)

    def forward(self, observation: Tensor, noise: Tensor, *images: Tensor) -> tuple[Tensor, ...]:
        """Return action (batch, horizon, m), and the features of each camera."""
        features, seen = self.encoder(self.from_robot(observation), images)
        condition = torch.flatten(features, 1)

        def predict(chunk: Tensor, step: Tensor) -> Tensor:
            prediction: Tensor = self.network(chunk, step, condition)
            return prediction

        chunk = self.loop(predict, noise)
        return (self.to_robot(chunk * self.scale + self.offset), *seen)
