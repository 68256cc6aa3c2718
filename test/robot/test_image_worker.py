# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A control loop never waits for an image, and gets the newest that has been read."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from residual_rl_ros.errors import ObservationError
from residual_rl_ros.robot.camera import ImageWorker


class Encoder:
    """Counts, and blocks until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.read: list[int] = []

    def __call__(self, message: int) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(10.0)
        self.read.append(message)
        if message < 0:
            raise ObservationError('no image')
        return np.array([float(message)])


def settle(reader: ImageWorker) -> None:
    reader._worker.submit(bool).result(10.0)


def test_an_image_is_read_elsewhere_and_only_the_newest_waits() -> None:
    encoder = Encoder()
    reader = ImageWorker(encoder, lambda: None)
    reader.put(0.0, 0)
    assert encoder.begun.wait(10.0)
    for number in range(1, 5):
        reader.put(float(number), number)
    assert reader.take() is None
    encoder.go.set()
    settle(reader)
    taken = [reader.take(), reader.take(), reader.take()]
    assert [(item[0], item[1]().tolist()) for item in taken if item] == [(0.0, [0.0]), (4.0, [4.0])]
    assert encoder.read == [0, 4]


def test_what_cannot_be_read_is_said_to_the_control_loop() -> None:
    encoder = Encoder()
    encoder.go.set()
    reader = ImageWorker(encoder, lambda: None)
    reader.put(1.0, -1)
    settle(reader)
    taken = reader.take()
    assert taken is not None
    with pytest.raises(ObservationError):
        taken[1]()


def test_the_first_image_does_not_pay_for_initialisation() -> None:
    threads: list[str] = []
    ImageWorker(Encoder(), lambda: threads.append(threading.current_thread().name))
    assert threads[0].startswith('images')
