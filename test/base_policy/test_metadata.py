# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metadata is the only proof that a base policy belongs to a robot: it must be exact or refused."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robot_builders import make_action_spec, make_metadata

from residual_rl_ros.base_policy.inputs import ImageInput, MemoryInput
from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.base_policy.robot_fit import check_fit
from residual_rl_ros.errors import BasePolicyError

FINITE = st.floats(-3e38, 3e38)

METADATA = make_metadata(kind='act', task='bench', dataset_sha256='ab' * 32)
MAPPING = json.loads(METADATA.to_json())


@given(
    st.lists(FINITE, min_size=2, max_size=2),
    st.lists(FINITE, min_size=2, max_size=2),
    st.floats(1e-30, 1e30),
    st.text(max_size=8),
)
def test_json_keeps_every_number_at_full_precision(
    one: list[float], other: list[float], rate: float, task: str
) -> None:
    pairs = list(zip(one, other, strict=True))
    metadata = make_metadata(
        action_min=tuple(min(pair) for pair in pairs),
        action_max=tuple(max(pair) for pair in pairs),
        rate_hz=rate,
        task=task,
    )
    assert BasePolicyMetadata.from_json(metadata.to_json()) == metadata


def test_optional_keys_have_defaults() -> None:
    mapping = dict(MAPPING)
    for key in ('action_mode', 'kind', 'task', 'dataset_sha256', 'schema_version'):
        del mapping[key]
    metadata = BasePolicyMetadata.from_mapping(mapping)
    assert (metadata.action_mode, metadata.schema_version) == ('absolute', 1)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'schema_version': 2}, r'schema_version is 2, expected 1'),
        ({'observation_names': ()}, r'metadata: observation names are empty'),
        ({'action_names': ('a', 'a')}, r"metadata: action names are repeated: \['a'\]"),
        ({'action_min': (0.0,)}, r'action_min has 1 values, expected 2'),
        ({'action_max': (1.0, 1.0, 1.0)}, r'action_max has 3 values, expected 2'),
        ({'action_min': (math.nan, 0.0)}, r'action_min/action_max hold a non-finite number'),
        ({'action_max': (math.inf, 0.0)}, r'action_min/action_max hold a non-finite number'),
        ({'action_min': (2.0, 0.0)}, r"'a.position' has action_min 2.0 above action_max 1.0"),
        ({'rate_hz': 0.0}, r'rate_hz is 0.0, expected > 0'),
        ({'rate_hz': math.nan}, r'rate_hz is nan, expected > 0'),
        ({'rate_hz': math.inf}, r'rate_hz is inf, expected > 0'),
        ({'n_obs_steps': 0}, r'n_obs_steps is 0, expected >= 1'),
        ({'exec_start': -1}, r'exec_start is -1, expected >= 0'),
        ({'exec_steps': 0}, r'exec_steps is 0, expected >= 1'),
        ({'horizon': 4}, r'exec_start 1 \+ exec_steps 4 exceeds horizon 4'),
        ({'action_mode': 'torque'}, r"'torque'"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BasePolicyError, match=message):
        replace(METADATA, **changes)


REQUIRED = [field.name for field in fields(BasePolicyMetadata) if field.default is MISSING]


@pytest.mark.parametrize('key', REQUIRED)
def test_a_missing_key_is_named(key: str) -> None:
    mapping = dict(MAPPING)
    del mapping[key]
    with pytest.raises(BasePolicyError, match=rf"metadata lacks \['{key}'\]"):
        BasePolicyMetadata.from_mapping(mapping)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'n_obs': 1}, r"unknown keys \['n_obs'\]; known: \['action_max'"),
        ({'horizon': 'long'}, r"horizon is 'long', expected int"),
        ({'horizon': None}, r'horizon is None, expected int'),
        ({'rate_hz': 'fast'}, r"rate_hz is 'fast', expected float"),
        ({'action_min': 0.0}, r'action_min is 0.0, expected tuple\[float, ...\]'),
        ({'action_min': ['low', 0.0]}, r'action_min is .*expected tuple\[float, ...\]'),
        ({'action_names': 3}, r'action_names is 3, expected tuple\[str, ...\]'),
        ({'action_names': ['a', 1]}, r"action_names is \['a', 1\], expected tuple\[str, ...\]"),
        ({'rate_hz': '20'}, r"rate_hz is '20', expected float"),
        ({'rate_hz': True}, r'rate_hz is True, expected float'),
        ({'rate_hz': 1e300}, r'rate_hz is 1e\+300, expected float'),
        ({'action_max': [1e308, 0.5]}, r'action_max is .*expected tuple\[float, ...\]'),
        ({'kind': [1]}, r'kind is \[1\], expected str'),
        ({'dataset_sha256': 5}, r'dataset_sha256 is 5, expected str'),
    ],
)
def test_a_wrong_key_or_type_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BasePolicyError, match=message):
        BasePolicyMetadata.from_mapping({**MAPPING, **changes})


