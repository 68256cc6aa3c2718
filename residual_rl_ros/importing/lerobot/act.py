# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ACT, action chunking with transformers (Zhao et al., arXiv 2304.13705), as LeRobot stores it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.importing.lerobot.core import Core, MultiheadAttention, Observed
from residual_rl_ros.importing.networks.resnet import ResNet, feature_map_size
from residual_rl_ros.schema import parameter

TRAINING_ONLY = ('vae_encoder',)
"""Beginnings of the names of weights that only the training needs."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'relu': nn.functional.relu,
    'gelu': nn.functional.gelu,
}


@dataclass(frozen=True)
class ActArchitecture:
    """Keys of `config.json` that shape the network."""

    n_obs_steps: int = parameter(1, 'Observations in the input.', 1, 1)
    chunk_size: int = parameter(100, 'Actions in a chunk.', 1, 10_000)
    n_action_steps: int = parameter(100, 'Actions that are meant to run.', 1, 10_000)
    vision_backbone: str = parameter('resnet18', 'Variant of the ResNet.')
    replace_final_stride_with_dilation: bool = parameter(False, 'In the last stage of the ResNet.')
    pre_norm: bool = parameter(False, 'Normalise before each layer, not after it.')
    dim_model: int = parameter(512, 'Size of a token.', 4, 4096)
    n_heads: int = parameter(8, 'Heads of the attention.', 1, 1024)
    dim_feedforward: int = parameter(3200, 'Size between the two layers.', 1, 1_000_000)
    feedforward_activation: str = parameter(
        'relu', 'Between the two layers.', choices=tuple(ACTIVATIONS)
    )
    n_encoder_layers: int = parameter(4, 'Layers of the encoder.', 1, 100)
    n_decoder_layers: int = parameter(1, 'Layers of the decoder.', 1, 100)
    use_vae: bool = parameter(True, 'Trained with a latent, which is zero at inference.')
    latent_dim: int = parameter(32, 'Size of the latent.', 1, 65_536)
    temporal_ensemble_coeff: float = parameter(0.0, 'Weight of older chunks; 0: no ensembling.')

    def problems(self) -> list[str]:
        """Return what does not fit together."""
        found = []
        if self.dim_model % self.n_heads or self.dim_model % 4:
            found.append(
                f'dim_model: is {self.dim_model}, expected a multiple of 4 and of n_heads '
                f'{self.n_heads}'
            )
        if self.n_action_steps > self.chunk_size:
            found.append(
                f'n_action_steps: is {self.n_action_steps}, expected at most chunk_size '
                f'{self.chunk_size}'
            )
        return found


class _Layer(nn.Module):
    """What encoder and decoder layers share: the order of sums and normalisations."""

    def __init__(self, arch: ActArchitecture, norms: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(arch.dim_model, arch.n_heads)
        self.linear1 = nn.Linear(arch.dim_model, arch.dim_feedforward)
        self.linear2 = nn.Linear(arch.dim_feedforward, arch.dim_model)
        for index in range(norms):
            setattr(self, f'norm{index + 1}', nn.LayerNorm(arch.dim_model))
        self.pre_norm = arch.pre_norm
        self.activation = ACTIVATIONS[arch.feedforward_activation]

    def before(self, norm: str, x: Tensor) -> Tensor:
        """Return what a sublayer takes."""
        result: Tensor = getattr(self, norm)(x) if self.pre_norm else x
        return result

    def after(self, norm: str, x: Tensor) -> Tensor:
        """Return what is made of the sum of a sublayer and what went around it."""
        result: Tensor = x if self.pre_norm else getattr(self, norm)(x)
        return result

    def feedforward(self, x: Tensor) -> Tensor:
        """Return two layers with the activation between them."""
        result: Tensor = self.linear2(self.activation(self.linear1(x)))
        return result


class EncoderLayer(_Layer):
    """Self-attention and two layers."""

    def __init__(self, arch: ActArchitecture) -> None:
        super().__init__(arch, norms=2)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """Return the next tokens, shape (batch, tokens, dim_model)."""
        inner = self.before('norm1', x)
        placed = inner + places
        x = self.after('norm1', x + self.self_attn(placed, placed, inner))
        return self.after('norm2', x + self.feedforward(self.before('norm2', x)))


class DecoderLayer(_Layer):
    """Self-attention, attention to the encoder and two layers."""

    def __init__(self, arch: ActArchitecture) -> None:
        super().__init__(arch, norms=3)
        self.multihead_attn = MultiheadAttention(arch.dim_model, arch.n_heads)

    def forward(self, x: Tensor, own: Tensor, encoded: Tensor, places: Tensor) -> Tensor:
        """Return the next tokens, shape (batch, chunk_size, dim_model)."""
        inner = self.before('norm1', x)
        placed = inner + own
        x = self.after('norm1', x + self.self_attn(placed, placed, inner))
        query = self.before('norm2', x) + own
        x = self.after('norm2', x + self.multihead_attn(query, encoded + places, encoded))
        return self.after('norm3', x + self.feedforward(self.before('norm3', x)))


class Encoder(nn.Module):
    """Several layers."""

    def __init__(self, arch: ActArchitecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(arch) for _ in range(arch.n_encoder_layers))
        self.norm = nn.LayerNorm(arch.dim_model) if arch.pre_norm else nn.Identity()

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """Return the encoded tokens."""
        for layer in self.layers:
            x = layer(x, places)
        result: Tensor = self.norm(x)
        return result


class Decoder(nn.Module):
    """Several layers and a normalisation."""

    def __init__(self, arch: ActArchitecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(arch) for _ in range(arch.n_decoder_layers))
        self.norm = nn.LayerNorm(arch.dim_model)

    def forward(self, x: Tensor, own: Tensor, encoded: Tensor, places: Tensor) -> Tensor:
        """Return the decoded tokens."""
        for layer in self.layers:
            x = layer(x, own, encoded, places)
        result: Tensor = self.norm(x)
        return result


class Act(Core):
    """The network, without the encoder of its latent.

    Args:
        arch: its numbers.
        state: numbers of the state, 0 if there is none.
        environment: numbers of the environment's state, likewise.
        cameras: height and width of each.
        actions: numbers of an action.
    """

    def __init__(
        self,
        arch: ActArchitecture,
        state: int,
        environment: int,
        cameras: Sequence[tuple[int, int]],
        actions: int,
    ) -> None:
        super().__init__()
        width = arch.dim_model
        self.latent_dim = arch.latent_dim
        self.encoder, self.decoder = Encoder(arch), Decoder(arch)
        self.encoder_latent_input_proj = nn.Linear(arch.latent_dim, width)
        if state:
            self.encoder_robot_state_input_proj = nn.Linear(state, width)
        if environment:
            self.encoder_env_state_input_proj = nn.Linear(environment, width)
        self.has_state, self.has_environment = bool(state), bool(environment)
        tokens = 1 + self.has_state + self.has_environment
        self.encoder_1d_feature_pos_embed = nn.Embedding(tokens, width)
        if cameras:
            dilate = arch.replace_final_stride_with_dilation
            self.backbone = ResNet(arch.vision_backbone, 'frozen_batch', dilate)
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.channels, width, 1)
            for index, size in enumerate(cameras):
                places = image_places(*feature_map_size(*size, dilate), width)
                self.register_buffer(f'places{index}', places, persistent=False)
        self.decoder_pos_embed = nn.Embedding(arch.chunk_size, width)
        self.action_head = nn.Linear(width, actions)

    def forward(self, observed: Observed, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the chunk and, of each camera, the mean of its projected feature map."""
        if noise is None:
            noise = torch.zeros(1, self.latent_dim).expand(observed.batch, self.latent_dim)
        tokens = [self.encoder_latent_input_proj(noise)[:, None]]
        if self.has_state and observed.state is not None:
            tokens.append(self.encoder_robot_state_input_proj(observed.state))
        if self.has_environment and observed.environment is not None:
            tokens.append(self.encoder_env_state_input_proj(observed.environment))
        places = [self.encoder_1d_feature_pos_embed.weight[None]]
        features = []
        for index, image in enumerate(observed.images):
            seen = self.encoder_img_feat_input_proj(self.backbone(image[:, -1])).flatten(2)
            tokens.append(seen.transpose(1, 2))
            places.append(getattr(self, f'places{index}'))
            features.append(seen.mean(dim=2))
        placed = torch.cat(places, dim=1)
        encoded = self.encoder(torch.cat(tokens, dim=1), placed)
        own = self.decoder_pos_embed.weight[None]
        # Without a batch: until it looks at the encoder it is the same for all.
        start = torch.zeros_like(own)
        chunk: Tensor = self.action_head(self.decoder(start, own, encoded, placed))
        return chunk, features


def image_places(height: int, width: int, size: int) -> Tensor:
    """Return sines and cosines of the places of a feature map, shape (1, height * width, size).

    Rows and columns are counted from 1 and scaled so that the last is a full turn; half of the
    numbers tell the row, the others the column.
    """
    half = size // 2
    inverse = 10000.0 ** (2.0 * (np.arange(half, dtype=np.float32) // 2) / half)
    parts = []
    for count, axis in ((height, 0), (width, 1)):
        steps = np.arange(1, count + 1, dtype=np.float32)
        angle = steps / (np.float32(count) + np.float32(1e-6)) * np.float32(2 * math.pi)
        phase = angle[:, None] / inverse[None]
        waves = np.stack([np.sin(phase[:, 0::2]), np.cos(phase[:, 1::2])], axis=-1)
        flat = np.expand_dims(waves.reshape(count, half), 1 - axis)
        parts.append(np.broadcast_to(flat, (height, width, half)))
    made = np.concatenate(parts, axis=-1).reshape(1, height * width, size)
    return torch.from_numpy(made.astype(np.float32, copy=False))
