# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A learner from bags: base transitions, demonstrations or offline data, before the robot moves.

Bags are streamed into the replay memory; when it is full, the oldest transitions are replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.transitions.reader import TransitionBlock, TransitionReader
from residual_rl_ros.config.preset import LearnerConfig
from residual_rl_ros.errors import BagError
from residual_rl_ros.findings import Findings
from residual_rl_ros.learner.episodes import RECENT_EPISODES
from residual_rl_ros.learner.learner import Learner, Log
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Success

BASE_POLICY = 'base_policy_sha256'
"""Key of the recorder's description that identifies the base policy."""


class TransitionUse(StrEnum):
    """What the transitions of a bag are to a learner."""

    BASE = 'base'
    """The warm-up: base transitions that stay in the replay as an anchor (DAWN)."""
    DEMONSTRATIONS = 'demonstrations'
    """The second buffer, from which a fixed share of every batch comes (ResFiT, RLPD)."""
    OFFLINE = 'offline'
    """Data of an offline phase that trains actor and critics, then is dropped (WSRL, Cal-QL)."""


@dataclass
class BagIntake:
    """Transitions taken from bags."""

    config: LearnerConfig
    """The preset: it says what an end without a label is."""
    taken: int = 0
    """Transitions stored."""
    skipped: int = 0
    """Transitions of other sources than the use allows."""
    success: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    """Outcomes of the latest labelled episodes that were taken from their first to their last
    decision, and failures for those in which an operator took over from what was taken."""
    ends: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    """The same, with those that a time limit ended without a label as failures."""
    labels: set[bool] = field(default_factory=set)
    """Labels that were seen at all."""
    partly: dict[str, float] = field(default_factory=dict)
    """Of each robot, the episode in progress of which a decision was skipped, or that an operator
    began."""
    helped: dict[str, float] = field(default_factory=dict)
    """Of each robot, the episode in progress in which an operator has taken over."""
    problems: list[Findings] = field(default_factory=list)
    """Findings, bag by bag."""

    def count(self, label: Success, cut_off: bool) -> None:
        """Take in the end of an episode that was taken whole."""
        success = label is Success.SUCCESS
        if label is not Success.UNLABELLED:
            self.success.append(success)
            self.labels.add(success)
        if label is not Success.UNLABELLED or cut_off:
            self.ends.append(success)

    @property
    def outcomes(self) -> deque[bool]:
        """Outcomes of the latest episodes of which one is known."""
        fails = self.config.unlabelled_fails(self.labels == {True})
        return self.ends if fails else self.success

    @property
    def success_rate(self) -> float | None:
        """Success over the latest episodes of which an outcome is known, None without one."""
        return sum(self.outcomes) / len(self.outcomes) if self.outcomes else None


def train_from_bags(
    paths: Sequence[Path],
    use: TransitionUse,
    config: LearnerConfig,
    seed: int,
    on_read: Callable[[int], None] = lambda nbytes: None,
    on_update: Callable[[int], None] = lambda total: None,
    warn: Callable[[str], None] = lambda reason: None,
) -> tuple[Learner, BagIntake]:
    """Return a learner that has seen bags, and what was taken from them.

    Args:
        paths: bags, in order; the layout is that of the first transition.
        use: what the transitions are to it.
        config: the preset.
        seed: learner seed.
        on_read: called with the bytes of transitions read since the last call.
        on_update: called before every update with how many there will be.
        warn: told what is wrong with the learning.

    Raises:
        BagError: there is nothing to use, or the preset cannot use it.
    """
    _check_preset(use, config)
    intake = BagIntake(config)
    learner: Learner | None = None
    base_policy: set[str] = set()
    for number, path in enumerate(paths):
        bag = Bag(path)
        intake.problems.append(bag.problems)
        before = intake.taken
        if _of_another_policy(bag, base_policy):
            continue
        for block in TransitionReader(bag).blocks():
            on_read(block.table.values.nbytes)
            if learner is None:
                learner = Learner(config, block.table.layout, seed, log=Log(warn))
            if _fits(block, learner, bag):
                _take(block.table, learner, use, f'{number}/{block.robot}', intake)
        if intake.taken > before:
            base_policy = base_policy or bag.recorded_values(BASE_POLICY)
    if learner is None or not intake.taken:
        reasons = [str(problem) for problems in intake.problems for problem in problems]
        wanted = 'base transitions' if use is TransitionUse.BASE else 'transitions'
        skipped = f', {intake.skipped} of other sources' if intake.skipped else ''
        raise BagError('; '.join([f'no {wanted} in the bags{skipped}', *reasons]))
    if use is not TransitionUse.DEMONSTRATIONS:
        enough, outcomes = intake.taken, intake.outcomes
        if use is TransitionUse.OFFLINE:
            if intake.taken < 2:
                raise BagError(
                    '--as offline needs at least 2 transitions for the observation normaliser, '
                    f'the bags hold {intake.taken}'
                )
            # These are no episodes of the base alone.
            enough, outcomes = max(intake.taken, config.warmup_transitions), deque()
        for label in intake.labels:
            learner.episodes.count_label(label)
        total = config.rule.preparation_updates
        learner.adopt_warmup(enough, intake.success_rate, lambda: on_update(total), outcomes)
    return learner, intake


