# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pose of a frame from transforms that ROS nodes publish, of which most are of other frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from raw_bag_builders import transforms
from ros_fixtures import with_package

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.observation import ObservationAssembler
from residual_rl_ros.robot.topics import TF, Channel
from residual_rl_ros.ros.common import qos
from residual_rl_ros.ros.common.encoders import ChannelReader
from residual_rl_ros.ros.common.message_types import message_class
from residual_rl_ros.ros.common.node_host import NodeHost

pytestmark = [pytest.mark.ros, with_package('tf2_msgs')]

MAX_AGE_S = 1.0
CHANNEL = Channel(
    *('tool', '/tf', TF, ('position.x',), (), MAX_AGE_S),
    **{'source_frame': 'tool', 'target_frame': 'camera'},  # type: ignore[arg-type]
)


class Bench:
    """Nodes that publish transforms, and one that reads them."""

    def __init__(self, domain_id: int, host: NodeHost) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node('robot_state_publisher', context=self._context)
        kind = message_class(TF)
        self._moving = self._node.create_publisher(kind, '/tf', 100)
        self._static = self._node.create_publisher(kind, '/tf_static', qos.LATCHED)
        self._host = host
        self.assembler = ObservationAssembler((CHANNEL,))
        self.refused: list[ObservationError] = []

    def tell(self, *frames: tuple[str, str, float], static: bool = False) -> None:
        """Publish frames, each with its parent and its place on the x axis of that."""
        now = 0.0 if static else self.now()
        made = [(child, parent, now, (x, *(0.0,) * 5, 1.0)) for child, parent, x in frames]
        message = transforms(*made, *((f'link_{i}', 'map', now, made[0][3]) for i in range(20)))
        (self._static if static else self._moving).publish(message)

    def listen(self) -> None:
        """Begin to read."""
        reader = ChannelReader(CHANNEL)
        reader.feed(self._host.node, self.assembler, self.now, self.refused.append)

    def now(self) -> float:
        return self._host.node.get_clock().now().nanoseconds * 1e-9

    def x(self) -> float:
        """Return what is observed, NaN if nothing is."""
        try:
            return float(self.assembler.assemble(self.now())[0])
        except ObservationError:
            return float('nan')

    def until(self, condition: Callable[[], bool], act: Callable[[], Any] = bool) -> None:
        """Act at 100 Hz and listen until a condition holds."""
        deadline = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < deadline, self.missing()
            act()
            self._host.executor.spin_once(timeout_sec=0.01)

    def missing(self) -> str:
        with pytest.raises(ObservationError) as raised:
            self.assembler.assemble(self.now())
        return str(raised.value)

    def close(self) -> None:
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def bench(domain_id: int) -> Iterator[Bench]:
    with NodeHost('policy_node', domain_id) as host:
        made = Bench(domain_id, host)
        yield made
        made.close()


def test_a_pose_is_read_beside_other_frames_follows_a_new_parent_and_becomes_stale(
    bench: Bench,
) -> None:
    bench.tell(('camera', 'base', 1.0), ('shelf', 'base', 7.0), static=True)
    bench.listen()  # Later: static transforms are latched.
    bench.until(lambda: bench.x() == 2.0, lambda: bench.tell(('tool', 'base', 3.0)))
    bench.until(lambda: bench.x() == 6.5, lambda: bench.tell(('tool', 'shelf', 0.5)))
    loose = ('tool', 'belt', 0.5)
    bench.until(lambda: 'no transform' in bench.assembler.hints['tool'], lambda: bench.tell(loose))
    assert "no transform between 'belt' and 'base' has come" in bench.assembler.hints['tool']
    bench.until(lambda: bench.x() == 9.5, lambda: bench.tell(loose, ('belt', 'base', 10.0)))
    assert bench.refused == []
    bench.until(lambda: bench.x() != 9.5)
    assert "the oldest transform is that of 'tool' in 'belt'" in bench.missing()


def test_a_transform_that_never_comes_is_named_and_one_that_comes_is_enough(bench: Bench) -> None:
    bench.listen()
    heard = bench.assembler.hints
    half = ('tool', 'base', 3.0)
    bench.until(lambda: "known up to 'base'" in heard['tool'], lambda: bench.tell(half))
    assert bench.missing() == (
        "channel 'tool': nothing received on /tf; no transform between 'base' and 'camera' has "
        "come ('tool' is known up to 'base')"
    )
    bench.tell(('camera', 'base', 1.0), static=True)
    bench.until(lambda: bench.x() == 2.0, lambda: bench.tell(half))
