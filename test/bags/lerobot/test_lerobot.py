# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags leave as LeRobot datasets and come back; other tools' datasets become transitions."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builders import L, open_recorder, stream, write_bag, write_layout, write_transitions
from command_line import run
from robot_builders import make_metadata
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.lerobot.export import export_bags
from residual_rl_ros.bags.lerobot.format import LeRobotDataset
from residual_rl_ros.bags.lerobot.reader import exported_transitions
from residual_rl_ros.bags.transitions.reader import TransitionReader
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import BagError, ResidualRLError
from residual_rl_ros.findings import Findings
from residual_rl_ros.transitions.transition import Source, Transition

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')

DATA = 'data/chunk-000/file-000.parquet'
META = make_metadata()
CONFIG = ControllerConfig(decision_steps=1, residual_scale=(0.05,), scheduled_actor=False)


def read(dataset: Path) -> tuple[list[Transition], list[str]]:
    problems = Findings()
    made = list(exported_transitions(LeRobotDataset.open(dataset), problems))
    return made, [str(problem) for problem in problems]


BLOCKS = ('observation', 'action', 'prior', 'proposals', 'add_on')


def in_float32(transition: Transition) -> Transition:
    """Return a transition as a dataset can hold it; only the stamp keeps all its digits."""
    rounded = {
        field.name: np.asarray(getattr(transition, field.name)).astype(np.float32).astype(float)
        for field in fields(Transition)
        if field.name == 'reward' or field.name.endswith(BLOCKS)
    }
    return replace(transition, **{**rounded, 'reward': float(rounded['reward'])})


def check_equal(found: list[Transition], expected: list[Transition]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field in fields(Transition):
            np.testing.assert_array_equal(
                getattr(one, field.name), getattr(other, field.name), err_msg=field.name
            )


def table(dataset: Path, file: str = DATA) -> Any:
    return pq.read_table(dataset / file)


def test_what_was_exported_comes_back(tmp_path: Path) -> None:
    made = stream(23)
    made[3] = replace(made[3], stamp=1_700_000_000.123456789, source=Source.TAKEOVER, epoch=1)
    bag = write_bag(tmp_path / 'bag', L, made)
    export_bags([bag], tmp_path / 'set')
    found, problems = read(tmp_path / 'set')
    assert problems == []
    check_equal(found, [in_float32(t) for t in made])


def test_density_proposals_and_add_on_come_back(tmp_path: Path) -> None:
    layout = make_layout(prior='gaussian', proposals=3, customisable=True)
    made = random_transitions(layout, 9)
    export_bags([write_bag(tmp_path / 'bag', layout, made)], tmp_path / 'set', fps=10.0)
    found, problems = read(tmp_path / 'set')
    assert problems == []
    check_equal(found, [in_float32(t) for t in made])


def test_a_second_round_trip_by_command_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / 'bag0', L, stream(23))
    rows = []
    for turn in (0, 1):
        bag, out = str(tmp_path / f'bag{turn}'), str(tmp_path / f'set{turn}')
        assert run('export', bag, '--out', out, monkeypatch=monkeypatch) == 0
        assert '5 decisions per second by their stamps' in capsys.readouterr().err
        bag = str(tmp_path / f'bag{turn + 1}')
        assert run('import', out, '--out', bag, monkeypatch=monkeypatch) == 0
        (block,) = TransitionReader(Bag(Path(bag))).blocks()
        assert block.table.layout == L
        rows.append(block.table.values)
    np.testing.assert_array_equal(*rows)


def test_a_stray_file_does_not_keep_the_bags_beside_it_from_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'notes.txt').touch()
    bag = write_bag(tmp_path / 'bag', L, stream(9))
    arguments = ('export', str(tmp_path / 'notes.txt'), str(bag), '--out', str(tmp_path / 'set'))
    assert run(*arguments, monkeypatch=monkeypatch) == 1
    assert 'notes.txt' in capsys.readouterr().err
    assert LeRobotDataset.open(tmp_path / 'set').total_frames == 9


