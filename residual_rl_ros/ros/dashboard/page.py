# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The page, made with NiceGUI: hold first, then states with their ages, then what was learned."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

from fastapi import FastAPI, Response
from nicegui import app as pages
from nicegui import ui

from residual_rl_ros.learner.guard import DOUBT, RETURN
from residual_rl_ros.ros.bringup.status import SHOWN, readable
from residual_rl_ros.ros.dashboard import charts
from residual_rl_ros.ros.dashboard.charts import Options
from residual_rl_ros.ros.dashboard.history import Motion
from residual_rl_ros.ros.dashboard.robots import Robot
from residual_rl_ros.ros.dashboard.view import Health, NodeLine, RobotView
from residual_rl_ros.ros.tools.operator import GO_ON, HOLD, KEYS

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


STATE_PERIOD_S, CHART_PERIOD_S = 0.2, 1.0
"""How often states and charts are drawn again [s]."""
CHART_PAUSE_S = 0.02
"""Time between two charts [s]."""
ANSWER_PERIOD_S, ANSWER_LIMIT_S = 0.01, 1.0
"""How often, and how long, a button looks for its answer before the next state does [s]."""
SHOWN_JOINTS = 12
"""Actions that have a chart."""
EPISODE_KEYS, ROBOT_KEYS, LEARNER_KEYS = 'nsfe', 'ora', 'pwb'
"""Buttons under the charts, by what they are for; the keys are those of the console."""
LOST = 'NO CONNECTION: what is shown is the past. USE THE EMERGENCY STOP'
HEAD = """
<style>
  .lost { display: none; }
  .is-lost .lost { display: block; }
  /* What is pressed now would arrive when the connection is back; of a hold that is fine. */
  .is-lost button:not(.hold) { pointer-events: none; opacity: 0.3; }
</style>
<script>
  // A page whose server is silent must not look alive, whatever it last showed.
  let beat = '', beaten = performance.now();
  setInterval(() => {
    const now = document.querySelector('.beat')?.textContent ?? '';
    if (now !== beat) { beat = now; beaten = performance.now(); }
    document.body.classList.toggle('is-lost', performance.now() - beaten > 2000);
  }, 250);
  setInterval(() => {
    if (!document.hidden)
      for (const image of document.querySelectorAll('img[data-camera]'))
        if (image.complete) image.src = image.dataset.camera + '?' + Date.now();
  }, 250);
</script>
"""
"""Of every page: the alarm when nothing comes any more, and the images of the cameras."""


def show(robots: Sequence[Robot]) -> None:
    """Draw the page of one visitor."""
    ui.add_head_html(HEAD)
    with ui.header(elevated=True).classes('bg-white text-black q-pa-sm'), close_column():
        beat = ui.label().classes('beat hidden')
        heads = [_Head(robot) for robot in robots]
        if len(robots) > 1:
            hold_all = button('HOLD ALL', 'red', partial(_hold_all, heads))
            hold_all.classes('hold text-h6').mark('hold all')
        for head in heads:
            head.draw_alarm()
        ui.label(LOST).classes('lost bg-red text-white text-h5 full-width q-pa-sm')
    bodies = _bodies(robots)
    beats = count()

    def draw_state() -> None:
        for head, body in zip(heads, bodies, strict=True):
            head.draw_state()
            body.draw_state()
        beat.set_text(str(next(beats)))

    async def draw_charts() -> None:
        # A button that is pressed meanwhile must not wait for all of them, here or in the browser.
        for body in bodies:
            for draw in body.charts():
                if beat.is_deleted:
                    return
                draw()
                await asyncio.sleep(CHART_PAUSE_S)

    ui.keyboard(lambda event: _hold_all(heads) if _is_hold(event) else None, repeating=False)
    ui.timer(STATE_PERIOD_S, draw_state)
    ui.timer(CHART_PERIOD_S, draw_charts)


