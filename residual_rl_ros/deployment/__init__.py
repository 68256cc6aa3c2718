# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What runs without this package: base policy, residual and limits as one ONNX graph.

May import `training` and below. Open `fused_policy` first: it puts the graph together from
`base_graph` (chunks of the base policy) and `residual_graph` (the actor and the safety filter),
each written with `graph`. `export` makes the file of a run, `parity` runs it and compares it with
the controller.
"""
