# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the live loop made of messages is what a recording of these messages gives."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import (
    LinearPolicy,
    make_actor,
    make_metadata,
    random_transitions,
    write_onnx_policy,
)
from command_line import run

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.cdr import deserialize, labelled_array, serialize, typestore
from residual_rl_ros.bags.channel_report import NEWEST, ChannelReport
from residual_rl_ros.bags.marks import Mark, read_marks
from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.bags.rebuild import Rebuilder, RebuildOptions
from residual_rl_ros.bags.recorder import RecordedTopic, Recorder, RecorderError, RecordOptions
from residual_rl_ros.bags.replayed import ReplayedController
from residual_rl_ros.bags.summary import summarise
from residual_rl_ros.bags.topics import (
    FEEDBACK,
    TAKEOVER_ACTIVE,
    TAKEOVER_COMMAND,
    absolute,
    raw_topics,
)
from residual_rl_ros.bags.transition_writer import write_bag
from residual_rl_ros.message_values import MessageReader, rounded, stamped_label, to_nanoseconds
from residual_rl_ros.observation import ObservationAssembler
from residual_rl_ros.residual.blend import BlendRamp
from residual_rl_ros.residual.controller import ResidualController, StepFeedback
from residual_rl_ros.residual.controller_config import ControllerConfig
from residual_rl_ros.residual.lockstep_loop import LockstepLoop
from residual_rl_ros.residual.policy_loop import MARK_FAILURE, MARK_SUCCESS, LoopParts
from residual_rl_ros.residual.real_time_loop import NOTHING_HAPPENED, RealTimeLoop, RealTimeRules
from residual_rl_ros.residual.weights import WeightsHeader, encode_weights
from residual_rl_ros.robot import FLOAT_ARRAY, JOINT_STATE, RobotConfig
from residual_rl_ros.transition import Source, Success, Transition

PERIOD = 0.05
CONFIG = ControllerConfig(decision_steps=2, residual_scale=(0.1,), seed=3, scheduled_actor=False)
DESCRIPTION = {
    'name': 'two_joints',
    'control_rate_hz': 20.0,
    'command': {'topic': 'command', 'type': FLOAT_ARRAY},
    'action': {
        'names': ['a.position', 'b.position'],
        'lower': [-2.0, -2.0],
        'upper': [2.0, 2.0],
        'max_velocity': [40.0, 40.0],
        'measured_by': ['arm.position.a', 'arm.position.b'],
    },
    'observation': {
        'channels': ['arm', 'tool'],
        'arm': {
            'topic': 'joint_states',
            'type': JOINT_STATE,
            'fields': ['position'],
            'joints': ['a', 'b'],
            'max_age_s': 0.2,
        },
        'tool': {
            'topic': '/tool',
            'type': FLOAT_ARRAY,
            'fields': ['z'],
            'max_age_s': 0.2,
            'stamped_by': 'receipt',
        },
    },
}
ROBOT = RobotConfig.from_mapping(DESCRIPTION)


