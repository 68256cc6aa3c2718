# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy (Chi et al., arXiv 2303.04137), as LeRobot stores it, sampled by DDIM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.lerobot.core import Core, Observed, RgbEncoder, keypoint_names
from residual_rl_ros.importing.networks.ddim import DenoisingLoop, NoiseSchedule
from residual_rl_ros.importing.networks.unet_1d import ConditionalUnet1d
from residual_rl_ros.schema import parameter


@dataclass(frozen=True)
class DiffusionArchitecture:
    """Keys of `config.json` that shape the network and its schedule."""

    n_obs_steps: int = parameter(2, 'Observations in the input.', 1, 1000)
    horizon: int = parameter(16, 'Actions in a chunk.', 1, 10_000)
    n_action_steps: int = parameter(8, 'Actions that are meant to run.', 1, 10_000)
    vision_backbone: str = parameter('resnet18', 'Variant of the ResNet.')
    resize_shape: tuple[int, ...] = parameter((), 'Height and width of resized images.', 1, 4096)
    crop_ratio: float = parameter(1.0, 'Share of a resized image that is seen.', above=0.0)
    crop_shape: tuple[int, ...] = parameter((), 'Height and width of what is seen.', 1, 4096)
    use_group_norm: bool = parameter(True, 'Group normalisation in the ResNet.')
    spatial_softmax_num_keypoints: int = parameter(32, 'Keypoints of a camera.', 1, 4096)
    use_separate_rgb_encoder_per_camera: bool = parameter(False, 'Each camera has its own.')
    down_dims: tuple[int, ...] = parameter((512, 1024, 2048), 'Channels of the stages.', 1, 65_536)
    kernel_size: int = parameter(5, 'Of the convolutions over time.', 1, 99)
    n_groups: int = parameter(8, 'Of the group normalisations over time.', 1, 1024)
    diffusion_step_embed_dim: int = parameter(128, 'Size of the embedded step.', 4, 65_536)
    use_film_scale_modulation: bool = parameter(True, 'The condition also scales.')
    noise_scheduler_type: str = parameter('DDPM', 'Sampler.', choices=('DDPM', 'DDIM'))
    num_train_timesteps: int = parameter(100, 'Diffusion steps of the training.', 1, 10_000)
    beta_schedule: str = parameter('squaredcos_cap_v2', 'Of the noise.')
    beta_start: float = parameter(0.0001, 'Of the noise.')
    beta_end: float = parameter(0.02, 'Of the noise.')
    prediction_type: str = parameter(
        'epsilon', 'What the network predicts.', choices=('epsilon', 'sample')
    )
    clip_sample: bool = parameter(True, 'Clip the predicted chunk.')
    clip_sample_range: float = parameter(1.0, 'To so much.', above=0.0)
    num_inference_steps: int = parameter(0, 'Denoising steps; 0: all.', 0, 10_000)

    def problems(self) -> list[str]:
        """Return what does not fit together."""
        found = [
            f'{key}: is {list(getattr(self, key))}, expected height and width'
            for key in ('resize_shape', 'crop_shape')
            if len(getattr(self, key)) not in (0, 2)
        ]
        if not 1 <= len(self.down_dims) <= 8:
            found.append(f'down_dims: has {len(self.down_dims)} stages, expected 1 to 8')
        elif self.horizon % 2 ** (len(self.down_dims) - 1):
            found.append(
                f'horizon: is {self.horizon}, expected a multiple of '
                f'{2 ** (len(self.down_dims) - 1)} (it is halved between the stages of down_dims)'
            )
        first = self.down_dims[:1]
        if any(width % self.n_groups for width in self.down_dims) or any(w % 8 for w in first):
            found.append(
                f'down_dims: is {list(self.down_dims)}, expected multiples of n_groups '
                f'{self.n_groups}, the first also of 8'
            )
        if self.n_obs_steps - 1 + self.n_action_steps > self.horizon:
            found.append(
                f'n_action_steps: is {self.n_action_steps}, expected at most '
                f'{self.horizon - self.n_obs_steps + 1} (horizon - n_obs_steps + 1)'
            )
        return found

    @property
    def crop(self) -> tuple[int, ...]:
        """Height and width of what is seen of an image, after resizing; empty is all of it."""
        if not self.resize_shape:
            return self.crop_shape
        if self.crop_ratio >= 1.0:
            return ()
        return tuple(int(size * self.crop_ratio) for size in self.resize_shape)

    @property
    def schedule(self) -> NoiseSchedule:
        """How it was trained to denoise."""
        return NoiseSchedule(
            train_steps=self.num_train_timesteps,
            beta_schedule=self.beta_schedule,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            prediction=self.prediction_type,
            clip=self.clip_sample_range if self.clip_sample else None,
        )

    @property
    def own_steps(self) -> int:
        """Denoising steps that the checkpoint asks for, if its sampler is DDIM; else 0."""
        if self.noise_scheduler_type != 'DDIM':
            return 0
        return self.num_inference_steps or self.num_train_timesteps


