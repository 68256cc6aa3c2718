# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An operator's controls move the robot while he holds on, and stop it when he is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from residual_rl_ros.control.takeover import Takeover, TakeoverState
from residual_rl_ros.control.takeover_controls import TakeoverConfig, load_takeover
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.description import load_robot

PERIOD = 0.05
ARM = ActionSpec(
    names=('a', 'b', 'grip'),
    lower=np.array([-1.0, -1.0, 0.0]),
    upper=np.array([1.0, 1.0, 0.8]),
    max_step=np.array([0.1, 0.1, 0.1]),
    measured_by=('x', 'y', 'z'),
    following_limit=np.array([0.2, 0.2, 0.2]),
)
BASE = ActionSpec(
    names=('a', 'b'),
    lower=np.array([-0.5, -1.0]),
    upper=np.array([0.5, 1.0]),
    max_step=np.array([0.1, 0.1]),
    units=('m/s', 'rad/s'),
)
PAD: dict[str, Any] = {
    'input': 'joy',
    'deadman': 'buttons.4',
    'axes': [
        {'action': 'a', 'control': 'axes.0', 'scale': 0.5},
        {'action': 'b', 'minus': 'buttons.0', 'plus': 'buttons.1', 'scale': -0.5},
    ],
    'buttons': {'success': 'buttons.2', 'hold': 'buttons.3', 'release': 'buttons.5'},
}
HERE = np.array([0.1, -0.2, 0.4])


def written(folder: Path, **changes: Any) -> TakeoverConfig:
    path = folder / 'pad.yaml'
    path.write_text(yaml.safe_dump({**PAD, **changes}))
    return load_takeover(str(path))[0]


class Pad:
    """A gamepad, and who makes commands of it."""

    def __init__(self, config: TakeoverConfig, action: ActionSpec = ARM) -> None:
        self.config = config
        self.takeover = Takeover(config, action, PERIOD)
        self.values = dict.fromkeys(config.keys.controls, 0.0)
        self.now = 0.0
        self.says()  # Nobody holds on yet.

    def says(self, **values: float) -> list[str]:
        """Change controls, written `axes_0`, and return the buttons that count as pressed."""
        self.values |= {name.replace('_', '.'): value for name, value in values.items()}
        self.now += PERIOD
        return self.takeover.receive(self.values, self.now)

    def command(
        self, measured: np.ndarray | None = HERE, told: np.ndarray | None = None
    ) -> np.ndarray | None:
        return self.takeover.command(measured, self.now, told)


@pytest.fixture
def pad(tmp_path: Path) -> Pad:
    return Pad(written(tmp_path))


def test_positions_go_on_from_where_the_robot_is_while_the_deadman_is_held(pad: Pad) -> None:
    pad.says(axes_0=1.0)
    assert pad.command() is None
    pad.says(buttons_4=1.0)
    np.testing.assert_allclose(pad.command(), HERE + np.array([0.025, 0.0, 0.0]))
    pad.says(axes_0=0.0, buttons_1=1.0)
    np.testing.assert_allclose(pad.command(), HERE + np.array([0.025, -0.025, 0.0]))
    assert pad.takeover.state is TakeoverState.ON
    pad.says(buttons_4=0.0)
    assert pad.command() is None
    assert pad.takeover.state is TakeoverState.OFF


def test_a_gripper_that_holds_something_keeps_its_grip_when_somebody_takes_over(pad: Pad) -> None:
    pad.says(buttons_4=1.0)
    # It was told to close further; where the arm was told to be is too far away to count.
    told = np.array([0.5, -0.2, 0.55])
    np.testing.assert_allclose(pad.command(told=told), [0.1, -0.2, 0.55])
    np.testing.assert_allclose(pad.command(told=HERE), [0.1, -0.2, 0.55])


def test_a_deflection_begins_beyond_the_deadband_and_ends_at_one(pad: Pad) -> None:
    axis = pad.takeover._axes[0][1]
    said = [0.1, -0.1, 0.55, -7.0]
    moved = [axis.deflection({'axes.0': value}) for value in said]
    np.testing.assert_allclose(moved, [0.0, 0.0, 0.5, -1.0])


def test_a_target_never_runs_away_from_a_robot_that_is_stuck_nor_out_of_its_limits(
    pad: Pad,
) -> None:
    for _ in range(100):
        pad.says(axes_0=1.0, buttons_4=1.0)
        pad.command()
    np.testing.assert_allclose(pad.command(), HERE + np.array([0.16, 0.0, 0.0]))
    for _ in range(100):
        pad.says(axes_0=1.0)
        command = pad.command(np.array([0.95, -0.2, 0.4]))
    assert command is not None
    assert command[0] == 1.0