@pytest.mark.parametrize('value', [2.7, math.inf])
def test_a_count_that_is_no_whole_number_is_refused(value: float) -> None:
    with pytest.raises(BasePolicyError, match=r'exec_steps is'):
        BasePolicyMetadata.from_mapping({**MAPPING, 'exec_steps': value})


@pytest.mark.parametrize('name', ['\x1b[31m', 'a\nb', '\ud800'])
def test_a_name_that_cannot_be_printed_is_refused(name: str) -> None:
    with pytest.raises(BasePolicyError, match=r'name .* has characters that cannot be printed'):
        BasePolicyMetadata.from_mapping({**MAPPING, 'action_names': ['a', name]})


@pytest.mark.parametrize('text', ['', '{', 'None'])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(BasePolicyError, match=r'metadata is not JSON'):
        BasePolicyMetadata.from_json(text)


def test_json_that_is_no_map_is_refused() -> None:
    with pytest.raises(BasePolicyError, match=r'metadata is of type list, expected a map'):
        BasePolicyMetadata.from_json(json.dumps([1]))


def check(observations: tuple[str, ...] = METADATA.observation_names, **changes: object) -> None:
    check_fit(METADATA, observations, make_action_spec(**changes), 20.0)


def test_the_robot_it_was_trained_on_is_accepted() -> None:
    check()
    check(lower=np.array([-1.0, -0.5]), upper=np.array([1.0, 0.5]))


def test_an_observation_that_the_robot_lacks_is_named() -> None:
    with pytest.raises(BasePolicyError, match=r"needs \['tool.z'\], the robot also has \['z'\]"):
        check(observations=('arm.position.a', 'arm.position.b', 'z'))


def test_an_additional_observation_is_named() -> None:
    with pytest.raises(BasePolicyError, match=r"needs nothing more, .* also has \['extra'\]"):
        check(observations=(*METADATA.observation_names, 'extra'))


def test_the_first_name_out_of_order_is_given() -> None:
    with pytest.raises(BasePolicyError, match=r"action order differs at index 0: .*'a.position'"):
        check(names=METADATA.action_names[::-1])


def test_trained_actions_beyond_the_limits_are_refused_by_name() -> None:
    with pytest.raises(BasePolicyError, match=r"'b.position': trained range \[-0.5, 0.5\] leaves"):
        check(upper=np.array([1.0, 0.499]))
    with pytest.raises(BasePolicyError, match=r"'a.position': trained range \[-1, 1\] leaves"):
        check(lower=np.array([-0.999, -0.5]))


def test_a_limit_that_float32_cannot_tell_from_the_trained_range_is_none() -> None:
    check(upper=np.array([1.0 - 1e-8, float(np.float32(0.5))]))
    with pytest.raises(BasePolicyError, match=r'\[-1, 1\] leaves the robot limits \[-2, 0.999999'):
        check(upper=np.array([0.9999999, 0.5]))


def test_the_rate_may_differ_by_one_percent() -> None:
    names, action = METADATA.observation_names, make_action_spec()
    check_fit(METADATA, names, action, 20.15)
    with pytest.raises(BasePolicyError, match=r'trained at 20 Hz, the robot runs at 20.5 Hz'):
        check_fit(METADATA, names, action, 20.5)


def test_all_that_differs_is_said_at_once() -> None:
    action = make_action_spec(upper=np.array([1.0, 0.499]))
    with pytest.raises(BasePolicyError) as caught:
        check_fit(METADATA, (*METADATA.observation_names, 'extra'), action, 50.0)
    for part in ("also has ['extra']", "'b.position': trained range", 'runs at 50 Hz'):
        assert part in str(caught.value)


@pytest.mark.parametrize('key', ['n_obs_steps', 'horizon', 'exec_start', 'exec_steps'])
def test_a_model_cannot_ask_for_arrays_without_end(key: str) -> None:
    with pytest.raises(BasePolicyError, match=f'metadata {key} is 10000000, expected <= 10000'):
        make_metadata(**{key: 10**7})


def test_a_model_cannot_ask_for_images_without_end() -> None:
    camera = ImageInput('cam', 4096, 4096)
    assert make_metadata(inputs=(camera,), n_obs_steps=2).images == (camera,)
    with pytest.raises(BasePolicyError, match="window of 'cam' has 10000 images of 4096 x 4096"):
        make_metadata(inputs=(camera,), n_obs_steps=10_000)


@pytest.mark.parametrize('output', ['action', 'mean', 'log_std', 'logits', 'cam.features'])
def test_a_memory_is_no_other_output(output: str) -> None:
    inputs = (ImageInput('cam', 2, 2, ('red',)), MemoryInput('state', output, (1,)))
    with pytest.raises(BasePolicyError, match=f'a memory with the output .*{output}.*another name'):
        make_metadata(inputs=inputs)


def test_a_text_is_no_list_of_names() -> None:
    mapping = json.loads(make_metadata().to_json()) | {'action_names': 'ab'}
    with pytest.raises(BasePolicyError, match="action_names is 'ab', expected tuple"):
        BasePolicyMetadata.from_mapping(mapping)
