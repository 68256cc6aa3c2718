# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files and texts from outside, read within limits: of size, depth, count and time.

Open `limits` first. YAML and JSON are read here; the readers of bags (`bags`) take their limits
from here. Imports `errors` alone.
"""
