# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A picture of a transition bag: episodes and gaps over time, and what the robot did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.summary import RobotSummary
from residual_rl_ros.transition import Success

matplotlib.use('Agg')

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {
    Success.SUCCESS: 'tab:green',
    Success.FAILURE: 'tab:red',
    Success.UNLABELLED: 'tab:gray',
}


def draw_bag(path: Path, title: str, summaries: Sequence[RobotSummary]) -> None:
    """Write a picture.

    Args:
        path: PNG file; its folder is made.
        title: heading.
        summaries: what to draw, one below the other; each holds at least one episode.

    Raises:
        BagError: the file cannot be written.
    """
    count = len(summaries)
    figure = plt.figure(figsize=(11, 6 * count), constrained_layout=True)
    for part, summary in zip(
        figure.subfigures(count, 1, squeeze=False)[:, 0], summaries, strict=True
    ):
        episodes, ranges = part.subplots(2, 1)
        episodes.set_title(f'{title} {summary.robot}'.rstrip())
        _draw_episodes(episodes, summary)
        _draw_ranges(ranges, summary)
        for axes in (episodes, ranges):
            axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0))  # Beside: bars fill the axes.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, format='png')
    except OSError as error:
        raise BagError(f'picture {str(path)!r} cannot be written: {error.strerror}') from error
    finally:
        plt.close(figure)


def _draw_episodes(axes: Axes, summary: RobotSummary) -> None:
    """Draw a bar for each episode over time, and where decisions are missing."""
    first = min(episode.start for episode in summary.episodes)
    for outcome, colour in COLOURS.items():
        chosen = [episode for episode in summary.episodes if episode.success is outcome]
        if chosen:
            axes.bar(
                [(episode.start - first) / 60.0 for episode in chosen],
                [episode.decisions for episode in chosen],
                width=[max(0.01, (episode.end - episode.start) / 60.0) for episode in chosen],
                align='edge',
                color=colour,
                label=f'{outcome.name.lower()} ({len(chosen)})',
            )
    if summary.gaps:
        at = [(gap.stamp - first) / 60.0 for gap in summary.gaps]
        axes.plot(at, [0.0] * len(at), 'kx', clip_on=False, label=f'missing ({summary.missing})')
    axes.set(xlabel='time [min]', ylabel='decisions per episode')


def _draw_ranges(axes: Axes, summary: RobotSummary) -> None:
    """Draw what was executed over what the base policy was trained on."""
    layout = summary.layout
    low, high = np.array(layout.action_min), np.array(layout.action_max)
    index = np.arange(layout.action_size)
    axes.bar(index, high - low, bottom=low, color='lightgray', label='base policy trained on')
    axes.vlines(
        index, summary.action_low, summary.action_high, color='tab:blue', lw=4, label='executed'
    )
    axes.set_xticks(index, layout.action_names, rotation=20, ha='right', fontsize=8)
    axes.set_ylabel('action [command units]')
