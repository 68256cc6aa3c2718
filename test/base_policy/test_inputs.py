# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images, constants and memory must reach the graph as the metadata says, or be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_policy import INPUTS, metadata_of, write_policy
from robot_builders import make_metadata

from residual_rl_ros.base_policy.chunk_queue import ChunkQueue
from residual_rl_ros.base_policy.inputs import (
    ConstantInput,
    Context,
    ImageInput,
    MemoryInput,
    read_inputs,
    write_inputs,
)
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.inference import InferenceConfig

WINDOW = np.zeros((2, 3), dtype=np.float32)


def grey(value: int) -> np.ndarray:
    """Return an image of one colour."""
    return np.full((2, 3, 3), value, dtype=np.uint8)


def test_metadata_with_inputs_survives_json_and_without_them_is_as_ever() -> None:
    metadata = metadata_of(noise_shape=(4,), noise_default='zero', source='test', parity=1e-6)
    assert BasePolicyMetadata.from_json(metadata.to_json()) == metadata
    assert read_inputs(json.loads(json.dumps(write_inputs(INPUTS)))) == INPUTS
    plain = json.loads(make_metadata().to_json())
    assert not {'inputs', 'noise_shape', 'noise_default', 'source', 'parity'} & set(plain)


@pytest.mark.parametrize(
    ('name', 'values', 'message'),
    [
        ('a', {'kind': 'sound'}, r"inputs.a.kind is 'sound', expected one of image, constant"),
        ('a', {}, r'inputs.a.kind is None'),
        ('noise', {'kind': 'image'}, r'inputs.noise describes an input that every policy may have'),
        ('a', {'kind': 'image', 'height': 2}, r'inputs.a: missing 1 required .* \'width\''),
        ('a', {'kind': 'image', 'height': 0, 'width': 2}, r'height is 0, expected 1 to 4096'),
        ('a', {'kind': 'image', 'height': 2.5, 'width': 2}, r'inputs.a: .*2.5'),
        ('a', {'kind': 'constant', 'shape': 3}, r'inputs.a: shape is 3, expected a list'),
        ('a', {'kind': 'constant', 'shape': [10**5, 10**5]}, r'at most 10000000 numbers'),
        ('a', {'kind': 'constant', 'shape': [2], 'default': [1.0]}, r'1 values, expected 2'),
        ('a', {'kind': 'constant', 'shape': [1], 'type': 'int8'}, r'expected float32 or int64'),
        (
            'a',
            {'kind': 'constant', 'shape': [1], 'type': 'int64', 'default': [0.5]},
            r'it has 0.5, which is no int64',
        ),
        ('a', {'kind': 'memory', 'shape': [1]}, r"inputs.a: missing 1 required .* 'output'"),
        (
            'a',
            {'kind': 'memory', 'shape': [1], 'output': 'b', 'reset_steps': -1},
            r'reset_steps is -1, expected >= 0',
        ),
        ('a', {'kind': 'memory', 'shape': [1], 'output': 'b', 'depth': 1}, r"'depth'"),
    ],
)
def test_a_wrong_input_is_refused_by_name(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(BasePolicyError, match=message):
        read_inputs({name: values})


def test_images_constants_and_noise_reach_the_graph(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(
        write_policy(tmp_path / 'a.onnx'),
        inference=InferenceConfig(constants={'goal': [1.0, 2.0], 'tokens': [10, 20]}),
    )
    noises = np.stack([np.full((2, 2), value, dtype=np.float32) for value in (0.0, 0.25, 0.5)])
    context = Context({'camera': np.stack([grey(9), grey(100)])})
    rows = policy.plan(WINDOW, noises, context)
    assert rows.tolist() == [[111.0, 122.0, 111.25, 122.25, 111.5, 122.5]] * 2


def test_memory_goes_from_one_inference_to_the_next_and_is_zero_after_a_pause(
    tmp_path: Path,
) -> None:
    memory = MemoryInput('count', 'next_count', (1,), reset_steps=3)
    metadata = metadata_of(inputs=(*INPUTS[:3], memory))
    queue = ChunkQueue(OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', metadata)), 2)
    queue.warm_up()
    rng = np.random.default_rng(0)

    def counts(inferences: int) -> list[float]:
        told = []
        for _ in range(inferences):
            queue.push_observation(np.zeros(3), {'camera': grey(0)})
            told.append(round(float(queue.take().actions.mean())))
        return told

    class Silent:
        """Draws zeros."""

        def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.zeros(shape, dtype)

    queue.reset(Silent())  # type: ignore[arg-type]
    assert counts(5) == [0, 1, 2, 0, 1]
    queue.forget()
    assert counts(2) == [0, 1]
    queue.reset(rng)
    queue.close()


def test_a_window_holds_the_images_of_its_control_steps(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    class Watching(OnnxBasePolicy):
        def plan(self, window: Any, noises: Any = None, context: Any = None) -> Any:
            seen.append(context.images['camera'][:, 0, 0, 0].copy())
            return super().plan(window, noises, context)

    queue = ChunkQueue(Watching(write_policy(tmp_path / 'a.onnx')), 2)
    queue.reset(np.random.default_rng(0))
    for value in (1, 2, 3):
        queue.push_observation(np.zeros(3), {'camera': grey(value)})
        if value != 2:
            queue.take()
    queue.close()
    assert [images.tolist() for images in seen] == [[1, 1], [2, 3]]


def test_a_zero_default_is_the_policy_without_noise_and_its_proposals_are_drawn(
    tmp_path: Path,
) -> None:
    path = write_policy(tmp_path / 'a.onnx', metadata_of(noise_default='zero'))
    queue = ChunkQueue(OnnxBasePolicy(path), 2, proposals=3)
    queue.reset(np.random.default_rng(0), np.random.default_rng(1))
    queue.push_observation(np.zeros(3), {'camera': grey(0)})
    decision = queue.take()
    queue.close()
    assert not decision.actions.any()
    assert np.abs(decision.distribution.proposals).min() > 0.0


@pytest.mark.parametrize(
    ('constants', 'message'),
    [
        (
            {'gaol': [1.0]},
            r"robot.base_policy.constants names \['gaol'\], a.onnx has \['goal', 'tokens'\]",
        ),
        ({'goal': [1.0]}, r'robot.base_policy.constants.goal: it has 1 values, expected 2'),
        ({'goal': [1.0, np.nan]}, r'robot.base_policy.constants.goal: it has nan'),
    ],
)
def test_a_wrong_constant_is_refused(tmp_path: Path, constants: Any, message: str) -> None:
    with pytest.raises(BasePolicyError, match=message):
        OnnxBasePolicy(
            write_policy(tmp_path / 'a.onnx'), inference=InferenceConfig(constants=constants)
        )


def test_a_constant_without_default_must_be_said(tmp_path: Path) -> None:
    inputs = (INPUTS[0], ConstantInput('goal', (2,)), *INPUTS[2:])
    with pytest.raises(BasePolicyError, match=r"wants a constant 'goal' of shape \[2\]; set"):
        OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', metadata_of(inputs=inputs)))


def test_what_the_graph_does_not_have_is_refused(tmp_path: Path) -> None:
    missing = metadata_of(inputs=INPUTS[1:])
    with pytest.raises(
        BasePolicyError, match=r"inputs \['camera', 'count', .*expected observation"
    ):
        OnnxBasePolicy(write_policy(tmp_path / 'a.onnx', missing))
    small = metadata_of(inputs=(ImageInput('camera', 2, 2), *INPUTS[1:]))
    with pytest.raises(BasePolicyError, match=r'camera has shape .* the metadata says'):
        OnnxBasePolicy(write_policy(tmp_path / 'b.onnx', small))
    other = metadata_of(inputs=(*INPUTS[:3], MemoryInput('count', 'later', (1,))))
    with pytest.raises(BasePolicyError, match=r'lacks later, which the metadata promises'):
        OnnxBasePolicy(write_policy(tmp_path / 'c.onnx', other))


def test_a_image_of_another_size_or_none_is_refused(tmp_path: Path) -> None:
    policy = OnnxBasePolicy(write_policy(tmp_path / 'a.onnx'))
    noises = np.zeros((1, 2, 2), dtype=np.float32)
    wrong = Context({'camera': np.zeros((2, 4, 4, 3), dtype=np.uint8)})
    with pytest.raises(BasePolicyError, match=r"images 'camera' are uint8 \[2, 4, 4, 3\]"):
        policy.plan(WINDOW, noises, wrong)
    queue = ChunkQueue(policy, 2)
    with pytest.raises(BasePolicyError, match=r"wants images 'camera', and there are none"):
        queue.push_observation(np.zeros(3))
    queue.close()
