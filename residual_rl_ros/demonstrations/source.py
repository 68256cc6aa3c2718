# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded demonstrations into the learner's demonstration buffer, whatever their format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from residual_rl_ros.bags.bag import STORAGES, Bag
from residual_rl_ros.bags.lerobot.format import INFO, LeRobotDataset
from residual_rl_ros.bags.lerobot.reader import exported_transitions
from residual_rl_ros.base_policy.distribution import BasePolicy, GaussianAround
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.base_policy.splicing import ONE_BY_ONE, Splicing
from residual_rl_ros.config.success import SuccessCriterion
from residual_rl_ros.demonstrations.bags import (
    check_layout,
    holds_transitions,
    rebuilt_transitions,
    recorded_transitions,
    robot_of,
)
from residual_rl_ros.demonstrations.frames import (
    FrameSource,
    LeRobotDemonstrations,
    fitting_episodes,
    read_observation_map,
)
from residual_rl_ros.demonstrations.robomimic import open_robomimic
from residual_rl_ros.demonstrations.shadow import Shadow, told_feedback
from residual_rl_ros.demonstrations.tensor_file import DemonstrationFile
from residual_rl_ros.errors import DemonstrationError, MalformedTransitionError
from residual_rl_ros.findings import Findings
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Source, Success, Transition

if TYPE_CHECKING:
    from residual_rl_ros.learner.learner import Learner

HDF5 = ('.hdf5', '.h5')
TENSORS = '.safetensors'
EXPECTED = (
    'a bag, a LeRobot dataset (a folder with meta/info.json), a robomimic file (.hdf5) or a file '
    f'of train-base ({TENSORS})'
)


@dataclass(frozen=True)
class Recordings:
    """Demonstrations that were recorded, and how their observations are called."""

    paths: tuple[Path, ...] = ()
    observation_map: Mapping[str, str] = field(default_factory=dict)
    """Names in the files by those of the base policy, where they differ."""

    def check(self, preset: str, samples: bool) -> None:
        """Refuse, before anything is read, what can be of no use.

        Args:
            preset: name of the learner's preset.
            samples: whether it samples demonstrations.

        Raises:
            DemonstrationError: it does not, or a path does not exist.
        """
        if self.paths and not samples:
            raise DemonstrationError(
                f'preset {preset!r} samples no demonstrations; choose one with '
                'demonstration_share > 0, such as resfit, or give no demonstrations'
            )
        if self.observation_map and not self.paths:
            raise DemonstrationError(
                'observation_map is given, but no demonstrations whose names it could map'
            )
        for path in self.paths:
            if not path.exists():
                raise DemonstrationError(f'demonstrations {str(path)!r} do not exist')


@dataclass(frozen=True)
class Demonstrated:
    """What the robot of the learner is, for which demonstrations are read."""

    policy: OnnxBasePolicy | None
    """Frozen base policy; None if it is not known: then only transitions can be used."""
    robot: RobotConfig | None
    """Its description, with the limits of its actions; None if it is not known."""
    success: SuccessCriterion | None = None
    """How the task tells success; None is a robot, which is told."""
    splicing: Splicing = ONE_BY_ONE
    """Of chunks, as the robot's controller has it."""
    seed: int = 0
    """Seeds the base policy's noise."""
    prior_width: tuple[float, ...] = ()
    """As the robot's controller has it."""


@dataclass
class _Count:
    """What became of the demonstrations of one source."""

    episodes: int = 0
    failed: int = 0
    """Left out: nobody wants to learn from them."""
    unlabelled: int = 0
    """Did not say how they ended."""
    transitions: int = 0


Episode = tuple[str, list[Transition], bool | None]
"""Robot, decisions and outcome of a demonstration; None does not say."""


def add_demonstrations(
    learner: Learner,
    recordings: Recordings,
    robot: Demonstrated,
    say: Callable[[str], None],
    pulse: Callable[[], None] = lambda: None,
) -> None:
    """Store recorded demonstrations as transitions of source takeover, without a residual.

    Args:
        learner: its preset samples demonstrations.
        recordings: what to read.
        robot: the robot that they are for.
        say: is told what was read of each, and what was wrong.
        pulse: called after every demonstration, to stay responsive; what it raises ends it all.

    Raises:
        ResidualRLError: one cannot be used; nothing of it, or a part, is stored then.
    """
    for number, path in enumerate(recordings.paths):
        count = _Count()
        for namespace, made, outcome in _episodes(path, recordings, robot, learner.layout, say):
            pulse()
            if outcome is False:
                count.failed += 1
                continue
            for transition in made:
                _check(path, transition, learner.layout)
                learner.add_demonstration(_by_operator(transition), f'{number}/{namespace}')
            count.episodes += 1
            count.unlabelled += outcome is None
            count.transitions += len(made)
        if not count.transitions:
            failed = f': {count.failed} failed ones' if count.failed else ''
            raise DemonstrationError(f'{path}: holds no usable demonstration{failed}')
        say(_described(path, count))


def _described(path: Path, count: _Count) -> str:
    text = f'{path}: {count.episodes} demonstrations, {count.transitions} transitions'
    if count.failed:
        text += f'; {count.failed} that failed are left out'
    if count.unlabelled:
        text += f'; {count.unlabelled} do not say how they ended and are taken as successes'
    return text


