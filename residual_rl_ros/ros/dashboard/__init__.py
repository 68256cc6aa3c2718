# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A page in the browser for whoever stands beside the robot: `residual-rl dashboard`.

Open `view` first: what is known of a robot, without ROS and without a page. `episodes` and `motion`
are parts of it. `telemetry` and `cameras` hear, `robots` joins that with what commands. `page`
draws it with NiceGUI, by `widgets` and `charts`. `gate` refuses strangers, `web` makes the
application, and `server` serves it. The console in a terminal, `tools/operator.py`, shows the same
view.
"""
