# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Raw bags that several test modules record, and what is rebuilt from them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from base_policy_builders import LinearPolicy

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.rebuild.rebuild import Rebuilder, RebuildOptions
from residual_rl_ros.bags.recorder import (
    TAKEOVER_ACTIVE,
    Recorder,
    RecordOptions,
    absolute,
    raw_topics,
)
from residual_rl_ros.control.composition import BlendRamp
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.control.gates import RealTimeRules
from residual_rl_ros.control.lockstep_loop import LockstepLoop
from residual_rl_ros.control.policy_loop import LoopParts
from residual_rl_ros.control.real_time_loop import RealTimeLoop
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.description import TAKEOVER, RobotConfig
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.stamps import rounded, stamped_label
from residual_rl_ros.robot.topics import FLOAT_ARRAY, JOINT_STATE, SERIALIZED_TYPES, TF
from residual_rl_ros.transitions.cdr import deserialize, labelled_array, serialize, typestore
from residual_rl_ros.transitions.transition import Transition

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
    return joints(stamp, {'b': positions[1], 'other': 9.0, 'a': positions[0]})


def joints(stamp: float, positions: dict[str, float]) -> bytes:
    types = typestore().types
    nanoseconds = round(stamp * 1e9)
    time = types['builtin_interfaces/msg/Time'](nanoseconds // 10**9, nanoseconds % 10**9)
    header = types['std_msgs/msg/Header'](stamp=time, frame_id='')
    message = types[JOINT_STATE](
        header=header,
        name=list(positions),
        position=np.array(list(positions.values())),
        velocity=np.empty(0),
        effort=np.empty(0),
    )
    return serialize(message, JOINT_STATE)


def transforms(*frames: tuple[str, str, float, tuple[float, ...]], little: bool = True) -> bytes:
    """Return a TFMessage of (frame, its parent, stamp, pose), in the order of bytes of a computer.

    The pose is position x, y, z and quaternion x, y, z, w.
    """
    types = typestore().types
    made = []
    for child, parent, stamp, (x, y, z, *turn) in frames:
        time = types['builtin_interfaces/msg/Time'](*divmod(round(stamp * 1e9), 10**9))
        header = types['std_msgs/msg/Header'](stamp=time, frame_id=parent)
        moved = types['geometry_msgs/msg/Vector3'](x, y, z)
        turned = types['geometry_msgs/msg/Quaternion'](*turn)
        inner = types['geometry_msgs/msg/Transform'](translation=moved, rotation=turned)
        stamped = types['geometry_msgs/msg/TransformStamped']
        made.append(stamped(header=header, child_frame_id=child, transform=inner))
    message = types[TF](transforms=made)
    return bytes(typestore().serialize_cdr(message, TF, little_endian=little))


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
    def start(
        cls,
        folder: Path,
        config: ControllerConfig = CONFIG,
        policy: LinearPolicy | None = None,
        noted: dict[str, str] | None = None,
        robot: RobotConfig = ROBOT,
    ) -> Live:
        policy = policy or LinearPolicy()
        topics = absolute(raw_topics(robot), lambda name: str(Path('/cell') / name))
        live = cls(Recorder(folder, topics, RecordOptions(), noted or {}, lambda: 0.0), [])
        parts = LoopParts(
            config.build(policy, robot.action),
            ObservationAssembler(robot.channels),
            BlendRamp(0.0),
            live,
            lambda: 0.0,
        )
        live.loop = RealTimeLoop(parts, PERIOD, RealTimeRules(True, 10.0))
        live.loop.activate()
        sizes = policy.metadata.image_sizes
        live.readers = {
            channel.name: message_decoder(channel, image_size=sizes.get(channel.name))
            for channel in robot.channels
        }
        return live

    def send_command(self, command: np.ndarray, stamp: float, holding: bool = False) -> None:
        data = labelled_array(command, stamped_label(stamp))
        self.recorder.write('/cell/command', round((stamp + 0.001) * 1e9), data)

    def send_transition(self, transition: Transition) -> None:
        self.made.append(transition)

    def warn(self, reason: str) -> None:
        raise AssertionError(reason)

    fault = warn

    def observe(
        self, name: str, topic: str, kind: str, received_ns: int, data: bytes, second: bool = False
    ) -> None:
        self.recorder.write(topic, received_ns, data)
        message = data if kind in SERIALIZED_TYPES else deserialize(data, kind)
        reading = self.readers[name].read(message, lambda: received_ns * 1e-9, second=second)
        assert reading is not None or second
        if reading is None:
            return
        self.loop.push_observation(name, reading.stamp, reading.values, reading.image)

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
        self.recorder.write(f'/cell/{STEP_FEEDBACK}', round(stamp * 1e9), labelled_array(data, ''))
        return data

    def feedback(self, tick: int, *values: float) -> None:
        self.loop.receive_feedback(self.record_feedback(tick, *values))

    def takeover(self, tick: int, active: bool, command: np.ndarray | None = None) -> None:
        received = round((100.0 + PERIOD * tick + 0.01) * 1e9)
        if command is not None:
            data = labelled_array(command, '')
            self.recorder.write(f'/cell/{TAKEOVER}', received, data)
            self.loop.receive_takeover(command)
        self.recorder.write(f'/cell/{TAKEOVER_ACTIVE}', received, flag(active))
        self.loop.set_takeover(active)


def rebuild(
    folder: Path,
    controller: ControllerConfig = CONFIG,
    policy: LinearPolicy | None = None,
    robot: RobotConfig = ROBOT,
    **options: Any,
) -> tuple[list[Transition], Rebuilder, list[str]]:
    bag = Bag(folder)
    understood = RebuildOptions(controller, namespace='cell', **options)
    rebuilder = Rebuilder(bag, robot, policy or LinearPolicy(), understood)
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


def record_commands(folder: Path, ticks: list[int]) -> None:
    live = Live.start(folder)
    for tick in range(max(ticks) + 3):
        if tick in ticks:
            live.step(tick)
    live.recorder.close()


def lockstep_description() -> dict[str, Any]:
    """Return the robot of a simulator that stamps every channel."""
    channels = DESCRIPTION['observation']
    stamped = {key: value for key, value in channels['tool'].items() if key != 'stamped_by'}
    return {**DESCRIPTION, 'observation': {**channels, 'tool': stamped}}


def record_lockstep(
    folder: Path, noted: dict[str, str] | None = None
) -> tuple[RobotConfig, list[Transition]]:
    """Record a simulator that waits, with two successes; return robot and live transitions."""
    robot = RobotConfig.from_mapping(lockstep_description())
    live = Live.start(folder, noted=noted)
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
        live.recorder.write(f'/cell/{STEP_FEEDBACK}', received, labelled_array(feedback, ''))
        live.recorder.write('/tool', received, labelled_array(z, stamped_label(stamp)))
        live.recorder.write('/cell/joint_states', received, arm)
        loop.receive_feedback(feedback)
        loop.push_observation('tool', stamp, z)
        reading = live.readers['arm'].read(deserialize(arm, JOINT_STATE), time.monotonic)
        assert reading is not None
        loop.push_observation('arm', stamp, reading.values)
    live.recorder.close()
    return robot, live.made
