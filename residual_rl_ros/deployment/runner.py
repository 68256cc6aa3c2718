# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A fused policy for one robot, run as the runner of the how-to runs it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from residual_rl_ros.base_policy.inputs import NO_PICTURES, Picture, Pictures
from residual_rl_ros.deployment.metadata import FusedMetadata
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.onnx_session import run_session

Array = npt.NDArray[np.float64]


class FusedRunner:
    """Runs a fused policy for one robot as a runner without this package does.

    In a larger batch that is fixed all rows are this robot's.

    Args:
        content: the ONNX model.
        metadata: its metadata.
    """

    def __init__(self, content: bytes, metadata: FusedMetadata) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        self._meta = metadata
        self._shapes = {item.name: (1, *item.shape[1:]) for item in self._session.get_inputs()}
        self._outputs = ['command', *(f'next_{name}' for name in metadata.state)]
        self._state: dict[str, npt.NDArray[Any]] = {}
        self._window: deque[Array] = deque(maxlen=metadata.n_obs_steps)
        self.pictures = [name for name in metadata.given if name not in ('observation', 'noise')]
        """Names of the cameras."""
        self._pictures: dict[str, deque[Picture]] = {
            name: deque(maxlen=metadata.n_obs_steps) for name in self.pictures
        }
        self.previous: Array = np.full(len(metadata.action_names), np.nan)
        """Last command, or where the robot is."""
        self.blend_ratio = 1.0

    def picture_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (height, width, 3) of what a camera sees."""
        return self._shapes[name][2:]

    def begin_episode(
        self, observation: Array, rng: np.random.Generator, pictures: Pictures = NO_PICTURES
    ) -> None:
        """Start an episode; see `ResidualController.begin_episode`."""
        self._rng = rng
        self._state = {
            name: np.zeros(self._shapes[name], np.int64 if name == 'taken' else np.float32)
            for name in self._meta.state
        }
        self._state['taken'] += self._meta.exec_steps
        for _ in range(self._meta.n_obs_steps):
            self.observe(observation, pictures)
        if self._meta.measured_by:
            names = self._meta.observation_names
            self.previous = observation[[names.index(each) for each in self._meta.measured_by]]

    def observe(self, observation: Array, pictures: Pictures = NO_PICTURES) -> None:
        """Take in what was seen in a control step: shape (n,), and a picture of each camera."""
        self._window.append(observation)
        for name, window in self._pictures.items():
            window.append(pictures[name])

    def decide(self) -> Array:
        """Return the commands of the next decision, shape (k, m)."""
        kind, meta = self._meta.precision, self._meta
        inputs = {
            'observation': np.array([self._window], dtype=np.float32),
            'previous_command': self.previous[None].astype(kind),
            'blend_ratio': np.full(1, self.blend_ratio, kind),
            **{name: np.array([window]) for name, window in self._pictures.items()},
            **self._state,
        }
        if 'noise' in meta.given:
            shape = self._shapes['noise']
            fresh = self._state['taken'][0] > meta.exec_steps - meta.decision_steps
            noise = np.zeros(shape, np.float32)
            if fresh and meta.noise_default == 'normal':
                noise = self._rng.standard_normal(shape, dtype=np.float32)
            inputs['noise'] = noise
        batch = {name: np.repeat(each, meta.batch or 1, axis=0) for name, each in inputs.items()}
        commands, *state = run_session(
            self._session, self._outputs, batch, 'the fused graph', BasePolicyError
        )
        self._state = {name: each[:1] for name, each in zip(meta.state, state, strict=True)}
        self.previous = commands[0, -1].astype(np.float64)
        return np.asarray(commands[0], dtype=np.float64)
