# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A resumed run must equal an uninterrupted one, and a failed save must not cost the last one."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor
from learner_builders import residual_presets, small_config
from safetensors.torch import load_file, save_file
from transition_builders import make_layout, make_transition, random_transitions

from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import CheckpointError
from residual_rl_ros.learner import checkpoint
from residual_rl_ros.learner.checkpoint import (
    ACTOR,
    ALGORITHM,
    CANDIDATE,
    GOOD,
    MEMORY,
    RUN,
    STATE,
    CheckpointFolder,
    check_numbers,
    load_checkpoint,
    load_run_state,
    save_checkpoint,
    stored_config,
)
from residual_rl_ros.learner.folder import MANIFEST, write_manifest
from residual_rl_ros.learner.kept_networks import WINDOW
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.transitions.transition import Source, Success

LAYOUT = make_layout()
STREAM = random_transitions(LAYOUT, 120)
REPLAY, DEMONSTRATIONS = MEMORY.format('replay'), MEMORY.format('demonstrations')
FILES = (ACTOR, ALGORITHM, GOOD, CANDIDATE, REPLAY, DEMONSTRATIONS, STATE, RUN, MANIFEST)


CHOICE = make_layout(proposals=4)
CHOICES = random_transitions(CHOICE, 60)


def trained(transitions: int, **overrides: Any) -> Learner:
    chooses = overrides.get('preset') == 'choose_and_edit'
    layout, stream = (CHOICE, CHOICES) if chooses else (LAYOUT, STREAM)
    learner = Learner(small_config(**overrides), layout, seed=5, epoch=2)
    for transition in stream[:transitions]:
        learner.ingest(transition)
    return learner


def content(learner: Learner) -> dict[str, bytes]:
    tensors = {name: v.numpy().tobytes() for name, v in learner.rule.state_dict().items()}
    replay = {
        f'{part}.{name}': value.tobytes()
        for part, arrays in learner.rule.memory.export().items()
        for name, value in arrays.items()
    }
    return {**tensors, **replay, 'state': json.dumps(learner.state_dict(), sort_keys=True).encode()}


@pytest.mark.parametrize(
    ('saved_at', 'overrides'),
    [
        *((saved_at, {}) for saved_at in (0, 4, 10, 13, 15, 26)),
        (13, {'preset': 'choose_and_edit'}),
        *(
            (saved_at, overrides)  # In the warm-up, between two publications, later.
            for saved_at in (4, 13, 26)
            for overrides in (
                *({'utd': 1.5}, {'replay_capacity': 20}),
                *({'preset': name} for name in residual_presets() if name != 'choose_and_edit'),
            )
        ),
    ],
    ids=str,
)
def test_a_resumed_learner_continues_bit_for_bit(
    tmp_path: Path, saved_at: int, overrides: dict[str, Any]
) -> None:
    learner = trained(saved_at, **overrides)
    save_checkpoint(tmp_path / 'checkpoint', learner)
    resumed = load_checkpoint(tmp_path / 'checkpoint')
    assert content(resumed) == content(learner)
    assert resumed.episodes.success_rate == learner.episodes.success_rate
    stream = CHOICES if learner.layout == CHOICE else STREAM
    for transition in stream[saved_at : saved_at + 16]:
        messages = [one.ingest(transition) for one in (learner, resumed)]
        assert (messages[0] is None) == (messages[1] is None)
        if messages[0] is not None and messages[1] is not None:
            headers = [decode_weights(message)[0] for message in messages]
            assert headers[0] == headers[1]
    assert content(resumed) == content(learner)


def test_saving_does_not_disturb_the_learner(tmp_path: Path) -> None:
    learner, undisturbed = trained(20), trained(20)
    save_checkpoint(tmp_path / 'checkpoint', learner)
    for transition in STREAM[20:40]:
        learner.ingest(transition)
        undisturbed.ingest(transition)
    assert content(learner) == content(undisturbed)


def test_a_checkpoint_is_a_few_files_none_of_which_is_a_pickle(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'checkpoint', trained(20))
    files = sorted(path.name for path in (tmp_path / 'checkpoint').iterdir())
    assert files == sorted([ACTOR, ALGORITHM, CANDIDATE, GOOD, MANIFEST, REPLAY, STATE])
    for path in (tmp_path / 'checkpoint').glob('*.safetensors'):
        data = path.read_bytes()
        assert json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])


