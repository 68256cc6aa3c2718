# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A shipped fine-tuning run must start: its files exist and fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from residual_rl_ros.algorithms.rule import RULES
from residual_rl_ros.algorithms.sac import SacConfig
from residual_rl_ros.base_policy.prefetch import AUTO
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.config.run import load_run
from residual_rl_ros.errors import ConfigError, ResidualRLError, ResourceError
from residual_rl_ros.resources import find_base_policy, resource_path
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.schema import parameter
from residual_rl_ros.tasks.hosting import connect, make_environment

TASKS = sorted(path.stem for path in resource_path('config', 'finetune').glob('*.yaml'))


@pytest.mark.parametrize('task', TASKS)
def test_a_shipped_run_fits_its_base_policy_robot_and_environment(task: str) -> None:
    config = load_run(task)
    resolved = config.resolve()
    policy, robot, path = resolved.policy, resolved.robot, resolved.robot_file
    env = connect(make_environment(config.task), robot)
    assert env.observation_space.shape == (len(robot.observation_names),)
    env.close()
    assert path.is_file()
    controller = config.controller_config(seed=3, explore=True, scheduled=True)
    built = controller.build(policy, robot.action)
    built.queue.close()
    assert built.layout.decision_steps == config.decision_steps
    layout = built.layout
    ranges = np.subtract(layout.action_max, layout.action_min)
    assert 0.0 < max(layout.residual_bound) <= max(ranges)
    assert config.learner_config().warmup_transitions * config.decision_steps < config.control_steps


def write(path: Path, **changes: object) -> Path:
    values = yaml.safe_load(
        resource_path('config', 'finetune', 'fetch_pick_and_place.yaml').read_text()
    )
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


def test_a_run_may_have_inference_measured_and_chunks_averaged(tmp_path: Path) -> None:
    changes = {'prefetch_steps': 'auto', 'temporal_ensemble': 0.01, 'ensemble_steps': 2}
    config = load_run(str(write(tmp_path / 'run.yaml', **changes)))
    assert config.prefetch_steps == AUTO
    splicing = config.controller_config(0, explore=False, scheduled=True).splicing
    assert splicing == Splicing(AUTO, 0, 0.01, 2)
    assert splicing.in_lockstep == Splicing(0, 0, 0.01, 2)
    assert config.changed({'decision_steps': 2}).prefetch_steps == AUTO
    with pytest.raises(ConfigError, match='expected a whole number >= -1 or auto'):
        load_run(str(write(tmp_path / 'run.yaml', prefetch_steps='soon')))


def test_the_controller_configuration_carries_every_choice(tmp_path: Path) -> None:
    config = load_run(str(write(tmp_path / 'run.yaml', residual_scale=[0.1] * 7, prefetch_steps=2)))
    made = config.controller_config(seed=9, explore=True, scheduled=False)
    assert (made.seed, made.explore, made.scheduled_actor) == (9, True, False)
    assert (made.decision_steps, made.splicing) == (config.decision_steps, Splicing(2))
    assert made.residual_scale == (0.1,) * 7
    assert made.lockstep


def test_overrides_replace_values_of_the_preset(tmp_path: Path) -> None:
    config = load_run(str(write(tmp_path / 'run.yaml', overrides={'batch_size': 17})))
    assert config.learner_config().rule.batch_size == 17


def test_the_overrides_of_a_run_are_for_its_own_preset(tmp_path: Path) -> None:
    config = load_run(str(write(tmp_path / 'run.yaml', overrides={'batch_size': 17})))
    assert config.with_preset(config.preset).learner_config().rule.batch_size == 17
    other = config.with_preset('policy_decorator')
    assert other.learner_config() == load_preset('policy_decorator')


def test_add_ons_are_checked_with_the_run_and_their_names_with_its_robot(tmp_path: Path) -> None:
    slow = {'name': 'speed_limit', 'velocities': ['state.x1'], 'limit': 0.5}
    config = load_run(str(write(tmp_path / 'run.yaml', add_on=[slow])))
    assert config.add_ons.to_list() == [{'weight': 1.0, **slow}]
    assert config.resolve().config is config
    option = 'speed_limit:velocities=[state.x99],limit=0.5'
    with pytest.raises(ConfigError, match=r"no observation 'state\.x99'; did you mean"):
        config.with_add_ons([option]).resolve()
    assert config.with_add_ons([]) is config
    with pytest.raises(ConfigError, match='limit is missing'):
        load_run(str(write(tmp_path / 'run.yaml', add_on=[{'name': 'speed_limit'}])))