def _episodes(
    path: Path,
    recordings: Recordings,
    robot: Demonstrated,
    layout: TransitionLayout,
    say: Callable[[str], None],
) -> Iterator[Episode]:
    """Yield the demonstrations of a file or folder, by its format.

    Raises:
        ResidualRLError: it is of no format that is read, or cannot be used.
    """
    if path.suffix in HDF5:
        with open_robomimic(path) as file:
            if file.rate_hz is None:
                say(f'{path}: does not say its rate; it is taken to be that of the robot')
            yield from _shadowed(file, recordings, robot, layout)
    elif path.suffix == TENSORS:
        yield from _shadowed(DemonstrationFile(path), recordings, robot, layout)
    elif (path / INFO).is_file():
        dataset = LeRobotDataset.open(path)
        if dataset.layout is None:
            yield from _shadowed(LeRobotDemonstrations(dataset), recordings, robot, layout)
            return
        check_layout(path, dataset.layout, layout)
        problems = Findings()
        made = exported_transitions(dataset, problems)
        yield from _split((dataset.robot, transition) for transition in made)
        _say_all(problems, say)
    elif path.is_dir() or path.suffix in STORAGES:
        bag = Bag(path)
        yield from _of_bag(bag, robot, layout)
        _say_all(bag.problems, say)
    else:
        raise DemonstrationError(f'demonstrations {str(path)!r} are of no known kind: {EXPECTED}')


def _of_bag(bag: Bag, robot: Demonstrated, layout: TransitionLayout) -> Iterator[Episode]:
    if holds_transitions(Bag(bag.path)):
        sha256 = robot.policy.sha256 if robot.policy else ''
        yield from _split(recorded_transitions(bag, layout, sha256))
        return
    described = robot_of(bag, robot.robot)
    policy = _needed(robot, bag.path, layout, described)
    made = rebuilt_transitions(bag, policy, layout, described, robot.splicing)
    yield from _split(('', transition) for transition in made)


def _shadowed(
    source: FrameSource, recordings: Recordings, robot: Demonstrated, layout: TransitionLayout
) -> Iterator[Episode]:
    """Yield the demonstrations of a source of frames, with the base policy in their shadow."""
    policy = _needed(robot, source.path, layout)
    limits = robot.robot.action if robot.robot else None
    shadow = Shadow(policy, layout, robot.splicing, robot.seed)
    with closing(shadow):
        for episode in fitting_episodes(
            source, policy.metadata, limits, recordings.observation_map
        ):
            try:
                feedback, outcome = told_feedback(episode, robot.success)
            except DemonstrationError as error:
                raise DemonstrationError(f'{source.path}: {error}') from error
            made = [] if outcome is False else list(shadow.transitions(episode, feedback))
            yield '', made, outcome


def _split(transitions: Iterator[tuple[str, Transition]]) -> Iterator[Episode]:
    """Yield the episodes of transitions, in the order of their ends; unfinished ones come last."""
    going_on: dict[str, list[Transition]] = {}
    for robot, transition in transitions:
        episode = going_on.setdefault(robot, [])
        if episode and episode[-1].episode != transition.episode:
            yield robot, episode, None  # Its end was lost.
            episode = going_on[robot] = []
        episode.append(transition)
        if transition.terminated or transition.truncated:
            label = transition.success
            told = None if label is Success.UNLABELLED else label is Success.SUCCESS
            yield robot, going_on.pop(robot), told
    for robot, episode in going_on.items():
        yield robot, episode, None


def _needed(
    robot: Demonstrated, path: Path, layout: TransitionLayout, described: RobotConfig | None = None
) -> BasePolicy:
    """Return the base policy, with the density that the robot's transitions tell.

    Args:
        robot: the robot of the learner.
        path: of the demonstrations, for errors.
        layout: of the learner.
        described: whose demonstrations they are, if that is known; the policy must fit it.

    Raises:
        ResidualRLError: there is no policy, or it does not fit.
    """
    if robot.policy is None:
        raise DemonstrationError(
            f'{path}: holds no base actions; give the base policy (parameter base_policy)'
        )
    if described is not None:
        robot.policy.bind(described)
    policy: BasePolicy = robot.policy
    if any(robot.prior_width):
        policy = GaussianAround(policy, robot.prior_width)
    if policy.metadata.prior is not layout.prior:
        raise DemonstrationError(
            f'{path}: the base policy tells the density {policy.metadata.prior} of its actions, '
            f'transitions of the robot {layout.prior}: demonstrations without base actions need '
            'the same; record transitions instead'
        )
    return policy


def _check(path: Path, transition: Transition, layout: TransitionLayout) -> None:
    """Refuse a transition that the learner would not take.

    Raises:
        DemonstrationError: the layout does not allow a value.
    """
    try:
        layout.encode(transition)
    except MalformedTransitionError as error:
        raise DemonstrationError(
            f'{path}: episode {transition.episode}, step {transition.step}: {error}'
        ) from error


def _by_operator(transition: Transition) -> Transition:
    nothing = np.zeros_like(transition.residual_action)
    return replace(transition, source=Source.TAKEOVER, residual_action=nothing)


def _say_all(problems: Findings, say: Callable[[str], None]) -> None:
    for problem in problems:
        say(f'problem: {problem}')


def read_demonstrations(
    texts: Sequence[str], observation_map: Sequence[str]
) -> tuple[int, Recordings]:
    """Return what `--demonstrations` names: how many episodes of the expert, and recordings.

    Args:
        texts: each a number or a path.
        observation_map: each as `read_observation_map` takes it.

    Raises:
        DemonstrationError: there are two numbers, or the map is none.
    """
    names = read_observation_map(observation_map)
    counts = [int(text) for text in texts if text.isascii() and text.isdecimal()]
    if len(counts) > 1:
        raise DemonstrationError(
            f'--demonstrations names {counts} episodes of the expert, expected one number'
        )
    paths = tuple(Path(text) for text in texts if not (text.isascii() and text.isdecimal()))
    return (counts[0] if counts else 0), Recordings(paths, names)
