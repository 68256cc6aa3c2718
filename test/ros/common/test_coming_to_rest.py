# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot whose node stops is led to rest between control steps too, and its last command is it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from base_policy_builders import LinearPolicy
from loop_builders import PERIOD, drive, real_time

from residual_rl_ros.control.real_time_loop import STOP_LIMIT_S
from residual_rl_ros.errors import CommandError
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.robot.command import FLOAT, GRIPPER, Command
from residual_rl_ros.ros.common.command_outputs import ARRIVAL_LIMIT_S, CommandOutputs
from residual_rl_ros.ros.common.command_stream import SteadySleep

SAMPLES = 10
SAMPLE_S = PERIOD / SAMPLES
STOPS_FAST = {'max_acceleration': (40.0,), 'max_jerk': (4000.0,)}
STOPS_SLOWLY = {'max_acceleration': (4.0,), 'max_jerk': (40.0,)}
"""A change of 2 takes 1.6 s within them."""


class Bench:
    """A node, the time that passes for it, and when its topics were sent what."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: dict[str, list[tuple[float, float]]] = {}
        self.timers: list[Any] = []
        self.warnings: list[str] = []
        self.faults: list[str] = []

    def create_lifecycle_publisher(self, kind: Any, topic: str, profile: Any) -> Any:
        del kind, profile
        sent = self.sent.setdefault(topic, [])
        return SimpleNamespace(publish=lambda message: sent.append((self.now, message.data)))

    def create_timer(self, period_s: float, callback: Any, clock: Any) -> Any:
        del period_s, clock
        self.timers.append(callback)
        return callback

    def destroy_timer(self, timer: Any) -> None:
        self.timers.remove(timer)

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.warnings.append)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def outputs(self, action: ActionSpec, *commands: Command) -> CommandOutputs:
        outputs = CommandOutputs(self, commands, action, PERIOD, False)  # type: ignore[arg-type]
        outputs.start(None, lambda: self.now, self.faults.append)  # type: ignore[arg-type]
        return outputs

    def run(self, seconds: float) -> None:
        """Let the timers fire, which all have the same period."""
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            for timer in self.timers:
                timer()


def stream(index: int, interpolation: str, samples: int = SAMPLES, **limits: Any) -> Command:
    return Command(
        f'c{index}',
        FLOAT,
        indices=(index,),
        samples=samples,
        name=f'c{index}',
        interpolation=interpolation,
        **limits,
    )


def robot(unit: str, slew: float, size: int = 2) -> ActionSpec:
    names = tuple('abc'[:size])
    step = np.full(size, slew * PERIOD)
    return ActionSpec(names, np.full(size, -2.0), np.full(size, 2.0), step, units=(unit,) * size)


def stopped(unit: str, slew: float, *commands: Command) -> tuple[Bench, float]:
    """Return a robot that was stopped at a velocity of 1.5, or on the way to that position.

    Beside it is the time at which it was told to stop [s].
    """
    bench = Bench()
    outputs = bench.outputs(robot(unit, slew), *commands)
    policy = LinearPolicy()
    wanted, reached = 0.0, 1.499 if unit == 'm/s' else 0.4
    policy.infer = lambda *_: np.full(policy.noise_shape, wanted)  # type: ignore[method-assign]
    loop, callbacks = real_time(policy, action=robot(unit, slew))
    callbacks.send_command = outputs.send  # type: ignore[method-assign]
    loop._sleep, loop._stop_s = outputs.pass_time, STOP_LIMIT_S - outputs.lag_s
    loop.activate()
    for _ in range(100):
        drive(loop, bench.now, 1)
        bench.run(PERIOD)
        wanted = 1.5
        if bench.sent['c0'][-1][1] > reached:
            break
    begin = bench.now
    outputs.stop(begin, bench.sleep)
    loop.deactivate(begin)
    outputs.finish(STOP_LIMIT_S)
    assert not callbacks.faults + bench.faults
    return bench, begin


@pytest.mark.parametrize('unit', ['m/s', 'rad'])
@pytest.mark.parametrize('interpolation', ['linear', 'cubic', 'limited'])
def test_what_is_sent_between_control_steps_leads_to_rest(interpolation: str, unit: str) -> None:
    limits: dict[str, Any] = {}
    if interpolation == 'limited':
        pytest.importorskip('ruckig')
        limits = STOPS_FAST
    bench, begin = stopped(unit, 2.0, *(stream(index, interpolation, **limits) for index in (0, 1)))
    assert not bench.warnings
    for sent in bench.sent.values():
        times, values = np.array(sent).T
        if unit == 'm/s':
            assert (values[times <= begin][-1], values[-1]) == (pytest.approx(1.5, abs=0.01), 0.0)
        else:
            assert 0.0 < values[times <= begin][-1] < values[-1] < 1.5
        assert times[-1] <= begin + STOP_LIMIT_S
        after = times > begin - SAMPLE_S
        np.testing.assert_allclose(np.diff(times[after]), SAMPLE_S)
        fastest = 1.5 if interpolation == 'cubic' else 1.0
        assert np.abs(np.diff(values)).max() <= fastest * 2.0 * SAMPLE_S + 1e-9


@pytest.mark.parametrize('slew', [2.0, 0.5])
@pytest.mark.parametrize('interpolation', ['linear', 'cubic'])
def test_a_robot_that_slows_down_slowly_is_at_rest_in_time(interpolation: str, slew: float) -> None:
    bench, begin = stopped('m/s', slew, stream(0, interpolation), stream(1, interpolation, 20))
    assert not bench.warnings
    for sent in bench.sent.values():
        assert sent[-1][1] == 0.0
        assert sent[-1][0] <= begin + STOP_LIMIT_S


def test_a_motion_that_its_limits_do_not_let_stop_in_time_ends_at_once() -> None:
    pytest.importorskip('ruckig')
    bench, begin = stopped('m/s', 2.0, *(stream(i, 'limited', **STOPS_SLOWLY) for i in (0, 1)))
    for sent in bench.sent.values():
        (_, before), (last_at, last) = sent[-2:]
        assert 0.0 < before < 1.5
        assert (last_at, last) == (pytest.approx(begin + STOP_LIMIT_S), 0.0)
    assert [said.split(':')[0] for said in bench.warnings] == ["command 'c0'", "command 'c1'"]
    assert 'had not come to rest in 1 s, so the last command went out at once' in bench.warnings[0]


def test_commands_of_several_rates_are_each_sent_at_their_own() -> None:
    bench = Bench()
    outputs = bench.outputs(robot('rad', 2.0), stream(0, 'linear', 10), stream(1, 'linear', 4))
    for value in (0.0, 0.1):
        outputs.send(np.full(2, value), bench.now)
    outputs.stop(bench.now, bench.sleep)
    outputs.pass_time(0.9 * PERIOD)
    counts = [len(sent) for sent in bench.sent.values()]
    assert counts == [9, 3]
    outputs.finish(STOP_LIMIT_S)
    assert [sent[-1][1] for sent in bench.sent.values()] == [0.1, 0.1]


def test_a_refused_motion_goes_on_within_its_velocity_limit_and_the_other_as_before() -> None:
    pytest.importorskip('ruckig')
    bench = Bench()
    slow = {'max_acceleration': (2.0,), 'max_jerk': (40.0,)}
    outputs = bench.outputs(robot('rad', 2.0), stream(0, 'limited', **slow), stream(1, 'linear'))
    for value in (0.0, 0.1):
        outputs.send(np.full(2, value), bench.now)
        bench.run(PERIOD)
    (_, before) = bench.sent['c0'][-1]
    assert 0.0 < before < 0.05, 'the motion lags behind its command'

    interpolator: Any = outputs._streams[0]._interpolator

    def refuse(*_: object) -> None:
        raise interpolator._error('not found')

    interpolator._online = SimpleNamespace(update=refuse)
    bench.run(SAMPLE_S)
    assert bench.faults == ["command 'c0': no motion to [0.1]: not found"]
    outputs.stop(bench.now, bench.sleep)
    outputs.finish(STOP_LIMIT_S)
    first, second = (np.array(sent)[:, 1] for sent in bench.sent.values())
    assert np.diff(first).max() <= 2.0 * SAMPLE_S + 1e-9
    assert (first[-1], second[-1]) == (0.1, 0.1)
    assert not bench.warnings
    assert len(bench.faults) == 1


# --- a codec that fails


def test_a_topic_that_cannot_be_sent_holds_up_no_other_and_no_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    topics = (
        Command(name, FLOAT, indices=(i,), name=name) for i, name in enumerate(('bad', 'good'))
    )
    outputs = bench.outputs(robot('rad', 2.0, 3), *topics)
    cancelled: list[str] = []
    goals: Any = SimpleNamespace(cancel=lambda: cancelled.append('hand'))
    outputs._grippers.append((Command('hand', GRIPPER, indices=(2,), name='hand'), goals))

    def fail(values: Any, stamp: float) -> None:
        raise CommandError('its codec failed')

    monkeypatch.setattr(outputs._topics[0].writer, 'message', fail)
    with pytest.raises(CommandError, match='its codec failed'):
        outputs.send(np.full(3, 0.1), 0.0, holding=True)
    assert (bench.sent['bad'], bench.sent['good']) == ([], [(0.0, 0.1)])
    assert cancelled == ['hand']


def test_a_stream_that_cannot_be_sent_is_a_fault_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    outputs = bench.outputs(robot('rad', 2.0), stream(0, 'linear'), stream(1, 'linear'))
    message = outputs._streams[0]._writer.message

    def fail_on_the_way(values: Any, stamp: float) -> Any:
        if 0.0 < values[0] < 0.1:
            raise CommandError('its codec failed')
        return message(values, stamp)

    monkeypatch.setattr(outputs._streams[0]._writer, 'message', fail_on_the_way)
    for value in (0.0, 0.1):
        outputs.send(np.full(2, value), bench.now)
    bench.run(SAMPLE_S)
    assert bench.faults == ['its codec failed']
    assert len(bench.sent['c1']) == 1
    outputs.stop(bench.now, bench.sleep)
    outputs.finish(STOP_LIMIT_S)
    assert [value for _, value in bench.sent['c0']] == [0.1]
    assert bench.sent['c1'][-1][1] == 0.1


# --- time


def test_the_last_commands_are_waited_for_together() -> None:
    bench = Bench()
    outputs = bench.outputs(
        robot('rad', 2.0, 3),
        *(Command(f'c{i}', FLOAT, indices=(i,), name=f'c{i}') for i in (0, 1, 2)),
    )
    waited: list[float] = []

    def wait(limit: Any) -> bool:
        waited.append(limit.nanoseconds * 1e-9)
        time.sleep(waited[-1])
        return False

    for _, publisher in outputs._publishers:
        publisher.wait_for_all_acked = wait
    assert outputs.wait_for_arrival() == ['c0', 'c1', 'c2']
    assert min(waited) >= 0.0
    assert sum(waited) <= ARRIVAL_LIMIT_S


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a time that passes in sleeps only."""
    now = [5.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(time, 'sleep', lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_sleeps_end_when_they_say_and_what_stood_still_is_not_made_up_for(
    clock: list[float],
) -> None:
    sleep = SteadySleep()
    sleep(0.1)
    clock[0] += 0.03  # Work.
    sleep(0.1)
    assert clock[0] == pytest.approx(5.2)
    clock[0] += 1.0
    sleep(0.1)
    sleep(0.1)
    assert clock[0] == pytest.approx(6.3)
