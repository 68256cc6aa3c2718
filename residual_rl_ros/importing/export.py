# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write an imported policy as ONNX, if ONNX Runtime gives the actions that torch gives."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode

from residual_rl_ros.base_policy.metadata import METADATA_KEY, UNUSED_RANGE, BasePolicyMetadata
from residual_rl_ros.errors import PolicyImportError
from residual_rl_ros.importing.policy import ImportedPolicy
from residual_rl_ros.importing.unrolling import END, ROW, OneTurn, unroll
from residual_rl_ros.resources import write_bytes
from residual_rl_ros.robot.onnx_model import MAX_MODEL_BYTES

OPSET = 17
BATCHES = (1, 3, 8, 16)
"""Batch sizes at which both are compared."""
SAMPLES = 5
"""Different samples; larger batches repeat them, since images take torch long. It divides no
batch size: what mixes the rows of a batch does not find the same ones there."""
MOST_DIFFERENCE = 1e-5
"""A difference that passes."""
MOST_ROUNDING = 1e-4
"""Below this a difference can be rounding: torch then computes in double precision. Deep networks
in an unrolled loop reach 1e-5 in single precision, whoever computes them."""
ROUNDING_FACTOR = 2.0
"""So many times as far from double precision as torch in single precision is, passes too: both
round, each in an order of its own."""
STDOUT = 1
PARITY_SEED = 0
"""Seed of the inputs of the comparison."""


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from torch, on random inputs, in the output nearest to its bound."""

    output: str
    """Name of that output."""
    error: float
    """Largest difference of an action, in half ranges of the trained actions; of another output
    relative to 1 or to its largest number, whichever is larger."""
    batches: tuple[int, ...]
    """Batch sizes that were tried."""
    rounding: float | None = None
    """How far torch in single precision is from torch in double, as `error` is from the latter;
    None where the error need not be compared with it."""
    decided: tuple[str, ...] = ()
    """Lines of the network that the graph does not follow: they decide by the numbers in a tensor,
    and the graph has what they decided for one example."""

    @property
    def bound(self) -> float:
        """Largest error that passes."""
        return max(MOST_DIFFERENCE, ROUNDING_FACTOR * (self.rounding or 0.0))


def export(policy: ImportedPolicy, path: Path, batches: tuple[int, ...] = BATCHES) -> Parity:
    """Write the policy with its metadata, whole or not at all.

    Args:
        policy: the policy.
        path: the `.onnx` file.
        batches: batch sizes at which the numbers are compared.

    Raises:
        PolicyImportError: it has an operator without ONNX form, is too large, or the graph gives
            other numbers than torch.
        OutputError: the file cannot be written.
    """
    policy.network.eval()
    content, decided = _graph(policy)
    parity = replace(_parity(policy, content, batches), decided=decided)
    if not parity.error <= parity.bound:  # NaN is refused too.
        rounding = policy.loop is not None and parity.error < MOST_ROUNDING
        hint = '; fewer --ddim-steps add up less rounding' if rounding else ''
        raise PolicyImportError(
            f'the ONNX graph of {type(policy.network).__name__} differs from torch by '
            f'{parity.error:.1e} in {parity.output}, expected at most {parity.bound:.1g}; nothing '
            f'was written{hint}'
        )
    metadata = replace(
        policy.metadata,
        parity=float(f'{parity.error:.2g}'),
        rounding=None if parity.rounding is None else float(f'{parity.rounding:.2g}'),
    )
    told = onnx.ModelProto()
    onnx.helper.set_model_props(told, {METADATA_KEY: metadata.to_json()})
    # Protobuf reads messages after one another as one: the weights need not be parsed again.
    write_bytes(path, content + told.SerializeToString())
    return parity


def _graph(policy: ImportedPolicy) -> tuple[bytes, tuple[str, ...]]:
    """Return the ONNX graph, all leading dimensions open, and see `Parity.decided`.

    Raises:
        PolicyImportError: an operator has no ONNX form, or the graph is too large.
    """
    size = sum(each.numel() * each.element_size() for each in policy.network.state_dict().values())
    _check_size(size)
    generator = torch.Generator().manual_seed(PARITY_SEED)
    # A batch of 2: what a graph takes for a constant of 1 would not be noticed in another batch.
    example = [each.sample(2, generator) for each in policy.inputs]
    names = [each.name for each in policy.inputs]
    if policy.loop is None:
        return _traced(policy, policy.network, example, names, list(policy.outputs))
    rows = policy.loop.rows
    assert isinstance(rows, Tensor)
    # The exporter leaves all in the mode of what it was given.
    turn = OneTurn(policy.network, policy.loop).eval()
    outputs = [*policy.outputs, END]
    content, decided = _traced(
        policy, turn, [*example, rows[:1]], [*names, ROW], outputs, weights=False
    )
    model = onnx.ModelProto.FromString(content)
    unroll(model, rows.numpy())
    _add_weights(model.graph, turn)
    _check_size(model.ByteSize())
    serialised: bytes = model.SerializeToString()
    return serialised, decided


def _add_weights(graph: Any, network: nn.Module) -> None:
    """Store the weights of a graph that has them as inputs: torch copies them several times."""
    weights = network.state_dict()
    for value in [each for each in graph.input if each.name in weights]:
        array = weights[value.name].numpy()
        graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        graph.input.remove(value)


def _check_size(size: int) -> None:
    if size > MAX_MODEL_BYTES:
        raise PolicyImportError(
            f'the weights have {size} bytes, expected at most {MAX_MODEL_BYTES}: an ONNX file '
            'holds no more'
        )


def _traced(
    policy: ImportedPolicy,
    network: nn.Module,
    example: list[Tensor],
    inputs: list[str],
    outputs: list[str],
    weights: bool = True,
) -> tuple[bytes, tuple[str, ...]]:
    """Return the graph of a network, as torch makes it, and see `Parity.decided`.

    Without weights they are further inputs, by their names in the network.

    Raises:
        PolicyImportError: an operator has no ONNX form.
    """
    open_axes = (*(each.name for each in policy.inputs), *policy.outputs)
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(record=True) as warned,
            nothing_printed(),
            TemporaryDirectory() as scratch,
        ):
            path = Path(scratch, 'policy.onnx')
            warnings.simplefilter('ignore')  # Of the exporter about itself.
            warnings.simplefilter('always', TracerWarning)
            torch.onnx.export(
                network,
                tuple(example),
                str(path),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {0: 'batch'} for name in open_axes},
                opset_version=OPSET,
                export_params=weights,
                do_constant_folding=weights,
                dynamo=False,
            )
            return path.read_bytes(), _foreign_lines(warned)
    except torch.onnx.errors.UnsupportedOperatorError as error:
        raise PolicyImportError(
            f'{type(policy.network).__name__} has an operator without a form in ONNX opset '
            f'{OPSET}: {error}'
        ) from error
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise PolicyImportError(
            f'{type(policy.network).__name__} cannot be written as ONNX: {error}'
        ) from error


def _foreign_lines(warned: Iterable[warnings.WarningMessage]) -> tuple[str, ...]:
    """Return where a user's own code was warned about, each place once."""
    known = tuple(str(Path(each).parent) for each in (__file__, torch.__file__))
    places = (f'{each.filename}:{each.lineno}' for each in warned)
    return tuple(dict.fromkeys(place for place in places if not place.startswith(known)))


