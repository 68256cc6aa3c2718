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
from residual_rl_ros.numerics import is_one_hot
from residual_rl_ros.robot.action_spec import Prior
from residual_rl_ros.robot.onnx_model import OnnxModel, read_model
from residual_rl_ros.robot.onnx_session import load_session, run_session

Float32 = npt.NDArray[np.float32]
DENSITY_OUTPUTS: dict[Prior, tuple[str, ...]] = {
    Prior.NONE: (),
    Prior.GAUSSIAN: ('mean', 'log_std'),
    Prior.SQUASHED_GAUSSIAN: ('mean', 'log_std'),
    Prior.CATEGORICAL: ('logits',),
}
"""Names of the outputs that tell a density, shape (1, horizon, m) each."""


class OnnxBasePolicy:
    """Runs `observation [1, n_obs_steps, n] (+ noise [1, horizon, m]) -> action [1, horizon, m]`.

    A model whose metadata names a `prior` has the `DENSITY_OUTPUTS` of it too.

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
        self._outputs = ('action', *DENSITY_OUTPUTS[self.metadata.prior])
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
        noises = None if noise is None else noise[None]
        chunks = self._run(window, noises, ('action',))[0]
        chunk: Float32 = chunks[0]
        return chunk

    def plan(self, window: Float32, noises: Float32 | None = None) -> Float32:
        """Return a chunk with all that belongs to it; see `BasePolicy.plan`.

        Raises:
            BasePolicyError: the network failed, or returned a number that cannot be.
        """
        # In a call of its own: a batch adds up in another order, and its last bits differ.
        first = None if noises is None else noises[:1]
        parts = [output[0] for output in self._run(window, first, self._outputs)]
        if noises is not None and len(noises) > 1:
            each = len(noises) - 1 if self._any_batch else 1
            for start in range(1, len(noises), each):
                parts += list(self._run(window, noises[start : start + each], ('action',))[0])
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _run(
        self, window: Float32, noises: Float32 | None, outputs: tuple[str, ...]
    ) -> list[Float32]:
        """Return outputs of the network, shape (number of noises or 1, horizon, m) each."""
        inputs = {'observation': window[None]}
        if self.stochastic:
            if noises is None:
                raise BasePolicyError(f'{self.path.name} is stochastic and needs noise')
            inputs['noise'] = noises
            if len(noises) > 1:
                inputs['observation'] = np.repeat(inputs['observation'], len(noises), axis=0)
        count = len(inputs['noise']) if self.stochastic else 1
        name = self.path.name
        results = run_session(self._session, list(outputs), inputs, name, BasePolicyError)
        for output, values in zip(outputs, results, strict=True):
            self._check_output(output, values, count)
        return results

    def _check_output(self, output: str, values: Float32, count: int) -> None:
        """Refuse an output of a wrong shape, or with a number that cannot be."""
        name, expected = self.path.name, self.noise_shape
        if values.shape != (count, *expected):
            what = 'a chunk' if output == 'action' else output
            found = values.shape[1:] if values.shape[:1] == (count,) else values.shape
            wanted = expected if values.shape[:1] == (count,) else (count, *expected)
            raise BasePolicyError(
                f'{name} returned {what} of shape {found}, the metadata says {wanted}'
            )
        if not np.isfinite(values).all():
            _, step, index = np.argwhere(~np.isfinite(values))[0]
            of = '' if output == 'action' else f'{output} of '
            raise BasePolicyError(
                f'{name} returned {values[~np.isfinite(values)][0]} for {of}action '
                f'{self.metadata.action_names[index]!r} at chunk step {step}'
            )
        discrete = self.metadata.prior is Prior.CATEGORICAL
        if discrete and output == 'action' and not is_one_hot(values):
            raise BasePolicyError(
                f'{name} returned actions that are not one-hot, as those of a categorical prior '
                f'must be (1 for the chosen action, 0 for the others): {values[0, 0].tolist()}'
            )

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
        missing = [name for name in self._outputs if name not in outputs]
        if missing:
            raise BasePolicyError(
                f'{self.path.name} has outputs {sorted(outputs)} and lacks {", ".join(missing)}, '
                f'which the metadata promises by prior {meta.prior}; export them, or remove prior'
            )
        signature = [(inputs[name], shape) for name, shape in expected.items()]
        signature += [(outputs[name], self.noise_shape) for name in self._outputs]
        for item, shape in signature:
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
        self._any_batch = not any(isinstance(item.shape[0], int) for item, _ in signature)


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
