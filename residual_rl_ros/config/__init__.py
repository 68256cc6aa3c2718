# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The YAML files of a run as checked dataclasses: preset and run.

May import `algorithms`, `control` and below. Open `run` first.
"""

DEFAULT_PRESET = 'best_of_n'
