# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Serves the page: `residual-rl dashboard`."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec

from rich.console import Console

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.common.node_host import ros_domain
from residual_rl_ros.ros.dashboard.gate import Gate, check_access
from residual_rl_ros.ros.dashboard.robots import Robot, connect

CLOSE_LIMIT_S = 1
"""How long open pages keep a server that was told to stop [s]."""


@dataclass(frozen=True)
class DashboardOptions:
    """Options of `residual-rl dashboard`."""

    namespaces: tuple[str, ...] = ('',)
    fleet: bool = False
    robot: str | None = None
    """Robot YAML, or the name of a shipped one; says which cameras there are."""
    host: str = '127.0.0.1'
    port: int = 8080
    token: str = ''


def run_dashboard(options: DashboardOptions, console: Console) -> None:
    """Serve the page until a signal comes.

    Raises:
        ResidualRLError: NiceGUI is missing, the port is in use, or others would reach a page
            without token.
        KeyboardInterrupt: after Ctrl-C.
    """
    check_access(options.host, options.token)
    names = [name.strip('/') for name in options.namespaces]
    if len(set(names)) < len(names):
        raise ResidualRLError(f'--namespace is {", ".join(names)}; give each robot once')
    if find_spec('nicegui') is None:
        raise ResidualRLError(
            "the dashboard needs NiceGUI, which is not installed; pip install 'nicegui>=3' or "
            "the extra 'residual_rl_ros[dashboard]'"
        )
    config = load_robot(options.robot)[0] if options.robot else None
    domain_id = ros_domain()
    with ExitStack() as stack:
        opened = stack.enter_context(open_port(options.host, options.port))
        robots = connect(stack, options.namespaces, options.fleet, config, domain_id)
        port = opened.getsockname()[1]
        name = f'[{options.host}]' if ':' in options.host else options.host
        console.print(f'ROS domain {domain_id}; the page is http://{name}:{port}/', soft_wrap=True)
        if options.token:
            console.print('open it with ?token=… once; a cookie remembers it', soft_wrap=True)
        _serve(robots, options.token, opened)


def open_port(host: str, port: int) -> socket.socket:
    """Listen on a port.

    Raises:
        ResidualRLError: it is in use, or there is no such address here.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = 'it is in use; stop what listens there, or choose another --port'
        else:
            reason = error.strerror or str(error)
        raise ResidualRLError(f'port {port} of {host} cannot be opened: {reason}') from error


def _serve(robots: Sequence[Robot], token: str, opened: socket.socket) -> None:
    """Serve until a signal comes."""
    # FastAPI would report on itself wherever the environment names a collector.
    os.environ['OTEL_SDK_DISABLED'] = 'true'
    import uvicorn

    from residual_rl_ros.ros.dashboard.page import make_app

    config = uvicorn.Config(
        Gate(make_app(robots), token, opened.getsockname()[1]),
        log_level='warning',
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSE_LIMIT_S,
    )
    uvicorn.Server(config).run(sockets=[opened])
