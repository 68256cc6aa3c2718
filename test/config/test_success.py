# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a task tells success is one word, checked where it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.config.run import load_run, run_config
from residual_rl_ros.config.success import WHEN, SuccessCriterion
from residual_rl_ros.errors import ConfigError


@pytest.mark.parametrize('text', ['auto', 'return', 'terminated'])
def test_what_is_no_key_has_no_time(text: str) -> None:
    assert SuccessCriterion.parse(text) == SuccessCriterion(text)


def test_a_key_counts_at_any_step_unless_it_says_when() -> None:
    assert SuccessCriterion.parse('success') == SuccessCriterion('success', 'once')
    assert SuccessCriterion.parse('solved:end') == SuccessCriterion('solved', 'end')
    assert SuccessCriterion.parse('a:b:stop') == SuccessCriterion('a:b', 'stop')


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(list(WHEN)))
def test_every_criterion_is_read_back_from_its_text(key: str, when: str) -> None:
    criterion = SuccessCriterion(key, when)
    assert SuccessCriterion.parse(str(criterion)) == criterion


@pytest.mark.parametrize('text', ['', ' ', ':once', 'success:twice', 'success:'])
def test_a_criterion_that_does_not_exist_is_refused_with_what_does(text: str) -> None:
    with pytest.raises(ConfigError, match=r'expected auto, return, terminated or a key of info'):
        SuccessCriterion.parse(text)


def test_a_run_says_how_its_task_tells_success() -> None:
    config = load_run('fetch_pick_and_place')
    assert config.success == 'is_success:stop'
    assert config.with_success(None) is config
    assert config.with_success('success').success == 'success:once'
    with pytest.raises(ConfigError, match=r"run.yaml: success is 'success:twice', expected auto"):
        run_config(
            {
                'task': 'peg_insert',
                'robot': 'peg_insert',
                'base_policy': 'peg_insert',
                'residual_scale': 0.1,
                'control_steps': 10,
                'success': 'success:twice',
            },
            'run.yaml',
        )
