# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One process with one node: what it is, and the command line that starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from residual_rl_ros.robot.names import full_name
from residual_rl_ros.schema import dotted

ENVIRONMENT = {'OMP_NUM_THREADS': '1'}
"""Environment of every process: with small networks in several processes, more threads than cores
only wait for each other."""


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
    namespace: str = ''
    """ROS namespace, to keep several robots apart."""
    remappings: Mapping[str, str] = field(default_factory=dict)
    """Remapped topic names."""
    log_level: str = ''
    """Of its messages: `debug`, `info`, `warn`, `error` or `fatal`; empty is ROS's own, `info`."""

    @property
    def full_namespace(self) -> str:
        """Namespace from the root on; it is always given: a simulator's own choice is another."""
        return f'/{self.namespace.strip("/")}'

    @property
    def name(self) -> str:
        """Name of the node with its namespace, as `/diagnostics` has it, without the first `/`."""
        return full_name(self.executable, self.namespace).lstrip('/')

    @property
    def enclave(self) -> str:
        """SROS 2 enclave, as in the policies that `residual-rl security-policy` writes."""
        return f'/{self.name}'

    def flat_parameters(self) -> list[tuple[str, Any]]:
        """Return the parameters with dotted names."""
        return [(name, value) for name, value in dotted(self.parameters) if value != {}]

    def level_arguments(self) -> list[str]:
        """Return the part of the command line that sets the log level."""
        return ['--log-level', self.log_level] if self.log_level else []

    def ros_arguments(self) -> list[str]:
        """Return the command line that follows the executable."""
        arguments = ['--ros-args', '--enclave', self.enclave, *self.level_arguments()]
        for path in self.parameter_files:
            arguments += ['--params-file', str(path)]
        for name, value in self.flat_parameters():
            # YAML in flow style is what rcl parses; a one-line document has no end marker.
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split('\n')[0]
            arguments += ['-p', f'{name}:={text}']
        arguments += ['-r', f'__ns:={self.full_namespace}']
        for name, other in self.remappings.items():
            arguments += ['-r', f'{name}:={other}']
        return arguments


def dependants(policy: NodeSpec, nodes: Sequence[NodeSpec]) -> list[NodeSpec]:
    """Return the nodes that have nothing to do when a policy has ended."""
    return [
        node
        for node in nodes
        if node.full_namespace == policy.full_namespace
        and node.executable in ('reward_node', 'takeover_node', 'recorder_node')
    ]
