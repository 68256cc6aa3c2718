# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen policy: an ONNX file with metadata, and the queue of its action chunks.

May import `robot` and the root modules. Open `onnx_policy` first.
"""
