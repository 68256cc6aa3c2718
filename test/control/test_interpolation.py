# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between two control steps a robot must move smoothly, within its limits, and not lag behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.config.run import load_run
from residual_rl_ros.control.interpolation import KINDS, MotionLimits, passing_velocities
from residual_rl_ros.evaluation.episode import run_episode
from residual_rl_ros.tasks.hosting import host

PERIOD_S, SAMPLE_S = 0.05, 0.002
SAMPLES = round(PERIOD_S / SAMPLE_S)


def limits(size: int = 1, **changes: Any) -> MotionLimits:
    """Return wide limits."""
    values = {
        'lower': -10.0,
        'upper': 10.0,
        'max_velocity': 50.0,
        'max_acceleration': 1e3,
        'max_jerk': 1e5,
    } | changes
    return MotionLimits(**{key: np.full(size, value) for key, value in values.items()})


def driven(
    kind: str,
    commands: np.ndarray,
    late: Callable[[int], float] = lambda step: 0.0,
    **changes: Any,
) -> np.ndarray:
    """Return the samples, shape (samples, m), of commands at the control rate, shape (T, m)."""
    if kind == 'limited':
        pytest.importorskip('ruckig')
    interpolator = KINDS[kind](limits(commands.shape[1], **changes), PERIOD_S, SAMPLE_S)
    interpolator.jump(commands[0], 0.0)
    samples, step = [], 1
    for index in range(SAMPLES * len(commands)):
        now = index * SAMPLE_S
        while step < len(commands) and now >= step * PERIOD_S + late(step):
            interpolator.aim(commands[step], now)
            step += 1
        samples.append(interpolator.sample(now))
    return np.array(samples)


def peaks(samples: np.ndarray) -> tuple[float, float]:
    """Return the largest acceleration and jerk of samples."""
    return tuple(
        float(np.abs(np.diff(samples, order, axis=0)).max() / SAMPLE_S**order) for order in (2, 3)
    )  # type: ignore[return-value]


@pytest.fixture(scope='module')
def base_commands() -> np.ndarray:
    """Return what the shipped diffusion base commands in an episode, shape (T, m)."""
    run = load_run('peg_insert').resolve()
    controller = run.evaluation_controller(None)
    sent: list[np.ndarray] = []
    try:
        run_episode(
            host(run.config, run.robot),
            controller,
            7,
            0,
            on_step=lambda: sent.append(np.array(controller.limiter.last_command)),
        )
    finally:
        controller.queue.close()
    return np.array(sent[:60])


@pytest.mark.parametrize('kind', ['linear', 'cubic', 'limited'])
def test_the_motion_of_the_shipped_base_is_smooth_and_at_most_a_control_step_behind(
    kind: str, base_commands: np.ndarray
) -> None:
    held = np.repeat(base_commands, SAMPLES, axis=0)
    samples = driven(kind, base_commands)
    acceleration, jerk = peaks(samples)
    raw_acceleration, raw_jerk = peaks(held)
    assert acceleration <= 0.1 * raw_acceleration
    assert jerk <= 0.1 * raw_jerk
    # Where the command was a control step ago, the motion is now; as far as one step goes.
    behind = np.abs(samples[SAMPLES:] - held[:-SAMPLES]).max(0)
    step = np.abs(np.diff(base_commands, axis=0)).max(0)
    assert (behind <= step).all()
    shares = acceleration / raw_acceleration, jerk / raw_jerk, (behind / step).max()
    print(
        f'{kind}: acceleration {shares[0]:.2%}, jerk {shares[1]:.2%}, behind {shares[2]:.2f} step'
    )


@given(
    st.lists(st.floats(-1.0, 1.0, allow_subnormal=False), min_size=2, max_size=12),
    st.floats(0.0, 1.0),
)
def test_cubic_segments_at_passing_velocities_go_beyond_no_point(
    values: list[float], share: float
) -> None:
    before, *points = values
    velocities = passing_velocities(np.array(points)[:, None], np.array([before]), PERIOD_S)[:, 0]
    assert velocities[-1] == 0.0
    ends = zip(points, points[1:], velocities, velocities[1:], strict=False)
    for begin, end, first, last in ends:
        a, b, way = PERIOD_S * first, PERIOD_S * last, end - begin
        at = begin + share * (a + share * (3.0 * way - 2.0 * a - b + share * (a + b - 2.0 * way)))
        assert min(begin, end) - 1e-12 <= at <= max(begin, end) + 1e-12


