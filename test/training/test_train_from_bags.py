# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner made from bags must go on as if the robot had made their transitions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bag_builders import (
    START_NS,
    TRANSITIONS,
    open_recorder,
    write_bag,
    write_layout,
    write_transitions,
)
from command_line import run
from learner_builders import small_config
from transition_builders import make_layout, random_transitions

from residual_rl_ros.bags.transitions.writer import TransitionWriter
from residual_rl_ros.errors import BagError
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.learner.kept_networks import not_finite
from residual_rl_ros.learner.learner import Learner, Phase
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.ros.bringup.topology import RobotRun, robot_topology
from residual_rl_ros.training.train_from_bags import TransitionUse, train_from_bags
from residual_rl_ros.transitions.cdr import labelled_array
from residual_rl_ros.transitions.transition import Source, Success, Transition

L = make_layout()


def base_stream(count: int, seed: int = 0) -> list[Transition]:
    off = np.zeros(L.decision_size)
    return [
        replace(t, source=Source.BASE, residual_action=off, executed_action=t.base_action)
        for t in random_transitions(L, count, seed)
    ]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / 'bag', L, base_stream(120), max_bytes=10_000)


def test_base_transitions_stand_for_the_warm_up(bag: Path) -> None:
    config = small_config(warmup_transitions=50)
    learner, intake = train_from_bags([bag], TransitionUse.BASE, config, seed=3)
    fresh = Learner(config, L, 3)
    assert intake.taken == 120
    assert len(learner.rule.memory.replay) == 50, (
        'more base transitions would drown those of the robot'
    )
    assert learner.phase is Phase.ONLINE
    assert (learner.transitions, learner.control_steps, learner.updates.online) == (50, 0, 0)
    assert learner.updates.pretraining == 0
    before, after = fresh.rule.state_dict(), learner.rule.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all('normalizer' in name or name == 'episode_decisions' for name in changed)
    assert intake.success_rate == pytest.approx(9 / 17)


def test_what_a_bag_has_fitted_stays_until_the_replay_holds_twice_as_much(bag: Path) -> None:
    config = small_config(warmup_transitions=50, replay_capacity=300, refit_normalizer=True)
    learner, _ = train_from_bags([bag], TransitionUse.BASE, config, seed=3)
    for transition in base_stream(189, seed=4):
        learner.ingest(transition, learn=False)
    assert learner.rule.memory.normalizer_transitions == 120
    learner.ingest(base_stream(1, seed=5)[0], learn=False)
    assert learner.rule.memory.normalizer_transitions == len(learner.rule.memory.replay) == 240


def test_the_first_transition_of_the_robot_is_the_first_after_the_warm_up(bag: Path) -> None:
    config = small_config(warmup_transitions=50, utd=1.0, publish_interval=10)
    learner, _ = train_from_bags([bag], TransitionUse.BASE, config, seed=3)
    header = decode_weights(learner.first_message())[0]
    assert (header.effective_from, header.next_effective_from) == (0, 20)
    published = [learner.ingest(t) is not None for t in random_transitions(L, 10, seed=9)]
    assert published == [False] * 9 + [True]
    assert learner.updates.online == 10


