# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Another package adds an algorithm: one file, a short preset, an entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from learner_builders import make_rule
from transition_builders import make_layout, random_transitions

from residual_rl_ros.algorithms.rule import RULES, find_rule, register
from residual_rl_ros.algorithms.sac import SacConfig
from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.learner.checkpoint import load_checkpoint, save_checkpoint
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.residual_policy.robot_policy import (
    ROBOT_POLICIES,
    find_policy,
    installed_kinds,
)
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights

PRESET = """
algorithm: td3_bc
collection: {warmup_transitions: 20, publish_interval: 10}
replay: {replay_capacity: 200, batch_size: 16}
networks: {actor_hidden_sizes: [8], critic_hidden_sizes: [8]}
objective: {bc_alpha: 1.5}
"""
STREAM = random_transitions(make_layout(), 60)


QUIET = """
import numpy as np
from residual_rl_ros.residual_policy.architecture import ActorArchitecture
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor
from residual_rl_ros.residual_policy.robot_policy import register_policy, installed_kinds


@register_policy('quiet', ActorArchitecture)
class QuietActor(GaussianActor):
    def decide(self, observation, base_action, rng, sample=None, distribution=None):
        return np.zeros(self.architecture.decision_size)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package of one module beside this one, and return its preset."""
    source = Path(__file__).with_name('td3_bc.py').read_text()
    (tmp_path / 'other_package.py').write_text(source)
    (tmp_path / 'other_policy.py').write_text(QUIET)
    described = tmp_path / 'other_package-1.0.dist-info'
    described.mkdir()
    (described / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n'
    )
    (described / 'entry_points.txt').write_text(
        '[residual_rl_ros.algorithms]\ntd3_bc = other_package\n'
        '[residual_rl_ros.robot_policies]\nquiet = other_policy\n'
    )
    preset = tmp_path / 'td3_bc.yaml'
    preset.write_text(PRESET)
    monkeypatch.syspath_prepend(tmp_path)
    installed_kinds.cache_clear()
    yield preset
    installed_kinds.cache_clear()
    RULES.pop('td3_bc', None)
    ROBOT_POLICIES.pop('quiet', None)
    for name in ('other_package', 'other_policy'):
        sys.modules.pop(name, None)


def test_an_algorithm_of_another_package_learns_and_resumes(
    installed: Path, tmp_path: Path
) -> None:
    config = load_preset(str(installed))
    assert config.rule.bc_alpha == 1.5
    learner = Learner(config, make_layout(), seed=0)
    before = learner.rule.state_dict()['actor.heads.weight'].clone()
    messages = [learner.ingest(transition) for transition in STREAM[:45]]
    assert learner.updates.online == 25
    assert not np.array_equal(learner.rule.state_dict()['actor.heads.weight'], before)
    sent = [message for message in messages if message is not None]
    header, policy = decode_weights(sent[-1], make_layout())
    assert header.enabled
    assert policy.kind == 'gaussian'
    assert {'critic_loss', 'q_policy'} <= learner.updates.metrics.keys()
    save_checkpoint(tmp_path / 'checkpoint', learner)
    resumed = load_checkpoint(tmp_path / 'checkpoint')
    for each in (learner, resumed):
        for transition in STREAM[45:]:
            each.ingest(transition)
    for name, value in learner.rule.state_dict().items():
        assert np.array_equal(resumed.rule.state_dict()[name], value), name


def test_a_kind_of_robot_policy_of_another_package_is_found_by_its_message(installed: Path) -> None:
    assert installed.exists()
    kind, _ = find_policy('quiet')
    gaussian = make_rule().mean_actor.to_numpy()
    message = encode_weights(kind(gaussian.architecture, gaussian.tensors), WeightsHeader(1, 1))
    ROBOT_POLICIES.pop('quiet')
    sys.modules.pop('other_policy')
    _, policy = decode_weights(message, make_layout())
    assert policy.kind == 'quiet'
    assert not policy.decide(np.ones(3), np.ones(4), None).any()


def test_a_package_that_cannot_be_loaded_costs_no_other(installed: Path) -> None:
    entries = installed.parent / 'other_package-1.0.dist-info' / 'entry_points.txt'
    broken = 'broken = no_such_module'
    entries.write_text(entries.read_text().replace(']\n', f']\n{broken}\n'))
    assert find_rule('td3_bc')[0].__module__ == 'other_package'
    assert find_policy('quiet')[0].__module__ == 'other_policy'
    for find, error in ((find_rule, ConfigError), (find_policy, ValueError)):
        with pytest.raises(
            error, match=r"'x', expected one of .*; no_such_module of the package other-"
        ):
            find('x')


def test_an_algorithm_that_nobody_registered_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"algorithm is 'dreamer', expected one of cal_ql, choose_and_edit, q_remix, ",
    ):
        find_rule('dreamer')


def test_two_algorithms_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'sac' is registered twice"):
        register('sac', SacConfig)(type('Sac', (), {}))
