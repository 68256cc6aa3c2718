# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A failure beside its repair, still and moving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from residual_rl_ros.evaluation.figures import draw_animation, draw_repair


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
