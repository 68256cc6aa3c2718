# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A page in the browser for whoever stands beside the robot: `residual-rl dashboard`.

Open `view` first: what is known of a robot, without ROS and without a page. `episodes` and `motion`
are parts of it. `telemetry` hears, `page` draws with NiceGUI what the view and the console of
`tools/operator.py` say, `charts` says how, `gate` refuses strangers, and `server` serves.
"""
