# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The learning curve of a run: evaluations on scenes of their own, the outcome of each kept.

A scene is an environment seed. The base plays the same scenes, so that every evaluation is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from residual_rl_ros.config.success import RETURN, SUCCESS
from residual_rl_ros.errors import FormatError, OutputError, ResidualRLError
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.files.json_text import read_run_json
from residual_rl_ros.training.run_folder import write_json

PROGRESS = 'progress.json'


def outcomes(episodes: Sequence[Episode], measure: str) -> list[float]:
    """Return success as 0 or 1, or the return of each episode, as `measure` says.

    The return is that of task and add-on together.
    """
    if measure == RETURN:
        return [episode.total_return for episode in episodes]
    return [int(bool(episode.success)) for episode in episodes]


def returns_apart(episodes: Sequence[Episode]) -> dict[str, list[float]]:
    """Return basic and add-on return of each episode, by name; nothing without an add-on."""
    add_on = [each.add_on_return for each in episodes if each.add_on_return is not None]
    if not add_on:
        return {}
    return {'basic': [each.episode_return for each in episodes], 'add_on': add_on}


def final_scenes(
    first: int, base: Sequence[Episode], final: Sequence[Episode], measure: str
) -> dict[str, Any]:
    """Return the outcome of every scene of the end, as JSON values.

    Args:
        first: environment seed of the first scene.
        base: episodes of the base.
        final: episodes of what was learned, on the same scenes.
        measure: what an outcome is; with an add-on the returns are there too, taken apart.
    """
    sides = {'base': base, 'final': final}
    found: dict[str, Any] = {'first_scene': first}
    found |= {name: outcomes(side, measure) for name, side in sides.items()}
    apart = {name: returns_apart(side) for name, side in sides.items()}
    return {**found, 'returns': apart} if all(apart.values()) else found


@dataclass
class LearningCurve:
    """What the evaluations of a run came to, so far."""

    measure: str
    """`success`, or `return` where the task tells none."""
    first_scene: int
    """Environment seed of the first outcome of each; the following count up."""
    base: list[float] = field(default_factory=list)
    """Outcome of the base on each scene."""
    points: list[tuple[int, list[float]]] = field(default_factory=list)
    """Control steps so far, and the outcome of each scene."""

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**vars(self)}

    @classmethod
    def of_mapping(cls, values: Any) -> LearningCurve:
        """Return what `to_mapping` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            base = [float(outcome) for outcome in values['base']]
            points = [(int(at), [float(each) for each in row]) for at, row in values['points']]
            measure, first_scene = str(values['measure']), int(values['first_scene'])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f'no learning curve: {error!r}') from error
        steps = [at for at, _ in points]
        if measure not in (SUCCESS, RETURN) or sorted(set(steps)) != steps:
            raise ValueError(f'no learning curve: measure {measure!r}, control steps {steps}')
        numbers = np.array([base, *(row for _, row in points)], dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError('no learning curve: an outcome is no number')
        return cls(measure, first_scene, base, points)


class CurveRecorder:
    """Evaluates now and then, and writes the curve so far; it does not touch the learner.

    Args:
        curve: the curve, empty.
        folder: of the run; what it holds of the curve is continued.
        every: control steps between two evaluations.
        done: control steps of a run that goes on; later evaluations are forgotten.
        say: is told what went wrong.
    """

    def __init__(
        self, curve: LearningCurve, folder: Path, every: int, done: int, say: Callable[[str], None]
    ) -> None:
        self.curve = curve
        self._path, self._every, self._say = folder / PROGRESS, every, say
        if done and self._path.is_file():
            try:
                stored = LearningCurve.of_mapping(read_run_json(self._path))
            except (FormatError, ValueError) as error:
                raise ResidualRLError(
                    f'{str(self._path)!r} cannot be read: {error}; remove it to go on without the '
                    'evaluations so far'
                ) from error
            if (stored.measure, stored.first_scene) == (curve.measure, curve.first_scene):
                curve.base = stored.base
                curve.points = [point for point in stored.points if point[0] <= done]

    def measure_base(self, play: Callable[[], Sequence[Episode]]) -> None:
        """Let the base play the scenes, unless it has."""
        if not self.curve.base:
            self.curve.base = outcomes(play(), self.curve.measure)

    def due(self, steps: int, last: bool = False) -> bool:
        """Return whether an evaluation is due after so many control steps."""
        previous = self.curve.points[-1][0] if self.curve.points else 0
        return steps > previous if last else steps - previous >= self._every

    def add(self, steps: int, episodes: Sequence[Episode]) -> None:
        """Keep an evaluation."""
        self.curve.points.append((steps, outcomes(episodes, self.curve.measure)))
        try:
            write_json(self._path, self.curve.to_mapping())
        except OutputError as error:  # A lost curve must not end the run.
            self._say(str(error))