@pytest.mark.parametrize('wrong', [0.7, 50.0])
def test_a_wrong_measurement_moves_no_robot_that_the_operator_does_not_move(
    pad: Pad, wrong: float
) -> None:
    pad.says(buttons_4=1.0)
    told = pad.command()
    for measured in (HERE + wrong, HERE - wrong, HERE):
        pad.says()
        np.testing.assert_array_equal(pad.command(measured), told)
    other = Pad(pad.config)
    other.says(buttons_4=1.0)
    assert other.command(HERE + 50.0) is None
    assert other.takeover.problem.startswith('x is 50.1, expected -1 to 1, give or take 0.2')


def test_an_orientation_that_is_measured_in_other_numbers_stays_the_same(tmp_path: Path) -> None:
    turning = ActionSpec(
        names=('a', 'b', 'c'),
        lower=np.full(3, -np.pi),
        upper=np.full(3, np.pi),
        max_step=np.full(3, 0.1),
        measured_by=('x', 'y', 'z'),
        units=('rad',) * 3,
        orientations=((0, 1, 2),),
    )
    pad = Pad(written(tmp_path), turning)
    here = np.array([3.14, 0.01, 0.0])
    pad.says(buttons_4=1.0)
    for measured in (-here, here):
        pad.says()
        np.testing.assert_array_equal(pad.command(measured, told=here), here)


def test_who_holds_on_before_anything_is_heard_must_let_go_first(tmp_path: Path) -> None:
    pad = Pad(written(tmp_path))
    fresh = Takeover(pad.config, ARM, PERIOD)
    held = {**pad.values, 'buttons.4': 1.0, 'axes.0': 1.0}
    fresh.receive(held, 1.0)
    assert fresh.command(HERE, 1.0) is None
    fresh.receive(pad.values, 1.05)
    assert fresh.command(HERE, 1.05) is None
    fresh.receive(held, 1.1)
    assert fresh.command(HERE, 1.1) is not None


def test_velocities_are_commanded_directly_and_end_with_silence(tmp_path: Path) -> None:
    pad = Pad(written(tmp_path), BASE)
    pad.says(axes_0=-1.0, buttons_4=1.0)
    np.testing.assert_allclose(pad.command(None), [-0.5, 0.0])
    pad.now += 0.3
    np.testing.assert_array_equal(pad.command(None), [0.0, 0.0])


def test_a_pad_that_is_unplugged_while_held_leaves_the_robot_at_rest_and_does_not_hand_it_back(
    pad: Pad,
) -> None:
    pad.says(axes_0=1.0, buttons_4=1.0)
    stopped = pad.command()
    pad.now += 0.3
    for _ in range(5):
        np.testing.assert_array_equal(pad.command(), stopped)
    assert pad.takeover.state is TakeoverState.LOST
    # Plugged in again it says that nothing is held, which nobody has let go.
    pad.says(axes_0=0.0, buttons_4=0.0)
    np.testing.assert_array_equal(pad.command(), stopped)
    pad.says(buttons_4=1.0)
    pad.command()
    assert pad.takeover.state is TakeoverState.ON
    pad.says(buttons_4=0.0)
    assert pad.command() is None


def test_nobody_takes_over_a_robot_that_is_not_measured(pad: Pad) -> None:
    pad.says(buttons_4=1.0)
    assert pad.command(None) is None
    assert pad.takeover.state is TakeoverState.OFF


def test_with_deadman_moved_the_robot_is_handed_back_some_time_after_the_last_motion(
    tmp_path: Path,
) -> None:
    pad = Pad(written(tmp_path, deadman='moved', release_after_s=0.2))
    pad.says()
    assert pad.command() is None
    pad.says(axes_0=1.0)
    assert pad.command() is not None
    for _ in range(4):
        pad.says(axes_0=0.0)
        np.testing.assert_allclose(pad.command(), HERE + np.array([0.025, 0.0, 0.0]))
    pad.says()
    assert pad.command() is None


def test_a_trigger_that_falls_can_be_the_deadman(tmp_path: Path) -> None:
    pad = Pad(written(tmp_path, deadman='axes.5', deadman_threshold=-0.5))
    pad.says(axes_5=1.0)
    assert pad.command() is None
    pad.says(axes_5=-1.0)
    assert pad.command() is not None


