# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A page in the browser for whoever stands beside the robot: `residual-rl dashboard`.

Open `view` first: what is known of a robot, without ROS and without a page; `history` is a part of
it. `telemetry` hears, `robots` joins that with what commands. `page` draws it with NiceGUI, by
`charts`. `gate` refuses strangers, and `server` serves the page. The console in a terminal,
`tools/operator.py`, shows the same view.
"""