def test_the_guard_compares_with_the_base_episodes_of_a_bag(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', L, base_stream(7 * 30))
    learner, intake = train_from_bags([path], TransitionUse.BASE, small_config(), seed=3)
    assert learner.judge.guard.base_success == intake.success_rate == 0.5


@pytest.mark.parametrize('rule', ['auto', 'ignored'])
def test_in_a_bag_of_labelled_successes_the_ends_by_time_limit_are_failures(
    tmp_path: Path, rule: str
) -> None:
    stream = [
        replace(t, terminated=False, truncated=True, success=Success.UNLABELLED)
        if (t.terminated or t.truncated) and t.success is not Success.SUCCESS
        else t
        for t in base_stream(7 * 60)
    ]
    ends = [t.success is Success.SUCCESS for t in stream if t.terminated or t.truncated]
    path = write_bag(tmp_path / 'bag', L, stream)
    config = small_config(guard_unlabelled=rule)
    learner, intake = train_from_bags([path], TransitionUse.BASE, config, seed=3)
    rate = float(np.mean(ends[-50:])) if rule == 'auto' else 1.0
    assert intake.success_rate == learner.judge.guard.base_success == pytest.approx(rate)
    assert 0.2 < float(np.mean(ends)) < 0.8
    assert learner.episodes.only_success_is_labelled


@pytest.mark.parametrize('max_bytes', [10_000_000, 4_000])
def test_an_operators_rescue_is_no_success_of_the_base(tmp_path: Path, max_bytes: int) -> None:
    stream = base_stream(7 * 30)
    ends = [index for index, t in enumerate(stream) if t.terminated or t.truncated]
    rescued = ends[1:-1:2]
    for end in rescued:
        stream[end - 2] = replace(stream[end - 2], source=Source.TAKEOVER)
    path = write_bag(tmp_path / 'bag', L, stream, max_bytes=max_bytes)
    learner, intake = train_from_bags([path], TransitionUse.BASE, small_config(), seed=3)
    alone = [stream[end].success is Success.SUCCESS and end not in rescued for end in ends]
    assert intake.skipped == len(rescued) > 10
    assert list(intake.success) == alone
    assert learner.judge.guard.base_success == pytest.approx(np.mean(alone))


def test_one_transition_is_too_few_for_an_offline_phase(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'one', L, base_stream(1))
    with pytest.raises(BagError, match='--as offline needs at least 2 transitions'):
        train_from_bags([path], TransitionUse.OFFLINE, small_config('wsrl'), seed=0)


def test_a_short_bag_leaves_the_rest_of_the_warm_up_to_the_robot(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'short', L, base_stream(20))
    config = small_config(warmup_transitions=50)
    learner, _ = train_from_bags([path], TransitionUse.BASE, config, seed=3)
    assert (learner.phase, learner.transitions) == (Phase.WARMUP, 20)
    assert learner.updates.pretraining == 0
    for transition in random_transitions(L, 30, seed=9):
        learner.ingest(transition)
    assert learner.phase is Phase.ONLINE


def test_what_a_residual_did_is_no_base_transition(tmp_path: Path) -> None:
    stream = base_stream(60)
    stream[10:20] = [replace(t, source=Source.RESIDUAL) for t in stream[10:20]]
    stream[30] = replace(stream[30], source=Source.TAKEOVER)
    path = write_bag(tmp_path / 'mixed', L, stream)
    learner, intake = train_from_bags([path], TransitionUse.BASE, small_config(), seed=0)
    assert (intake.taken, intake.skipped) == (49, 11)
    assert learner.rule.memory.replay.composition()[Source.BASE] == 1.0


def test_demonstrations_go_to_their_own_buffer(bag: Path) -> None:
    config = small_config('resfit', demonstration_share=0.5, warmup_transitions=10)
    learner, intake = train_from_bags([bag], TransitionUse.DEMONSTRATIONS, config, seed=0)
    assert learner.rule.memory.demonstrations == intake.taken == 120
    assert len(learner.rule.memory.replay) == 0
    assert (learner.phase, learner.transitions) == (Phase.WARMUP, 0)


def test_offline_data_trains_actor_and_critics_and_is_dropped(bag: Path) -> None:
    config = small_config(
        'wsrl', offline_updates=8, warmup_transitions=180, policy_warmup_transitions=6
    )
    learner, _ = train_from_bags([bag], TransitionUse.OFFLINE, config, seed=0)
    fresh = Learner(config, L, 0)
    assert learner.updates.pretraining == 8
    assert len(learner.rule.memory.replay) == 0
    assert learner.phase is Phase.POLICY_WARMUP
    key = next(name for name in fresh.rule.state_dict() if name.startswith('actor.heads'))
    assert not torch.equal(fresh.rule.state_dict()[key], learner.rule.state_dict()[key])
    for transition in random_transitions(L, 8, seed=9):
        learner.ingest(transition)
    assert learner.phase is Phase.ONLINE
    assert learner.updates.online > 0


@pytest.mark.parametrize(
    ('preset', 'use', 'reason'),
    [
        ('best_of_n', TransitionUse.OFFLINE, 'offline_updates > 0'),
        ('wsrl', TransitionUse.BASE, 'use --as offline'),
        ('best_of_n', TransitionUse.DEMONSTRATIONS, 'demonstration_share > 0'),
    ],
)
def test_a_preset_that_cannot_use_them_is_refused(
    preset: str, use: TransitionUse, reason: str, bag: Path
) -> None:
    with pytest.raises(BagError, match=reason):
        train_from_bags([bag], use, small_config(preset), seed=0)


def test_another_layout_is_one_line_and_skipped(bag: Path, tmp_path: Path) -> None:
    other = make_layout(residual_bound=(0.3, 0.3))
    second = write_bag(tmp_path / 'other', other, base_stream(30))
    _, intake = train_from_bags([bag, second], TransitionUse.BASE, small_config(), seed=0)
    assert intake.taken == 120
    (problem,) = [str(problem) for problems in intake.problems for problem in problems]
    assert str(second) in problem
    assert other.label in problem
    assert problem.endswith('(30 times)')


def bag_of_policy(folder: Path, sha256: str | None, count: int) -> Path:
    data = {} if sha256 is None else {'base_policy_sha256': sha256}
    with TransitionWriter(folder, L, custom_data=data) as writer:
        for transition in base_stream(count):
            writer.write(transition)
    return folder


def test_bags_of_another_base_policy_are_skipped_and_named(tmp_path: Path) -> None:
    policies = ('unknown', None, 10), ('one', 'aaa', 20), ('two', 'bbb', 40), ('again', 'aaa', 80)
    bags = [bag_of_policy(tmp_path / name, sha, count) for name, sha, count in policies]
    _, intake = train_from_bags(bags, TransitionUse.BASE, small_config(), seed=0)
    assert intake.taken == 10 + 20 + 80
    (problem,) = [str(problem) for problems in intake.problems for problem in problems]
    assert problem.startswith(f'{bags[2]}: base_policy_sha256 is bbb, expected aaa; skipped')
    with pytest.raises(BagError, match='base_policy_sha256 is aaa, bbb, expected one; skipped'):
        train_from_bags([tmp_path], TransitionUse.BASE, small_config(), seed=0)


def test_robots_of_two_namespaces_train_one_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = open_recorder(tmp_path / 'bag', 'left', 'right')
    for robot in ('left', 'right'):
        write_layout(recorder, L, robot)
    for begin in range(0, 60, 10):  # Mixed, as two robots are.
        for seed, robot in enumerate(('left', 'right')):
            part = base_stream(60, seed)[begin : begin + 10]
            write_transitions(recorder, L, part, robot)
    recorder.close()
    out = tmp_path / 'out'
    small = [
        'warmup_transitions=50',
        'warmup_episodes=0',
        'batch_size=8',
        'replay_capacity=300',
    ]
    settings = [part for text in small for part in ('--set', text)]
    arguments = ('train', str(tmp_path / 'bag'), '--out', str(out), *settings)
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    learner = load_checkpoint(out / 'checkpoints' / 'latest')
    assert len(learner.rule.memory.replay) == 50
    taken = json.loads((out / 'bag_training.json').read_text())['transitions']
    assert taken == 120, 'of both robots'


def test_the_number_of_updates_is_known_before_the_first(bag: Path) -> None:
    said = []
    config = small_config('resfit', warmup_transitions=50, critic_only_updates=12)
    learner, _ = train_from_bags([bag], TransitionUse.BASE, config, 0, on_update=said.append)
    assert said == [12] * learner.updates.pretraining == [12] * 12
    said.clear()
    config = small_config('wsrl', offline_updates=3, warmup_transitions=50)
    train_from_bags([bag], TransitionUse.OFFLINE, config, 0, on_update=said.append)
    assert said == [3] * 3


def test_the_same_bags_give_the_same_learner(bag: Path) -> None:
    config = small_config(warmup_transitions=50)
    one, two = (train_from_bags([bag], TransitionUse.BASE, config, seed=3)[0] for _ in range(2))
    for name, value in one.rule.state_dict().items():
        assert torch.equal(two.rule.state_dict()[name], value), name


def test_bags_without_anything_to_use_say_so(tmp_path: Path) -> None:
    empty = write_bag(tmp_path / 'empty', L, [])
    with pytest.raises(BagError, match=r'^no base transitions in the bags(;|$)'):
        train_from_bags([empty], TransitionUse.BASE, small_config(), seed=0)
    other = write_bag(tmp_path / 'residual', L, random_transitions(L, 5))
    with pytest.raises(BagError, match='5 of other sources'):
        train_from_bags([other], TransitionUse.BASE, small_config(), seed=0)


def test_the_command_leaves_a_checkpoint_that_a_robots_learner_resumes(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'out'
    small = [
        'warmup_transitions=50',
        'warmup_episodes=0',
        'batch_size=8',
        'replay_capacity=300',
    ]
    settings = [part for text in small for part in ('--set', text)]
    arguments = ['train', str(bag), '--out', str(out), *settings]
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    learner = load_checkpoint(out / 'checkpoints' / 'latest')
    assert learner.phase is Phase.ONLINE
    assert len(learner.rule.memory.replay) == 50
    assert json.loads((out / 'bag_training.json').read_text())['transitions'] == 120
    assert run(*arguments, monkeypatch=monkeypatch) == 2  # The folder is taken.
    learner_node, policy_node = robot_topology(RobotRun(Path('robot.yaml'), Path('base.onnx'), out))
    assert learner_node.parameters['resume'] is True
    assert policy_node.parameters['actor'] == str(out / 'checkpoints' / 'latest')


def test_a_stray_file_is_named_and_the_bags_beside_it_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'notes.txt').touch()
    bag = write_bag(tmp_path / 'bag', L, random_transitions(L, 20))
    arguments = ['train', str(tmp_path / 'notes.txt'), str(bag), '--out', str(tmp_path / 'out')]
    arguments += ['--as', 'demonstrations', '--preset', 'resfit']
    assert run(*arguments, monkeypatch=monkeypatch) == 1
    assert 'notes.txt' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'bag_training.json').is_file()


