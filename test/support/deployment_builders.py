# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small base policies and actors that are put into one graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from actor_builders import make_actor
from learner_builders import small_config
from onnx import TensorProto, helper, numpy_helper
from robot_builders import make_action_spec, make_metadata
from safetensors.numpy import save_file
from transition_builders import make_layout

from residual_rl_ros.base_policy.inputs import ConstantInput, ImageInput, MemoryInput
from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.deployment.base_graph import BaseGraph
from residual_rl_ros.deployment.fused_policy import (
    FusedMetadata,
    FusedParts,
    describe,
    fuse,
    serialize,
)
from residual_rl_ros.learner.checkpoint import RUN
from residual_rl_ros.learner.folder import IDENTITY, write_manifest
from residual_rl_ros.residual_policy.actor_file import ACTOR, CHECKPOINTS
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.description import RobotConfig

MEASURED = {'measured_by': ('arm.position.a', 'arm.position.b'), 'max_step': np.array([0.3, 0.2])}
"""Limits of a robot that measures its positions and is slower than its base policy."""


def write_open_policy(
    path: Path,
    metadata: BasePolicyMetadata | None = None,
    *,
    batch: int | str = 'batch',
    stochastic: bool = True,
    opset: int = 17,
) -> Path:
    """Write action = tanh(observation @ weights) (+ noise) for batches of any size, or of one."""
    meta = metadata or make_metadata()
    horizon, m = meta.horizon, len(meta.action_names)
    rows = meta.n_obs_steps * len(meta.observation_names)
    weights = np.random.default_rng(1).standard_normal((rows, horizon * m)).astype(np.float32)
    constants = {
        'weights': weights,
        'flat': np.array([-1, rows], dtype=np.int64),
        'rows': np.array([-1, horizon, m], dtype=np.int64),
    }
    nodes = [
        helper.make_node('Reshape', ['observation', 'flat'], ['row']),
        helper.make_node('MatMul', ['row', 'weights'], ['product']),
        helper.make_node('Tanh', ['product'], ['bounded']),
        helper.make_node('Reshape', ['bounded', 'rows'], ['mean' if stochastic else 'action']),
    ]
    shape = (batch, meta.n_obs_steps, len(meta.observation_names))
    inputs = [helper.make_tensor_value_info('observation', TensorProto.FLOAT, shape)]
    if stochastic:
        nodes.append(helper.make_node('Add', ['mean', 'noise'], ['action']))
        noise = helper.make_tensor_value_info('noise', TensorProto.FLOAT, (batch, horizon, m))
        inputs.append(noise)
    output = helper.make_tensor_value_info('action', TensorProto.FLOAT, (batch, horizon, m))
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'open', inputs, [output], tensors)
    opsets = [helper.make_opsetid('', opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: meta.to_json()})
    onnx.save(model, str(path))
    return path


CAMERA = ImageInput('wrist', 4, 5)
GOAL = ConstantInput('goal', (2,), default=(0.5, -1.5))
MEMORY = MemoryInput('state_in', 'state_out', (1,))


def write_seeing_policy(path: Path, batch: int | str = 'batch', **changes: Any) -> Path:
    """Write a policy with a camera, a goal and a memory, each of which changes its actions."""
    inputs: tuple[Any, ...] = (CAMERA, GOAL, replace(MEMORY, **changes))
    meta = make_metadata(n_obs_steps=2, inputs=inputs)
    chunk, size = (meta.horizon, len(meta.action_names)), 2 * CAMERA.height * CAMERA.width * 3
    rng = np.random.default_rng(2)
    constants = {
        **{f'flat_{n}': np.array([-1, n], dtype=np.int64) for n in (6, size)},
        'rows': np.array([-1, *chunk], dtype=np.int64),
        'from_image': (rng.standard_normal((size, 1)) / (255.0 * size**0.5)).astype(np.float32),
        'from_goal': np.ones((2, 1), np.float32),
        'from_all': rng.standard_normal((7, chunk[0] * chunk[1])).astype(np.float32),
        'half': np.array(0.5, np.float32),
    }
    make = helper.make_node
    nodes = [
        make('Cast', ['wrist'], ['pixels'], to=TensorProto.FLOAT),
        make('Reshape', ['pixels', f'flat_{size}'], ['image']),
        make('MatMul', ['image', 'from_image'], ['seen']),
        make('MatMul', ['goal', 'from_goal'], ['wanted']),
        make('Sum', ['seen', 'wanted', 'state_in'], ['known']),
        make('Mul', ['known', 'half'], ['state_out']),
        make('Reshape', ['observation', 'flat_6'], ['row']),
        make('Concat', ['row', 'known'], ['all'], axis=1),
        make('MatMul', ['all', 'from_all'], ['product']),
        make('Tanh', ['product'], ['bounded']),
        make('Reshape', ['bounded', 'rows'], ['action']),
    ]
    info, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    shape = (batch, 2, CAMERA.height, CAMERA.width, 3)
    graph = helper.make_graph(
        nodes,
        'seeing',
        [
            info('observation', floats, (batch, 2, 3)),
            info('wrist', TensorProto.UINT8, shape),
            info('goal', floats, (batch, 2)),
            info('state_in', floats, (batch, 1)),
        ],
        [info('action', floats, (batch, *chunk)), info('state_out', floats, (batch, 1))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: meta.to_json()})
    onnx.save(model, str(path))
    return path


