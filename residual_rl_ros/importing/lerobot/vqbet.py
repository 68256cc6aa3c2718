# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""VQ-BeT, behaviour generation with latent actions (Lee et al., arXiv 2403.03181), of LeRobot.

The policy chooses one code in each of two codebooks, and decodes the chunk from them. It draws the
codes by chance, with a temperature. Here the chance is the input `noise`, by the Gumbel trick: a
code is the largest of logits / temperature - log(-log(Phi(noise))), which has the same
probabilities if the noise is standard normal. Zero noise is the most likely code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.lerobot.core import (
    Core,
    Observed,
    RgbEncoder,
    attend,
    keypoint_names,
    merge_heads,
    split_heads,
)
from residual_rl_ros.schema import parameter

CODEBOOKS = 2
TRAINING_ONLY = (
    'select_target_actions_indices',
    'action_head.vqvae_model.encoder.',
    'action_head.vqvae_model.optimized_steps',
    'action_head.vqvae_model.vq_layer.freeze_codebook',
)
"""Beginnings of the names of weights that only the training needs."""
TRAINING_ONLY_ENDS = (
    '._codebook.initted',
    '._codebook.cluster_size',
    '._codebook.embed_avg',
    '.attn.bias',
)
"""Ends of such names; the last is the causal mask, which is rebuilt."""
DISCRETIZED = 'action_head.vqvae_model.discretized'
"""Whether the codebooks have been trained."""


@dataclass(frozen=True)
class VqbetArchitecture:
    """Keys of `config.json` that shape the network."""

    n_obs_steps: int = parameter(5, 'Observations in the input.', 1, 1000)
    n_action_pred_token: int = parameter(3, 'Chunks that the training predicts.', 1, 1000)
    action_chunk_size: int = parameter(5, 'Actions in a chunk.', 1, 10_000)
    vision_backbone: str = parameter('resnet18', 'Variant of the ResNet.')
    crop_shape: tuple[int, ...] = parameter((), 'Height and width of what is seen.', 1, 4096)
    use_group_norm: bool = parameter(True, 'Group normalisation in the ResNet.')
    spatial_softmax_num_keypoints: int = parameter(32, 'Keypoints of the camera.', 1, 4096)
    vqvae_n_embed: int = parameter(16, 'Codes of a codebook.', 1, 65_536)
    vqvae_embedding_dim: int = parameter(256, 'Size of a code.', 1, 65_536)
    vqvae_enc_hidden_dim: int = parameter(128, 'Size of the layers that decode.', 1, 65_536)
    gpt_block_size: int = parameter(500, 'Longest sequence of tokens.', 1, 100_000)
    gpt_input_dim: int = parameter(512, 'Size of a token before the first layer.', 1, 65_536)
    gpt_output_dim: int = parameter(512, 'Size of a token after the last layer.', 1, 65_536)
    gpt_n_layer: int = parameter(8, 'Layers.', 1, 100)
    gpt_n_head: int = parameter(8, 'Heads of the attention.', 1, 1024)
    gpt_hidden_dim: int = parameter(512, 'Size of a token.', 1, 65_536)
    bet_softmax_temperature: float = parameter(0.1, 'Of drawing the codes.', above=0.0)
    sequentially_select: bool = parameter(False, 'The second code depends on the first.')

    def problems(self) -> list[str]:
        """Return what does not fit together."""
        found = []
        if len(self.crop_shape) not in (0, 2):
            found.append(f'crop_shape: is {list(self.crop_shape)}, expected height and width')
        if self.gpt_hidden_dim % self.gpt_n_head:
            found.append(
                f'gpt_hidden_dim: is {self.gpt_hidden_dim}, expected a multiple of gpt_n_head '
                f'{self.gpt_n_head}'
            )
        if 3 * self.n_obs_steps > self.gpt_block_size:
            found.append(
                f'gpt_block_size: is {self.gpt_block_size}, expected at least '
                f'{3 * self.n_obs_steps} (3 tokens for each of n_obs_steps)'
            )
        return found


def perceptron(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Return layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.ReLU()] if layers else []
        layers.append(nn.Linear(inputs, width))
        inputs = width
    return nn.Sequential(*layers)