def test_a_button_counts_once_and_hold_before_all_others(pad: Pad) -> None:
    pad.now += 1.0
    assert pad.says(buttons_2=1.0) == []  # It was down when the pad was heard again.
    assert pad.takeover.presses.ignored == ['success']
    assert pad.says(buttons_2=0.0) == []
    pad.now += 0.15
    assert pad.says(buttons_2=1.0, buttons_3=1.0, buttons_5=1.0) == ['hold', 'success']
    assert pad.says() == []
    assert pad.says(buttons_2=0.0) == []
    assert pad.says(buttons_2=1.0) == []  # It bounces.
    pad.now += 1.0
    assert pad.says(buttons_5=0.0, buttons_3=0.0, buttons_2=0.0) == []
    pad.now += 0.2
    assert pad.says(buttons_5=1.0) == ['release']


def test_a_hold_counts_even_if_nothing_was_heard_before_it(pad: Pad) -> None:
    pad.now += 5.0
    assert pad.says(buttons_3=1.0) == ['hold']
    assert pad.says() == []
    pad.now += 5.0
    assert pad.says() == []  # It is down still.
    assert pad.says(buttons_3=0.0) == []
    assert pad.says(buttons_3=1.0) == ['hold']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'input': 'mouse'}, r"input is 'mouse', expected one of joy, twist, keyboard"),
        ({'topic': 'my joy!'}, r"topic is 'my joy!', expected a ROS name"),
        ({'deadman_threshold': 5.0}, r'deadman_threshold is 5.0, expected a number >= -1'),
        ({'deadman': 'button4'}, r"'button4' is no control of input joy, expected such as axes.0"),
        ({'deadman': 'axes.0'}, r"control 'axes.0' is given 2 times"),
        ({'input': 'keyboard', 'axes': []}, r'axes is \[\], expected a non-empty list'),
        ({'input': 'twist', 'deadman': 'moved'}, r"'axes.0' is no control of input twist"),
        ({'axes': [{'action': 'a', 'scale': 1.0}]}, r"axes\[0\].control is missing for 'a'"),
        ({'axes': [{'action': 'a', 'minus': 'axes.1', 'scale': 1}]}, r"control is missing for 'a'"),
        ({'axes': [{'action': 'a', 'control': 'axes.1', 'scale': 0}]}, r'axes\[0\].scale is 0'),
        ({'axes': [PAD['axes'][0], {**PAD['axes'][1], 'action': 'a'}]}, r"action 'a' is given 2"),
        (
            {'buttons': {'success_': 'buttons.1'}},
            r'buttons.success_ is unknown; did you mean success',
        ),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, **changes)


def test_a_keyboard_has_no_topic_and_no_button_that_is_held(tmp_path: Path) -> None:
    keys = {'axes': [{'action': 'a', 'minus': 'q', 'plus': 'up', 'scale': 1.0}], 'buttons': {}}
    with pytest.raises(ConfigError, match='a terminal tells no release; set moved'):
        written(tmp_path, input='keyboard', deadman='x', **keys)
    with pytest.raises(ConfigError, match="topic is 'joy', but a keyboard has none"):
        written(tmp_path, input='keyboard', deadman='moved', topic='joy', **keys)


@pytest.mark.parametrize(
    ('action', 'axis', 'message'),
    [
        (ARM, {'action': 'gripp'}, r"action 'gripp' is unknown; did you mean grip\?"),
        (ARM, {'scale': 3.0}, r'scale of a is 3, expected up to 2 \(robot.action.max_velocity\)'),
        (BASE, {'scale': 0.6}, r'scale of a is 0.6 m/s, expected up to 0.5 \(robot.action.lower'),
        (ActionSpec.recorded(['a', 'b']), {}, r'robot.action.measured_by is missing'),
        (ActionSpec.discrete(['a', 'b']), {}, r'discrete actions are not moved by axes'),
    ],
)
def test_a_robot_that_does_not_fit_is_refused(
    tmp_path: Path, action: ActionSpec, axis: dict[str, Any], message: str
) -> None:
    first = {**PAD['axes'][0], **axis}
    with pytest.raises(ConfigError, match=message):
        Takeover(written(tmp_path, axes=[first, PAD['axes'][1]]), action, PERIOD)


def test_the_shipped_files_fit_the_robot_that_they_name() -> None:
    robot, _ = load_robot('ur_forward_position')
    shipped = sorted(path.stem for path in resource_path('config', 'takeover').glob('*.yaml'))
    assert shipped == ['gamepad', 'keyboard', 'spacemouse']
    for name in shipped:
        load_takeover(name, robot)
