# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A second reading gives the same, by the content of the files; damage is never hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bag_builders import transition_topics, write_bag, write_layout, write_transitions
from builders import make_layout, random_transitions, small_config

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.cache import TransitionCache
from residual_rl_ros.bags.recorder import Recorder, RecordOptions
from residual_rl_ros.errors import BagError
from residual_rl_ros.training.train_from_bags import Use, train_from_bags

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


def test_many_small_blocks_are_few_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('residual_rl_ros.bags.mcap_file.SEGMENT_MESSAGES', 4)
    now = [0.0]
    other = make_layout(decision_steps=3)
    topics = [topic for robot in ('', 'b') for topic in transition_topics(robot)]
    recorder = Recorder(tmp_path / 'bag', topics, RecordOptions(), {}, lambda: now[0])
    streams = [('', L), ('b', other)]
    for robot, layout in streams:
        write_layout(recorder, layout, robot)
    for robot, layout in (*streams, streams[0]):
        for transition in random_transitions(layout, 40):
            now[0] += 0.1
            write_transitions(recorder, layout, [transition], robot)
    recorder.close()
    cache = TransitionCache(tmp_path / 'cache')
    first, second = (list(cache.blocks(Bag(tmp_path / 'bag'))) for _ in range(2))
    assert cache.hits == 1
    assert len(first) > 20
    assert len(second) <= 7  # Those of one robot in a row; two of them share a chunk twice.
    assert len(list((tmp_path / 'cache').rglob('*.*'))) <= 6
    for robot, layout in streams:
        for content in (lambda block: block.table.values, lambda block: block.time_ns):
            one, two = (
                np.concatenate([content(b) for b in blocks if b.robot == robot])
                for blocks in (first, second)
            )
            np.testing.assert_array_equal(one, two)
        assert all(b.table.layout == layout for b in second if b.robot == robot)


def test_a_bag_file_that_cannot_be_read_is_named_and_the_others_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(2):
        write_bag(tmp_path / 'bags' / f'bag_{part}', L, random_transitions(L, 10))
    locked = tmp_path / 'bags' / 'bag_0' / 'bag_0.mcap'
    opened = Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path == locked:  # Permissions do not stop root, as whom tests run in containers.
            raise PermissionError(13, 'Permission denied')
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, 'open', refuse)
    bag = Bag(tmp_path / 'bags')
    blocks = list(TransitionCache(tmp_path / 'cache').blocks(bag))
    assert sum(len(block.table) for block in blocks) == 10
    (problem,) = bag.problems
    assert str(problem) == f'{locked}: cannot be read: Permission denied'


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
    array = next((tmp_path / 'cache').rglob('*.values'))
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