class _SelfAttention(nn.Module):
    """Causal self-attention; one layer makes queries, keys and values."""

    def __init__(self, arch: VqbetArchitecture) -> None:
        super().__init__()
        width = arch.gpt_hidden_dim
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.heads, self.size = arch.gpt_n_head, width // arch.gpt_n_head

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return shape (batch, tokens, width)."""
        query, key, value = (
            split_heads(part, self.heads, self.size) for part in self.c_attn(x).chunk(3, dim=-1)
        )
        result: Tensor = self.c_proj(merge_heads(attend(query, key, value, mask)))
        return result


class _Block(nn.Module):
    """Attention and two layers."""

    def __init__(self, arch: VqbetArchitecture) -> None:
        super().__init__()
        width = arch.gpt_hidden_dim
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _SelfAttention(arch)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the next tokens."""
        x = x + self.attn(self.ln_1(x), mask)
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class _Gpt(nn.Module):
    """The transformer; a token sees those before it."""

    mask: Tensor

    def __init__(self, arch: VqbetArchitecture, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.transformer = nn.ModuleDict(
            {
                'wte': nn.Linear(arch.gpt_input_dim, arch.gpt_hidden_dim),
                'wpe': nn.Embedding(arch.gpt_block_size, arch.gpt_hidden_dim),
                'h': nn.ModuleList(_Block(arch) for _ in range(arch.gpt_n_layer)),
                'ln_f': nn.LayerNorm(arch.gpt_hidden_dim),
            }
        )
        self.lm_head = nn.Linear(arch.gpt_hidden_dim, arch.gpt_output_dim, bias=False)
        mask = np.triu(np.full((tokens, tokens), -np.inf, dtype=np.float32), k=1)
        self.register_buffer('mask', torch.from_numpy(mask), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what the last of the tokens says, shape (batch, gpt_output_dim)."""
        layers = self.transformer
        places: Tensor = layers['wpe'].weight[: self.tokens]  # type: ignore[index]
        x = layers['wte'](tokens) + places
        for block in layers['h']:  # type: ignore[attr-defined]
            x = block(x, self.mask)
        result: Tensor = self.lm_head(layers['ln_f'](x[:, -1]))
        return result


class _Codebook(nn.Module):
    """Codes, with the names of the quantiser that trained them."""

    def __init__(self, arch: VqbetArchitecture) -> None:
        super().__init__()
        self._codebook = nn.Module()
        self._codebook.register_buffer(
            'embed', torch.zeros(1, arch.vqvae_n_embed, arch.vqvae_embedding_dim)
        )

    def forward(self, choice: Tensor) -> Tensor:
        """Return the codes that one-hot vectors (batch, codes) choose."""
        embed: Tensor = self._codebook.embed  # type: ignore[assignment]
        codes: Tensor = choice @ embed[0]
        return codes


class _Quantizer(nn.Module):
    """The codebooks and what decodes a sum of their codes."""

    discretized: Tensor

    def __init__(self, arch: VqbetArchitecture, numbers: int) -> None:
        super().__init__()
        self.register_buffer('discretized', torch.tensor(True))
        self.vq_layer = nn.Module()
        self.vq_layer.layers = nn.ModuleList(_Codebook(arch) for _ in range(CODEBOOKS))
        hidden = arch.vqvae_enc_hidden_dim
        self.decoder = perceptron(arch.vqvae_embedding_dim, (hidden, hidden, numbers))

    def forward(self, choices: Sequence[Tensor]) -> Tensor:
        """Return the chunk, flat, of a one-hot vector for each codebook."""
        books = self.vq_layer.layers
        assert isinstance(books, nn.ModuleList)
        latent = sum(book(choice) for book, choice in zip(books, choices, strict=True))
        result: Tensor = self.decoder(latent)
        return result


class _Head(nn.Module):
    """Draws the codes, decodes them and adds the offset that belongs to them."""

    def __init__(self, arch: VqbetArchitecture, actions: int) -> None:
        super().__init__()
        codes, size = arch.vqvae_n_embed, arch.gpt_output_dim
        numbers = arch.action_chunk_size * actions
        self.codes, self.numbers = codes, numbers
        self.steps, self.actions = arch.action_chunk_size, actions
        self.temperature, self.sequential = arch.bet_softmax_temperature, arch.sequentially_select
        self.vqvae_model = _Quantizer(arch, numbers)
        if self.sequential:
            self.map_to_cbet_preds_primary_bin = perceptron(size, (codes,))
            self.map_to_cbet_preds_secondary_bin = perceptron(size + codes, (codes,))
        else:
            self.map_to_cbet_preds_bin = perceptron(size, (CODEBOOKS * codes,))
        self.map_to_cbet_preds_offset = perceptron(size, (CODEBOOKS * codes * numbers,))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the chunk (batch, action_chunk_size, m)."""
        choices = self._choices(x, gumbel(noise))
        offsets = self.map_to_cbet_preds_offset(x).unflatten(
            -1, (CODEBOOKS, self.codes, self.numbers)
        )
        chosen = torch.stack(choices, dim=1)[..., None]
        flat = self.vqvae_model(choices) + (offsets * chosen).sum(dim=(1, 2))
        chunk: Tensor = flat.reshape(-1, self.steps, self.actions)
        return chunk

    def _choices(self, x: Tensor, chance: Tensor) -> list[Tensor]:
        """Return a one-hot vector (batch, codes) for each codebook."""
        if self.sequential:
            first = self._largest(self.map_to_cbet_preds_primary_bin(x), chance[:, 0])
            logits = self.map_to_cbet_preds_secondary_bin(torch.cat([x, first], dim=1))
            return [first, self._largest(logits, chance[:, 1])]
        both = self.map_to_cbet_preds_bin(x).unflatten(-1, (CODEBOOKS, self.codes))
        return [self._largest(both[:, book], chance[:, book]) for book in range(CODEBOOKS)]

    def _largest(self, logits: Tensor, chance: Tensor) -> Tensor:
        index = (logits / self.temperature + chance).argmax(dim=-1, keepdim=True)
        return (index == torch.arange(self.codes)).float()


def gumbel(noise: Tensor) -> Tensor:
    """Return Gumbel noise of standard normal noise; the same for all codes if that is zero."""
    share = 0.5 * (1.0 + torch.erf(noise / math.sqrt(2.0)))
    # Where float32 rounds to 0 or 1 the logarithms would be infinite.
    tiny = torch.finfo(torch.float32).eps / 2.0
    return -torch.log(-torch.log(share.clamp(tiny, 1.0 - tiny)))


class Vqbet(Core):
    """The camera, the transformer and the choice of the codes.

    The tokens after the newest observation are left out: a token sees only those before it, and
    what they predict, chunks further ahead, is not what runs.

    Args:
        arch: its numbers.
        state: numbers of the state.
        camera: height and width of the images.
        actions: numbers of an action.
    """

    def __init__(
        self, arch: VqbetArchitecture, state: int, camera: tuple[int, int], actions: int
    ) -> None:
        super().__init__()
        self.rgb_encoder = RgbEncoder(
            camera,
            arch.vision_backbone,
            arch.use_group_norm,
            arch.spatial_softmax_num_keypoints,
            crop=arch.crop_shape,
        )
        size = arch.gpt_input_dim
        self.action_token = nn.Parameter(torch.zeros(1, 1, size))
        self.state_projector = perceptron(state, (size,))
        self.rgb_feature_projector = perceptron(2 * arch.spatial_softmax_num_keypoints, (size,))
        self.n_obs_steps = arch.n_obs_steps
        self.policy = _Gpt(arch, 3 * arch.n_obs_steps)
        self.action_head = _Head(arch, actions)

    def forward(self, observed: Observed, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the chunk and the keypoints of the camera."""
        assert noise is not None
        assert observed.state is not None
        seen, keypoints = self.rgb_encoder(observed.images[0].flatten(0, 1))
        image = self.rgb_feature_projector(seen).unflatten(0, (-1, self.n_obs_steps))
        state = self.state_projector(observed.state)
        asked = self.action_token.expand_as(state)
        tokens = torch.stack([image, state, asked], dim=2).flatten(1, 2)
        chunk = self.action_head(self.policy(tokens), noise)
        return chunk, [keypoints.unflatten(0, (-1, self.n_obs_steps))[:, -1]]


def feature_names(arch: VqbetArchitecture) -> tuple[str, ...]:
    """Return the names of the camera's features."""
    return keypoint_names(arch.spatial_softmax_num_keypoints)


def check_inputs(kinds: Sequence[str]) -> None:
    """Refuse inputs with which LeRobot itself would look at another token than the one it trained.

    Raises:
        PolicyImportError: they are not one camera and the state.
    """
    if sorted(kinds) != ['STATE', 'VISUAL']:
        raise PolicyImportError(
            f'VQ-BeT has inputs of the kinds {sorted(kinds)}, expected one camera and '
            'observation.state'
        )