def test_the_files_are_those_of_the_format(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, stream(23))
    export_bags([bag], tmp_path / 'set', task='insert the peg')
    info = json.loads((tmp_path / 'set/meta/info.json').read_text())
    for key, value in {
        'codebase_version': 'v3.0',
        'robot_type': None,
        'total_episodes': 5,
        'total_frames': 23,
        'total_tasks': 1,
        'chunks_size': 1000,
        'data_files_size_in_mb': 100,
        'video_files_size_in_mb': 200,
        'fps': 5,
        'splits': {'train': '0:5'},
        'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
        'video_path': None,
    }.items():
        assert info[key] == value, key
    assert isinstance(info['fps'], int)
    state = {'dtype': 'float32', 'shape': [3], 'names': list(L.observation_names)}
    assert info['features']['observation.state'] == state
    names = ['a.position.0', 'b.position.0', 'a.position.1', 'b.position.1']
    assert info['features']['action'] == {'dtype': 'float32', 'shape': [4], 'names': names}
    data = table(tmp_path / 'set')
    assert data.column_names == list(info['features'])
    assert data.schema.field('observation.state').type == pa.list_(pa.float32(), 3)
    assert data.schema.field('timestamp').type == pa.float32()
    assert data['index'].to_pylist() == list(range(23))
    assert data['frame_index'].to_pylist() == [*list(range(5)) * 4, 0, 1, 2]
    np.testing.assert_allclose(data['timestamp'].to_pylist()[:6], [0.0, 0.2, 0.4, 0.6, 0.8, 0.0])
    done = [index for index, value in enumerate(data['next.done'].to_pylist()) if value]
    assert done == [4, 9, 14, 19]
    assert [i for i, value in enumerate(data['next.success'].to_pylist()) if value] == [4, 14]

    episodes = table(tmp_path / 'set', 'meta/episodes/chunk-000/file-000.parquet')
    assert episodes['dataset_from_index'].to_pylist() == [0, 5, 10, 15, 20]
    assert episodes['dataset_to_index'].to_pylist() == [5, 10, 15, 20, 23]
    assert episodes['length'].to_pylist() == [5, 5, 5, 5, 3]
    assert episodes['tasks'].to_pylist() == [['insert the peg']] * 5
    assert set(episodes['data/file_index'].to_pylist()) == {0}
    assert pq.ParquetFile(tmp_path / 'set' / DATA).num_row_groups == 5

    stats = json.loads((tmp_path / 'set/meta/stats.json').read_text())
    values = np.array(data['observation.state'].to_pylist())
    for key in ('min', 'max', 'mean', 'std'):
        np.testing.assert_allclose(
            stats['observation.state'][key], getattr(values, key)(axis=0), rtol=1e-9
        )
    assert stats['next.reward']['count'] == [23]
    assert len(stats['next.reward']['mean']) == 1


def test_pandas_reads_the_task_as_index(tmp_path: Path) -> None:
    pandas = pytest.importorskip('pandas')
    export_bags([write_bag(tmp_path / 'bag', L, stream(9))], tmp_path / 'set', task='a task')
    tasks = pandas.read_parquet(tmp_path / 'set/meta/tasks.parquet')
    assert tasks.index.name == 'task'
    assert int(tasks.loc['a task'].task_index) == 0


def test_a_gap_begins_a_new_episode_and_comes_back_as_a_gap(tmp_path: Path) -> None:
    kept = [t for index, t in enumerate(stream(20)) if index not in (2, 9)]
    exported = export_bags([write_bag(tmp_path / 'bag', L, kept)], tmp_path / 'set')
    assert (exported.transitions, exported.episodes, exported.unfinished) == (18, 5, 2)
    data = table(tmp_path / 'set')
    assert data['episode_index'].to_pylist() == [0, 0, 1, 1, *[2] * 4, *[3] * 5, *[4] * 5]
    check_equal(read(tmp_path / 'set')[0], [in_float32(t) for t in kept])


def test_an_episode_over_the_files_of_a_bag_is_one(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, stream(60, 30), max_bytes=3_000)
    assert export_bags([bag], tmp_path / 'set').episodes == 2


def test_one_observation_and_one_action_are_scalars(tmp_path: Path) -> None:
    layout = make_layout(
        observation_names=('x',),
        action_names=('a',),
        decision_steps=1,
        action_min=(-1.0,),
        action_max=(1.0,),
        residual_bound=(0.1,),
    )
    made = random_transitions(layout, 9)
    export_bags([write_bag(tmp_path / 'bag', layout, made)], tmp_path / 'set', fps=10.0)
    assert table(tmp_path / 'set').schema.field('action').type == pa.float32()
    check_equal(read(tmp_path / 'set')[0], [in_float32(t) for t in made])


def test_large_datasets_have_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('residual_rl_ros.bags.lerobot.writer.DATA_FILE_MB', 0.001)
    made = stream(23)
    export_bags([write_bag(tmp_path / 'bag', L, made)], tmp_path / 'set')
    episodes = table(tmp_path / 'set', 'meta/episodes/chunk-000/file-000.parquet')
    assert episodes['data/file_index'].to_pylist() == [0, 1, 2, 3, 4]
    check_equal(read(tmp_path / 'set')[0], [in_float32(t) for t in made])


