# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Weights arrive over a network: only whole, sound, fitting ones may ever reach a robot."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from actor_builders import assert_same_actor, make_actor
from hypothesis import given
from hypothesis import strategies as st
from planner_builders import known_planner
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch
from transition_builders import make_layout

from residual_rl_ros.errors import RewardError, WeightsError
from residual_rl_ros.files.tensor_file import MAX_HEADER_BYTES, MAX_TENSORS
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.residual_policy.architecture import MAX_HIDDEN_LAYERS
from residual_rl_ros.residual_policy.exploration import Exploration
from residual_rl_ros.residual_policy.mppi import MppiArchitecture
from residual_rl_ros.residual_policy.robot_policy import ROBOT_POLICIES
from residual_rl_ros.residual_policy.weights import (
    METADATA,
    WeightsHeader,
    _digest,
    decode_weights,
    encode_weights,
)

LAYOUT = make_layout()
ACTOR = make_actor(LAYOUT, gain=0.5).to_numpy()
ARCHITECTURE = ACTOR.architecture.to_mapping()
HEADER = WeightsHeader(3, 14, Exploration(0.5, wide_noise_scale=3.0), 150, 200)
MESSAGE = encode_weights(ACTOR, HEADER)
TENSORS_AT = 8 + int.from_bytes(MESSAGE[:8], 'little')


def reason(message: bytes, **kwargs: object) -> str:
    """Return the name under which a message is refused."""
    with pytest.raises(WeightsError) as error:
        decode_weights(message, **kwargs)
    return error.value.reason


def writable_tensors() -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in load(MESSAGE).items()}


def forged(
    tensors: dict[str, np.ndarray] | None = None,
    header: object = None,
    architecture: object = None,
) -> bytes:
    """Return a message with other content whose digest is right."""
    content = writable_tensors() if tensors is None else tensors
    fields = {
        'header': asdict(HEADER) if header is None else header,
        'kind': 'gaussian',
        'architecture': ARCHITECTURE if architecture is None else architecture,
    }
    fields = json.loads(json.dumps(fields))
    return save(content, {METADATA: json.dumps({**fields, 'digest': _digest(content, fields)})})


@pytest.mark.parametrize(
    'changes',
    [{}, {'sees_base_action': True}, {'outputs': 2}, {'hidden_sizes': (4, 5, 6)}],
    ids=str,
)
def test_an_actor_and_its_header_survive_bit_for_bit(changes: dict[str, object]) -> None:
    actor = make_actor(LAYOUT, gain=0.5, **changes)
    actor.normalizer.fit(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))
    header, decoded = decode_weights(encode_weights(actor.to_numpy(), HEADER), LAYOUT)
    assert header == HEADER
    assert_same_actor(decoded, actor.to_numpy())


def test_versions_are_ordered_by_epoch_then_sequence() -> None:
    assert WeightsHeader(2, 0).version > WeightsHeader(1, 99).version
    assert WeightsHeader(2, 2).version > WeightsHeader(2, 1).version


def test_the_same_actor_gives_the_same_bytes_in_every_process() -> None:
    script = (
        'import sys; sys.path[:0] = ["test/support", "test/residual_policy"]\n'
        'from test_weights import MESSAGE\n'
        'import hashlib; print(hashlib.sha256(MESSAGE).hexdigest())'
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, '-c', script], check=True, capture_output=True, text=True, cwd=root
    )
    assert run.stdout.strip() == hashlib.sha256(MESSAGE).hexdigest()


@pytest.mark.parametrize('kind', sorted(ROBOT_POLICIES))
def test_a_process_that_only_reads_weights_knows_every_kind(kind: str) -> None:
    """As the policy node, which imports no network."""
    script = (
        'import residual_rl_ros.residual_policy.mailbox\n'
        'from residual_rl_ros.residual_policy.robot_policy import ROBOT_POLICIES\n'
        f'raise SystemExit({kind!r} not in ROBOT_POLICIES)'
    )
    subprocess.run([sys.executable, '-c', script], check=True)


@given(st.integers(0, len(MESSAGE) - 1))
def test_a_truncated_message_is_malformed(length: int) -> None:
    assert reason(MESSAGE[:length]) == 'malformed'


@pytest.mark.parametrize('length', [0, 1, 7, 8, 9, TENSORS_AT - 1, TENSORS_AT, TENSORS_AT + 1])
def test_a_message_cut_at_a_seam_is_malformed(length: int) -> None:
    assert reason(MESSAGE[:length]) == 'malformed'


def test_bytes_after_the_end_are_malformed() -> None:
    assert reason(MESSAGE + b'\x00') == 'malformed'


