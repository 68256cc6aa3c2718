# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A second reading gives the same, by the content of the files; damage is never hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bag_builders import write_bag
from builders import make_layout, random_transitions, small_config

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.cache import TransitionCache
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.training import Use, train_from_bags

L = make_layout()


def rows(cache: TransitionCache, path: Path) -> np.ndarray:
    bag = Bag(path)
    return np.concatenate([block.table.values for block in cache.blocks(bag)])


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / 'bag', L, random_transitions(L, 60), max_bytes=5_000)


def test_the_second_reading_is_a_hit_and_equal(bag: Path, tmp_path: Path) -> None:
    cache = TransitionCache(tmp_path / 'cache')
    first = rows(cache, bag)
    assert cache.hits == 0
    bag.rename(tmp_path / 'renamed')
    np.testing.assert_array_equal(rows(cache, tmp_path / 'renamed'), first)
    assert cache.hits == 1
    blocks = list(cache.blocks(Bag(tmp_path / 'renamed')))
    assert {(block.robot, block.table.layout) for block in blocks} == {('', L)}


def test_other_content_is_no_hit(bag: Path, tmp_path: Path) -> None:
    cache = TransitionCache(tmp_path / 'cache')
    rows(cache, bag)
    other = write_bag(tmp_path / 'other', L, random_transitions(L, 60, seed=5))
    rows(cache, other)
    assert cache.hits == 0


def test_a_damaged_bag_is_read_again_so_that_its_problem_is_said_again(
    bag: Path, tmp_path: Path
) -> None:
    file = sorted(bag.rglob('*.mcap'))[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    cache = TransitionCache(tmp_path / 'cache')
    for _ in range(2):
        damaged = Bag(bag)
        list(cache.blocks(damaged))
        assert len(damaged.problems) > 0
    assert cache.hits == 0
    assert list((tmp_path / 'cache').iterdir()) == []


def test_a_reading_that_is_broken_off_leaves_nothing(bag: Path, tmp_path: Path) -> None:
    cache = TransitionCache(tmp_path / 'cache')
    blocks = cache.blocks(Bag(bag))
    next(blocks)
    blocks.close()
    assert list((tmp_path / 'cache').iterdir()) == []


def test_a_damaged_entry_is_one_clear_line(bag: Path, tmp_path: Path) -> None:
    cache = TransitionCache(tmp_path / 'cache')
    rows(cache, bag)
    array = next((tmp_path / 'cache').rglob('*.values.npy'))
    array.write_bytes(array.read_bytes()[:-8])
    with pytest.raises(BagError, match='is damaged'):
        rows(cache, bag)


def test_a_learner_from_the_cache_is_the_learner_from_the_bag(bag: Path, tmp_path: Path) -> None:
    config = small_config('resfit', demonstration_share=0.5)
    cache = TransitionCache(tmp_path / 'cache')
    made = [
        train_from_bags([bag], Use.DEMONSTRATIONS, config, 3, cache=use)[0]
        for use in (None, cache, cache)
    ]
    assert cache.hits == 1
    for learner in made[1:]:
        assert learner.demonstrations is not None
        assert made[0].demonstrations is not None
        for name, expected in made[0].demonstrations.export().items():
            np.testing.assert_array_equal(learner.demonstrations.export()[name], expected)
        for name, tensor in made[0].algorithm.state().items():
            assert torch.equal(learner.algorithm.state()[name], tensor)
