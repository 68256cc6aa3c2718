# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Another package has its own message type observed and commanded: ten lines, one entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.recorder import Recorder, RecordOptions, raw_topics
from residual_rl_ros.checks.robot import check_robot
from residual_rl_ros.errors import CommandError, ConfigError, ObservationError
from residual_rl_ros.resources import resource_path
from residual_rl_ros.robot.codecs import find_codec, installed_codecs
from residual_rl_ros.robot.command import CommandDecoder, check_lockstep
from residual_rl_ros.robot.decoders import message_decoder
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.transitions.cdr import deserialize, serialize, typestore

KIND = 'my_msgs/msg/Pads'
Install = Callable[..., None]


def example() -> str:
    """Return the codec of the how-to."""
    page = resource_path('docs', 'how-to', 'robot_file.md').read_text(encoding='utf-8')
    (block,) = (part for part in page.split('```') if part.startswith('python') and 'Codec' in part)
    return block.removeprefix('python\n')


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package with a codec beside this one."""

    def write(source: str, value: str = 'my_codecs:PADS') -> None:
        (tmp_path / 'my_codecs.py').write_text(source)
        described = tmp_path / 'my_codecs-1.0.dist-info'
        described.mkdir()
        (described / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: my-codecs\nVersion: 1.0\n'
        )
        (described / 'entry_points.txt').write_text(f'[residual_rl_ros.codecs]\n{KIND} = {value}\n')
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    def forget() -> None:
        installed_codecs.cache_clear()
        find_codec.cache_clear()

    yield write
    forget()
    sys.modules.pop('my_codecs', None)


def description(**channel: Any) -> dict[str, Any]:
    """Return a robot that observes its pads and commands them."""
    pads = {'topic': 'pads', 'type': KIND, 'fields': ['left', 'right'], 'max_age_s': 0.1}
    return {
        **{'name': 'hand', 'control_rate_hz': 20.0},
        'command': {'topic': 'grip', 'type': KIND, 'fields': ['left', 'right']},
        'action': {
            'names': ['squeeze.left', 'squeeze.right'],
            **{'lower': [0.0, 0.0], 'upper': [1.0, 1.0], 'max_velocity': [1.0, 1.0]},
        },
        'observation': {'channels': ['pads'], 'pads': {**pads, **channel}},
    }


def pads(names: list[str], pressures: list[float]) -> Any:
    stamp = Message(sec=5, nanosec=0)
    return Message(header=Message(stamp=stamp, frame_id='hand'), name=names, pressure=pressures)


def test_the_example_of_the_how_to_reads_and_makes_messages(install: Install) -> None:
    source = example()
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    install(source)
    changes = {'scale': [2.0], 'offset': [1.0, 0.0], 'frame_id': 'hand', 'upper': [9.0]}
    robot = RobotConfig.from_mapping(description(**changes))
    reader = message_decoder(robot.channels[0])
    reading = reader.read(pads(['right', 'left'], [0.25, 0.5]), lambda: 9.0)
    assert reading is not None
    assert robot.observation_names == ('pads.left', 'pads.right')
    assert (reading.stamp, reading.values.tolist()) == (5.0, [2.0, 0.5])
    message = Message(name=[], pressure=[])
    encode = find_codec(KIND).encode
    assert encode is not None
    encode(message, np.array([0.1, 0.2]), robot.commands[0].fields)
    assert CommandDecoder(robot.commands[0], 2).values(message).tolist() == [0.1, 0.2]
    assert check_robot(robot, 'hand').problems == []
    with pytest.raises(ConfigError, match=f"'{KIND}', whose messages carry no stamp"):
        check_lockstep(robot.commands)


def test_a_raw_bag_holds_the_type_by_the_definition_of_its_codec(
    install: Install, tmp_path: Path
) -> None:
    install(example())
    robot = RobotConfig.from_mapping(description())
    recorder = Recorder(tmp_path / 'bag', raw_topics(robot), RecordOptions(), {}, lambda: 0.0)
    types = typestore().types
    header = types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](5, 0), 'hand')
    message = types[KIND](header, ['right', 'left'], np.array([0.25, 0.5]))
    recorder.write('pads', 10**9, serialize(message, KIND))
    recorder.close()
    (raw,) = Bag(tmp_path / 'bag').messages({'pads'})
    reading = message_decoder(robot.channels[0]).read(deserialize(raw.data, KIND), lambda: 9.0)
    assert reading is not None
    assert (reading.stamp, reading.values.tolist()) == (5.0, [0.5, 0.25])


def test_a_message_that_its_codec_does_not_read_is_refused_by_name(install: Install) -> None:
    install(example())
    robot = RobotConfig.from_mapping(description(frame_id='hand'))
    reader = message_decoder(robot.channels[0])
    where = rf"channel 'pads' \(pads\): {KIND}: its codec failed: KeyError: 'right'"
    with pytest.raises(ObservationError, match=where):
        reader.read(pads(['left'], [0.5]), lambda: 9.0)
    with pytest.raises(ObservationError, match='frame_id is missing, without a header, expected'):
        reader.read(Message(name=[], pressure=[]), lambda: 9.0)
    with pytest.raises(CommandError, match='command on grip: its codec failed'):
        CommandDecoder(robot.commands[0], 2).values(pads([], []))


def test_a_type_that_nobody_reads_is_named_with_the_entry_point(install: Install) -> None:
    install(example().replace('Codec(decode, encode, DEFINITION)', 'Codec(decode)'))
    foreign = description(type='other_msgs/msg/Skin')
    with pytest.raises(ConfigError) as raised:
        RobotConfig.from_mapping(foreign)
    said = str(raised.value)
    assert "pads.type: 'other_msgs/msg/Skin' is not a type that is known here" in said
    assert f'(entry points residual_rl_ros.codecs, installed: {KIND})' in said
    assert f'robot.command.type: the codec of {KIND} makes no commands' in said


@pytest.mark.parametrize(
    ('source', 'value', 'problem'),
    [
        ('import lidar_driver', 'my_codecs:PADS', "ModuleNotFoundError: No module named 'lidar"),
        ('PADS = 3', 'my_codecs:PADS', 'is 3, expected a Codec of residual_rl_ros.robot.codecs'),
        ('', 'my_codecs:PADS', 'AttributeError'),
    ],
)
def test_a_codec_that_cannot_be_loaded_is_named_with_its_package(
    install: Install, source: str, value: str, problem: str
) -> None:
    install(source, value)
    with pytest.raises(ConfigError, match=f'codec of {KIND}: {value} of the package my-codecs'):
        find_codec(KIND)
    with pytest.raises(ConfigError, match=problem):
        RobotConfig.from_mapping(description())


def test_a_codec_that_returns_another_number_of_values_is_refused(install: Install) -> None:
    install(example().replace('for field in fields', 'for field in fields[:1]', 1))
    reader = message_decoder(RobotConfig.from_mapping(description()).channels[0])
    with pytest.raises(ObservationError, match=r'returned shape \(1,\), expected \(2,\)'):
        reader.read(pads(['left', 'right'], [0.1, 0.2]), lambda: 9.0)