@given(st.integers(TENSORS_AT, len(MESSAGE) - 1), st.integers(1, 255))
def test_a_flipped_byte_in_a_tensor_breaks_the_digest(index: int, mask: int) -> None:
    message = bytearray(MESSAGE)
    message[index] ^= mask
    assert reason(bytes(message)) == 'digest'


@given(st.integers(0, TENSORS_AT - 1), st.integers(1, 255))
def test_a_flipped_byte_in_the_header_changes_nothing_or_is_refused(index: int, mask: int) -> None:
    message = bytearray(MESSAGE)
    message[index] ^= mask
    try:
        header, actor = decode_weights(bytes(message))
    except WeightsError as error:
        assert error.reason in ('malformed', 'digest')  # noqa: PT017 - white space may flip too.
    else:
        assert header == HEADER
        assert_same_actor(actor, ACTOR)


@given(st.binary(max_size=200))
def test_random_bytes_are_malformed(message: bytes) -> None:
    assert reason(message) == 'malformed'


def test_an_altered_header_breaks_the_digest() -> None:
    altered = MESSAGE.replace(rb'\"sequence\": 14', rb'\"sequence\": 99')
    assert altered != MESSAGE
    assert reason(altered) == 'digest'


def test_no_pickle_is_ever_opened() -> None:
    opened = []

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return opened.append, (1,)

    assert reason(pickle.dumps(Bomb())) == 'malformed'
    assert opened == []


@pytest.mark.parametrize(
    ('changes', 'difference'),
    [
        (
            {'observation_names': ('tool.z', 'b', 'c')},
            r"names\[0\] is 'tool.z', expected 'arm.position.a'",
        ),
        ({'observation_names': ('a', 'b')}, 'number of observation_names is 2, expected 3$'),
        (
            {'observation_names': ('x', 'y', 'z'), 'residual_bound': (0.0, 0.0)},
            r'; .*; .* and 2 more$',
        ),
        ({'action_names': ('a.position', 'b.position\0')}, r"is 'b.position\\x00', expected 'b"),
        ({'action_names': ('a.position', '\ud800')}, r"is '\\ud800', expected 'b"),
        ({'action_names': ('a.position', 'n' * 10_000)}, r"is 'n{79}, expected 'b.position'$"),
        ({'action_names': ('v', 'u')}, r"action_names\[1\] is 'u', expected 'b.position'$"),
        ({'action_max': (1.0, 0.6)}, r'action_max\[1\] is 0.6, expected 0.5$'),
        ({'residual_bound': (0.05, 0.05)}, r'residual_bound\[0\] is 0.05, expected 0.1$'),
        ({'decision_steps': 4}, r'decision_steps is 4, expected 2$'),
    ],
)
def test_an_actor_of_another_robot_is_refused_with_what_differs(
    changes: dict[str, Any], difference: str
) -> None:
    other = make_layout(**changes)
    message = encode_weights(make_actor(other).to_numpy(), HEADER)
    assert decode_weights(message, other)[0] == HEADER
    with pytest.raises(WeightsError, match=difference) as refusal:
        decode_weights(message, LAYOUT)
    assert refusal.value.reason == 'layout'
    str(refusal.value).encode()


def test_tensors_that_do_not_fit_their_own_architecture_are_refused_by_shape() -> None:
    tensors = writable_tensors()
    assert reason(forged(architecture={**ARCHITECTURE, 'hidden_sizes': [9]})) == 'shape'
    assert reason(forged({k: v for k, v in tensors.items() if k != 'heads.bias'})) == 'shape'
    assert reason(forged({**tensors, 'more': np.zeros(1, np.float32)})) == 'shape'


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['heads.bias', 'normalizer.mean'])
def test_a_non_finite_tensor_is_refused(name: str, value: float) -> None:
    tensors = writable_tensors()
    tensors[name][0] = value
    assert reason(forged(tensors)) == 'non_finite'


@pytest.mark.parametrize(
    'message',
    [
        save({'x': np.zeros(1, np.float32)}),
        save({'x': np.zeros(1, np.float32)}, {METADATA: '{"header": {}}'}),
        save({'x': np.zeros(1, np.float32)}, {METADATA: '[]'}),
        save({'x': np.zeros(1, np.float32)}, {METADATA: '[' * 100_000}),
        forged(header={**asdict(HEADER), 'exploration': {'residual_probability': 2.0}}),
        forged(header={**asdict(HEADER), 'exploration': {'wide_scale': 'inf'}}),
        forged(header={'epoch': 1}),
        forged(header=[1, 2]),
        forged(header={**asdict(HEADER), 'extra': 1}),
        forged(architecture={}),
        forged(architecture=[]),
        forged(architecture={**ARCHITECTURE, 'depth': 2}),
        forged(architecture={**ARCHITECTURE, 'hidden_sizes': 8}),
    ],
    ids=[
        'no metadata',
        'no digest',
        'no map',
        'a deep list',
        'a probability of 2',
        'a scale that is no number',
        'header lacks keys',
        'header is a list',
        'header has more',
        'architecture is empty',
        'architecture is a list',
        'architecture has more',
        'one hidden size',
    ],
)
def test_metadata_off_the_schema_is_malformed(message: bytes) -> None:
    assert reason(message) == 'malformed'


