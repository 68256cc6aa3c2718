# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The root of every error that this package raises on bad input."""

from __future__ import annotations


class ResidualRLError(Exception):
    """Bad input or environment: one line naming the value, the expectation and the remedy.

    The command line prints it without a traceback and exits with code 2. Each module derives its
    own class, so that a caller can catch just the failure it can handle.
    """
