# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write a transition bag of one robot, as the policy node and a recorder would."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.recorder import Recorder, RecordOptions, absolute, transition_topics
from residual_rl_ros.bags.transitions.reader import TEXT
from residual_rl_ros.errors import OutputError
from residual_rl_ros.robot.names import full_name
from residual_rl_ros.transitions.cdr import labelled_array, serialize, typestore
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition


class TransitionWriter:
    """A context that leaves a whole bag.

    Args:
        folder: does not exist yet.
        layout: of all transitions.
        namespace: namespace of the robot.
        custom_data: what describes the bag.
        storage: `mcap` or `sqlite3`.
        clock: monotonic time [s], by which a recorder ends a chunk every half second.
    """

    def __init__(
        self,
        folder: Path,
        layout: TransitionLayout,
        namespace: str = '',
        custom_data: Mapping[str, str] | None = None,
        storage: str = 'mcap',
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        topics = absolute(transition_topics(), lambda name: full_name(name, namespace))
        options = RecordOptions(storage)
        self._recorder = Recorder(folder, topics, options, custom_data or {}, clock)
        self._latched, self._stream = (topic.name for topic in topics)
        self._layout = layout
        self._empty = True
        self.transitions = 0
        """Transitions written."""

    def __enter__(self) -> TransitionWriter:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the bag."""
        self._recorder.close()

    def write(self, transition: Transition, time_ns: int | None = None) -> None:
        """Write a transition.

        Args:
            transition: of the layout.
            time_ns: when it was received [ns]; default: its stamp.
        """
        stamp_ns = round(transition.stamp * 1e9) if time_ns is None else time_ns
        self.write_values(self._layout.encode(transition), stamp_ns)

    def write_values(self, values: npt.NDArray[np.float64], time_ns: int) -> None:
        """Write the numbers of a transition, shape (layout.size,)."""
        if self._empty:
            text = typestore().types[TEXT](data=self._layout.to_yaml())
            self._recorder.write(self._latched, time_ns, serialize(text, TEXT))
            self._empty = False
        data = labelled_array(values, self._layout.label)
        self._recorder.write(self._stream, time_ns, data)
        self.transitions += 1


def write_bag(
    folder: Path,
    layout: TransitionLayout,
    transitions: Iterator[Transition],
    namespace: str,
    custom_data: Mapping[str, str],
) -> int:
    """Write transitions into a new bag; return how many.

    There is a bag only if all of them were written, and at least one: it is made in a hidden folder
    beside and renamed at the end, so that an interrupted bag is not mistaken for a complete one.

    Args:
        folder: does not exist yet.
        layout: of all transitions.
        transitions: in order.
        namespace: namespace of the robot.
        custom_data: what describes the bag.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    first = next(transitions, None)
    if first is None:
        return 0
    if folder.exists():
        raise OutputError(f'{str(folder)!r} exists already; choose another folder')
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{folder.name}.', dir=folder.parent) as beside:
            made = Path(beside) / folder.name
            with TransitionWriter(made, layout, namespace, custom_data) as writer:
                for transition in chain([first], transitions):
                    writer.write(transition)
            made.rename(folder)
    except OSError as error:
        raise OutputError(f'cannot write {str(folder)!r}: {error.strerror or error}') from error
    return writer.transitions