@contextmanager
def nothing_printed() -> Iterator[None]:
    """Discard what is printed: torch prints the whole graph of what it cannot export, from C++."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept, nowhere = os.dup(STDOUT), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        flush(None)
        os.dup2(kept, STDOUT)
        for each in (kept, nowhere):
            os.close(each)


def _parity(policy: ImportedPolicy, content: bytes, batches: tuple[int, ...]) -> Parity:
    """Return the difference between graph and torch; infinite if a shape is wrong.

    Each output has a bound of its own: what one rounds is no excuse for another.

    Raises:
        PolicyImportError: ONNX Runtime refuses the graph, or torch gives what is no action.
    """
    generator = torch.Generator().manual_seed(PARITY_SEED)
    values = [each.sample(SAMPLES, generator) for each in policy.inputs]
    found = _computed(policy, content, values, batches)
    single = reference(policy, values)
    errors = _differences(policy, single, found)
    roundings: dict[str, float] = {}
    if MOST_DIFFERENCE < max(errors.values()) < MOST_ROUNDING:
        exact = _in_double(policy, values)
        if exact is not None:
            from_exact = _differences(policy, exact, found)
            errors = {name: min(error, from_exact[name]) for name, error in errors.items()}
            roundings = _differences(policy, exact, [[each.numpy() for each in single]])
    outputs = [
        Parity(name, error, batches, roundings.get(name) if error > MOST_DIFFERENCE else None)
        for name, error in errors.items()
    ]
    return max(outputs, key=lambda each: each.error / each.bound)


def _in_double(policy: ImportedPolicy, values: list[Tensor]) -> tuple[Tensor, ...] | None:
    """Return what torch computes in double precision, None if the network has no such form."""
    exact = replace(policy, network=copy.deepcopy(policy.network).double())
    precise = [each.double() if each.is_floating_point() else each for each in values]
    try:
        return reference(exact, precise)
    except PolicyImportError:
        return None


def _computed(
    policy: ImportedPolicy, content: bytes, values: list[Tensor], batches: tuple[int, ...]
) -> list[list[Any]]:
    """Return what ONNX Runtime computes, all outputs of each batch.

    Raises:
        PolicyImportError: it refuses the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 4  # What is wrong is said here.
    names = [each.name for each in policy.inputs]
    try:
        session = ort.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        return [
            session.run(
                list(policy.outputs),
                {
                    name: value[_rows(batch)].numpy()
                    for name, value in zip(names, values, strict=True)
                },
            )
            for batch in batches
        ]
    except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
        reason = ' '.join(str(error).split())[:300]
        raise PolicyImportError(f'ONNX Runtime cannot run the graph: {reason}') from error


