# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen ONNX base policy: session, metadata and checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.errors import BasePolicyError, FormatError
from residual_rl_ros.files.yaml_text import read_yaml
from residual_rl_ros.robot.onnx_session import open_session, run_session

Float32 = npt.NDArray[np.float32]


class OnnxBasePolicy:
    """Runs `observation [1, n_obs_steps, n] (+ noise [1, horizon, m]) -> action [1, horizon, m]`.

    Args:
        path: the `.onnx` file. Its metadata is in `metadata_props['residual_rl']`, or else in a
            sidecar YAML of the same name (`policy.onnx` -> `policy.yaml`).
        threads: ONNX Runtime threads; 1 suits networks of a few million weights.
        sha256: digest that the file must have, in hexadecimal digits; then weights and metadata
            must be in it and not beside it. Empty accepts any file.

    Raises:
        BasePolicyError: missing, unreadable or another file, no metadata, inputs or outputs off
            the contract.
    """

    def __init__(self, path: str | Path, threads: int = 1, sha256: str = '') -> None:
        self.path = Path(path)
        self._pinned = sha256.lower()
        self._session = open_session(
            self.path, 'base policy', BasePolicyError, threads, self._pinned
        )
        self.metadata = self._read_metadata()
        self.stochastic = any(item.name == 'noise' for item in self._session.get_inputs())
        self._check_signature()

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape (horizon, m) of the noise input of a stochastic policy."""
        return self.metadata.horizon, len(self.metadata.action_names)

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

    def _read_metadata(self) -> BasePolicyMetadata:
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is not None:
            return BasePolicyMetadata.from_json(text)
        if self._pinned:
            raise BasePolicyError(
                f'{self.path.name} is pinned and has no {METADATA_KEY!r} metadata: what stands '
                'beside the file is not pinned with it'
            )
        sidecar = self.path.with_suffix('.yaml')
        if not sidecar.is_file():
            raise BasePolicyError(
                f'{self.path.name} has no {METADATA_KEY!r} metadata and there is no sidecar '
                f'{sidecar.name}; write one (docs/reference/onnx_contract.md)'
            )
        try:
            mapping = read_yaml(sidecar)
        except FormatError as error:
            raise BasePolicyError(f'sidecar {str(sidecar)!r}: {error}') from error
        return BasePolicyMetadata.from_mapping(mapping)

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