def _check_preset(use: TransitionUse, config: LearnerConfig) -> None:
    rule = config.rule
    if use is TransitionUse.OFFLINE and not rule.learns_offline:
        raise BagError(
            '--as offline needs a preset with offline_updates > 0, such as wsrl; algorithm '
            f'{config.algorithm} takes no offline updates'
        )
    if use is TransitionUse.BASE and rule.learns_offline:
        raise BagError(
            f'the preset learns offline (algorithm {config.algorithm}, offline_updates > 0) and '
            'keeps no base transitions afterwards; use --as offline'
        )
    if use is TransitionUse.DEMONSTRATIONS and not rule.samples_demonstrations:
        raise BagError(
            '--as demonstrations needs a preset with demonstration_share > 0, such as resfit'
        )


def _of_another_policy(bag: Bag, known: set[str]) -> bool:
    """Return whether a bag was recorded with a base policy that is not known; report it if so."""
    others = bag.recorded_values(BASE_POLICY)
    if len(others | known) < 2 or not others:
        return False
    named = ', '.join(sorted(others))
    wanted = ', '.join(known) or 'one'
    bag.problems.add(
        bag.path,
        f'{BASE_POLICY} is {named}, expected {wanted}; skipped: train base policies apart',
    )
    return True


def _fits(block: TransitionBlock, learner: Learner, bag: Bag) -> bool:
    """Return whether a block has the learner's layout; report it if not."""
    layout = block.table.layout
    if layout == learner.layout:
        return True
    bag.problems.add(
        bag.path,
        f'robot {block.robot!r} has layout {layout.label}, the first transition '
        f'{learner.layout.label}; skipped: train robots, base policies and residual_scales apart',
        kind=layout.label,
        count=len(block.table),
    )
    return False


def _take(
    table: TransitionTable, learner: Learner, use: TransitionUse, robot: str, intake: BagIntake
) -> None:
    """Store a block's transitions."""
    taken = np.ones(len(table), dtype=bool)
    if use is TransitionUse.BASE:
        taken = table.header('source') == Source.BASE
        intake.skipped += int((~taken).sum())
    _count_outcomes(table, taken, robot, intake)
    table = table.rows(taken)
    learner.rule.memory.extend(table, robot, demonstrations=use is TransitionUse.DEMONSTRATIONS)
    intake.taken += len(table)


def _count_outcomes(
    table: TransitionTable, taken: npt.NDArray[np.bool_], robot: str, intake: BagIntake
) -> None:
    """Add the outcomes of the episodes that end in a block and were taken whole."""
    partly, helped = (known.pop(robot, None) for known in (intake.partly, intake.helped))
    episodes, steps = table.header('episode'), table.header('step')
    outcomes, cut_off = table.header('success'), table.header('truncated')
    by_operator = table.header('source') == Source.TAKEOVER
    for row in np.flatnonzero(table.done | ~taken | by_operator):
        episode = float(episodes[row])
        if by_operator[row] and steps[row] > 0:
            helped = episode
        elif by_operator[row] or not taken[row]:
            partly = episode
        if not table.done[row]:
            continue
        if partly != episode and helped == episode:
            intake.success.append(False)
            intake.ends.append(False)
        elif partly != episode:
            intake.count(Success(int(outcomes[row])), bool(cut_off[row]))
        partly = helped = None
    for known, value in ((intake.partly, partly), (intake.helped, helped)):
        if value is not None:
            known[robot] = value
