# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of a run: the learning curve, and a failure next to its repair, still and moving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from residual_rl_ros.evaluation.intervals import Mean, Rate
from residual_rl_ros.learner.episodes import RECENT_EPISODES, EpisodeRecord

BASE_COLOUR, RESIDUAL_COLOUR = '#8c8c8c', '#1f6fb4'
Frame = npt.NDArray[np.uint8]


def pyplot() -> ModuleType:
    """Return pyplot without a screen; who only runs does not wait half a second for its import."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use('Agg')
    return plt


def draw_learning_curve(
    path: Path,
    title: str,
    history: Sequence[EpisodeRecord],
    rate_hz: float,
    base: Rate | Mean,
    final: Rate | Mean | None,
) -> None:
    """Draw success over robot time, or the mean returns of a task that tells none.

    Args:
        path: PNG file.
        title: heading.
        history: training episodes.
        rate_hz: control rate [Hz].
        base: evaluated success, or mean return, of the base policy.
        final: the same with the residual, None if the run was interrupted.
    """
    labelled = rated_episodes(history)
    minutes = np.array([record.control_steps / rate_hz / 60.0 for record in labelled])
    outcomes = np.array([float(bool(record.outcome())) for record in labelled])
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7.0, 4.6), dpi=150)
    window = min(RECENT_EPISODES, len(outcomes))
    if window:
        recent = np.convolve(outcomes, np.ones(window) / window, mode='valid')
        axes.plot(
            minutes[window - 1 :],
            recent,
            color=RESIDUAL_COLOUR,
            marker='.' if len(recent) == 1 else None,  # No line has one point.
            label=f'training episodes, last {window}',
        )
        first = next((i for i, record in enumerate(labelled) if record.acts), None)
        if first is not None:
            axes.axvspan(0.0, minutes[first], color='0.93', label='warm-up, base only')
    end = history[-1].control_steps / rate_hz / 60.0 if history else 1.0
    for rate, x, colour, name in (
        (base, 0.0, BASE_COLOUR, 'base'),
        (final, end, RESIDUAL_COLOUR, 'base + residual'),
    ):
        if rate is not None:
            low, high = (rate.value if end is None else end for end in (rate.low, rate.high))
            error = [[rate.value - low], [high - rate.value]]
            axes.errorbar(
                x,
                rate.value,
                error,
                fmt='o',
                color=colour,
                capsize=4,
                label=f'{name}, {rate.trials} paired seeds: {rate}',
                zorder=3,
            )
    if isinstance(base, Rate):
        axes.axhline(0.9, color='0.7', linewidth=0.8, linestyle=':')
        axes.set(ylabel='success', ylim=(0.0, 1.02))
    else:
        axes.set(ylabel='return')
    axes.set(xlabel='robot time [min]', title=title)
    # Below the axes: inside, it hides an interval.
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False, fontsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def rated_episodes(history: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """Return the episodes of a learning curve: the warm-up's, then those with a residual.

    The guard's base-only episodes among these would blend two policies into one curve.
    """
    first = next((i for i, record in enumerate(history) if record.acts), len(history))
    warmup = [record for record in history[:first] if record.rates_base]
    return warmup + [record for record in history[first:] if record.rates_residual]


STRIP_FRAMES = 6
"""Columns of a strip."""
FRAME_STEPS = 2
"""Control steps between two frames of an animation."""


def draw_repair(
    folder: Path, title: str, failure: Sequence[Frame], success: Sequence[Frame], rate_hz: float
) -> None:
    """Draw a failure beside its repair: `failure_to_success.png`, and `.webp` in real time.

    Args:
        folder: where both files go.
        title: heading of the strip.
        failure: every `FRAME_STEPS`-th frame of the base policy's episode.
        success: the same of the repaired episode.
        rate_hz: control rate [Hz].
    """
    rows = [
        [frames[i] for i in np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int)]
        for frames in (failure, success)
    ]
    draw_strip(folder / 'failure_to_success.png', title, *rows)
    frame_ms = round(1000.0 * FRAME_STEPS / rate_hz)
    draw_animation(folder / 'failure_to_success.webp', failure, success, frame_ms)


def draw_strip(path: Path, title: str, failure: Sequence[Frame], success: Sequence[Frame]) -> None:
    """Draw two rows of frames: the base policy's failure above the repaired episode."""
    columns = len(failure)
    plt = pyplot()
    figure, rows = plt.subplots(2, columns, figsize=(2.2 * columns, 3.9), dpi=120)
    for row, frames, label in (
        (rows[0], failure, 'base: failure'),
        (rows[1], success, 'base + residual: success'),
    ):
        for axes, frame in zip(row, frames, strict=True):
            axes.imshow(frame)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


CAPTION_HEIGHT, GAP = 26, 6
"""Sizes in an animation [px]; the text has two thirds of the caption's height."""
LAST_FRAME_MS = 1500
"""How long the end of an animation stays."""


def draw_animation(
    path: Path, failure: Sequence[Frame], success: Sequence[Frame], frame_ms: int
) -> None:
    """Draw both episodes side by side as an animated WebP; the shorter one waits at its end.

    Args:
        path: WebP file.
        failure: frames of the base policy's episode, shape (height, width, 3) each.
        success: frames of the repaired episode, of the same size.
        frame_ms: time between two frames [ms].
    """
    length = max(len(failure), len(success))
    frames = [
        _side_by_side(failure[min(i, len(failure) - 1)], success[min(i, len(success) - 1)])
        for i in range(length)
    ]
    durations = [frame_ms] * (length - 1) + [LAST_FRAME_MS]
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=60,
        method=4,
    )


def _side_by_side(failure: Frame, success: Frame) -> PIL.Image.Image:
    """Return two frames with a caption above each."""
    from matplotlib import font_manager

    height, width = failure.shape[:2]
    image = PIL.Image.new('RGB', (2 * width + GAP, height + CAPTION_HEIGHT), 'white')
    draw = PIL.ImageDraw.Draw(image)
    font = PIL.ImageFont.truetype(font_manager.findfont('DejaVu Sans'), 2 * CAPTION_HEIGHT // 3)
    for left, frame, caption, colour in (
        (0, failure, 'base: failure', BASE_COLOUR),
        (width + GAP, success, 'base + residual: success', RESIDUAL_COLOUR),
    ):
        image.paste(PIL.Image.fromarray(frame), (left, CAPTION_HEIGHT))
        draw.text((left + 4, 3), caption, fill=colour, font=font)
    return image
