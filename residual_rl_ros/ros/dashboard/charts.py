# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options of the charts, as ECharts takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from residual_rl_ros.numerics import Array
from residual_rl_ros.ros.dashboard.history import Motion, Share

BASE, RESIDUAL, BAND = '#7f8c9b', '#0b6fd6', 'rgba(11, 111, 214, 0.15)'
"""Colours: the base, base + residual, and where the residual may lead."""
Options = dict[str, Any]
Points = Sequence[tuple[float, float]] | Array


def success(base: Points, residual: Points) -> Options:
    """Return success over episodes, of base and of base + residual."""
    return _lines(
        'episode', [_line('base', base, BASE), _line('base + residual', residual, RESIDUAL)]
    ) | {'yAxis': {'type': 'value', 'min': 0, 'max': 1}}


def motion(shown: Motion, column: int) -> Options:
    """Return base and executed action of one dimension, with the bound as a band."""
    low, high = shown.band
    # A band is what is stacked on an invisible line.
    floor = _line('', _steps(low[:, column]), 'transparent') | {'stack': 'band'}
    width = _line('bound', _steps((high - low)[:, column]), 'transparent')
    width |= {'stack': 'band', 'areaStyle': {'color': BAND}, 'stackStrategy': 'all'}
    width |= {'itemStyle': {'color': BAND}}
    lines = [
        floor,
        width,
        _line('base', _steps(shown.base[:, column]), BASE),
        _line('executed', _steps(shown.executed[:, column]), RESIDUAL),
    ]
    options = _lines('control step', lines)
    options['legend']['data'] = ['base', 'executed', 'bound']
    return options | {
        'title': {'text': shown.names[column], 'left': 0, 'textStyle': {'fontSize': 13}}
    }


def shares(of: Sequence[Share]) -> Options:
    """Return the residual of each action as a share of its bound."""
    bars = [
        {'name': label, 'type': 'bar', 'data': values, 'itemStyle': {'color': colour}}
        for label, values, colour in (
            ('asked', _short([share.asked for share in of]), BASE),
            ('executed', _short([share.executed for share in of]), RESIDUAL),
        )
    ]
    return _plain(bars) | {
        'xAxis': {'type': 'category', 'data': [share.name for share in of]},
        'yAxis': {'type': 'value', 'min': 0},
    }


def advantage(points: Points) -> Options:
    """Return the advantage of the residual over time, which ends now."""
    end = points[-1][0] if points else 0.0
    shifted = [(at - end, value) for at, value in points]
    return _lines('s before the latest report', [_line('advantage', shifted, RESIDUAL)])


def _plain(series: list[Options]) -> Options:
    return {
        'animation': False,
        'grid': {'left': 48, 'right': 12, 'top': 36, 'bottom': 36},
        'legend': {'right': 0, 'top': 0, 'icon': 'roundRect', 'itemWidth': 14},
        'series': series,
    }


def _lines(axis: str, series: list[Options]) -> Options:
    return _plain(series) | {
        'xAxis': {
            'type': 'value',
            'min': 'dataMin',
            'max': 'dataMax',
            'name': axis,
            'nameLocation': 'middle',
            'nameGap': 20,
            'splitLine': {'show': False},
            'axisLine': {'onZero': False},
            'axisLabel': {'showMinLabel': False},
        },
        'yAxis': {'type': 'value', 'scale': True, 'axisLine': {'onZero': False}},
    }


def _line(name: str, points: Points, colour: str) -> Options:
    return {
        'name': name,
        'type': 'line',
        'data': _short(points),
        'showSymbol': len(points) == 1,
        'color': colour,
        'lineStyle': {'width': 2},
    }


def _steps(values: Array) -> Array:
    """Return a series of control steps of which the last is 0, shape (steps, 2)."""
    return np.stack([np.arange(1 - len(values), 1), values], axis=1)


def _short(values: Points | Sequence[float]) -> list[Any]:
    """Return numbers that are short as text: each column with five digits of its largest."""
    array = np.array(values, dtype=np.float64)
    largest = np.abs(array).max(axis=0, initial=1e-9)
    scale = 10.0 ** (5 - np.ceil(np.log10(largest)))
    rounded: list[Any] = (np.round(array * scale) / scale).tolist()
    return rounded
