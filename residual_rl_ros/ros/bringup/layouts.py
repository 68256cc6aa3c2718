# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts of Foxglove, PlotJuggler and rqt for a robot, with the names of its actions.

Each shows the base's and the executed action, what the residual takes of its bound, why, and how
the nodes are.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.description import RobotConfig

FOXGLOVE, PLOTJUGGLER, RQT = ('foxglove.json', 'plotjuggler.xml', 'rqt.perspective')
COMPARED = ('base_action', 'executed_action')
"""Topics that are drawn into one plot for each action."""
COLOURS = ('#1f77b4', '#d62728', '#1ac938', '#9467bd')
SHARES = ('bound_share', 'bound_scale')
STATES = ('source', 'chosen')
BUTTONS = {
    'hold': ('hold', '{"data": true}'),
    'release': ('hold', '{"data": false}'),
    'start': ('start_episode', '{}'),
    'success': ('mark_success', '{}'),
    'failure': ('mark_failure', '{}'),
}
"""Buttons in Foxglove, each with a service of the policy node and its request."""


def layouts(robot: RobotConfig, namespace: str = '', frame: str = 'base_link') -> dict[str, str]:
    """Return the text of each layout, by the name of its file.

    Args:
        robot: the robot.
        namespace: ROS namespace of its nodes.
        frame: parameter `marker_frame` of the policy node.
    """
    node = f'/{namespace.strip("/")}/policy_node'.replace('//', '/')
    return {
        FOXGLOVE: json.dumps(_foxglove(robot, node, frame), indent=2) + '\n',
        PLOTJUGGLER: _plotjuggler(robot, node),
        RQT: json.dumps(_rqt(robot, node), indent=2) + '\n',
    }