def _rows(batch: int) -> Tensor:
    """Return which samples a batch has."""
    return torch.arange(batch) % SAMPLES


def _differences(
    policy: ImportedPolicy, expected: tuple[Tensor, ...], found: list[list[Any]]
) -> dict[str, float]:
    """Return the largest difference of each output between torch and what was computed."""
    return {
        name: max(
            _distance(name, want[_rows(len(got))].numpy(), got, policy.metadata) for got in each
        )
        for name, want, each in zip(policy.outputs, expected, zip(*found, strict=True), strict=True)
    }


def reference(policy: ImportedPolicy, values: list[Tensor]) -> tuple[Tensor, ...]:
    """Return what torch computes, one tensor for each output.

    Raises:
        PolicyImportError: it is of another shape or type than the metadata say, or not finite.
    """
    with torch.no_grad(), _Products():
        result = policy.network(*values)
    outputs: tuple[Tensor, ...] = (result,) if isinstance(result, Tensor) else tuple(result)
    if len(outputs) != len(policy.outputs):
        raise PolicyImportError(
            f'the network returns {len(outputs)} tensors, expected {len(policy.outputs)}: '
            f'{", ".join(policy.outputs)}'
        )
    meta = policy.metadata
    wanted = (len(values[0]), meta.horizon, len(meta.action_names))
    if tuple(outputs[0].shape) != wanted:
        raise PolicyImportError(
            f'the network returns actions of shape {list(outputs[0].shape)}, expected '
            f'{list(wanted)} (batch, horizon, actions)'
        )
    memories = {each.output: (len(values[0]), *each.shape) for each in meta.memories}
    for name, output in zip(policy.outputs, outputs, strict=True):
        if output.dtype != values[0].dtype:
            raise PolicyImportError(
                f'the network returns {name} as {output.dtype}, expected {values[0].dtype} as its '
                'observation'
            )
        if tuple(output.shape) != memories.get(name, tuple(output.shape)):
            raise PolicyImportError(
                f'the network returns {name} of shape {list(output.shape)}, expected '
                f'{list(memories[name])} as its input'
            )
        if not bool(torch.isfinite(output).all()):
            raise PolicyImportError(f'the network returns numbers that are not finite in {name}')
    return outputs


class _Products(TorchFunctionMode):
    """Has torch compute a convolution over time as one product of matrices.

    Else it reads the weights, of which such networks have a gigabyte, again for each sample.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Compute `func`."""
        if func is not torch.conv1d or args[5:] != ((1,), 1):
            return func(*args, **(kwargs or {}))
        x, weight, bias, (stride,), (padding,) = args[:5]
        padded = nn.functional.pad(x, (padding, padding))
        windows = padded.unfold(2, weight.shape[2], stride).transpose(1, 2).flatten(2)
        return nn.functional.linear(windows, weight.flatten(1), bias).transpose(1, 2)


def _distance(name: str, want: Any, got: Any, metadata: BasePolicyMetadata) -> float:
    if want.shape != got.shape or not np.isfinite(got).all():  # `max` would skip NaN.
        return float('inf')
    difference = np.abs(want.astype(np.float64) - got.astype(np.float64))
    if name == 'action':
        span = np.array(metadata.action_max) - np.array(metadata.action_min)
        return float((difference / (np.maximum(span, UNUSED_RANGE) / 2)).max())
    size = max(1.0, float(np.abs(want).max(initial=0.0)))
    return float(difference.max(initial=0.0)) / size
