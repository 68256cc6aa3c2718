# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Percentiles of a histogram are those of the numbers, to the width of a bin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.latency import Latency


@given(st.lists(st.floats(2e-6, 5.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_percentiles_are_right_to_the_width_of_a_bin(values: list[float], share: float) -> None:
    latency = Latency()
    for value in values:
        latency.add(value)
    exact = 1e6 * np.percentile(values, 100 * share, method='inverted_cdf')
    shown = latency.report('tick')[f'tick_p{round(100 * share)}_us']
    assert exact / 1.0001 - 0.1 <= shown <= exact * 1.07 + 0.1


def test_a_report_starts_again() -> None:
    latency = Latency()
    for _ in range(100):
        latency.add(1e-3)
    latency.add(0.5)
    report = latency.report('tick')
    assert report['tick_p50_us'] == pytest.approx(1000.0, rel=0.07)
    assert report['tick_max_us'] == 500_000.0
    latency.add(1e-3)
    assert latency.overall('tick')['tick_overall_p50_us'] == pytest.approx(1000.0, rel=0.07)
    assert latency.overall('tick')['tick_overall_max_us'] == 500_000.0
    assert latency.report('tick')['tick_max_us'] == 1000.0
    assert latency.report('tick') == {
        'tick_p50_us': 0.0,
        'tick_p95_us': 0.0,
        'tick_p99_us': 0.0,
        'tick_max_us': 0.0,
    }


@pytest.mark.parametrize('value', [0.0, -1.0, 1e-9, 100.0])
def test_durations_outside_the_bins_count_at_the_edges(value: float) -> None:
    latency = Latency()
    latency.add(value)
    assert latency.report('tick')['tick_p50_us'] == round(max(1e6 * value, 0.0), 1)
