# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Who has the key is heard, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from actor_builders import make_actor
from transition_builders import make_layout

from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import CheckpointError, ConfigError, SealError, WeightsError
from residual_rl_ros.learner.checkpoint import load_checkpoint, save_checkpoint
from residual_rl_ros.learner.folder import MANIFEST
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.actor_file import ACTOR, read_actor
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.residual_policy.weights import WeightsHeader, encode_weights
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.seal import LAYOUT, WEIGHTS, Key

OURS, THEIRS = Key(b'o' * 32), Key(b't' * 32)
MESSAGE = b'some bytes\n# hmac-sha256: of no kind'


def test_what_is_sealed_is_opened_with_the_same_key_alone() -> None:
    sealed = OURS.seal(WEIGHTS, MESSAGE)
    assert OURS.open(WEIGHTS, sealed) == MESSAGE
    for opened in (MESSAGE, b'', sealed[:-1], sealed + b'0', b'x' + sealed):
        with pytest.raises(SealError, match='weights is'):
            OURS.open(WEIGHTS, opened)
    with pytest.raises(SealError, match='another key'):
        THEIRS.open(WEIGHTS, sealed)
    with pytest.raises(SealError, match='another key'):
        OURS.open(LAYOUT, sealed)


def test_without_a_key_everything_is_as_it_was() -> None:
    assert Key().seal(WEIGHTS, MESSAGE) == Key().open(WEIGHTS, MESSAGE) == MESSAGE


def test_a_sealed_layout_is_a_layout_for_whoever_has_no_key() -> None:
    layout = make_layout()
    text = OURS.seal(LAYOUT, layout.to_yaml().encode()).decode()
    assert TransitionLayout.from_yaml(text) == layout


def test_a_robot_with_a_key_accepts_no_other_weights() -> None:
    layout = make_layout()
    tensors = make_actor(layout).to_numpy()
    mailbox = ActorMailbox(layout)
    mailbox.key = OURS
    newer = encode_weights(tensors, WeightsHeader(1, 2, Exploration()))
    for message in (newer, THEIRS.seal(WEIGHTS, newer)):
        with pytest.raises(WeightsError):
            mailbox.submit(message)
    assert mailbox.refused['unsealed'] == 2
    mailbox.submit(OURS.seal(WEIGHTS, newer))
    assert mailbox.accepted == 1


def test_a_checkpoint_of_another_hand_is_refused(tmp_path: Path) -> None:
    learner = Learner(load_preset('best_of_n'), make_layout(), seed=0)
    folder = tmp_path / 'latest'
    save_checkpoint(folder, learner)
    with pytest.raises(CheckpointError, match='is not sealed'):
        load_checkpoint(folder, OURS)
    save_checkpoint(folder, learner, key=OURS)
    assert load_checkpoint(folder, OURS).layout == learner.layout
    assert load_checkpoint(folder).layout == learner.layout
    assert read_actor(folder, OURS) == (folder / ACTOR).read_bytes()
    with pytest.raises(SealError, match='another key'):
        read_actor(folder, THEIRS)
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + ' ')
    with pytest.raises(CheckpointError, match='was changed'):
        load_checkpoint(folder, OURS)


def test_a_key_is_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / 'key'
    path.write_bytes(os.urandom(32))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r'has mode 644 .* expected 600'):
        Key.read(str(path))
    path.chmod(0o600)
    assert Key.read(str(path)).open(WEIGHTS, Key.read(str(path)).seal(WEIGHTS, b'a')) == b'a'
    assert not Key.read('')
    link = tmp_path / 'link'
    link.symlink_to(path)
    for wrong in (link, tmp_path, tmp_path / 'no'):
        with pytest.raises(ConfigError, match='cannot read key_file'):
            Key.read(str(wrong))
    path.write_bytes(b'short')
    with pytest.raises(ConfigError, match='has 5 bytes, expected 32 to 4096'):
        Key.read(str(path))