class Diffusion(Core):
    """The cameras, the U-Net and the loop.

    Args:
        arch: its numbers.
        state: numbers of the state.
        environment: numbers of the environment's state, 0 if there is none.
        cameras: height and width of each.
        actions: numbers of an action.
        steps: denoising steps.

    Raises:
        PolicyImportError: the cameras differ in size, or the schedule is unknown.
    """

    def __init__(
        self,
        arch: DiffusionArchitecture,
        state: int,
        environment: int,
        cameras: Sequence[tuple[int, int]],
        actions: int,
        steps: int,
    ) -> None:
        super().__init__()
        if len(set(cameras)) > 1:
            raise PolicyImportError(
                f'the images have the sizes {list(cameras)}, expected the same for all cameras'
            )
        seen = 0
        separate = arch.use_separate_rgb_encoder_per_camera
        if cameras:
            encoders = [
                RgbEncoder(
                    cameras[0],
                    arch.vision_backbone,
                    arch.use_group_norm,
                    arch.spatial_softmax_num_keypoints,
                    arch.resize_shape,
                    arch.crop,
                )
                for _ in range(len(cameras) if separate else 1)
            ]
            self.rgb_encoder: nn.Module = nn.ModuleList(encoders) if separate else encoders[0]
            seen = 2 * arch.spatial_softmax_num_keypoints * len(cameras)
        self.unet = ConditionalUnet1d(
            actions,
            arch.n_obs_steps * (state + environment + seen),
            arch.down_dims,
            arch.kernel_size,
            arch.n_groups,
            arch.diffusion_step_embed_dim,
            arch.use_film_scale_modulation,
        )
        self.n_obs_steps = arch.n_obs_steps
        self.loop = DenoisingLoop(arch.schedule, steps)

    def forward(self, observed: Observed, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the chunk and, of each camera, its keypoints."""
        assert noise is not None
        parts = [] if observed.state is None else [observed.state]
        features = []
        for index, image in enumerate(observed.images):
            encoder = self.rgb_encoder
            if isinstance(encoder, nn.ModuleList):
                encoder = encoder[index]
            seen, keypoints = encoder(image.flatten(0, 1))
            parts.append(seen.unflatten(0, (-1, self.n_obs_steps)))
            features.append(keypoints.unflatten(0, (-1, self.n_obs_steps))[:, -1])
        if observed.environment is not None:
            parts.append(observed.environment)
        condition = torch.cat(parts, dim=-1).flatten(1)
        chunk = self.loop(lambda x, step: self.unet(x, step, condition), noise)
        return chunk, features


def feature_names(arch: DiffusionArchitecture) -> tuple[str, ...]:
    """Return the names of a camera's features."""
    return keypoint_names(arch.spatial_softmax_num_keypoints)