@pytest.mark.parametrize(
    'changes',
    [{'hidden_sizes': ['a']}, {'hidden_sizes': [-1]}, {'outputs': None}, {'layout': 'x'}],
    ids=str,
)
def test_an_architecture_of_the_wrong_type_is_malformed(changes: dict[str, object]) -> None:
    assert reason(forged(architecture={**ARCHITECTURE, **changes})) == 'malformed'


@pytest.mark.parametrize(
    'changes',
    [
        {'version': 2},
        {'version': 3},
        {'decision_steps': 0},
        {'decision_steps': 10**12},
        {'decision_steps': 10**400},
        {'action_max': [1.0, float('nan')]},
        {'action_max': [1.0, 1e39]},
        {'residual_bound': [0.1, -0.05]},
        {'action_min': [-1.0, 0.5]},
        {'action_names': [1, 2]},
        {'action_names': [['a'], 'b']},
        {'observation_names': ['a'] * 1000},
        {'observation_names': None},
    ],
    ids=str,
)
def test_a_layout_that_contradicts_itself_is_malformed(changes: dict[str, object]) -> None:
    layout = {**ARCHITECTURE['layout'], **changes}
    assert reason(forged(architecture={**ARCHITECTURE, 'layout': layout})) == 'malformed'


def raw(header: object, body: bytes = b'') -> bytes:
    """Return safetensors bytes with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    return len(text).to_bytes(8, 'little') + text + body


EMPTY = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}


@pytest.mark.parametrize(
    ('message', 'wanted'),
    [
        (
            raw({f't{i}': EMPTY for i in range(MAX_TENSORS + 1)}),
            f'tensors, expected <= {MAX_TENSORS}',
        ),
        (raw({'__metadata__': {METADATA: 'n' * MAX_HEADER_BYTES}}), 'the header has'),
        (raw(b'[' * 10_000), 'recursion'),
        (raw(b'{"a":' * 10_000), 'recursion'),
        (raw(b'0,' * 10_001), 'has 10001 values, expected'),
        (raw(b'1' * 100_000), 'digits'),
        (raw(b'"\xff"'), 'utf-8'),
        (raw([]), 'no map'),
        (raw({'x': {**EMPTY, 'dtype': 'F4'}}), 'F4'),
        (raw({'x': {**EMPTY, 'shape': [-1]}}), 'expected whole numbers'),
        (raw({'x': {**EMPTY, 'shape': [True]}}, b'\0' * 4), 'expected whole numbers'),
        (raw({'x': {**EMPTY, 'shape': [10**30]}}), 'expected whole numbers'),
        (raw({'x': {**EMPTY, 'shape': [2**30, 2**30]}}), 'has 0 bytes'),
        (raw({'x': {**EMPTY, 'shape': [0] * 70}}), 'has 0 bytes'),
        (raw({'x': {**EMPTY, 'data_offsets': [8, 8]}}, b'\0' * 8), 'begins at'),
        (raw({'x': {**EMPTY, 'data_offsets': [0]}}), 'values to unpack'),
        (raw({}, b'\0' * 8), 'the tensors end at'),
        (raw({'x': 3}), 'subscriptable'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_header_that_no_learner_writes_is_malformed(message: bytes, wanted: str) -> None:
    with pytest.raises(WeightsError, match=wanted) as error:
        decode_weights(message)
    assert error.value.reason == 'malformed'
    assert len(str(error.value)) < 500


def test_the_header_of_the_largest_actor_is_read() -> None:
    layout = make_layout(observation_names=tuple(f'camera.feature_{i}' for i in range(2000)))
    sizes = (4,) * MAX_HIDDEN_LAYERS
    actor = make_actor(layout, hidden_sizes=sizes, layer_norm=True).to_numpy()
    assert_same_actor(decode_weights(encode_weights(actor, HEADER), layout)[1], actor)


def test_more_hidden_layers_than_a_network_has_are_malformed() -> None:
    sizes = [1] * (MAX_HIDDEN_LAYERS + 1)
    assert reason(forged(architecture={**ARCHITECTURE, 'hidden_sizes': sizes})) == 'malformed'


@pytest.mark.parametrize('value', [10**39, 2**53, -1, True, 1e39, 3.0, '1', None], ids=str)
@pytest.mark.parametrize(
    'name', ['epoch', 'sequence', 'effective_from', 'next_effective_from', 'rollbacks']
)
def test_a_header_number_that_no_learner_reaches_is_malformed(name: str, value: object) -> None:
    assert reason(forged(header={**asdict(HEADER), name: value})) == 'malformed'


def test_a_run_without_end_is_malformed() -> None:
    assert reason(forged(header={**asdict(HEADER), 'run': 'n' * 65})) == 'malformed'
    assert reason(forged(header={**asdict(HEADER), 'run': 3})) == 'malformed'


@pytest.mark.parametrize('name', ['body.0.weight', 'heads.weight', 'heads.bias'])
def test_finite_weights_that_overflow_are_refused_before_they_act(name: str) -> None:
    tensors = writable_tensors()
    for scaled in {name, name.replace('bias', 'weight')}:  # A bias alone does not overflow.
        tensors[scaled] /= np.abs(tensors[scaled]).max()
        tensors[scaled] *= np.float32(3e38)
    tensors['body.0.bias'] += 1e3  # So that the layer is not silent everywhere.
    assert reason(forged(tensors)) == 'overflow'


@pytest.mark.parametrize('value', [0.0, 1e-45])
def test_a_normaliser_that_divides_by_nothing_is_refused(value: float) -> None:
    tensors = writable_tensors()
    tensors['normalizer.std'][:] = value
    assert reason(forged(tensors)) == 'overflow' if not value else decode_weights(forged(tensors))


@pytest.mark.parametrize('changes', [{'epoch': 'x'}, {'sequence': None}], ids=str)
def test_a_header_of_the_wrong_type_is_refused(changes: dict[str, object]) -> None:
    reason(forged(header={**asdict(HEADER), **changes}))


def test_a_tensor_type_that_numpy_lacks_is_refused() -> None:
    tensors = {name: torch.from_numpy(value) for name, value in writable_tensors().items()}
    tensors['heads.bias'] = tensors['heads.bias'].bfloat16()
    fields = {
        'header': asdict(HEADER),
        'architecture': ARCHITECTURE,
        'digest': '0' * 64,
    }
    reason(save_torch(tensors, {METADATA: json.dumps(fields)}))


def test_a_number_of_outputs_that_is_neither_m_nor_km_is_refused() -> None:
    message = forged(architecture={**ARCHITECTURE, 'outputs': 3})
    assert reason(message, expected=LAYOUT) == 'malformed'


def test_a_small_message_cannot_make_a_large_actor() -> None:
    tensors = writable_tensors()
    claimed = {**ARCHITECTURE, 'hidden_sizes': (10**6, 10**6)}
    fields = {'header': asdict(HEADER), 'kind': 'gaussian', 'architecture': claimed}
    fields['digest'] = _digest(tensors, fields)
    assert reason(save(tensors, {METADATA: json.dumps(fields)})) == 'shape'


def test_a_process_that_only_decodes_weights_knows_every_kind_and_no_torch() -> None:
    script = (
        'import sys; from residual_rl_ros.residual_policy import weights, robot_policy\n'
        'print(sorted(robot_policy.ROBOT_POLICIES), "torch" in sys.modules)'
    )
    run = subprocess.run([sys.executable, '-c', script], check=True, capture_output=True, text=True)
    kinds, torch_is_loaded = run.stdout.rsplit(maxsplit=1)
    own = {'best_of_n', 'categorical', 'gaussian', 'mppi', 'prior_gaussian'}
    assert own <= set(ast.literal_eval(kinds))
    assert torch_is_loaded == 'False'


def test_an_unknown_kind_is_refused_by_name() -> None:
    message = forged(header=asdict(HEADER)).replace(rb'\"gaussian\"', rb'\"dreaming\"')
    with pytest.raises(WeightsError, match="kind is 'dreaming', expected one of"):
        decode_weights(message)


def test_a_message_whose_add_on_fails_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    message = encode_weights(known_planner(), WeightsHeader(1, 0))

    def fail(values: object) -> None:
        raise RewardError("add-on 'mine' failed")

    monkeypatch.setattr(MppiArchitecture, 'from_mapping', fail)
    with pytest.raises(WeightsError, match="unreadable: add-on 'mine' failed") as caught:
        decode_weights(message)
    assert caught.value.reason == 'malformed'


def test_a_file_that_is_larger_than_any_actor_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / 'actor.safetensors'
    with path.open('wb') as file:
        file.truncate(2**40)  # Of holes.
    with pytest.raises(WeightsError, match='it has 1099511627776 bytes, expected at most'):
        read_actor(path)