def test_one_robot_is_chosen(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path / 'bag', 'left', 'right')
    for robot, count in (('left', 10), ('right', 5)):
        write_layout(recorder, L, robot)
        write_transitions(recorder, L, stream(count), robot)
    recorder.close()
    with pytest.raises(BagError, match=r"robots \['left', 'right'\]; choose one with --robot"):
        export_bags([tmp_path / 'bag'], tmp_path / 'set')
    with pytest.raises(BagError, match="--robot is 'up'"):
        export_bags([tmp_path / 'bag'], tmp_path / 'set', 'up')
    assert export_bags([tmp_path / 'bag'], tmp_path / 'set', '/right').transitions == 5
    assert LeRobotDataset.open(tmp_path / 'set').robot == 'right'


def test_an_unknown_rate_is_asked_for(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', L, stream(4, 1))
    with pytest.raises(ResidualRLError, match='--fps'):
        export_bags([bag], tmp_path / 'set')
    assert not (tmp_path / 'set').exists()
    export_bags([bag], tmp_path / 'set', fps=12.5)
    assert LeRobotDataset.open(tmp_path / 'set').fps == 12.5
    with pytest.raises(ResidualRLError, match='exists already'):
        export_bags([bag], tmp_path / 'set', fps=12.5)


def change_info(dataset: Path, **changes: Any) -> None:
    path = dataset / 'meta/info.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_column(dataset: Path, name: str = 'base_action') -> None:
    pq.write_table(table(dataset).drop_columns([name]), dataset / DATA)


def drop_feature(dataset: Path) -> None:
    features = json.loads((dataset / 'meta/info.json').read_text())['features']
    del features['residual_action']
    change_info(dataset, features=features)


def spoil_values(dataset: Path) -> None:
    data = table(dataset)
    index = data.column_names.index('action')
    pq.write_table(data.set_column(index, 'action', [[[0.0]] * len(data)]), dataset / DATA)


@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        (lambda d: (d / 'meta/info.json').unlink(), 'meta/info.json is missing'),
        (lambda d: (d / 'meta/info.json').write_text('{'), 'info.json: cannot be read'),
        (lambda d: change_info(d, codebase_version='v2.1'), "codebase_version is 'v2.1'"),
        (lambda d: change_info(d, storage_format='lance'), "storage_format is 'lance'"),
        (lambda d: change_info(d, fps=0), 'fps is 0'),
        (lambda d: change_info(d, features=None), 'incomplete'),
        (lambda d: change_info(d, residual_rl={'layout': 'x'}), 'transition layout'),
        (lambda d: change_info(d, residual_rl=None), 'edited since: the layout is gone'),
        (lambda d: pq.write_table(table(d).slice(0, 0), d / DATA), 'holds no usable frame'),
        (drop_feature, "feature 'residual_action' is missing"),
        (drop_column, 'column base_action is missing'),
        (spoil_values, "column 'action' holds"),
        (lambda d: (d / DATA).unlink(), 'holds no'),
        (lambda d: (d / DATA).write_bytes(b'PAR1 nonsense'), 'file-000.parquet: cannot be read'),
    ],
)
def test_a_broken_dataset_is_one_clear_line(
    damage: Any,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export_bags([write_bag(tmp_path / 'bag', L, stream(9))], tmp_path / 'set')
    damage(tmp_path / 'set')
    out = str(tmp_path / 'made')
    assert run('import', str(tmp_path / 'set'), '--out', out, monkeypatch=monkeypatch) == 2
    *problems, line = capsys.readouterr().err.splitlines()
    assert all(problem.startswith('problem: ') for problem in problems)
    assert line.startswith('error: ')
    assert reason in line
    assert not (tmp_path / 'made').exists()


def test_frames_that_are_no_transitions_are_passed_over(tmp_path: Path) -> None:
    export_bags([write_bag(tmp_path / 'bag', L, stream(9))], tmp_path / 'set')
    data = table(tmp_path / 'set')
    column = data['residual_rl.source'].to_pylist()
    column[3] = 7
    index = data.column_names.index('residual_rl.source')
    changed = data.set_column(index, 'residual_rl.source', [column]).slice(0, 8)
    pq.write_table(changed, tmp_path / 'set' / DATA)
    made, (malformed, missing) = read(tmp_path / 'set')
    assert len(made) == 7
    assert 'frame 3: source is 7' in malformed
    assert 'holds 8 frames' in missing


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write_bag(tmp_path / 'bag', L, stream(9))
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ResidualRLError, match=r'residual_rl_ros\[lerobot\]'):
        export_bags([bag], tmp_path / 'set')
    assert not (tmp_path / 'set').exists()


# --- datasets of other tools
