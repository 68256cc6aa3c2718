# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Open ONNX models the way a control loop needs them."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from residual_rl_ros.errors import ResidualRLError


def open_session(
    path: Path, what: str, error_type: type[ResidualRLError], threads: int = 1
) -> ort.InferenceSession:
    """Load a model.

    Args:
        path: the `.onnx` file.
        what: what the model is, for the error.
        error_type: type of the error.
        threads: ONNX Runtime threads; 1 suits networks of a few million weights.

    Raises:
        ResidualRLError: of `error_type`: missing or unreadable file.
    """
    if not path.is_file():
        raise error_type(f'{what} {str(path)!r} does not exist; give the path of an .onnx file')
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An idle session that spins slows everything else in the process.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime raises its own untyped hierarchy.
        reason = str(error).splitlines()[0]
        raise error_type(f'{str(path)!r} is no loadable ONNX model: {reason}') from error
