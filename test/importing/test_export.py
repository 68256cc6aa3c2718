# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The export of an imported policy: whole, exact, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.errors import OutputError, PolicyImportError
from residual_rl_ros.importing.export import export, reference
from residual_rl_ros.importing.policy import ImportedPolicy, PolicyInput, load_by_name


def policy_of(network: nn.Module, **changes: object) -> ImportedPolicy:
    """Return a policy of 2 observations, 3 actions ahead and 1 command."""
    metadata = BasePolicyMetadata(
        observation_names=('a', 'b'),
        action_names=('c',),
        action_min=(-1.0,),
        action_max=(1.0,),
        rate_hz=10.0,
        n_obs_steps=1,
        horizon=3,
        exec_start=0,
        exec_steps=3,
        source='test',
    )
    inputs = (PolicyInput('observation', torch.zeros(1, 2)),)
    return ImportedPolicy(network, metadata, inputs, **changes)  # type: ignore[arg-type]


class Linear(nn.Module):
    """A layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, observation: Tensor) -> Tensor:
        return self.layer(observation[:, -1])[:, :, None]


class FrozenBatch(Linear):
    """A batch that the tracer takes for a constant."""

    def forward(self, observation: Tensor) -> Tensor:
        return self.layer(observation.reshape(int(observation.shape[0]), 2))[:, :, None]


class Drawing(Linear):
    """Other numbers in each call."""

    def forward(self, observation: Tensor) -> Tensor:
        return super().forward(observation) + torch.rand(3, 1)


class Unusual(Linear):
    """An operator that ONNX does not have."""

    def forward(self, observation: Tensor) -> Tensor:
        return torch.special.bessel_j0(super().forward(observation))


class Wide(Linear):
    """Too many actions."""

    def forward(self, observation: Tensor) -> Tensor:
        return super().forward(observation).expand(-1, 3, 2)


class Divided(Linear):
    """No numbers."""

    def forward(self, observation: Tensor) -> Tensor:
        return super().forward(observation) / 0.0


def test_a_policy_is_written_with_its_parity(tmp_path: Path) -> None:
    parity = export(policy_of(Linear()), tmp_path / 'new' / 'policy.onnx')
    assert parity.error <= 1e-6
    assert parity.batches == (1, 3, 8, 16)
    model = onnx.load(tmp_path / 'new' / 'policy.onnx')
    text = {entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY]
    metadata = BasePolicyMetadata.from_json(text)
    assert metadata.source == 'test'
    assert metadata.parity is not None
    assert metadata.parity == pytest.approx(parity.error, rel=0.1)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == 'batch'


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        (FrozenBatch(), 'ONNX Runtime cannot run the graph'),
        (Drawing(), 'differs from torch by'),
        (Unusual(), 'an operator without a form in ONNX opset 17: .*bessel_j0'),
        (Wide(), r'actions of shape \[5, 3, 2\], expected \[5, 3, 1\]'),
        (Divided(), 'numbers that are not finite in action'),
    ],
)
def test_a_policy_that_cannot_be_exported_leaves_nothing(
    network: nn.Module, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'policy.onnx').write_text('before')
    with pytest.raises(PolicyImportError, match=message):
        export(policy_of(network), tmp_path / 'policy.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['policy.onnx']
    assert (tmp_path / 'policy.onnx').read_text() == 'before'
    assert capfd.readouterr() == ('', '')  # As the graph that torch cannot export.


def test_outputs_that_are_missing_are_named(tmp_path: Path) -> None:
    policy = policy_of(Linear(), outputs=('action', 'memory_out'))
    with pytest.raises(PolicyImportError, match=r'returns 1 tensors, expected 2|cannot be written'):
        export(policy, tmp_path / 'policy.onnx')
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='cannot be written'):
        export(policy_of(Linear()), tmp_path / 'file' / 'policy.onnx', batches=(1,))


def test_every_key_must_fit_in_both_directions() -> None:
    found = {'layer.weight': torch.zeros(3, 3), 'other': torch.zeros(1)}
    with pytest.raises(PolicyImportError) as caught:
        load_by_name(Linear(), found, 'it')
    for part in ('lacks layer.bias', 'has other, which fits nowhere', 'layer.weight of shape'):
        assert part in str(caught.value)


def test_rounding_of_torch_itself_is_no_difference_of_the_graph(tmp_path: Path) -> None:
    class Cancelling(Linear):
        """Loses digits: torch in single precision is as far from the truth as the graph."""

        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            action = super().forward(observation)
            if action.dtype == torch.float32 and not torch.onnx.is_in_onnx_export():
                return action + 3e-5
            return action

    assert export(policy_of(Cancelling()), tmp_path / 'policy.onnx').error <= 1e-6


@pytest.mark.parametrize(('rounding', 'passes'), [(-3e-5, True), (-1.5e-5, False)])
def test_a_graph_may_round_as_much_as_torch_does(
    rounding: float, passes: bool, tmp_path: Path
) -> None:
    class Hot(Linear):
        """Large numbers: no single precision is near double."""

        def forward(self, observation: Tensor) -> Tensor:
            action = super().forward(observation)
            if action.dtype == torch.float64:
                return action
            return action + (4e-5 if torch.onnx.is_in_onnx_export() else rounding)

    path = tmp_path / 'policy.onnx'
    if not passes:
        with pytest.raises(
            PolicyImportError, match=r'by 4\.0e-05 in action, expected at most 3e-05'
        ):
            export(policy_of(Hot()), path)
        return
    parity = export(policy_of(Hot()), path)
    assert parity.error == pytest.approx(4e-5, rel=0.02)
    assert parity.rounding == pytest.approx(3e-5, rel=0.02)
    text = {entry.key: entry.value for entry in onnx.load(path).metadata_props}[METADATA_KEY]
    metadata = BasePolicyMetadata.from_json(text)
    assert (metadata.parity, metadata.rounding) == (4e-5, 3e-5)


def test_what_one_output_rounds_is_no_excuse_for_another(tmp_path: Path) -> None:
    class Two(Linear):
        """The mean loses digits in single precision; the action loses none."""

        wrong = 0.0

        def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            action = super().forward(observation)
            shift = (5e-5, self.wrong) if torch.onnx.is_in_onnx_export() else (-4e-5, 0.0)
            mean = torch.tanh(action)
            return action + shift[1], mean if mean.dtype == torch.float64 else mean + shift[0]

    policy = policy_of(Two(), outputs=('action', 'mean'))
    parity = export(policy, tmp_path / 'policy.onnx')
    assert (parity.output, parity.bound) == ('mean', pytest.approx(8e-5, rel=0.02))
    Two.wrong = 3e-5
    with pytest.raises(PolicyImportError, match=r'by 3\.0e-05 in action, expected at most 1e-05'):
        export(policy, tmp_path / 'other.onnx')
    assert not (tmp_path / 'other.onnx').exists()


def test_a_graph_that_returns_no_number_is_not_written(tmp_path: Path) -> None:
    class Undefined(Linear):
        """Finite in torch alone."""

        def forward(self, observation: Tensor) -> Tensor:
            action = super().forward(observation)
            return torch.sqrt(action.abs() * -1.0) if torch.onnx.is_in_onnx_export() else action

    with pytest.raises(PolicyImportError, match='differs from torch by inf'):
        export(policy_of(Undefined()), tmp_path / 'policy.onnx')
    assert not list(tmp_path.iterdir())


def test_a_weight_of_another_kind_of_number_is_named() -> None:
    found = {'layer.weight': torch.zeros(3, 2, dtype=torch.int64), 'layer.bias': torch.zeros(3)}
    with pytest.raises(PolicyImportError, match=r'has layer\.weight of torch\.int64, expected'):
        load_by_name(Linear(), found, 'it')


class Turning(nn.Module):
    """A loop: each turn adds a share of a layer to the chunk."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer('rows', torch.linspace(0.2, 0.8, turns)[:, None], persistent=False)

    def forward(self, condition: Tensor, chunk: Tensor) -> Tensor:
        for row in self.rows:
            turned = torch.tanh(self.layer(chunk[:, :, 0]) + condition)[:, :, None]
            chunk = chunk + row[0] * turned
        return chunk