def _is_hold(event: object) -> bool:
    return bool(event.action.keydown and event.key == HOLD)  # type: ignore[attr-defined]


def _hold_all(heads: Sequence[_Head]) -> None:
    for head in heads:
        head.robot.commands.press(HOLD)


def _bodies(robots: Sequence[Robot]) -> list[_Body]:
    """Draw what is below the header: tabs, if there are several robots."""
    if len(robots) == 1:
        return [_Body(robots[0], 0)]
    with ui.tabs() as tabs:
        for robot in robots:
            ui.tab(robot.name)
    bodies = []
    with ui.tab_panels(tabs, value=robots[0].name).classes('full-width'):
        for index, robot in enumerate(robots):
            with ui.tab_panel(robot.name):
                bodies.append(_Body(robot, index))
    return bodies


class _Head:
    """Hold and release of a robot, which stay in sight, and its state.

    Args:
        robot: the robot.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        with ui.row().classes('items-center full-width no-wrap'):
            hold = button('HOLD', 'red', partial(self._press, HOLD))
            hold.classes('hold text-h4 q-px-xl q-py-md').mark(f'hold {robot.name}')
            release = button('release', 'grey-8', partial(self._press, GO_ON))
            release.classes('q-py-md').mark(f'release {robot.name}')
            with close_column():
                self._state = ui.label().classes('text-h5 text-bold').mark(f'state {robot.name}')
                self._answer = ui.label().classes('text-body2').mark(f'answer {robot.name}')

    def draw_alarm(self) -> None:
        """Make room for the alarm: below every hold, since none of these may move."""
        self._alarm = ui.label().classes('bg-red text-white text-h5 full-width q-pa-sm')

    async def _press(self, letter: str) -> None:
        commands = self.robot.commands
        commands.press(letter)
        for _ in range(round(ANSWER_LIMIT_S / ANSWER_PERIOD_S)):
            commands.look()
            if commands.outcome(letter):
                break
            await asyncio.sleep(ANSWER_PERIOD_S)
        self.draw_state()

    def draw_state(self) -> None:
        """Draw what may have changed."""
        commands = self.robot.commands
        self._state.set_text(f'{self.robot.name}: {self.robot.view.state()}')
        self._answer.set_text(next(iter(commands.outcomes()), ''))
        alarm = commands.alarm()
        self._alarm.set_text(alarm)
        self._alarm.set_visibility(bool(alarm))


class _Body:
    """All else of a robot.

    Args:
        robot: the robot.
        index: its number, for the addresses of its cameras.
    """

    def __init__(self, robot: Robot, index: int) -> None:
        self._robot = robot
        with close_column():
            self._lines = {line.name: NodeRow() for line in robot.view.nodes()}
        with ui.row().classes('items-center'):
            for label, letters in (
                ('episode', EPISODE_KEYS),
                ('robot', ROBOT_KEYS),
                ('learner', LEARNER_KEYS),
            ):
                ui.label(label).classes('text-grey-7')
                for letter in letters:
                    key = KEYS[letter]
                    button(key.label, 'grey-8', partial(robot.commands.press, letter)).mark(
                        f'{key.label} {robot.name}'
                    )
        self._answers = ui.label().style('white-space: pre-line').mark(f'answers {robot.name}')
        with ui.row().classes('full-width'):
            self._success = Chart('Success')
            self._shares = Chart('Residual as a share of its bound')
            self._advantage = Chart("Advantage of the actor's mean over the base")
        self._guard = ui.label().mark(f'guard {robot.name}')
        with ui.row():
            self._camera_ages = self._draw_cameras(index)
        self._problem = ui.label().classes('text-red').mark(f'problem {robot.name}')
        self._motion_age = ui.label().classes('text-grey-7').mark(f'motion {robot.name}')
        self._joints = ui.row().classes('full-width')
        self._charts: list[Chart] = []
        self._names: tuple[str, ...] = ()

    def _draw_cameras(self, index: int) -> list[ui.label]:
        ages = []
        for number, camera in enumerate(self._robot.cameras):
            with ui.column().style('gap: 0'):
                address = f'/camera/{index}/{number}'
                ui.element('img').props(f'data-camera="{address}" height=240 alt="no image"')
                ages.append(ui.label().mark(f'camera {camera.name}'))
        return ages

    def draw_state(self) -> None:
        """Draw states and ages."""
        view = self._robot.view
        for line in view.nodes():
            self._lines[line.name].draw(line.health, _full_text(view, line))
        self._answers.set_text('\n'.join(self._robot.commands.outcomes()[1:]))
        self._problem.set_text(view.problem)
        age = view.motion_age()
        self._motion_age.set_text(
            'no transition heard yet' if math.isinf(age) else f'latest transition {age:.1f} s ago'
        )
        guard = view.guard()
        parts = [
            f'success of the latest episodes heard: base {view.success_text(False)}',
            f'base + residual {view.success_text(True)}',
        ]
        if guard.doubt is not None:
            watched = ' of returns' if guard.watches == RETURN else ''
            parts.append(f'guard{watched}: doubt {guard.doubt:.2f} of {DOUBT} nat')
        if guard.base_share is not None:
            parts.append(f'{guard.base_share:.0%} of the episodes without residual')
        if guard.rollbacks is not None:
            parts.append(f'{guard.rollbacks} rollbacks')
        if guard.outcomes:
            parts.append(f"the learner's latest outcomes {guard.outcomes}")
        self._guard.set_text(', '.join(parts))
        for camera, label in zip(self._robot.cameras, self._camera_ages, strict=True):
            age = camera.age()
            seen = 'never seen' if math.isinf(age) else f'{age:.1f} s ago'
            label.set_text(f'{camera.name}: {camera.problem or seen}')

    def charts(self) -> Iterator[Callable[[], None]]:
        """Yield what draws each chart of what was learned and done."""
        view = self._robot.view
        yield lambda: self._success.draw(charts.success(view.curve(False), view.curve(True)))
        yield lambda: self._shares.draw(charts.shares(view.shares()))
        yield lambda: self._advantage.draw(charts.advantage(view.advantages()))
        motion = view.motion()
        if motion is None:
            return
        self._make_room(motion.names)
        for column, chart in enumerate(self._charts):
            yield partial(_draw_motion, chart, motion, column)

    def _make_room(self, names: tuple[str, ...]) -> None:
        """Make a chart for each action."""
        if names == self._names:
            return
        self._names = names
        self._joints.clear()
        with self._joints:
            self._charts = [Chart('') for _ in names[:SHOWN_JOINTS]]
            if len(names) > SHOWN_JOINTS:
                ui.label(f'and {len(names) - SHOWN_JOINTS} more actions')


def _draw_motion(chart: Chart, motion: Motion, column: int) -> None:
    chart.draw(charts.motion(motion, column))


def _full_text(view: RobotView, line: NodeLine) -> str:
    """Return what is shown of a node: how old its report is, what it says, and its values."""
    told = [(key, view.value(line.name, key)) for key in SHOWN[line.name.rsplit('/', 1)[-1]]]
    values = ', '.join(f'{key} {readable(key, value)}' for key, value in told if value)
    return f'{line.name}, {line.age_text}: {line.text}{f" ({values})" if values else ""}'


LOOK_PERIOD_S = 0.05
"""How often calls in progress are looked at, page or no page [s]."""


def make_app(robots: Sequence[Robot]) -> FastAPI:
    """Return the application with the page of some robots; once in a process."""
    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def camera(robot: int, number: int) -> Response:
        image = b''
        if 0 <= robot < len(robots) and 0 <= number < len(robots[robot].cameras):
            image = robots[robot].cameras[number].jpeg()
        headers = {'Cache-Control': 'no-store'}
        return Response(image, 200 if image else 404, headers, 'image/jpeg')

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
