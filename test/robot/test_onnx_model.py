# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model is all of its files: they identify it together, and none is read from elsewhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from base_policy_builders import write_onnx_policy
from onnx import TensorProto, helper, numpy_helper
from robot_builders import make_metadata

from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy, read_policy_model
from residual_rl_ros.errors import BasePolicyError
from residual_rl_ros.robot.onnx_model import read_model

WINDOW = np.ones((1, 3), dtype=np.float32)


def split(path: Path, data: str = 'policy.onnx.data', bias: float = 0.0) -> Path:
    """Write a base policy with its weights beside it."""
    path.parent.mkdir(exist_ok=True)
    (path.parent / data).unlink(missing_ok=True)  # It would be appended to.
    write_onnx_policy(path, bias=np.full((6, 2), bias))
    onnx.save_model(
        onnx.load(path), str(path), save_as_external_data=True, location=data, size_threshold=40
    )
    return path


def relocate(path: Path, **entries: str) -> None:
    """Change where the graph says that its weights are."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_one_file_is_identified_by_its_own_digest(tmp_path: Path) -> None:
    write_onnx_policy(tmp_path / 'policy.onnx')
    digest = hashlib.sha256((tmp_path / 'policy.onnx').read_bytes()).hexdigest()
    assert OnnxBasePolicy(tmp_path / 'policy.onnx').sha256 == digest


def test_weights_beside_the_graph_are_a_part_of_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = split(tmp_path / 'a' / 'policy.onnx'), split(tmp_path / 'b' / 'policy.onnx')
    pinned = OnnxBasePolicy(first)
    assert pinned.files == ('policy.onnx', 'policy.onnx.data')
    assert OnnxBasePolicy(second).sha256 == pinned.sha256
    second = split(second, bias=1.0)
    assert first.read_bytes() == second.read_bytes()
    assert OnnxBasePolicy(second).sha256 != pinned.sha256
    monkeypatch.chdir(second.parent)  # ONNX Runtime would look for files here.
    again = OnnxBasePolicy(first, sha256=pinned.sha256.upper())
    np.testing.assert_array_equal(again.infer(WINDOW), pinned.infer(WINDOW))
    with pytest.raises(BasePolicyError, match=r'over policy.onnx with policy.onnx.data beside it'):
        OnnxBasePolicy(second, sha256=pinned.sha256)
    alone = hashlib.sha256(first.read_bytes()).hexdigest()
    with pytest.raises(BasePolicyError, match=rf'has sha256 {pinned.sha256} .*expected {alone}'):
        OnnxBasePolicy(first, sha256=alone)


def test_metadata_beside_the_graph_are_a_part_of_the_identity(tmp_path: Path) -> None:
    path = tmp_path / 'policy.onnx'
    write_onnx_policy(path, embed=False)
    path.with_suffix('.yaml').write_text(make_metadata().to_json())
    digest = OnnxBasePolicy(path).sha256
    OnnxBasePolicy(path, sha256=digest)
    path.with_suffix('.yaml').write_text(make_metadata(exec_start=0).to_json())
    with pytest.raises(BasePolicyError, match=r'with policy.yaml beside it'):
        OnnxBasePolicy(path, sha256=digest)
    write_onnx_policy(path)  # With metadata of its own, a file of that name means nothing.
    assert read_policy_model(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_running_policy_keeps_the_weights_that_were_read(tmp_path: Path) -> None:
    path = split(tmp_path / 'policy.onnx')
    policy = OnnxBasePolicy(path)
    before = policy.infer(WINDOW)
    with open(tmp_path / 'policy.onnx.data', 'r+b') as file:
        file.truncate(0)
    np.testing.assert_array_equal(policy.infer(WINDOW), before)


def outside(folder: Path) -> str:
    (folder / 'policy.onnx.data').rename(folder.parent / 'policy.onnx.data')
    return '../policy.onnx.data'


def inside_and_out(folder: Path) -> str:
    return f'sub/../../{folder.name}/policy.onnx.data'


def absolute(folder: Path) -> str:
    return str(folder / 'policy.onnx.data')


def linked(folder: Path) -> str:
    (folder / 'policy.onnx.data').rename(folder.parent / 'elsewhere')
    (folder / 'policy.onnx.data').symlink_to(folder.parent / 'elsewhere')
    return 'policy.onnx.data'


def linked_inside(folder: Path) -> str:
    (folder / 'link').symlink_to('policy.onnx.data')
    return 'link'


def in_a_linked_folder(folder: Path) -> str:
    (folder / 'sub').symlink_to(folder.parent)
    (folder / 'policy.onnx.data').rename(folder.parent / 'policy.onnx.data')
    return 'sub/policy.onnx.data'


def missing(folder: Path) -> str:
    (folder / 'policy.onnx.data').unlink()
    return 'policy.onnx.data'


def pipe(folder: Path) -> str:
    os.mkfifo(folder / 'pipe')
    return 'pipe'


@pytest.mark.parametrize(
    ('place', 'message'),
    [
        (outside, "wants weights from '../policy.onnx.data', expected a file in its own folder"),
        (inside_and_out, "wants weights from 'sub/../../model/policy.onnx.data', expected"),
        (absolute, 'expected a file in its own folder; save it again'),
        (linked, "'policy.onnx.data' are a link"),
        (linked_inside, "'link' are a link"),
        (in_a_linked_folder, "'sub/policy.onnx.data' are a link"),
        (missing, "'policy.onnx.data' are not beside it; copy them there"),
        (pipe, "'pipe' is no file"),
        (lambda folder: '', "wants weights from ''"),
        (lambda folder: '.', "wants weights from '.'"),
        (lambda folder: 'a\0b', 'wants weights from'),
        (lambda folder: '/dev/zero', "wants weights from '/dev/zero'"),
        (lambda folder: '*/_ORT_MEM_ADDR_/*', "'*/_ORT_MEM_ADDR_/*' are not beside it"),
        (lambda folder: 'x' * 5000, 'File name too long'),
    ],
)
def test_weights_from_elsewhere_are_refused_by_name(
    tmp_path: Path, place: Callable[[Path], str], message: str
) -> None:
    path = split(tmp_path / 'model' / 'policy.onnx')
    relocate(path, location=place(path.parent))
    with pytest.raises(BasePolicyError) as caught:
        OnnxBasePolicy(path)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ({'offset': '1000000'}, r"in the bytes 1000000 to \d+ of 'policy.onnx.data', which has"),
        ({'length': '9' * 18}, r'which has \d+'),
        ({'offset': '-4'}, "offset of tensor '.*' is '-4', expected bytes"),
        ({'length': '9' * 5000}, 'length of tensor'),
    ],
)
def test_weights_that_are_not_in_their_file_are_refused(
    tmp_path: Path, entries: dict[str, str], message: str
) -> None:
    path = split(tmp_path / 'policy.onnx')
    relocate(path, **entries)
    with pytest.raises(BasePolicyError, match=message):
        OnnxBasePolicy(path)


def test_tensors_that_share_bytes_cannot_claim_more_than_there_is(tmp_path: Path) -> None:
    path = split(tmp_path / 'policy.onnx')
    model = onnx.load(path, load_external_data=False)
    for number in range(50):
        copy = model.graph.initializer.add()
        copy.CopyFrom(model.graph.initializer[0])
        copy.name = f'copy{number}'
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BasePolicyError, match=r'its tensors overlap in policy\.onnx\.data'):
        OnnxBasePolicy(path)


def test_a_model_may_be_reached_by_a_link(tmp_path: Path) -> None:
    """So it is in a workspace that was built with links to its sources."""
    path = split(tmp_path / 'model' / 'policy.onnx')
    (tmp_path / 'share').mkdir()
    (tmp_path / 'share' / 'policy.onnx').symlink_to(path)
    assert OnnxBasePolicy(tmp_path / 'share' / 'policy.onnx').sha256 == OnnxBasePolicy(path).sha256


FLOAT = TensorProto.FLOAT


def node(kind: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [f'{kind}.out'], **attributes)


def branch(drawing: Any) -> Any:
    values = [helper.make_tensor_value_info(drawing.output[0], FLOAT, None)]
    return helper.make_graph([drawing], 'branch', [], values)


def model_of(*nodes: Any, functions: tuple[Any, ...] = ()) -> Any:
    true = numpy_helper.from_array(np.array(True), 'true')
    false = numpy_helper.from_array(np.array(False), 'false')
    graph = helper.make_graph(list(nodes), 'graph', [], [], [true, false])
    return helper.make_model(graph, functions=functions)


DRAW = node('RandomNormal', shape=[2])
OPSET = [helper.make_opsetid('', 17)]


@pytest.mark.parametrize(
    ('model', 'drawn'),
    [
        (model_of(node('RandomNormalLike', 'x')), ('RandomNormalLike',)),
        (model_of(node('RandomUniform', shape=[1], seed=1.0)), ('RandomUniform',)),
        (model_of(node('Multinomial', 'x', seed=3.0)), ('Multinomial',)),
        (model_of(node('Bernoulli', 'x'), DRAW), ('Bernoulli', 'RandomNormal')),
        (model_of(node('Dropout', 'x', 'ratio', 'true')), ('Dropout',)),
        (model_of(node('Dropout', 'x', 'ratio', 'an input')), ('Dropout',)),
        (model_of(node('Dropout', 'x', 'ratio', 'false')), ()),
        (model_of(node('Dropout', 'x', 'ratio')), ()),
        (model_of(node('Dropout', 'x')), ()),
        (
            model_of(
                node('Constant', value=numpy_helper.from_array(np.array(False))),
                node('Dropout', 'x', '', 'Constant.out'),
            ),
            (),
        ),
        (model_of(node('If', 'true', then_branch=branch(DRAW))), ('RandomNormal',)),
        (
            model_of(node('Loop', body=branch(node('If', 'c', else_branch=branch(DRAW))))),
            ('RandomNormal',),
        ),
        (
            model_of(
                node('Mine', 'x', domain='my'),
                functions=(helper.make_function('my', 'Mine', ['x'], ['y'], [DRAW], OPSET),),
            ),
            ('RandomNormal',),
        ),
        (model_of(node('MatMul', 'x', 'y'), node('BatchNormalization', 'x')), ()),
    ],
)
def test_operators_that_draw_random_numbers_are_found_wherever_they_are(
    tmp_path: Path, model: Any, drawn: tuple[str, ...]
) -> None:
    path = tmp_path / 'model.onnx'
    path.write_bytes(model.SerializeToString())
    assert read_model(path, 'model', BasePolicyError).random_operators == drawn