def write_layouts(robot: RobotConfig, folder: Path, namespace: str = '') -> list[Path]:
    """Write the layouts of a robot, and return the files.

    Raises:
        ResidualRLError: a file cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in layouts(robot, namespace).items():
            paths.append(folder / name)
            paths[-1].write_text(text, encoding='utf-8')
    except OSError as error:
        raise ResidualRLError(f'cannot write layouts to {str(folder)!r}: {error}') from error
    return paths


def _foxglove(robot: RobotConfig, node: str, frame: str) -> dict[str, Any]:
    def decided(key: str) -> str:
        return f'{node}/decision.status[:].values[:]{{key=="{key}"}}.value'

    panels: dict[str, Any] = {}
    for index, action in enumerate(robot.action.names):
        values = {f'{node}/{topic}.position[{index}]': topic for topic in COMPARED}
        panels[f'Plot!action{index}'] = _plot(action, values)
    shares = {decided(key): key for key in (*SHARES, 'advantage')}
    panels['Plot!shares'] = _plot('residual', shares)
    states = [{'value': decided(key), 'timestampMethod': 'receiveTime'} for key in STATES]
    panels['StateTransitions!source'] = {'paths': states, 'isSynced': True}
    panels['DiagnosticSummary!nodes'] = {
        'topicToRender': '/diagnostics',
        'minLevel': 0,
        'pinnedIds': [],
        'hardwareIdFilter': '',
        'sortByLevel': True,
    }
    buttons = [f'CallService!{name}' for name in BUTTONS]
    for name, (service, request) in BUTTONS.items():
        panels[f'CallService!{name}'] = {
            'serviceName': f'{node}/{service}',
            'requestPayload': request,
            'buttonText': name,
            'editingMode': False,
        }
    right = ['DiagnosticSummary!nodes', _split(buttons, 'row')]
    if robot.action.workspace is not None:
        shown = {f'{node}/markers': {'visible': True}}
        panels['3D!tool'] = {'followTf': frame, 'topics': shown}
        right.insert(0, '3D!tool')
    left = [name for name in panels if name.startswith(('Plot!', 'StateTransitions!'))]
    layout = _split([_split(left, 'column'), _split(right, 'column')], 'row')
    empty: dict[str, Any] = {'globalVariables': {}, 'userNodes': {}, 'playbackConfig': {'speed': 1}}
    return {'configById': panels, **empty, 'layout': layout}


def _plot(title: str, paths: dict[str, str]) -> dict[str, Any]:
    """Return a plot of Foxglove: message paths, each with its label."""
    series = [
        {
            'value': path,
            'label': label,
            'enabled': True,
            'timestampMethod': 'receiveTime',
            'color': colour,
        }
        for (path, label), colour in zip(paths.items(), COLOURS, strict=False)
    ]
    shown = {'showLegend': True, 'isSynced': True, 'xAxisVal': 'timestamp'}
    return {'foxglovePanelTitle': title, 'paths': series, **shown, 'followingViewWidth': 20}


def _split(parts: Sequence[Any], direction: str) -> Any:
    """Return panels side by side (row) or one above the other (column), of equal sizes."""
    if len(parts) == 1:
        return parts[0]
    return {
        'first': parts[0],
        'second': _split(parts[1:], direction),
        'direction': direction,
        'splitPercentage': round(100.0 / len(parts), 2),
    }


def _plotjuggler(robot: RobotConfig, node: str) -> str:
    root = ET.Element('root')
    tabs = ET.SubElement(root, 'tabbed_widget', {'name': 'Main Window', 'parent': 'main_window'})
    actions = [
        (action, [f'{node}/{topic}/{action}/position' for topic in COMPARED])
        for action in robot.action.names
    ]
    _tab(tabs, 'actions', actions)
    decided = f'{node}/decision/{robot.name}/decision'
    keys = {'residual': SHARES, 'advantage': ('advantage',), 'late': ('late',)}
    _tab(tabs, 'residual', [(name, [f'{decided}/{key}' for key in keys[name]]) for name in keys])
    ET.SubElement(tabs, 'currentTabIndex', index='0')
    ET.SubElement(root, 'use_relative_time_offset', enabled='1')
    ET.SubElement(root, 'previouslyLoaded_Streamer', name='ROS2 Topic Subscriber')
    ET.indent(root)
    return f"<?xml version='1.0' encoding='UTF-8'?>\n{ET.tostring(root, encoding='unicode')}\n"


def _tab(tabs: ET.Element, name: str, plots: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Add a tab of PlotJuggler with plots one above the other, each a title and its curves."""
    tab = ET.SubElement(tabs, 'Tab', tab_name=name, containers='1')
    sizes = ';'.join([f'{1.0 / len(plots):.6f}'] * len(plots))
    container = ET.SubElement(tab, 'Container')
    splitter = ET.SubElement(
        container, 'DockSplitter', orientation='-', count=str(len(plots)), sizes=sizes
    )
    for title, curves in plots:
        area = ET.SubElement(splitter, 'DockArea', name=title)
        plot = ET.SubElement(area, 'plot', mode='TimeSeries', style='Lines')
        for curve, colour in zip(curves, COLOURS, strict=False):
            ET.SubElement(plot, 'curve', name=curve, color=colour)


def _rqt(robot: RobotConfig, node: str) -> dict[str, Any]:
    def kept(value: Any) -> dict[str, str]:
        return {'type': 'repr', 'repr': repr(value)}

    def plugin(**keys: Any) -> dict[str, Any]:
        settings = {'keys': {key: kept(value) for key, value in keys.items()}, 'groups': {}}
        return {'keys': {}, 'groups': {'plugin': settings}}

    indices = range(robot.action.size)
    paths = [f'{node}/{topic}/position[{index}]' for topic in COMPARED for index in indices]
    running = {'rqt_plot/Plot': [1], 'rqt_robot_monitor/RobotMonitor': [1]}
    return {
        'keys': {},
        'groups': {
            'mainwindow': {'keys': {}, 'groups': {}},
            'pluginmanager': {
                'keys': {'running-plugins': kept(running)},
                'groups': {
                    'plugin__rqt_plot__Plot__1': plugin(autoscroll=True, topics=paths),
                    'plugin__rqt_robot_monitor__RobotMonitor__1': plugin(),
                },
            },
        },
    }
