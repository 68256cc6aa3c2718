# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Parts that the page has several of."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from residual_rl_ros.ros.dashboard.charts import Options
from residual_rl_ros.ros.dashboard.view import Health

COLOURS = {
    Health.GOOD: 'bg-green-2',
    Health.WARNING: 'bg-amber-3',
    Health.ERROR: 'bg-red-4',
    Health.DEAD: 'bg-grey-9 text-white',
    Health.UNKNOWN: 'bg-grey-4',
}


def close_column() -> ui.column:
    """Return a column without space between what is in it."""
    return ui.column().classes('full-width').style('gap: 0')


def button(text: str, colour: str, pressed: Callable[[], object]) -> ui.button:
    """Return a button whose text stays as it is written."""
    return ui.button(text, on_click=pressed, color=colour).props('no-caps unelevated')


class NodeRow:
    """A line with the state of a node."""

    def __init__(self) -> None:
        self._label = ui.label().classes('full-width q-pa-xs')
        self._shown: Health | None = None

    def draw(self, health: Health, text: str) -> None:
        """Draw it, in the colour of its health."""
        self._label.set_text(text)
        if health is not self._shown:
            self._label.classes(remove=' '.join(COLOURS.values()), add=COLOURS[health])
            self._shown = health


class Chart:
    """A chart that is sent only when it has changed.

    Args:
        title: above it.
    """

    def __init__(self, title: str) -> None:
        with ui.column().style('width: 360px; gap: 0'):
            if title:
                ui.label(title).classes('text-bold')
            self._chart = ui.echart({}).style('height: 200px')

    def draw(self, options: Options) -> None:
        """Draw new options."""
        if self._chart.options != options:
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()
