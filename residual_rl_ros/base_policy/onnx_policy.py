# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen ONNX base policy: session, metadata and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.inputs import Context, ImageInput
from residual_rl_ros.base_policy.metadata import (
    DENSITY_OUTPUTS,
    METADATA_KEY,
    BasePolicyMetadata,
)
from residual_rl_ros.base_policy.noise_batch import NoiseBatch, make_noise_batch
from residual_rl_ros.base_policy.robot_fit import columns_for
from residual_rl_ros.errors import BasePolicyError, FormatError
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.numerics import AnyArray, Float32, is_one_hot
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.image_encoder import FEATURES
from residual_rl_ros.robot.image_preprocessing import RgbImage
from residual_rl_ros.robot.inference import ON_CPU, InferenceConfig
from residual_rl_ros.robot.onnx_model import OnnxModel, read_model
from residual_rl_ros.robot.onnx_session import load_session, run_session
from residual_rl_ros.robot.prior import Prior

FLOAT = 'tensor(float)'
TENSORS = {'float32': FLOAT, 'int64': 'tensor(int64)'}
Signature = tuple[str, tuple[int, ...]]
"""ONNX type and shape without the batch."""


class OnnxBasePolicy:
    """Runs `observation [1, n_obs_steps, n] (+ noise [1, horizon, m]) -> action [1, horizon, m]`.

    A model whose metadata names a `prior` has the `DENSITY_OUTPUTS` of it too, and one whose
    metadata lists `inputs` has those.

    Args:
        path: the `.onnx` file. Its metadata is in `metadata_props['residual_rl']`, or else in a
            sidecar YAML of the same name (`policy.onnx` -> `policy.yaml`).
        sha256: what must identify it, in hexadecimal digits: the digest of its file or, if weights
            or metadata are beside it, one over all of them. Empty accepts any.
        inference: how to run it, and its constants, as the robot YAML says.

    Raises:
        BasePolicyError: missing, unreadable or another model, no metadata, inputs or outputs off
            the contract, a constant that is missing or wrong.
    """

    def __init__(
        self,
        path: str | Path,
        sha256: str = '',
        inference: InferenceConfig = ON_CPU,
    ) -> None:
        self.path = Path(path)
        model = read_policy_model(self.path, sha256)
        self.sha256 = model.sha256
        """What identifies the policy: all its files."""
        self.files, self.size = tuple(model.digests), model.size
        """Names of its files, and how many bytes they have together."""
        self.random_operators = model.random_operators
        """Operators that draw random numbers in the graph: nobody else can repeat what it does."""
        self._model, self._inference = model, inference
        self._session = load_session(model, BasePolicyError, inference, batch=1)
        self.providers = tuple(self._session.get_providers())
        """Execution providers that run it, the preferred one first."""
        self.metadata = self._own = metadata_of(model)
        self.columns: npt.NDArray[np.int64] | None = None
        """Which of a robot's observations it is given; None: all."""
        self.stochastic = any(item.name == 'noise' for item in self._session.get_inputs())
        self._outputs = ('action', *DENSITY_OUTPUTS[self.metadata.prior])
        self._memory_shapes = {each.output: each.shape for each in self.metadata.memories}
        self._chunk_shape: tuple[int, ...] = (
            self.metadata.horizon,
            len(self.metadata.action_names),
        )
        self._check_signature()
        self._batches: dict[int, NoiseBatch | None] = {}
        self.constants = self._read_constants(inference.numbers)
        """Constant inputs, shape (1, *shape) each."""

    @classmethod
    def find(cls, name: str, robot: RobotConfig | None = None, sha256: str = '') -> OnnxBasePolicy:
        """Return a shipped base policy, or that of an ONNX file, bound to a robot if one is given.

        Raises:
            BasePolicyError: it cannot be run, is another one, or does not fit the robot.
            ResourceError: there is none.
        """
        inference = ON_CPU if robot is None else robot.base_policy
        policy = cls(find_base_policy(name), sha256, inference=inference)
        if robot is not None:
            policy.bind(robot)
        return policy

    def bind(self, robot: RobotConfig) -> None:
        """Check that it fits a robot, and take its observations from now on.

        What the robot observes of a camera through an encoder is for residual and critics. A policy
        that sees the images themselves, and does not name these values, is not given them.

        Raises:
            BasePolicyError: names, limits, rate, cameras or sizes of images differ.
        """
        columns = columns_for(self._own, robot, self.path.name)
        self.metadata = replace(self._own, observation_names=robot.observation_names)
        self.columns = None if len(columns) == len(robot.observation_names) else columns

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise input of a stochastic policy, of most (horizon, m)."""
        return self.metadata.noise_shape or self._chunk_shape

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

    def infer(
        self, window: Float32, noise: Float32 | None = None, context: Context | None = None
    ) -> Float32:
        """Return the action chunk, shape (horizon, m), in command units.

        Args:
            window: the newest observations, oldest first, shape (n_obs_steps, n).
            noise: standard normal noise, shape `noise_shape`; needed if `stochastic`.
            context: what else it is given; None: black images, an empty memory.

        Raises:
            BasePolicyError: the network failed or returned a non-finite action.
        """
        chunk: Float32 = self._run(window, noise, ('action',), context or Context())[0][0]
        return chunk

    def plan(
        self, window: Float32, noises: Float32 | None = None, context: Context | None = None
    ) -> Float32:
        """Return a chunk with all that belongs to it; see `BasePolicy.plan`.

        Raises:
            BasePolicyError: the network failed, or returned a number that cannot be.
        """
        context = context or Context()
        if noises is None or len(noises) == 1:
            return self._plan_one(window, None if noises is None else noises[0], context)
        count = len(noises)
        if count not in self._batches:
            self._batches[count] = self._make_batch(count)
        batch = self._batches[count]
        if batch is None:
            others = [self._run(window, noise, ('action',), context)[0][0] for noise in noises[1:]]
        else:
            drawn = batch.run(self._inputs(window, context), noises, self.path.name)
            self._check_output('action', drawn, count)
            if batch.exact and self._outputs == ('action',) and not self.metadata.memories:
                return np.concatenate(list(drawn), axis=1)
            others = list(drawn[1:])
        # In a call of its own: a batch adds up in another order, and its last bits can differ.
        first = self._plan_one(window, noises[0], context)
        return np.concatenate([first, *others], axis=1)

    def _plan_one(self, window: Float32, noise: Float32 | None, context: Context) -> Float32:
        """Return a chunk of at most one noise; the memory goes on."""
        memories = self.metadata.memories
        wanted = (*self._outputs, *(each.output for each in memories))
        results = self._run(window, noise, wanted, context)
        parts = [output[0] for output in results[: len(self._outputs)]]
        for memory, value in zip(memories, results[len(self._outputs) :], strict=True):
            context.memory.values[memory.name] = value
        context.memory.inferences += bool(memories)
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _make_batch(self, count: int) -> NoiseBatch | None:
        """Return what runs so many noises at once, tried with random numbers; None if it fails."""
        meta, rng = self.metadata, np.random.default_rng(0)
        shape = meta.n_obs_steps, len(meta.observation_names)
        images = {
            image.name: rng.integers(
                256, size=(meta.n_obs_steps, image.height, image.width, 3), dtype=np.uint8
            )
            for image in meta.images
        }
        window = rng.standard_normal(shape, dtype=np.float32)
        noises = rng.standard_normal((count, *self.noise_shape), dtype=np.float32)
        span = np.array(meta.action_max) - np.array(meta.action_min)
        return make_noise_batch(
            self._model,
            self._inference,
            self._session,
            self._inputs(window, Context(images)),
            noises,
            (span / 2.0).astype(np.float32),
        )

    def _run(
        self, window: Float32, noise: Float32 | None, outputs: tuple[str, ...], context: Context
    ) -> list[Float32]:
        """Return outputs of the network, shape (1, ...) each."""
        name, inputs = self.path.name, self._inputs(window, context)
        if self.stochastic:
            if noise is None:
                raise BasePolicyError(f'{name} is stochastic and needs noise')
            inputs['noise'] = noise[None]
        results = run_session(self._session, list(outputs), inputs, name, BasePolicyError)
        for output, values in zip(outputs, results, strict=True):
            self._check_output(output, values, 1)
        return results

    def _inputs(self, window: Float32, context: Context) -> dict[str, AnyArray]:
        """Return all inputs but the noise, of batch 1."""
        if self.columns is not None:
            window = window[:, self.columns]
        inputs: dict[str, AnyArray] = {'observation': window[None], **self.constants}
        for image in self.metadata.images:
            inputs[image.name] = self._image(image, context)
        for memory in self.metadata.memories:
            inputs[memory.name] = context.memory.recall(memory)
        return inputs

    def _image(self, image: ImageInput, context: Context) -> RgbImage:
        """Return a window of images, shape (1, n_obs_steps, height, width, 3)."""
        shape = (self.metadata.n_obs_steps, image.height, image.width, 3)
        window = context.images.get(image.name)
        if window is None:
            return np.zeros((1, *shape), dtype=np.uint8)
        if window.dtype != np.uint8 or window.shape != shape:
            raise BasePolicyError(
                f'images {image.name!r} are {window.dtype} {list(window.shape)}, '
                f'{self.path.name} wants uint8 {list(shape)}; set the size of the camera, or '
                'resize in its channel of the robot YAML'
            )
        return window[None]

    def _read_constants(self, given: Mapping[str, Sequence[float]]) -> dict[str, AnyArray]:
        """Return the constant inputs, shape (1, *shape) each."""
        constants = {each.name: each for each in self.metadata.constants}
        if unknown := sorted(set(given) - set(constants)):
            raise BasePolicyError(
                f'robot.base_policy.constants names {unknown}, {self.path.name} has '
                f'{sorted(constants) or "none"}; correct the robot YAML'
            )
        values: dict[str, AnyArray] = {}
        for name, each in constants.items():
            numbers = given.get(name, each.default)
            if not len(numbers):
                raise BasePolicyError(
                    f'{self.path.name} wants a constant {name!r} of shape {list(each.shape)}; set '
                    f'robot.base_policy.constants.{name} in the robot YAML'
                )
            try:
                values[name] = each.array(numbers)
            except ValueError as error:
                raise BasePolicyError(f'robot.base_policy.constants.{name}: {error}') from error
        return values

    def _check_output(self, output: str, values: Float32, count: int) -> None:
        """Refuse an output of a wrong shape, or with a number that cannot be."""
        name, expected = self.path.name, self._chunk_shape
        if output in self._memory_shapes:
            if (
                values.shape != (count, *self._memory_shapes[output])
                or not np.isfinite(values).all()
            ):
                raise BasePolicyError(
                    f'{name} returned {output} of shape {values.shape}, expected finite numbers '
                    f'of shape {(count, *self._memory_shapes[output])}'
                )
            return
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
        meta, name = self.metadata, self.path.name
        expected: dict[str, Signature] = {
            'observation': (FLOAT, (meta.n_obs_steps, len(meta.observation_names)))
        }
        if self.stochastic:
            expected['noise'] = FLOAT, self.noise_shape
        for image in meta.images:
            window = meta.n_obs_steps, image.height, image.width, 3
            expected[image.name] = 'tensor(uint8)', window
        for constant in meta.constants:
            expected[constant.name] = TENSORS[constant.type], constant.shape
        for memory in meta.memories:
            expected[memory.name] = FLOAT, memory.shape
        inputs = {item.name: item for item in self._session.get_inputs()}
        if set(inputs) != set(expected):
            more = ''.join(f', {each.name}' for each in meta.inputs)
            raise BasePolicyError(
                f'{name} has inputs {sorted(inputs)}, expected observation{more} and, for a '
                'stochastic policy, noise; its metadata lists further ones under inputs'
            )
        outputs = {item.name: item for item in self._session.get_outputs()}
        if 'action' not in outputs:
            raise BasePolicyError(
                f'{name} has outputs {sorted(outputs)}, expected one named action'
            )
        missing = [each for each in self._outputs if each not in outputs]
        if missing:
            raise BasePolicyError(
                f'{name} has outputs {sorted(outputs)} and lacks {", ".join(missing)}, '
                f'which the metadata promises by prior {meta.prior}; export them, or remove prior'
            )
        promised = dict.fromkeys(self._outputs, (FLOAT, self._chunk_shape))
        promised |= {output: (FLOAT, shape) for output, shape in self._memory_shapes.items()}
        for image in meta.images:
            if image.features:
                promised[image.name + FEATURES] = FLOAT, (len(image.features),)
        if missing := [each for each in promised if each not in outputs]:
            raise BasePolicyError(
                f'{name} has outputs {sorted(outputs)} and lacks {", ".join(missing)}, which the '
                'metadata promises under inputs'
            )
        described = [(inputs[each], what) for each, what in expected.items()]
        described += [(outputs[each], what) for each, what in promised.items()]
        for item, (kind, shape) in described:
            self._check_tensor(item, kind, shape)

    def _check_tensor(self, item: Any, kind: str, shape: tuple[int, ...]) -> None:
        """Refuse an input or output of another type or shape than the metadata says."""
        if item.type != kind:
            raise BasePolicyError(f'{self.path.name}: {item.name} is {item.type}, expected {kind}')
        found = tuple(item.shape)
        fits = len(found) == len(shape) + 1 and all(
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


def metadata_of(model: OnnxModel) -> BasePolicyMetadata:
    """Return what the files of a base policy say of it; a `BasePolicyError` if they do not."""
    if (text := model.metadata.get(METADATA_KEY)) is not None:
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
