# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of other frameworks, made base policies: read, rebuilt in torch, exported as ONNX.

May import `base_policy`, `robot`, `files` and the root modules. Open `policy` first: a reader of a
format returns an `ImportedPolicy`, and `export` writes any of them.
"""
