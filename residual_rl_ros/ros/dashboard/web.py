# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The web application: the page, and a picture for each camera."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Response
from nicegui import app as pages
from nicegui import ui

from residual_rl_ros.ros.dashboard.page import show
from residual_rl_ros.ros.dashboard.robots import Robot

LOOK_PERIOD_S = 0.05
"""How often calls in progress are looked at, page or no page [s]."""


def make_app(robots: Sequence[Robot]) -> FastAPI:
    """Return the application with the page of some robots; once in a process."""
    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def camera(robot: int, number: int) -> Response:
        picture = b''
        if 0 <= robot < len(robots) and 0 <= number < len(robots[robot].cameras):
            picture = robots[robot].cameras[number].jpeg()
        headers = {'Cache-Control': 'no-store'}
        return Response(picture, 200 if picture else 404, headers, 'image/jpeg')

    def look() -> None:
        for robot in robots:
            robot.commands.look()
            robot.view.look()

    web.add_api_route('/camera/{robot}/{number}', camera, response_class=Response)
    pages.timer(LOOK_PERIOD_S, look)
    ui.run_with(
        web,
        root=lambda: show(robots),
        title='residual-rl',
        tailwind=False,
        show_welcome_message=False,
    )
    return web
