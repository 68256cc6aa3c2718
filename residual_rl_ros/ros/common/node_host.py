# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A node within a tool, in a context and an SROS 2 enclave of its own, and its ROS domain."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.robot.names import full_name

HostT = TypeVar('HostT', bound='NodeHost')
ListenerT = TypeVar('ListenerT', bound='Listener')

HIGHEST_DOMAIN = 232
"""Highest domain there is."""


def ros_domain() -> int:
    """Return the ROS domain of the environment (`ROS_DOMAIN_ID`), 0 if it names none.

    Raises:
        ResidualRLError: it is no number of a domain.
    """
    return domain_number('ROS_DOMAIN_ID', os.environ.get('ROS_DOMAIN_ID') or '0')


def domain_number(name: str, text: str) -> int:
    """Return the number of a ROS domain.

    Args:
        name: what holds the text, for the error.
        text: the number.

    Raises:
        ResidualRLError: the text is no number of a domain.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and int(text) <= HIGHEST_DOMAIN):
        raise ResidualRLError(f'{name} is {text!r}, expected a number from 0 to {HIGHEST_DOMAIN}')
    return int(text)


@contextmanager
def admitted(domain_id: int) -> Iterator[None]:
    """Say in one line that SROS 2 refuses a node, or what the node wants to do.

    Args:
        domain_id: its ROS domain.

    Raises:
        ConfigError: SROS 2 has refused; the error names the enclave or the topic.
    """
    try:
        yield
    except RCLError as error:
        if os.environ.get('ROS_SECURITY_ENABLE') != 'true':
            raise
        keystore = os.environ.get('ROS_SECURITY_KEYSTORE', '')
        said = re.sub(r'(\.?, at \S+:\d+)+$', '', ' '.join(str(error).split()))
        raise ConfigError(
            f'SROS 2 refuses it, with keystore {keystore!r} in ROS domain {domain_id}: {said}; the '
            'middleware may have named the topic before; see docs/how-to/security.md'
        ) from error


class NodeHost:
    """Hosts a node in a context of its own; it is in the domain while this is entered.

    Args:
        name: node name.
        domain_id: ROS domain; None takes `ROS_DOMAIN_ID`.
        namespace: ROS namespace.
    """

    def __init__(self, name: str, domain_id: int | None = None, namespace: str = '') -> None:
        self._name, self._namespace = name, namespace
        self._domain_id = ros_domain() if domain_id is None else domain_id

    def __enter__(self: HostT) -> HostT:
        """Join the domain.

        Raises:
            ResidualRLError: ROS 2 finds no folder for its logs.
        """
        if not ({'HOME', 'ROS_HOME', 'ROS_LOG_DIR'} & os.environ.keys()):
            raise ResidualRLError(
                'HOME is not set, and ROS 2 needs a folder for its logs: set HOME or ROS_LOG_DIR'
            )
        self.context = Context()
        enclave = full_name(self._name, self._namespace)
        arguments = ['--ros-args', '--enclave', enclave]
        with admitted(self._domain_id):
            rclpy.init(args=arguments, context=self.context, domain_id=self._domain_id)
            self.node = rclpy.create_node(
                self._name, context=self.context, namespace=self._namespace
            )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.listen()
        return self

    def listen(self) -> None:
        """Open topics and services; the node is there, and nothing was heard yet."""

    def rest(self) -> None:
        """Wait for whoever still uses the node; no callback begins any more."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the domain."""
        self.executor.shutdown(timeout_sec=1.0)
        self.rest()
        self.node.destroy_node()
        self.context.try_shutdown()


class Listener(NodeHost):
    """Hosts a node whose callbacks run in a thread of their own."""

    def __enter__(self: ListenerT) -> ListenerT:
        """Join the domain and begin to listen."""
        super().__enter__()
        self._thread = threading.Thread(target=self._spin, name=self._name, daemon=True)
        self._thread.start()
        return self

    def rest(self) -> None:
        """Wait for the thread."""
        self._thread.join(timeout=2.0)

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            return
