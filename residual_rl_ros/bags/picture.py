# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A picture of a transition bag: episodes over time and what the robot saw and did."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from residual_rl_ros.bags.summary import RobotSummary
from residual_rl_ros.transition import Success

matplotlib.use('Agg')

from matplotlib import pyplot as plt

COLOURS = {
    Success.SUCCESS: 'tab:green',
    Success.FAILURE: 'tab:red',
    Success.UNLABELLED: 'tab:gray',
}


def draw_bag(path: Path, title: str, summary: RobotSummary) -> None:
    """Write a picture.

    Args:
        path: PNG file.
        title: heading.
        summary: what to draw; it holds at least one episode.
    """
    figure, (episodes, ranges) = plt.subplots(2, 1, figsize=(9, 6), constrained_layout=True)
    first = min(episode.start for episode in summary.episodes)
    for outcome, colour in COLOURS.items():
        chosen = [episode for episode in summary.episodes if episode.success is outcome]
        if chosen:
            episodes.bar(
                [(episode.start - first) / 60.0 for episode in chosen],
                [episode.decisions for episode in chosen],
                width=[max(0.01, (episode.end - episode.start) / 60.0) for episode in chosen],
                align='edge',
                color=colour,
                label=f'{outcome.name.lower()} ({len(chosen)})',
            )
    episodes.set(title=title, xlabel='time [min]', ylabel='decisions per episode')
    episodes.legend()
    layout = summary.layout
    low, high = np.array(layout.action_min), np.array(layout.action_max)
    index = np.arange(layout.action_size)
    ranges.bar(index, high - low, bottom=low, color='lightgray', label='base policy trained on')
    ranges.vlines(
        index, summary.action_low, summary.action_high, color='tab:blue', lw=4, label='executed'
    )
    ranges.set_xticks(index, layout.action_names, rotation=20, ha='right', fontsize=8)
    ranges.set_ylabel('action [command units]')
    ranges.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