class Looping(nn.Module):
    """Something before a loop, and after it."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.before, self.loop = nn.Linear(2, 3), Turning(turns)

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        condition = torch.relu(self.before(observation[:, -1]))
        return torch.sigmoid(self.loop(condition, noise)), condition


@pytest.mark.parametrize('turns', [1, 4])
def test_a_loop_is_repeated_in_the_graph_and_its_weights_are_stored_once(
    turns: int, tmp_path: Path
) -> None:
    network = Looping(turns)
    traced = policy_of(network, outputs=('action', 'seen'))
    traced = replace(traced, inputs=(*traced.inputs, PolicyInput('noise', torch.zeros(3, 1))))
    assert export(replace(traced, loop=network.loop), tmp_path / 'turns.onnx').error <= 1e-6
    assert network.loop.rows.shape == (turns, 1)
    export(traced, tmp_path / 'traced.onnx')
    model = onnx.load(tmp_path / 'turns.onnx')
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ['observation', 'noise']
    assert [each.name for each in model.graph.output] == ['action', 'seen']
    kinds = [node.op_type for node in model.graph.node]
    assert [kinds.count(each) for each in ('Tanh', 'Relu', 'Sigmoid')] == [turns, 1, 1]
    assert not {'Loop', 'If', 'Scan'} & set(kinds)
    weights = [each for each in model.graph.initializer if each.name.endswith('layer.weight')]
    assert [list(each.dims) for each in weights] == [[3, 3]]
    feeds = {'observation': np.ones((3, 1, 2), np.float32), 'noise': np.ones((3, 3, 1), np.float32)}
    found, expected = (
        ort.InferenceSession(tmp_path / name, providers=['CPUExecutionProvider']).run(None, feeds)
        for name in ('turns.onnx', 'traced.onnx')
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_rounding_of_many_turns_is_refused_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Looping(3)
    policy = policy_of(network, outputs=('action', 'seen'), loop=network.loop)
    policy = replace(policy, inputs=(*policy.inputs, PolicyInput('noise', torch.zeros(3, 1))))
    for name in ('MOST_DIFFERENCE', 'ROUNDING_FACTOR'):
        monkeypatch.setattr(f'residual_rl_ros.importing.export.{name}', 1e-12)
    with pytest.raises(PolicyImportError, match='fewer --ddim-steps add up less rounding'):
        export(policy, tmp_path / 'policy.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('kernel', 'stride', 'padding'), [(5, 1, 2), (3, 2, 1), (1, 1, 0)])
def test_the_reference_of_a_convolution_over_time_is_that_of_torch(
    kernel: int, stride: int, padding: int
) -> None:
    class Convolved(nn.Module):
        """A convolution over time."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv1d(2, 3, kernel, stride, padding)

        def forward(self, observation: Tensor) -> Tensor:
            convolved: Tensor = self.layer(observation.transpose(1, 2))
            return convolved[:, :, :1]

    network, values = Convolved(), torch.randn(4, 7, 2)
    found = reference(policy_of(network), [values])[0]
    torch.testing.assert_close(found, network(values), atol=1e-6, rtol=1e-6)
