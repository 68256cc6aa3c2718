# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Actors for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from residual_rl_ros.config.run import load_run
from residual_rl_ros.residual_policy.architecture import ActorArchitecture
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.torch_networks import ResidualActor
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.transitions.layout import TransitionLayout


def make_actor(
    layout: TransitionLayout, seed: int = 0, gain: float = 0.0, **changes: Any
) -> ResidualActor:
    """Return an actor; a gain above 0 replaces its near-zero heads by large random ones."""
    architecture = ActorArchitecture(layout, (8,), False, layout.decision_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actor = ResidualActor(replace(architecture, **changes))
        if gain > 0.0:
            torch.nn.init.normal_(actor.heads.weight, std=gain)
            torch.nn.init.normal_(actor.heads.bias, std=gain)
    return actor


def mislabelled(actor: GaussianActor) -> GaussianActor:
    """Return an actor whose tensors do not fit the architecture that it claims."""
    return GaussianActor(replace(actor.architecture, hidden_sizes=(9,)), actor.tensors)


def assert_same_actor(actor: RobotPolicy, expected: RobotPolicy) -> None:
    """Check that two robot policies are the same, bit for bit."""
    assert type(actor) is type(expected)
    assert actor.architecture == expected.architecture
    assert actor.tensors.keys() == expected.tensors.keys()
    for name, value in expected.tensors.items():
        assert actor.tensors[name].tobytes() == value.tobytes(), name


def write_peg_actor(path: Path) -> bytes:
    """Write an actor for the shipped run of the peg task; return its message."""
    run = load_run('peg_insert')
    resolved = run.resolve()
    controller = run.controller_config(0, False, False).build(
        resolved.policy, resolved.robot.action
    )
    controller.queue.close()
    header = WeightsHeader(4, 7, Exploration())
    message = encode_weights(make_actor(controller.layout, seed=1).to_numpy(), header)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(message)
    return message