@dataclass(frozen=True)
class Follows(SacConfig):
    section: ClassVar[str] = 'follows'
    add_on: tuple[dict[str, Any], ...] = parameter((), 'add-on rewards')


def test_a_rule_that_learns_add_ons_is_given_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, 'follows', (object, Follows))
    (tmp_path / 'follows.yaml').write_text('algorithm: follows')
    high = {'name': 'hopper_height', 'reads': 'state.x0'}
    config = load_run(str(write(tmp_path / 'run.yaml', add_on=[high], overrides={})))
    assert not config.learner_config().learns_add_on
    follows = config.with_preset(str(tmp_path / 'follows.yaml'))
    learner = follows.learner_config()
    assert isinstance(learner.rule, Follows)
    assert AddOns.of(learner.rule.add_on) == config.add_ons
    other = follows.changed({'add_on': [], 'gamma': 0.5}).learner_config()
    assert isinstance(other.rule, Follows)
    assert other.rule.add_on == ()


def test_an_override_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    config = load_run(str(write(tmp_path / 'run.yaml', overrides={'bath_size': 17})))
    with pytest.raises(ConfigError, match=r'bath_size is unknown; did you mean batch_size'):
        config.learner_config()


def test_an_unknown_task_lists_the_known_ones() -> None:
    names = ', '.join(TASKS)
    with pytest.raises(ResourceError, match=rf"unknown task 'tidy_up'; shipped: {names}; or"):
        load_run('tidy_up')


def test_an_unknown_base_policy_lists_the_shipped_ones() -> None:
    with pytest.raises(
        ResourceError,
        match=r"unknown base policy 'gpt'; shipped: cart_pole, .*fetch_pick_and_place, ",
    ):
        find_base_policy('gpt')


def test_a_base_policy_is_found_by_name_and_by_path() -> None:
    assert find_base_policy('peg_insert') == resource_path('models', 'peg_insert.onnx')
    assert find_base_policy('other/mine.onnx') == Path('other/mine.onnx')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'seeed': 1}, r'run.yaml: seeed is unknown'),
        ({'decision_steps': 'four'}, r"decision_steps is 'four', expected a whole number >= 1"),
        (
            {'residual_scale': 'small'},
            r"residual_scale is 'small', expected a list of numbers",
        ),
        ({'residual_scale': None}, r'run.yaml: residual_scale is None'),
        ({'overrides': 'none'}, r"overrides is 'none', expected a map"),
        ({'control_steps': None, 'seed': 3}, r'seed is unknown; .*; control_steps is None'),
    ],
)
def test_a_wrong_key_or_value_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run(str(write(tmp_path / 'run.yaml', **changes)))


@pytest.mark.parametrize('value', [3.7, float('inf')])
def test_a_count_that_is_no_whole_number_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ConfigError, match=r'run.yaml'):
        load_run(str(write(tmp_path / 'run.yaml', decision_steps=value)))


@pytest.mark.parametrize('content', ['{', '- 1', ''])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / 'run.yaml'
    file.write_text(content)
    with pytest.raises(ConfigError, match=r'run.yaml'):
        load_run(str(file))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'none.yaml: cannot read run'):
        load_run(str(tmp_path / 'none.yaml'))


def test_a_robot_and_a_base_policy_of_different_tasks_are_refused(tmp_path: Path) -> None:
    config = load_run(str(write(tmp_path / 'run.yaml', robot=TASKS[1], base_policy=TASKS[0])))
    with pytest.raises(ResidualRLError, match=r'observation names differ'):
        config.resolve()


def test_a_run_says_what_its_transitions_tell_and_a_plain_one_says_nothing() -> None:
    plain = load_run('peg_insert')
    assert plain.resolve().controller(0, False, False).layout.version == 1
    told = plain.changed({'proposals': 4, 'customisable': True, 'prior_width': [0.5]})
    layout = told.resolve().controller(0, False, False).layout
    assert (layout.version, layout.prior, layout.proposals) == (2, 'gaussian', 4)
    assert layout.customisable
    # What an actor was trained with is what it is played with.
    again = plain.changed({'prior_width': [0.5]}).resolve().trained_as(layout)
    assert again.controller(0, False, False).layout == layout
