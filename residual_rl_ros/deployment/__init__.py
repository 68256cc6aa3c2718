# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What runs without this package: base policy, residual and limits as one ONNX graph.

May import `training` and below. Open `fused_policy` first: it puts the graph together from
`base_graph` (chunks of the base policy), `residual_graph` (the actor) and `limits_graph` (the
safety filter), each written with `graph`. `export` makes the file of a run, `parity` compares it,
as `runner` runs it, with the controller.
"""
