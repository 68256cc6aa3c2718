# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The measured readers must all do the work that is measured."""

from __future__ import annotations

from residual_rl_ros.bags.recorder import PLUGINS
from residual_rl_ros.bench.bags import READERS, measure, to_markdown


def test_every_storage_and_reader_is_measured() -> None:
    rates = measure(transitions=1000, repetitions=1)
    assert set(rates) == set(PLUGINS)
    assert all(set(of_storage) == set(READERS) for of_storage in rates.values())
    text = to_markdown(rates)
    assert text.count('\n') == 2 + len(PLUGINS) * len(READERS)
    assert text.count('| 1 x |') == len(PLUGINS)
