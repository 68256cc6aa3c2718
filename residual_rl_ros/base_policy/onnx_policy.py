# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen ONNX base policy: session, metadata and checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, FormatError
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.robot.onnx_model import OnnxModel, read_model
from residual_rl_ros.robot.onnx_session import load_session, run_session

Float32 = npt.NDArray[np.float32]


class OnnxBasePolicy:
    """Runs `observation [1, n_obs_steps, n] (+ noise [1, horizon, m]) -> action [1, horizon, m]`.

    Args:
        path: the `.onnx` file. Its metadata is in `metadata_props['residual_rl']`, or else in a
            sidecar YAML of the same name (`policy.onnx` -> `policy.yaml`).
        threads: ONNX Runtime threads; 1 suits networks of a few million weights.
        sha256: what must identify it, in hexadecimal digits: the digest of its file or, if weights
            or metadata are beside it, one over all of them. Empty accepts any.

    Raises:
        BasePolicyError: missing, unreadable or another model, no metadata, inputs or outputs off
            the contract.
    """

    def __init__(self, path: str | Path, threads: int = 1, sha256: str = '') -> None:
        self.path = Path(path)
        model = read_policy_model(self.path, sha256)
        self.sha256 = model.sha256
        """What identifies the policy: all its files."""
        self.files, self.size = tuple(model.digests), model.size
        """Names of its files, and how many bytes they have together."""
        self.random_operators = model.random_operators
        """Operators that draw random numbers in the graph: nobody else can repeat what it does."""
        self._session = load_session(model, BasePolicyError, threads)
        self.metadata = _metadata(model)
        self.stochastic = any(item.name == 'noise' for item in self._session.get_inputs())
        self._check_signature()

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape (horizon, m) of the noise input of a stochastic policy."""
        return self.metadata.horizon, len(self.metadata.action_names)

    @property
    def remarks(self) -> list[str]:
        """What the user of the policy should know."""
        if not self.random_operators:
            return []
        return [
            f'the graph of {self.path.name} draws random numbers by itself '
            f'({", ".join(self.random_operators)}): no run with it can be repeated, and bag '
            'rebuild computes other actions than the robot executed; export it with an input '
            'named noise instead (docs/reference/onnx_contract.md)'
        ]

    def infer(self, window: Float32, noise: Float32 | None = None) -> Float32:
        """Return the action chunk, shape (horizon, m), in command units.

        Args:
            window: the newest observations, oldest first, shape (n_obs_steps, n).
            noise: standard normal noise, shape (horizon, m); needed if `stochastic`.

        Raises:
            BasePolicyError: the network failed or returned a non-finite action.
        """
        inputs = {'observation': window[None]}
        if self.stochastic:
            if noise is None:
                raise BasePolicyError(f'{self.path.name} is stochastic and needs noise')
            inputs['noise'] = noise[None]
        name = self.path.name
        chunk: Float32 = run_session(self._session, 'action', inputs, name, BasePolicyError)[0]
        if chunk.shape != self.noise_shape:
            raise BasePolicyError(
                f'{self.path.name} returned a chunk of shape {chunk.shape}, the metadata says '
                f'{self.noise_shape}'
            )
        if not np.isfinite(chunk).all():
            step, index = np.argwhere(~np.isfinite(chunk))[0]
            raise BasePolicyError(
                f'{self.path.name} returned {chunk[step, index]} for action '
                f'{self.metadata.action_names[index]!r} at chunk step {step}'
            )
        return chunk

    def _check_signature(self) -> None:
        """Compare the graph's inputs and outputs with the metadata."""
        meta = self.metadata
        expected = {'observation': (meta.n_obs_steps, len(meta.observation_names))}
        if self.stochastic:
            expected['noise'] = self.noise_shape
        inputs = {item.name: item for item in self._session.get_inputs()}
        if set(inputs) != set(expected):
            raise BasePolicyError(
                f'{self.path.name} has inputs {sorted(inputs)}, expected observation and, for a '
                'stochastic policy, noise'
            )
        outputs = {item.name: item for item in self._session.get_outputs()}
        if 'action' not in outputs:
            raise BasePolicyError(
                f'{self.path.name} has outputs {sorted(outputs)}, expected one named action'
            )
        signature = [(inputs[name], shape) for name, shape in expected.items()]
        for item, shape in [*signature, (outputs['action'], self.noise_shape)]:
            if item.type != 'tensor(float)':
                raise BasePolicyError(
                    f'{self.path.name}: {item.name} is {item.type}, expected tensor(float)'
                )
            found = tuple(item.shape)
            fits = len(found) == 3 and all(
                not isinstance(size, int) or size == want
                for size, want in zip(found, (1, *shape), strict=True)
            )
            if not fits:
                raise BasePolicyError(
                    f'{self.path.name}: {item.name} has shape {list(found)}, the metadata says '
                    f'{[1, *shape]}'
                )


def read_policy_model(path: Path, sha256: str = '') -> OnnxModel:
    """Read the files of a base policy, without loading it.

    Args:
        path: the `.onnx` file.
        sha256: what must identify it, in hexadecimal digits; empty accepts any.

    Raises:
        BasePolicyError: missing, unreadable or another model.
    """
    return read_model(path, 'base policy', BasePolicyError, sha256.lower(), METADATA_KEY)


def _metadata(model: OnnxModel) -> BasePolicyMetadata:
    text = model.metadata.get(METADATA_KEY)
    if text is not None:
        return BasePolicyMetadata.from_json(text)
    sidecar = model.path.with_suffix('.yaml')
    if model.sidecar is None:
        raise BasePolicyError(
            f'{model.path.name} has no {METADATA_KEY!r} metadata and there is no sidecar '
            f'{sidecar.name}; write one (docs/reference/onnx_contract.md)'
        )
    try:
        mapping = parse_yaml(model.sidecar.decode(), f'sidecar {str(sidecar)!r}')
    except (FormatError, UnicodeDecodeError) as error:
        raise BasePolicyError(f'{sidecar.name}: {error}') from error
    return BasePolicyMetadata.from_mapping(mapping)
