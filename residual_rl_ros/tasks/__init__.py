# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""MuJoCo tasks for a 7-axis cobot behind the gymnasium API, one a file.

Holds the tasks, their registry, those of Meta-World, and the hosting of any gymnasium environment;
the scenes (MJCF) are in the root folder `sim/`. May import `config`, `robot` and below. Open
`registry` first.
"""