def test_the_actor_file_is_a_weight_message(tmp_path: Path) -> None:
    learner = trained(20)
    save_checkpoint(tmp_path / 'checkpoint', learner)
    header, actor = decode_weights((tmp_path / 'checkpoint' / ACTOR).read_bytes())
    assert header.enabled
    assert header.version == (learner.epoch, learner.sequence)
    assert_same_actor(actor, learner.rule.robot_policy())


def test_a_newer_checkpoint_replaces_the_older_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'run' / 'checkpoint', trained(12))
    newer = trained(30)
    save_checkpoint(tmp_path / 'run' / 'checkpoint', newer)
    assert content(load_checkpoint(tmp_path / 'run' / 'checkpoint')) == content(newer)
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['checkpoint']


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with every file; to be copied before it is changed."""
    path = tmp_path_factory.mktemp('saved') / 'checkpoint'
    save_checkpoint(path, trained(20, preset='resfit'), {'steps': np.arange(3)})
    return path


def mutations(data: bytes, other: bytes) -> Iterator[bytes]:
    """Yield what may become of a file: a flipped bit, a lost end, more bytes, another file."""
    for position in np.linspace(0, len(data) - 1, 25).astype(int).tolist():
        for bit in (0, 5):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            yield bytes(changed)
        yield data[:position]
    for junk in (b'\0', b'\n', b' ', b'{}'):
        yield data + junk
        yield junk + data
    if other != data:  # The candidate may be the good one.
        yield other


@pytest.mark.parametrize('name', FILES)
def test_an_altered_file_is_refused_by_name_or_means_the_same(
    tmp_path: Path, saved: Path, name: str
) -> None:
    shutil.copytree(saved, tmp_path / 'checkpoint')
    path = tmp_path / 'checkpoint' / name
    data = path.read_bytes()
    original, refused = content(load_checkpoint(tmp_path / 'checkpoint')), []
    for changed in mutations(data, (saved / FILES[FILES.index(name) - 1]).read_bytes()):
        path.write_bytes(changed)
        try:
            learner = load_checkpoint(tmp_path / 'checkpoint')
        except CheckpointError as error:
            refused.append(str(error))
        else:  # A blank more or less in the list of digests.
            assert name == MANIFEST
            assert json.loads(changed) == json.loads(data)
            assert content(learner) == original
    assert len(refused) >= 75
    assert all(name in reason and '\n' not in reason for reason in refused)


def test_files_of_another_checkpoint_are_refused(tmp_path: Path, saved: Path) -> None:
    """Each of them is whole."""
    save_checkpoint(tmp_path / 'checkpoint', trained(60, preset='resfit'))
    for name in (ACTOR, ALGORITHM, REPLAY, STATE):
        shutil.copytree(saved, tmp_path / name)
        shutil.copy(tmp_path / 'checkpoint' / name, tmp_path / name)
        with pytest.raises(CheckpointError, match=f'{name} is altered: its sha256 is'):
            load_checkpoint(tmp_path / name)
    shutil.copy(saved / RUN, tmp_path / 'checkpoint')
    load_checkpoint(tmp_path / 'checkpoint')
    with pytest.raises(CheckpointError, match=f'{RUN} is not in {MANIFEST}'):
        load_run_state(tmp_path / 'checkpoint')


def test_a_damaged_checkpoint_names_the_whole_one_beside_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    save_checkpoint(folder.latest, trained(20))
    save_checkpoint(folder.best, trained(12))
    (folder.latest / GOOD).write_bytes(b'')
    with pytest.raises(CheckpointError, match=r"good.* is altered.*; '.*/best' is whole: put it"):
        load_checkpoint(folder.latest)
    (folder.best / ALGORITHM).unlink()
    with pytest.raises(CheckpointError, match=r'manifest.json says \w+$'):
        load_checkpoint(folder.latest)


def outcomes(learner: Learner, count: int, success: bool) -> None:
    """Let a number of episodes with a residual end."""
    label = Success(int(success))
    for _ in range(count):
        end = {'terminated': True, 'success': label, 'source': Source.RESIDUAL}
        learner.ingest(make_transition(LAYOUT, policy_sequence=learner.sequence, **end))


def test_the_best_checkpoint_holds_the_networks_that_the_episodes_around_them_confirmed(
    tmp_path: Path,
) -> None:
    learner, folder = trained(0, guard_share=0.0), CheckpointFolder(tmp_path)
    outcomes(learner, 10 + WINDOW, False)  # The first ten are the warm-up.
    outcomes(learner, WINDOW, True)
    rated, taken_at = learner.judge.best.candidate, learner.transitions
    outcomes(learner, WINDOW, True)
    before = content(learner)
    folder.save(learner)
    assert content(learner) == before, 'the learner goes on where it was'
    best, latest = (load_file(path / ALGORITHM) for path in (folder.best, folder.latest))
    assert all(torch.equal(best[name], value) for name, value in rated.items())
    assert not torch.equal(best['actor.heads.weight'], latest['actor.heads.weight'])
    loaded = load_checkpoint(folder.best)
    header, actor = decode_weights((folder.best / ACTOR).read_bytes())
    assert_same_actor(actor, loaded.rule.robot_policy())
    shown = learner.exploration(taken_at)
    assert header.exploration.full_bound_cost == shown.full_bound_cost

    stamp = (folder.best / MANIFEST).stat().st_mtime_ns
    outcomes(learner, 60, False)
    folder.save(learner)
    folder.close()
    assert (folder.best / MANIFEST).stat().st_mtime_ns == stamp
    CheckpointFolder(tmp_path).save(learner)
    assert (folder.best / MANIFEST).stat().st_mtime_ns == stamp, 'nor after a start'


@pytest.mark.parametrize('name', FILES)
def test_a_missing_file_is_named(tmp_path: Path, saved: Path, name: str) -> None:
    shutil.copytree(saved, tmp_path / 'checkpoint')
    (tmp_path / 'checkpoint' / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / 'checkpoint')


def test_takeovers_are_sampled_again_after_a_resume(tmp_path: Path) -> None:
    def feed(learner: Learner, begin: int, end: int) -> None:
        for index, transition in enumerate(STREAM[begin:end], start=begin):
            source = Source.TAKEOVER if index % 3 == 0 else Source.RESIDUAL
            learner.ingest(replace(transition, source=source))

    learner = Learner(small_config('resfit', demonstration_share=0.5), LAYOUT, seed=5)
    feed(learner, 0, 30)
    save_checkpoint(tmp_path / 'checkpoint', learner)
    resumed = load_checkpoint(tmp_path / 'checkpoint')
    for each in (learner, resumed):
        feed(each, 30, 45)
        assert each.rule.memory.demonstrations == 15
    assert content(resumed) == content(learner)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint '.*none'"):
        load_checkpoint(tmp_path / 'none')


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    write_manifest(path.parent)


@pytest.mark.parametrize(
    'change',
    [
        lambda stored: stored['config'].update(critic_hidden_sizes=[8, 9]),
        lambda stored: stored['config'].update(actor_hidden_sizes=[8]),
        lambda stored: stored['config'].update(critic_heads=3),
        lambda stored: stored['config'].update(critic_layer_norm=False),
        lambda stored: stored['config'].update(more=1),
        lambda stored: stored.update(layout=make_layout(decision_steps=3).to_yaml()),
        lambda stored: stored.update(layout='nonsense'),
        lambda stored: stored['state'].update(phase='asleep'),
        lambda stored: stored['state'].pop('rng'),
        lambda stored: stored.pop('config'),
    ],
    ids=[
        'critic',
        'actor',
        'heads',
        'norm',
        'unknown',
        'layout',
        'no layout',
        'phase',
        'rng',
        'none',
    ],
)
def test_a_checkpoint_of_another_architecture_or_schema_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    save_checkpoint(tmp_path / 'checkpoint', trained(20))
    edit(tmp_path / 'checkpoint' / STATE, change)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / 'checkpoint')


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'checkpoint', trained(20))
    edit(tmp_path / 'checkpoint' / STATE, lambda stored: stored['config'].pop('neutral_prior'))
    with pytest.raises(CheckpointError, match='neutral_prior'):
        load_checkpoint(tmp_path / 'checkpoint')


@pytest.mark.parametrize(
    ('name', 'value'),
    [('critic_optimizer.0.exp_avg', torch.zeros(3)), ('critic_optimizer.1.step', torch.zeros(()))],
)
def test_moments_that_fit_no_parameter_are_refused(
    tmp_path: Path, name: str, value: torch.Tensor
) -> None:
    """Fused Adam would read beyond their end."""
    save_checkpoint(tmp_path / 'checkpoint', trained(20))
    file = tmp_path / 'checkpoint' / ALGORITHM
    save_file({**load_file(file), name: value}, file)
    write_manifest(file.parent)
    with pytest.raises(CheckpointError, match=f'{name} of shape'):
        load_checkpoint(tmp_path / 'checkpoint')


def test_a_checkpoint_whose_configuration_is_out_of_range_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'checkpoint', trained(20))
    edit(tmp_path / 'checkpoint' / STATE, lambda stored: stored['config'].update(gamma=2.0))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / 'checkpoint')


def test_a_checkpoint_is_continued_with_its_own_numbers_only(tmp_path: Path) -> None:
    learner = trained(20)
    save_checkpoint(tmp_path / 'checkpoint', learner)
    assert stored_config(tmp_path / 'checkpoint') == learner.config
    check_numbers(tmp_path / 'checkpoint', learner.config)
    with pytest.raises(CheckpointError, match=r'utd is 1\.0 there, 2\.0 .* and 1 more differ'):
        check_numbers(tmp_path / 'checkpoint', small_config(gamma=0.5, utd=2.0))
    with pytest.raises(CheckpointError, match='other numbers: algorithm is sac there, td3 by'):
        check_numbers(tmp_path / 'checkpoint', load_preset('resfit'))


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('step', ['save_tensors', 'save_arrays'])
def test_the_existing_checkpoint_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    older = trained(12)
    save_checkpoint(tmp_path / 'checkpoint', older)
    monkeypatch.setattr(checkpoint, step, full_disk)
    with pytest.raises(CheckpointError, match=r'No space left on device; free space or choose'):
        save_checkpoint(tmp_path / 'checkpoint', trained(30))
    assert content(load_checkpoint(tmp_path / 'checkpoint')) == content(older)
    assert [path.name for path in tmp_path.iterdir()] == ['checkpoint']


@pytest.mark.parametrize('place', ['checkpoint', 'checkpoint.old'])
def test_the_existing_checkpoint_survives_a_failure_of_the_last_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    older = trained(12)
    save_checkpoint(tmp_path / place, older)  # As `.old`: a save was killed between its renames.
    rename = Path.rename

    def failing(source: Path, target: Path) -> Path:
        if source.name.endswith('.new'):
            full_disk()
        return rename(source, target)

    monkeypatch.setattr(Path, 'rename', failing)
    with pytest.raises(CheckpointError):
        save_checkpoint(tmp_path / 'checkpoint', trained(30))
    assert content(load_checkpoint(tmp_path / 'checkpoint')) == content(older)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(CheckpointError, match=r'cannot write checkpoint'):
        save_checkpoint(tmp_path / 'file' / 'checkpoint', trained(3))


def test_what_an_interrupted_save_left_behind_is_replaced(tmp_path: Path) -> None:
    for name in ('checkpoint.new', 'checkpoint.old'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'junk').touch()
    learner = trained(12)
    save_checkpoint(tmp_path / 'checkpoint', learner)
    assert content(load_checkpoint(tmp_path / 'checkpoint')) == content(learner)
    assert [path.name for path in tmp_path.iterdir()] == ['checkpoint']


def test_a_key_that_the_state_lacks_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'latest', Learner(small_config(), LAYOUT, seed=5))
    path = tmp_path / 'latest' / STATE
    state = json.loads(path.read_text(encoding='utf-8'))
    del state['state']['takeovers']
    path.write_text(json.dumps(state), encoding='utf-8')
    write_manifest(tmp_path / 'latest')
    with pytest.raises(CheckpointError, match="'takeovers' is missing: another version"):
        load_checkpoint(tmp_path / 'latest')
