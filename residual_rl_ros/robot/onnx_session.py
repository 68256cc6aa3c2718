# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Open ONNX models the way a control loop needs them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import numpy.typing as npt
import onnxruntime as ort

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.robot.inference import ON_CPU, OPTIMISATIONS, InferenceConfig
from residual_rl_ros.robot.onnx_model import OnnxModel, read_model

Result = TypeVar('Result')
LEVELS = dict(
    zip(
        OPTIMISATIONS,
        (
            ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
            ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        ),
        strict=True,
    )
)
CLOSE_LIMIT_S = 1.0
"""How long the end of a worker is waited for [s]."""


def open_session(
    path: Path, what: str, error_type: type[ResidualRLError], sha256: str = ''
) -> ort.InferenceSession:
    """Read a model and load it, for one thread of the processor.

    Args:
        path: the `.onnx` file.
        what: what the model is, for the error.
        error_type: type of the error.
        sha256: what must identify it, see `OnnxModel`; empty accepts any.

    Raises:
        ResidualRLError: of `error_type`: missing, unreadable or another model.
    """
    return load_session(read_model(path, what, error_type, sha256.lower()), error_type)


def load_session(
    model: OnnxModel,
    error_type: type[ResidualRLError],
    inference: InferenceConfig = ON_CPU,
    batch: int | None = None,
    quiet: bool = False,
) -> ort.InferenceSession:
    """Load a model that was read.

    Args:
        model: the model.
        error_type: type of the error.
        inference: where and how it is to run.
        batch: size of leading dimensions that the model leaves open: ONNX Runtime plans for it.
        quiet: whether it is a trial, of which ONNX Runtime prints nothing.

    Raises:
        ResidualRLError: of `error_type`: ONNX Runtime cannot load it, or not so.
    """
    _check_installed(inference.providers, error_type)
    options = ort.SessionOptions()
    options.intra_op_num_threads = inference.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[inference.optimisation]
    for name in () if batch is None else model.batch_names:
        options.add_free_dimension_override_by_name(name, batch)
    if quiet:
        options.log_severity_level = 4
    # An idle session that spins slows everything else in the process.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    # Else its first bytes decide, and what was checked would be another model.
    options.add_session_config_entry('session.load_model_format', 'ONNX')
    try:
        session = ort.InferenceSession(model.content, options, providers=list(inference.providers))
    except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
        reason = str(error).splitlines()[0]
        raise error_type(f'{str(model.path)!r} is no loadable ONNX model: {reason}') from error
    session.disable_fallback()  # Else it would go on with another provider after an error.
    started = session.get_providers()
    if failed := [each for each in inference.providers if each not in started]:
        raise error_type(
            f'{", ".join(failed)} did not start (ONNX Runtime runs {model.path.name} with '
            f'{", ".join(started)}): install its driver and libraries, or correct '
            'robot.base_policy.providers in the robot YAML'
        )
    return session


def _check_installed(providers: tuple[str, ...], error_type: type[ResidualRLError]) -> None:
    """Refuse execution providers that this ONNX Runtime has not."""
    available = ort.get_available_providers()
    if missing := [each for each in providers if each not in available]:
        raise error_type(
            f'robot.base_policy.providers names {", ".join(missing)}, this ONNX Runtime has '
            f'{", ".join(available)}: install the onnxruntime package that has it, or correct the '
            'robot YAML'
        )


def run_session(
    session: ort.InferenceSession,
    outputs: list[str],
    inputs: dict[str, npt.NDArray[Any]],
    name: str,
    error_type: type[ResidualRLError],
) -> list[npt.NDArray[Any]]:
    """Return outputs of a model.

    Args:
        session: the loaded model.
        outputs: names of the outputs.
        inputs: arrays by input name.
        name: what the model is called in the error.
        error_type: type of the error.

    Raises:
        ResidualRLError: of `error_type`: ONNX Runtime failed.
    """
    try:
        results: list[npt.NDArray[Any]] = session.run(outputs, inputs)
    except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
        reason = ' '.join(str(error).split())[:300]
        raise error_type(f'{name} failed: {reason}') from error
    return results


class InferenceWorker:
    """A thread that does one thing after another and keeps nobody: neither a caller, nor an exit.

    A network can hang, in a driver or on a device. The standard library's executor waits for its
    threads when a process ends, so that such a process must be killed.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._orders: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Have `job(*args)` done after what was asked for before."""
        future: Future[Result] = Future()
        self._orders.put((future, partial(job, *args)))
        return future

    def close(self) -> None:
        """End the thread after what it is doing; wait a moment for it, not for ever."""
        while not self._orders.empty():
            order = self._orders.get()
            if order is not None:
                order[0].cancel()
        self._orders.put(None)
        self._thread.join(CLOSE_LIMIT_S)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            future, job = order
            if future.set_running_or_notify_cancel():
                try:
                    result = job()
                except BaseException as error:  # noqa: BLE001 - whoever asked gets it.
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del order, future, job  # An idle thread keeps no result alive.
