# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Open ONNX models the way a control loop needs them."""

from __future__ import annotations

import hashlib
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

Result = TypeVar('Result')
CLOSE_LIMIT_S = 1.0
"""How long the end of a worker is waited for [s]."""


def open_session(
    path: Path,
    what: str,
    error_type: type[ResidualRLError],
    threads: int = 1,
    sha256: str = '',
) -> ort.InferenceSession:
    """Load a model.

    Args:
        path: the `.onnx` file.
        what: what the model is, for the error.
        error_type: type of the error.
        threads: ONNX Runtime threads; 1 suits networks of a few million weights.
        sha256: digest that the file must have; empty accepts any. A pinned model may keep no
            weights outside of its file.

    Raises:
        ResidualRLError: of `error_type`: missing, unreadable or another file.
    """
    if not path.is_file():
        raise error_type(f'{what} {str(path)!r} does not exist; give the path of an .onnx file')
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An idle session that spins slows everything else in the process.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        model = _pinned(path, error_type, sha256) if sha256 else str(path)
        return ort.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    except error_type:
        raise
    except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
        reason = str(error).splitlines()[0]
        raise error_type(f'{str(path)!r} is no loadable ONNX model: {reason}') from error


def run_session(
    session: ort.InferenceSession,
    output: str,
    inputs: dict[str, npt.NDArray[Any]],
    name: str,
    error_type: type[ResidualRLError],
) -> npt.NDArray[Any]:
    """Return one output of a model.

    Args:
        session: the loaded model.
        output: name of the output.
        inputs: arrays by input name.
        name: what the model is called in the error.
        error_type: type of the error.

    Raises:
        ResidualRLError: of `error_type`: ONNX Runtime failed.
    """
    try:
        result: npt.NDArray[Any] = session.run([output], inputs)[0]
    except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
        reason = ' '.join(str(error).split())[:300]
        raise error_type(f'{name} failed: {reason}') from error
    return result


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


def _pinned(path: Path, error_type: type[ResidualRLError], sha256: str) -> bytes:
    """Return the bytes of the model, which are what was checked."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise error_type(
            f'{str(path)!r} has sha256 {found}, expected {sha256}; correct the file, or the digest '
            'in the robot YAML (base_policy_sha256, encoder_sha256, classifier_sha256)'
        )
    return content
