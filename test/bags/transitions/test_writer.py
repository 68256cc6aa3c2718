# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bag that was interrupted while it was written is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.writer import write_bag
from residual_rl_ros.errors import BagError, OutputError
from residual_rl_ros.transitions.transition import Transition


@pytest.mark.parametrize('interruption', [BagError('the base policy failed'), KeyboardInterrupt()])
def test_an_interrupted_bag_is_not_taken_for_a_whole_one(
    interruption: BaseException, tmp_path: Path
) -> None:
    layout = make_layout()

    def transitions() -> Iterator[Transition]:
        yield from random_transitions(layout, 5)
        (beside,) = (tmp_path / 'deep').iterdir()
        with pytest.raises(BagError, match='holds no bag'):
            Bag(tmp_path / 'deep')
        assert beside.name.startswith('.made.')
        raise interruption

    with pytest.raises(type(interruption)):
        write_bag(tmp_path / 'deep' / 'made', layout, transitions(), '', {})
    assert list((tmp_path / 'deep').iterdir()) == []
    made = iter(random_transitions(layout, 5))
    assert write_bag(tmp_path / 'deep' / 'made', layout, made, '', {}) == 5
    assert (tmp_path / 'deep' / 'made' / 'made.mcap').is_file()
    with pytest.raises(OutputError, match='exists already'):
        write_bag(tmp_path / 'deep' / 'made', layout, iter(random_transitions(layout, 5)), '', {})
