# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which processes a run consists of: the one description for launch files and the bring-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from residual_rl_ros.finetune import FinetuneConfig, training_seed


@dataclass(frozen=True)
class NodeSpec:
    """One process with one node."""

    executable: str
    """Entry point of the package; also the node's name."""
    lifecycle: bool
    """Whether it is a lifecycle node (it configures and activates itself)."""
    parameter_files: tuple[Path, ...]
    """YAML files of ROS parameters."""
    parameters: Mapping[str, Any]
    """Parameters beyond the files; nested maps become dotted names."""

    def flat_parameters(self) -> list[tuple[str, Any]]:
        """Return the parameters with dotted names."""
        return _flatten(self.parameters)

    def ros_arguments(self) -> list[str]:
        """Return the command line that follows the executable."""
        arguments = ['--ros-args']
        for path in self.parameter_files:
            arguments += ['--params-file', str(path)]
        for name, value in self.flat_parameters():
            # YAML in flow style is what rcl parses; a one-line document has no end marker.
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split('\n')[0]
            arguments += ['-p', f'{name}:={text}']
        return arguments


def finetune_topology(
    config: FinetuneConfig,
    robot_file: Path,
    base_policy: Path,
    output_dir: Path,
    seed: int,
    control_steps: int,
    lockstep: bool = True,
) -> tuple[NodeSpec, ...]:
    """Return the three processes of simulated fine-tuning: learner, policy, simulator.

    Args:
        config: the run.
        robot_file: robot YAML, loaded by policy and simulator.
        base_policy: ONNX file.
        output_dir: where the learner keeps checkpoint and events.
        seed: seeds environment, policy noise and learner.
        control_steps: the simulator ends the run after as many; 0 is endless.
        lockstep: step with commands instead of with wall time.
    """
    policy = NodeSpec(
        'policy_node',
        True,
        (robot_file,),
        {
            'base_policy': str(base_policy),
            'decision_steps': config.decision_steps,
            'residual_scale': list(config.residual_scale),
            'prefetch_steps': config.prefetch_steps,
            'seed': seed,
            'lockstep': lockstep,
        },
    )
    learner = NodeSpec(
        'learner_node',
        True,
        (),
        {
            'preset': config.preset,
            'seed': seed,
            'output_dir': str(output_dir),
            'overrides': config.overrides,
        },
    )
    simulator = NodeSpec(
        'mujoco_sim_node',
        False,
        (robot_file,),
        {
            'task': config.task,
            'lockstep': lockstep,
            'first_seed': training_seed(seed),
            'control_steps': control_steps,
        },
    )
    return learner, policy, simulator


def _flatten(parameters: Mapping[str, Any], prefix: str = '') -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f'{prefix}{name}.')
        else:
            flat.append((prefix + name, value))
    return flat