@given(
    st.sampled_from(['linear', 'cubic']),
    st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=12),
    st.lists(st.floats(0.0, 0.02), min_size=12, max_size=12),
)
def test_a_motion_has_no_jump_and_stays_between_its_commands(
    kind: str, values: list[float], late: list[float]
) -> None:
    commands = np.array(values)[:, None]
    samples = driven(kind, commands, late.__getitem__, lower=-1.0, upper=1.0)
    fastest = np.abs(np.diff(samples, axis=0)).max()
    assert fastest <= 3.0 * 2.0 * SAMPLE_S / PERIOD_S + 1e-9
    assert samples.min() >= -1.0
    assert samples.max() <= 1.0


@pytest.mark.parametrize('kind', ['linear', 'cubic', 'limited'])
def test_a_motion_arrives_and_rests_where_the_commands_end(kind: str) -> None:
    commands = np.array([0.0, 0.1, 0.2, 0.3, *[0.3] * 20])[:, None]
    samples = driven(kind, commands)
    np.testing.assert_allclose(samples[-SAMPLES:], 0.3, atol=1e-6)
    assert samples.max() <= 0.3 + 0.1


@pytest.mark.parametrize('kind', ['linear', 'cubic', 'limited'])
def test_a_jump_begins_a_motion_at_rest_where_the_robot_is(kind: str) -> None:
    if kind == 'limited':
        pytest.importorskip('ruckig')
    interpolator = KINDS[kind](limits(), PERIOD_S, SAMPLE_S)
    interpolator.jump(np.array([0.0]), 0.0)
    interpolator.aim(np.array([1.0]), 0.05)
    interpolator.sample(0.07)
    interpolator.jump(np.array([-2.0]), 0.1)
    assert [interpolator.sample(0.1 + SAMPLE_S * i).tolist() for i in range(3)] == [[-2.0]] * 3


def test_a_limited_motion_keeps_its_acceleration_and_jerk() -> None:
    rng = np.random.default_rng(0)
    commands = np.cumsum(rng.uniform(-0.05, 0.05, (40, 2)), axis=0)
    samples = driven('limited', commands, max_acceleration=30.0, max_jerk=2e3, max_velocity=2.0)
    acceleration, jerk = peaks(samples)
    assert acceleration <= 30.0 * 1.01
    assert jerk <= 2e3 * 1.05
    assert np.abs(np.diff(samples, axis=0)).max() <= 2.0 * SAMPLE_S * 1.01


def test_a_limited_motion_does_not_run_up_or_go_on_where_the_commands_end() -> None:
    falling = np.array([0.5] * 4 + [0.4, 0.3, 0.2, 0.1, 0.0])[:, None]
    commands = np.concatenate([falling, np.zeros((20, 1))])
    slow = {'max_acceleration': 8.0, 'max_jerk': 100.0, 'max_velocity': 2.0}
    samples = driven('limited', commands, **slow)
    assert samples.max() <= 0.5 + 1e-9
    assert samples.min() >= -0.1  # As far as one step.
    np.testing.assert_allclose(samples[-SAMPLES:], 0.0, atol=1e-3)
    rising = driven('limited', np.array([0.0] + [1.0] * 30)[:, None], **slow)
    assert rising.min() >= 0.0
    np.testing.assert_allclose(rising[-1], 1.0, atol=1e-3)


def test_a_limited_motion_exists_at_the_velocity_limit() -> None:
    times = np.arange(60) * PERIOD_S
    for frequency in np.linspace(0.5, 3.0, 15):
        commands = np.sin(2.0 * np.pi * frequency * times)[:, None] / (2.0 * np.pi * frequency)
        samples = driven('limited', commands, max_acceleration=20.0, max_jerk=400.0, max_velocity=1)
        assert np.isfinite(samples).all()


@pytest.mark.parametrize('kind', ['linear', 'cubic', 'limited'])
@pytest.mark.parametrize('samples', [2, 3, 25])
def test_a_motion_says_when_it_has_arrived(kind: str, samples: int) -> None:
    if kind == 'limited':
        pytest.importorskip('ruckig')
    sample_s = PERIOD_S / samples
    interpolator = KINDS[kind](limits(), PERIOD_S, sample_s)
    interpolator.jump(np.array([0.5]), 0.0)
    interpolator.aim(np.array([0.0]), 0.0)
    sent: list[float] = []
    while not sent or not interpolator.arrived(len(sent) * sample_s):
        sent.append(float(interpolator.sample((len(sent) + 1) * sample_s)[0]))
    assert sent[-1] == pytest.approx(0.0, abs=1e-9)
    assert PERIOD_S <= len(sent) * sample_s <= 4.0 * PERIOD_S
