# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's normalisations against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch

from residual_rl_ros.importing.lerobot.statistics import MODES, Normalisation

STATISTICS = {
    'mean': 2.0,
    'std': 0.5,
    'min': 1.0,
    'max': 5.0,
    **{'q01': 1.5, 'q99': 4.5, 'q10': 2.0, 'q90': 4.0},
}


@pytest.mark.parametrize(
    ('mode', 'expected'),
    [
        ('IDENTITY', 3.0),
        ('MEAN_STD', 2.0),
        ('MIN_MAX', 0.0),
        ('QUANTILES', 0.0),
        ('QUANTILE10', 0.0),
    ],
)
def test_three_is_scaled_by_each_mode_and_back(mode: str, expected: float) -> None:
    made = Normalisation(mode, {k: torch.tensor([v]) for k, v in STATISTICS.items()})
    torch.testing.assert_close(made(torch.tensor([3.0])), torch.tensor([expected]))
    if mode not in ('IDENTITY', 'MEAN_STD'):
        high = STATISTICS[MODES[mode][1]]
        torch.testing.assert_close(made(torch.tensor([high])), torch.tensor([1.0]))
    torch.testing.assert_close(made.inverse(made(torch.tensor([3.7]))), torch.tensor([3.7]))


@pytest.mark.parametrize('added', [False, True])
def test_a_number_that_never_changed_is_minus_one(added: bool) -> None:
    constant = {'min': torch.tensor([0.3]), 'max': torch.tensor([0.3])}
    made = Normalisation('MIN_MAX', constant, added=added)
    assert made(torch.tensor([0.3])).item() == -1.0
    assert made.inverse(torch.tensor([-1.0])).item() == pytest.approx(0.3)


def test_a_deviation_of_zero_does_not_divide_by_zero() -> None:
    constant = {'mean': torch.tensor([0.3]), 'std': torch.tensor([0.0])}
    assert Normalisation('MEAN_STD', constant)(torch.tensor([0.3])).item() == 0.0