def test_a_row_that_is_not_plausible_costs_itself(tmp_path: Path) -> None:
    stream = base_stream(60)
    path = write_bag(tmp_path / 'sound', L, [*stream[:20], *stream[21:]])
    spoiled = open_recorder(tmp_path / 'spoiled')
    write_layout(spoiled, L)
    for index, transition in enumerate(stream):
        row = L.encode(transition)
        if index == 20:
            row[L.columns['observation']] = 1e30
        spoiled.write('/' + TRANSITIONS, START_NS + index * 10**8, labelled_array(row, L.label))
    spoiled.close()
    learners = []
    for bag in (path, tmp_path / 'spoiled'):
        learner, intake = train_from_bags([bag], TransitionUse.BASE, small_config(), seed=0)
        assert intake.taken == 59
        learners.append(learner)
    (problem,) = intake.problems[0]
    assert 'observation[0] is 1e+30, expected -1000000 to 1000000' in str(problem)
    mean, same = (learner.rule.actor.normalizer.mean for learner in learners)
    assert torch.equal(mean, same)


def test_a_learner_that_diverges_on_a_bag_says_so_and_stays_finite(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', L, base_stream(60))
    config = small_config('resfit', critic_only_updates=5, critic_learning_rate=1e30)
    told: list[str] = []
    learner, _ = train_from_bags([path], TransitionUse.BASE, config, 0, warn=told.append)
    assert 'not finite' in told[0]
    assert not not_finite(learner.rule.state_dict())