def joint_state(stamp: float, positions: np.ndarray) -> bytes:
    types = typestore().types
    nanoseconds = round(stamp * 1e9)
    time = types['builtin_interfaces/msg/Time'](nanoseconds // 10**9, nanoseconds % 10**9)
    header = types['std_msgs/msg/Header'](stamp=time, frame_id='')
    message = types[JOINT_STATE](
        header=header,
        name=['b', 'other', 'a'],
        position=np.array([positions[1], 9.0, positions[0]]),
        velocity=np.empty(0),
        effort=np.empty(0),
    )
    return serialize(message, JOINT_STATE)


def flag(value: bool) -> bytes:
    return serialize(typestore().types['std_msgs/msg/Bool'](data=value), 'std_msgs/msg/Bool')


@dataclass
class Live:
    """A policy node in real time without a middleware, and the recorder beside it."""

    recorder: Recorder
    made: list[Transition]
    loop: Any = None
    readers: Any = None

    @classmethod
    def start(cls, folder: Path, namespace: str = 'cell') -> Live:
        topics = absolute(raw_topics(ROBOT), lambda name: str(Path(f'/{namespace}') / name))
        live = cls(Recorder(folder, topics, RecordOptions(), {}, lambda: 0.0), [])
        parts = LoopParts(
            CONFIG.build(LinearPolicy(), ROBOT.action),
            ObservationAssembler(ROBOT.channels),
            BlendRamp(0.0),
            live,
            lambda: 0.0,
        )
        live.loop = RealTimeLoop(parts, PERIOD, RealTimeRules(True, 10.0))
        live.loop.activate()
        live.readers = {channel.name: MessageReader(channel) for channel in ROBOT.channels}
        return live

    def send_command(self, command: np.ndarray, stamp: float) -> None:
        data = labelled_array(command, stamped_label(stamp))
        self.recorder.write('/cell/command', round((stamp + 0.001) * 1e9), data)

    def send_transition(self, transition: Transition) -> None:
        self.made.append(transition)

    def warn(self, reason: str) -> None:
        raise AssertionError(reason)

    fault = warn

    def observe(self, name: str, topic: str, kind: str, received_ns: int, data: bytes) -> None:
        self.recorder.write(topic, received_ns, data)
        message = deserialize(data, kind)
        stamp = self.readers[name].stamp(message)
        values = self.readers[name].values(message)
        self.loop.observe(name, received_ns * 1e-9 if stamp is None else stamp, values)

    def step(self, tick: int) -> None:
        """Let one control period pass: observations, then the tick."""
        rng = np.random.default_rng(tick)
        now = 100.0 + PERIOD * tick
        arm = joint_state(now - 0.02, rng.uniform(-1.0, 1.0, 2))
        self.observe('arm', '/cell/joint_states', JOINT_STATE, round((now - 0.01) * 1e9), arm)
        if tick % 2 == 0:
            tool = labelled_array(rng.uniform(-1.0, 1.0, 1), '')
            self.observe('tool', '/tool', FLOAT_ARRAY, round((now - 0.005) * 1e9), tool)
        self.loop.tick(now)

    def record_feedback(self, tick: int, *values: float) -> np.ndarray:
        stamp = 100.0 + PERIOD * tick + 0.01
        data = np.array([stamp, *values])
        self.recorder.write(f'/cell/{FEEDBACK}', round(stamp * 1e9), labelled_array(data, ''))
        return data

    def feedback(self, tick: int, *values: float) -> None:
        self.loop.receive_feedback(self.record_feedback(tick, *values))

    def takeover(self, tick: int, active: bool, command: np.ndarray | None = None) -> None:
        received = round((100.0 + PERIOD * tick + 0.01) * 1e9)
        if command is not None:
            data = labelled_array(command, '')
            self.recorder.write(f'/cell/{TAKEOVER_COMMAND}', received, data)
            self.loop.receive_takeover(command)
        self.recorder.write(f'/cell/{TAKEOVER_ACTIVE}', received, flag(active))
        self.loop.set_takeover(active)


def rebuild(folder: Path, **options: Any) -> tuple[list[Transition], Rebuilder, list[str]]:
    bag = Bag(folder)
    rebuilder = Rebuilder(
        bag, ROBOT, LinearPolicy(), RebuildOptions(CONFIG, namespace='cell', **options)
    )
    made = list(rebuilder.transitions())
    return made, rebuilder, [str(problem) for problem in bag.problems]


def check_equal(one: list[Transition], other: list[Transition], *but: str) -> None:
    assert len(one) == len(other) > 5
    for a, b in zip(one, other, strict=True):
        for field in fields(Transition):
            if field.name not in but:
                np.testing.assert_array_equal(
                    getattr(a, field.name), getattr(b, field.name), err_msg=field.name
                )


def test_real_time_transitions_are_equal_number_for_number(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(60):
        live.step(tick)
        if tick in (20, 41):
            live.feedback(tick, 1.0, 1.0, 0.0, float(tick == 20))
        elif tick % 7 == 0:
            live.feedback(tick, 0.1, 0.0, 0.0, -1.0)
    live.recorder.close()
    made, rebuilder, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    *made, cut = made  # The end of the recording ends the last episode.
    check_equal(made, live.made)
    assert cut.truncated
    arm, tool = rebuilder.channels.values()
    assert (arm.messages, arm.stamped) == (60, 60)
    assert (tool.messages, tool.stamped) == (30, 0)
    assert arm.ages[5] == pytest.approx(0.01)
    assert arm.rate_hz == pytest.approx(20.0)


def test_lockstep_transitions_are_equal_number_for_number(tmp_path: Path) -> None:
    channels = DESCRIPTION['observation']
    stamped = {key: value for key, value in channels['tool'].items() if key != 'stamped_by'}
    robot = RobotConfig.from_mapping({**DESCRIPTION, 'observation': {**channels, 'tool': stamped}})
    live = Live.start(tmp_path / 'bag')
    parts = LoopParts(
        CONFIG.build(LinearPolicy(), robot.action),
        ObservationAssembler(robot.channels),
        BlendRamp(0.0),
        live,
        lambda: 0.0,
    )
    loop = LockstepLoop(parts, math.inf)
    loop.activate()
    rng = np.random.default_rng(0)
    for tick in range(40):
        stamp = rounded(1.0 + PERIOD * tick)  # Simulated time.
        received = 10**18 + tick
        done = tick in (15, 30)
        feedback = np.array([stamp, 0.1 * tick, done, False, float(done) if done else -1.0])
        arm, z = joint_state(stamp, rng.uniform(-1.0, 1.0, 2)), rng.uniform(-1.0, 1.0, 1)
        live.recorder.write(f'/cell/{FEEDBACK}', received, labelled_array(feedback, ''))
        live.recorder.write('/tool', received, labelled_array(z, stamped_label(stamp)))
        live.recorder.write('/cell/joint_states', received, arm)
        loop.receive_feedback(feedback)
        loop.observe('tool', stamp, z)
        loop.observe('arm', stamp, live.readers['arm'].values(deserialize(arm, JOINT_STATE)))
    live.recorder.close()
    bag = Bag(tmp_path / 'bag')
    options = RebuildOptions(CONFIG, lockstep=True, namespace='cell')
    seen: list[tuple[int, int | None]] = []
    rebuilder = Rebuilder(bag, robot, LinearPolicy(), options, lambda *said: seen.append(said))
    made = list(rebuilder.transitions())
    assert list(bag.problems) == []
    check_equal(made, live.made)
    assert [t.episode for t in made if t.terminated] == [0, 1]
    assert seen[159] == (160, None)  # Three topics and the commands, once.
    assert seen[160] == (1, 160)
    assert len(seen) == 160 + 120


def test_a_takeover_is_accounted_for_as_live(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(40):
        live.step(tick)
        if tick == 11:
            live.takeover(tick, True, np.array([0.3, -0.2]))
        elif tick == 21:
            live.takeover(tick, False)
    live.feedback(39, 0.0, 0.0, 1.0, 0.0)
    live.step(40)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made, live.made)
    assert {t.source for t in made} == {Source.BASE, Source.TAKEOVER}


def test_an_end_during_a_hold_is_accounted_for_as_live(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(16):
        live.step(tick)
    live.takeover(15, True)  # The operator has not commanded yet: the robot holds.
    live.step(16)
    live.feedback(16, 1.0, 1.0, 0.0, 1.0)
    live.step(17)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made, live.made)
    assert made[-1].success is Success.SUCCESS


def test_a_residual_is_seen_in_what_was_added_to_the_base(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    actor = make_actor(live.loop.controller.layout, gain=1.0)
    live.loop.receive_weights(encode_weights(actor.to_numpy(), WeightsHeader(1, 0)))
    live.loop.take_weights(wait=True)
    for tick in range(30):
        live.step(tick)
    live.feedback(29, 0.0, 0.0, 1.0, 0.0)
    live.step(30)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made, live.made, 'residual_action', 'epoch', 'policy_sequence')
    assert {t.source for t in made} == {Source.RESIDUAL}
    for one, other in zip(made, live.made, strict=True):
        np.testing.assert_allclose(one.residual_action, other.residual_action, atol=1e-9)
        assert (one.epoch, one.policy_sequence) == (0, -1)


def test_a_command_beyond_the_bound_is_a_takeover_that_was_not_recorded(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(20):
        live.step(tick)
        if tick == 8:
            live.loop.receive_takeover(np.array([0.9, 0.9]))
            live.loop.set_takeover(True)
        elif tick == 10:
            live.loop.set_takeover(False)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    check_equal(made[: len(live.made)], live.made)
    by_operator = [t for t in made if t.source is Source.TAKEOVER]
    assert [t.step for t in by_operator] == [8, 10]  # Half of each is an operator's.
    assert not any(t.residual_action.any() for t in by_operator)


def test_a_residual_behind_the_safety_filter_stays_one() -> None:
    """What a limit takes away from the base is no operator's doing."""
    slow = replace(ROBOT.action, max_step=np.full(2, 0.02), measured_by=())
    live, replayed = (
        CONFIG.build(LinearPolicy(), slow, kind)
        for kind in (ResidualController, ReplayedController)
    )
    actor = make_actor(live.layout, gain=1.0)
    live.slot.offer(encode_weights(actor.to_numpy(), WeightsHeader(1, 0)))
    rng = np.random.default_rng(1)
    found = []
    for number in range(40):
        stamp, observation = PERIOD * number, rng.uniform(-3.0, 3.0, 3)
        for controller in (live, replayed):
            if number == 0:
                controller.begin_episode(0, observation, stamp)
                continue
            made = controller.step(observation, stamp, NOTHING_HAPPENED)
            if controller is replayed and made is not None:
                found.append(made.source)
        replayed.commands = {to_nanoseconds(stamp): live.command()}
        replayed.command()
    for controller in (live, replayed):
        controller.queue.close()
    assert live.safety.slew_limited > 10
    assert Source.RESIDUAL in found
    assert Source.TAKEOVER not in found


def record_commands(folder: Path, ticks: list[int]) -> None:
    live = Live.start(folder)
    for tick in range(max(ticks) + 3):
        if tick in ticks:
            live.step(tick)
    live.recorder.close()


def test_a_pause_ends_an_episode_as_it_is_told(tmp_path: Path) -> None:
    record_commands(tmp_path / 'bag', [*range(10), *range(60, 70)])
    for success, ending in ((True, (True, False)), (False, (False, True))):
        made, _, _ = rebuild(tmp_path / 'bag', end_is_success=success)
        last = [t for t in made if t.terminated or t.truncated]
        assert [(t.terminated, t.truncated) for t in last] == [ending] * 2
        assert [t.episode for t in last] == [0, 1]
        wanted = Success.SUCCESS if success else Success.UNLABELLED
        assert {t.success for t in last} == {wanted}


def test_a_mark_judges_what_the_recording_does_not(tmp_path: Path) -> None:
    record_commands(tmp_path / 'bag', list(range(30)))
    mark = Mark(100.0 + 15.2 * PERIOD, MARK_FAILURE)
    made, _, _ = rebuild(tmp_path / 'bag', marks=(mark,))
    (failed,) = [t for t in made if t.success is Success.FAILURE]
    assert failed.terminated
    assert failed.step == 14
    assert [t.episode for t in made][-1] == 1


def judged(made: list[Transition]) -> list[tuple[float, bool, bool, Success]]:
    last = [t for t in made if t.terminated or t.truncated]
    return [(t.reward, t.terminated, t.truncated, t.success) for t in last]


SUCCEEDED = (1.0, True, False, Success.SUCCESS)
FAILED = (0.0, True, False, Success.FAILURE)
UNJUDGED = (0.0, False, True, Success.UNLABELLED)


@pytest.mark.parametrize('end_is_success', [True, False])
@pytest.mark.parametrize('periods_later', [0.5, 10.0])
@pytest.mark.parametrize(
    ('feedback', 'expected'), [(MARK_SUCCESS, SUCCEEDED), (MARK_FAILURE, FAILED)]
)
def test_a_mark_after_the_motion_is_the_only_end(
    end_is_success: bool,
    periods_later: float,
    feedback: StepFeedback,
    expected: tuple[float, bool, bool, Success],
    tmp_path: Path,
) -> None:
    record_commands(tmp_path / 'bag', [*range(10), *range(60, 70)])
    marks = tuple(Mark(100.0 + PERIOD * (tick + periods_later), feedback) for tick in (9, 69))
    made, _, problems = rebuild(tmp_path / 'bag', marks=marks, end_is_success=end_is_success)
    assert judged(made) == [expected] * 2
    assert problems == []


@pytest.mark.parametrize('tick', [9, 30])
def test_feedback_after_the_motion_is_the_only_end(tick: int, tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for step in range(10):
        live.step(step)
    live.record_feedback(tick, 0.0, 1.0, 0.0, 0.0)
    for step in range(60, 70):
        live.step(step)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', end_is_success=True)
    assert judged(made) == [FAILED, SUCCEEDED]
    assert problems == []


def test_a_judgement_that_no_episode_is_open_for_is_named(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for step in range(10):
        live.step(step)
    live.record_feedback(20, 0.0, 1.0, 0.0, 0.0)
    live.record_feedback(25, 1.0, 1.0, 0.0, 1.0)
    live.step(60)
    live.recorder.close()
    marks = tuple(Mark(stamp, MARK_SUCCESS) for stamp in (99.0, 101.4, 103.1, 103.2))
    made, _, problems = rebuild(tmp_path / 'bag', marks=marks)
    assert judged(made) == [FAILED, SUCCEEDED]
    assert len(problems) == 4
    assert [p for p in problems if 'mark at 99.000 s is not used' in p]
    assert [p for p in problems if 'mark at 101.400 s is not used' in p]
    assert [p for p in problems if 'mark at 103.200 s is not used' in p]
    (feedback,) = [p for p in problems if '/cell/step_feedback' in p]
    assert 'bag.mcap: /cell/step_feedback: message' in feedback


def test_what_was_not_recorded_is_named(tmp_path: Path) -> None:
    topics = [RecordedTopic('/cell/joint_states', JOINT_STATE)]
    recorder = Recorder(tmp_path / 'bag', topics, RecordOptions(), {}, lambda: 0.0)
    recorder.write('/cell/joint_states', 10**9, joint_state(1.0, np.zeros(2)))
    recorder.close()
    with pytest.raises(BagError, match=r'no usable message on /tool, /cell/command'):
        rebuild(tmp_path / 'bag')


def test_stamps_that_go_back_are_reported(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
        if tick == 5:
            old = joint_state(99.0, np.zeros(2))
            live.observe('arm', '/cell/joint_states', JOINT_STATE, 100_255_000_000, old)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag')
    assert len(made) == len(live.made) + 1
    (problem,) = problems
    assert '/cell/joint_states' in problem
    assert '1 stamps go back' in problem


def test_a_problem_is_one_line_with_file_topic_and_place(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
        if tick == 5:
            live.recorder.write('/tool', 100_255_000_000, b'\0\1\0\0junk')
            live.recorder.write('/cell/command', 100_256_000_000, labelled_array([1.0], ''))
    live.recorder.close()
    _, _, problems = rebuild(tmp_path / 'bag')
    assert len(problems) == 2
    for problem, topic in zip(problems, ('/tool', '/cell/command'), strict=True):
        assert f'bag.mcap: {topic}: message ' in problem
        assert 'times' not in problem


def test_a_stale_channel_is_one_line_with_its_topic(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    rng = np.random.default_rng(0)
    for tick in range(40):
        now = 100.0 + PERIOD * tick
        arm = joint_state(now - 0.02, rng.uniform(-1.0, 1.0, 2))
        live.recorder.write('/cell/joint_states', round((now - 0.01) * 1e9), arm)
        if not 10 <= tick < 30:
            tool = labelled_array([0.0], '')
            live.recorder.write('/tool', round((now - 0.005) * 1e9), tool)
        live.send_command(np.zeros(2), now)
    live.recorder.close()
    made, _, (problem,) = rebuild(tmp_path / 'bag')
    assert ': /tool: message ' in problem
    assert "channel 'tool' is 0.205 s old, max_age_s is 0.2 s (17 times)" in problem
    assert {t.episode for t in made} == {0}  # A hold ends no episode.


def test_feedback_of_a_wrong_size_is_one_line(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
        live.record_feedback(tick, 0.1 * tick)
    live.recorder.close()
    _, _, (problem,) = rebuild(tmp_path / 'bag')
    assert '/cell/step_feedback: message ' in problem
    assert 'expected 5 finite numbers' in problem
    assert problem.endswith('(12 times)')


def test_a_recording_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a command, before the first one or in a pause, may be hours of pictures."""
    live = Live.start(tmp_path / 'bag')
    for tick in range(300):
        now = 100.0 + PERIOD * tick
        arm, tool = joint_state(now - 0.02, np.zeros(2)), labelled_array([0.0], '')
        live.recorder.write('/cell/joint_states', round((now - 0.01) * 1e9), arm)
        live.recorder.write('/tool', round((now - 0.005) * 1e9), tool)
        if 100 <= tick < 110 or tick >= 290:
            live.send_command(np.zeros(2), now)
    live.recorder.close()
    alive = most = 0

    def forget() -> None:
        nonlocal alive
        alive -= 1

    def watched(data: memoryview, kind: str) -> Any:
        nonlocal alive, most
        message = deserialize(data, kind)
        weakref.finalize(message, forget)
        alive += 1
        most = max(most, alive)
        return message

    monkeypatch.setattr('residual_rl_ros.bags.raw_messages.deserialize', watched)
    made, rebuilder, problems = rebuild(tmp_path / 'bag')
    assert problems == []
    assert [t.episode for t in made if t.truncated] == [0, 1]
    assert most < 20
    assert len(rebuilder.controller.commands) == 1


def test_a_report_of_a_long_channel_stays_small() -> None:
    report = ChannelReport('arm', '/arm')
    for number in range(3 * NEWEST):
        report.add(float(number), number + (0.5 if number == 7 else 0.002))
    assert len(report.ages) == NEWEST
    assert '2.0 ms old on receipt (median, at most 500.0 ms)' in report.describe()


def test_a_restarted_simulator_is_refused(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    live.send_command(np.zeros(2), 10_000.0)  # A node that is deactivated holds, by its clock.
    for stamp in (100.0, 100.1, 100.1, 100.05):
        data = joint_state(stamp, np.zeros(2))
        live.recorder.write('/cell/joint_states', 10**9, data)
        live.send_command(np.zeros(2), stamp)
    live.recorder.write('/tool', 10**9, labelled_array([0.0], ''))
    live.recorder.close()
    with pytest.raises(
        BagError, match=r'/cell/joint_states: .* go back from 100.100 s to 100.050 s'
    ):
        rebuild(tmp_path / 'bag', lockstep=True)


def test_commands_of_another_clock_are_refused(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for tick in range(12):
        live.step(tick)
    data = labelled_array(np.zeros(2), stamped_label(3.0))
    live.recorder.close()
    simulated = Live.start(tmp_path / 'simulated')
    for message in Bag(tmp_path / 'bag').messages():
        own = data if message.topic.name == '/cell/command' else bytes(message.data)
        simulated.recorder.write(message.topic.name, message.time_ns, own)
    simulated.recorder.close()
    with pytest.raises(BagError, match='97 s or more from when they were recorded'):
        rebuild(tmp_path / 'simulated')


def test_an_episode_limit_truncates_as_live(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    live.loop.rules = RealTimeRules(True, 10.0, 12 * PERIOD)
    for tick in range(30):
        live.step(tick)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', episode_limit_s=12 * PERIOD)
    assert problems == []
    check_equal(made[: len(live.made)], live.made)
    assert any(t.truncated for t in live.made)


def rebuild_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, namespace: str = 'cell'
) -> int:
    """Run `bag rebuild` on `folder/raw` into `folder/made`; return its exit code."""
    metadata = make_metadata(observation_names=ROBOT.observation_names)
    write_onnx_policy(folder / 'base.onnx', metadata)
    robot = yaml.safe_dump({'/**': {'ros__parameters': {'robot': DESCRIPTION}}})
    (folder / 'robot.yaml').write_text(robot)
    return run(
        *('rebuild', str(folder / 'raw'), '--out', str(folder / 'made')),
        *('--robot', str(folder / 'robot.yaml'), '--base', str(folder / 'base.onnx')),
        *('--namespace', namespace, '--decision-steps', '2', *arguments),
        monkeypatch=monkeypatch,
    )


def test_the_numbers_of_the_node_can_be_given_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_commands(tmp_path / 'raw', list(range(30)))
    numbers = ('--prefetch-steps', '1', '--chunk-blend-steps', '2', '--episode-limit', '0.59')
    assert rebuild_command(tmp_path, monkeypatch, *numbers) == 0
    (summary,) = summarise(Bag(tmp_path / 'made')).robots
    assert summary.to_json()['decisions_per_episode'][2] == 6  # 12 steps of 0.05 s in pairs.


def test_a_failed_rebuild_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_commands(tmp_path / 'raw', list(range(30)))
    assert rebuild_command(tmp_path, monkeypatch, namespace='cel') == 2
    assert 'give --namespace' in capsys.readouterr().err
    assert not (tmp_path / 'made').exists()
    assert rebuild_command(tmp_path, monkeypatch) == 0


@pytest.mark.parametrize('interruption', [BagError('the base policy failed'), KeyboardInterrupt()])
def test_an_interrupted_bag_is_not_taken_for_a_whole_one(
    interruption: BaseException, tmp_path: Path
) -> None:
    layout = CONFIG.build(LinearPolicy(), ROBOT.action).layout

    def transitions() -> Iterator[Transition]:
        yield from random_transitions(layout, 5)
        (beside,) = (tmp_path / 'deep').iterdir()
        with pytest.raises(BagError, match='holds no bag'):
            Bag(tmp_path / 'deep')
        assert beside.name.startswith('.made.')
        raise interruption

    with pytest.raises(type(interruption)):
        write_bag(tmp_path / 'deep' / 'made', layout, transitions(), '', {})
    assert list((tmp_path / 'deep').iterdir()) == []
    made = iter(random_transitions(layout, 5))
    assert write_bag(tmp_path / 'deep' / 'made', layout, made, '', {}) == 5
    assert (tmp_path / 'deep' / 'made' / 'made.mcap').is_file()
    with pytest.raises(RecorderError, match='exists already'):
        write_bag(tmp_path / 'deep' / 'made', layout, iter(random_transitions(layout, 5)), '', {})


def test_the_command_leaves_a_transition_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_commands(tmp_path / 'raw', list(range(30)))
    (tmp_path / 'marks.yaml').write_text('- {stamp: 100.76, outcome: success}')
    code = rebuild_command(tmp_path, monkeypatch, '--marks', str(tmp_path / 'marks.yaml'))
    assert code == 0
    assert '/cell/joint_states: 30 messages, 20.0 Hz' in capsys.readouterr().err
    (summary,) = summarise(Bag(tmp_path / 'made')).robots
    assert summary.robot == 'cell'
    assert summary.transitions == 14
    assert summary.outcomes() == {'success': 1, 'unlabelled': 1}
    assert summary.missing == 0


@pytest.mark.parametrize('text', ['- {stamp: now, outcome: success}', '- {stamp: 1}', '7', ': :'])
def test_marks_that_cannot_be_read_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / 'marks.yaml').write_text(text)
    with pytest.raises(BagError, match='marks'):
        read_marks(tmp_path / 'marks.yaml')
