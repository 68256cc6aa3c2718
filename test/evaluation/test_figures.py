# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A failure beside its repair, still and moving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from residual_rl_ros.evaluation.figures import draw_animation, draw_learning_curve, draw_repair
from residual_rl_ros.evaluation.intervals import Mean, Rate, mean_interval, wilson
from residual_rl_ros.learner.episodes import EpisodeRecord


def test_the_shorter_episode_waits_at_its_end(tmp_path: Path) -> None:
    shades = (0, 80, 160, 240)
    failure = [np.full((40, 60, 3), shade, dtype=np.uint8) for shade in shades]
    draw_animation(tmp_path / 'a.webp', failure, failure[:2], frame_ms=100)
    with PIL.Image.open(tmp_path / 'a.webp') as image:
        assert image.n_frames == len(shades)
        for index, shade in enumerate(shades):
            image.seek(index)
            frame = np.asarray(image.convert('RGB')).astype(int)
            assert abs(frame[50, 30].mean() - shade) < 10
            assert abs(frame[50, 90].mean() - min(shade, 80)) < 10


def test_a_repair_is_drawn_as_a_strip_and_in_real_time(tmp_path: Path) -> None:
    failure = [np.full((40, 60, 3), shade, dtype=np.uint8) for shade in range(0, 200, 20)]
    draw_repair(tmp_path, 'seed 1', failure, failure[:3], rate_hz=20.0)
    with PIL.Image.open(tmp_path / 'failure_to_success.png') as strip:
        assert strip.width > 3 * strip.height / 2
    with PIL.Image.open(tmp_path / 'failure_to_success.webp') as animation:
        assert animation.n_frames == len(failure)
        animation.load()
        assert animation.info['duration'] == 100


@pytest.mark.parametrize(
    'measure',
    [
        *(wilson([outcome] * 7) for outcome in (False, True)),
        mean_interval([-900.0, -1000.0]),
        mean_interval([5.0]),
    ],
    ids=str,
)
def test_a_learning_curve_is_drawn_of_whatever_a_run_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: Rate | Mean
) -> None:
    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path: drawn.append(figure))
    unlabelled = [EpisodeRecord(200, None, residual=True, takeover=False)]
    draw_learning_curve(tmp_path / 'x.png', 'run', unlabelled, 20.0, measure, measure)
    (axes,) = drawn[0].axes
    told = isinstance(measure, Rate)
    assert axes.get_ylabel() == ('success' if told else 'return')
    low, high = axes.get_ylim()
    assert low <= measure.value <= high
