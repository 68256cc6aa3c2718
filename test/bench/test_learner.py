# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The bench of the learner must still fit the learner that it measures."""

from __future__ import annotations

import pytest

from residual_rl_ros.bench import learner
from residual_rl_ros.bench.learner import limit, ours, to_markdown


def test_the_learner_and_its_limit_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, 'UPDATES', 2)
    monkeypatch.setattr(learner, 'WARM_UP', 1)
    monkeypatch.setattr(learner, 'STORED', 300)
    assert ours(1) > 0.0
    assert limit(1) > 0.0


def test_ratios_are_within_a_repetition() -> None:
    table = to_markdown({'ours': [100.0, 200.0], 'limit': [200.0, 800.0]})
    assert table.splitlines()[2:] == ['| ours | 150 | 1.00 |', '| limit | 500 | 0.38 |']
