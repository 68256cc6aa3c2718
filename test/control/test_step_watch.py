# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Control steps that do not come are noticed, and a ROS time that stands still is not believed."""

from __future__ import annotations

from residual_rl_ros.control.step_watch import StepWatch


def test_a_ros_time_that_stands_still_between_control_steps_is_a_problem() -> None:
    moment = [10.0]
    watch = StepWatch(lambda: moment[0])
    said = []
    for _ in range(5):
        said.append(watch.step(0.0, 1.0))
        moment[0] += 0.5
    assert said[:3] == ['', '', '']
    assert said[3].startswith('ROS time has stood still at 0.000 s for 1.50 s')
    assert watch.step(0.1, 1.0) == ''


def test_a_pause_without_control_steps_is_none_that_stands_still() -> None:
    """A paused simulator: its timer does not tick, and ticks with a new time when it goes on."""
    moment = [10.0]
    watch = StepWatch(lambda: moment[0])
    assert watch.step(5.0, 1.0) == ''
    moment[0] += 60.0
    assert watch.step(5.05, 1.0) == ''


def test_control_steps_that_do_not_come_are_told() -> None:
    moment = [10.0]
    watch = StepWatch(lambda: moment[0])
    moment[0] += 0.9
    assert watch.missing(0.1) == ''
    moment[0] += 0.2
    assert watch.missing(2.0) == ''
    assert watch.missing(0.1).startswith('no control step for 1.1 s: with use_sim_time')
    watch.step(0.0, 1.0)
    assert watch.missing(0.1) == ''