def gaussian(seed: int = 0, **changes: Any) -> GaussianActor:
    """Return an actor with opinions, for `make_layout()`."""
    return make_actor(make_layout(), seed, gain=0.7, **changes).to_numpy()


def best_of_n(**changes: Any) -> RobotPolicy:
    """Return an actor with critics that choose, all with opinions, for `make_layout()`."""
    config = small_config(residual_candidates=4, **changes)
    rng = np.random.default_rng(0)
    rule = config.make_rule(make_layout(), torch.Generator().manual_seed(0), rng)
    observations = torch.from_numpy(rng.normal(1.0, 2.0, (50, 3)).astype(np.float32))
    with torch.no_grad():
        for network in (rule.actor, rule.mean_actor):  # type: ignore[attr-defined]
            network.normalizer.fit(observations)
        for network in (rule.critic, rule.mean_actor):  # type: ignore[attr-defined]
            for value in network.parameters():
                value += 0.3 * torch.from_numpy(rng.standard_normal(value.shape))
    policy: RobotPolicy = rule.robot_policy()
    return policy


class Fused:
    """A small base policy and an actor in one graph, and the controller that does the same."""

    def __init__(
        self,
        path: Path,
        policy: RobotPolicy,
        action: ActionSpec | None = None,
        exploration: Exploration | None = None,
        batch: int | None = None,
        precision: str = 'float64',
        robot: RobotConfig | None = None,
    ) -> None:
        self.base, self.policy = OnnxBasePolicy(path), policy
        if robot is not None:
            self.base.bind(robot)
        self.parts = FusedParts(
            BaseGraph.of(self.base),
            policy,
            exploration or Exploration(),
            action or make_action_spec(**MEASURED),
            batch,
            precision,
        )
        self.metadata: FusedMetadata = describe(self.parts, 20.0, self.base.sha256, '')
        self.model = fuse(self.parts)
        self.content = serialize(self.model, self.metadata)

    def controller(self) -> ResidualController:
        """Return the controller, with the actor in its mailbox."""
        layout = self.policy.architecture.layout
        config = ControllerConfig(layout.decision_steps, (0.1,), scheduled_actor=False)
        controller = config.build(self.base, self.parts.action)
        header = WeightsHeader(1, 1, self.parts.exploration)
        controller.mailbox.submit(encode_weights(self.policy, header))
        return controller


def write_task_actor(path: Path, task: str, bound_scale: float = 1.0) -> bytes:
    """Write an actor with opinions for the shipped run of a task; return its message."""
    run = load_run(task).resolve()
    controller = run.controller(0, explore=False, scheduled=False)
    controller.queue.close()
    actor = make_actor(controller.layout, gain=0.7, sees_base_action=True).to_numpy()
    message = encode_weights(actor, WeightsHeader(1, 1, Exploration(bound_scale=bound_scale)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(message)
    return message


def write_run(folder: Path, task: str, named: str = '', **changes: Any) -> Path:
    """Write of a run what an export reads: its actor, and which run it is (of task `named`)."""
    checkpoint = folder / CHECKPOINTS / 'latest'
    write_task_actor(checkpoint / ACTOR, task)
    run = load_run(task).resolve()
    identity = {'task': named or task, 'base_policy_sha256': run.policy.sha256, **changes}
    text = np.frombuffer(json.dumps(identity).encode(), dtype=np.uint8)
    save_file({IDENTITY: text}, checkpoint / RUN)
    write_manifest(checkpoint)
    return folder
