# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes put together from transitions, and how the latest of them ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from residual_rl_ros.transitions.transition import Source, Success, Transition

RECENT_EPISODES = 50


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode, for the learning curve."""

    control_steps: int
    """Control steps received up to its end."""
    success: bool | None
    """Outcome; None if it was not labelled."""
    residual: bool
    """Whether any of its decisions had a residual of an actor, or of the warm-up's noise."""
    takeover: bool
    """Whether an operator took over in it."""
    robot: str = ''
    """Namespace of the robot."""
    warmup: bool = False
    """Whether it ended in the warm-up, whose residuals are noise and no actor's."""
    timed_out: bool = False
    """Whether a time limit or an operator cut it off."""
    operator_began: bool = False
    """Whether an operator commanded its first decision: nobody knows which policy was due."""
    operator_steps: int = 0
    """Control steps received up to its end in whose decisions an operator commanded."""
    basic_return: float = 0.0
    """Sum of the rewards of the task over the transitions that arrived."""
    random: bool = False
    """Whether a random residual acted in it: it rates neither an actor nor the base."""

    def outcome(self, unlabelled_fails: bool = False) -> bool | None:
        """Return whether its policy succeeded on its own, None if nobody can tell.

        One that an operator had to help did not, whatever became of the episode: else the success
        of a policy would be that of the episodes in which it needs no help.

        Args:
            unlabelled_fails: whether an end by time limit without a label is a failure.
        """
        if self.takeover:
            return None if self.operator_began else False
        if self.success is None and self.timed_out and unlabelled_fails:
            return False
        return self.success

    @property
    def rates_residual(self) -> bool:
        """Whether its `outcome` is that of base + residual."""
        return self.acts and self.outcome() is not None

    @property
    def acts(self) -> bool:
        """Whether any of its decisions had an actor's residual."""
        return self.residual and not self.warmup and not self.random

    @property
    def rates_base(self) -> bool:
        """Whether its `outcome` is that of the base alone."""
        return not (self.residual or self.random) and self.outcome() is not None


@dataclass(frozen=True)
class _OpenEpisode:
    """What was seen so far of an episode that goes on."""

    number: int
    sources: frozenset[Source]
    actor: tuple[int, int]
    """(epoch, sequence) of the actor of its first decision; later decisions have no older one."""
    operator_began: bool
    """Whether its first decision was an operator's."""
    taken_over: bool = False
    """Whether its latest decision was."""
    basic_return: float = 0.0
    """Sum of the rewards of the task."""


class EpisodeLog:
    """Knows every finished episode, and the success of the latest ones that rate an actor."""

    def __init__(self) -> None:
        self.history: list[EpisodeRecord] = []
        """Every finished episode."""
        # Whether the policy succeeded on its own, and whether an operator took over.
        self._recent: deque[tuple[bool, bool]] = deque(maxlen=RECENT_EPISODES)
        self._labels = {True: 0, False: 0}
        self._open: dict[str, _OpenEpisode] = {}
        self.takeovers = 0
        """How often an operator took over."""
        self.operator_steps = 0
        """Control steps of the decisions in which an operator commanded, each in full."""

    def record(
        self,
        transition: Transition,
        robot: str,
        control_steps: int,
        warmup: bool = False,
        decision_steps: int = 1,
    ) -> tuple[EpisodeRecord, tuple[int, int]] | None:
        """Take in a transition.

        Args:
            transition: the transition.
            robot: namespace of the robot that made it.
            control_steps: received so far, this one included.
            warmup: whether the warm-up goes on.
            decision_steps: control steps of a decision.

        Returns:
            The episode that it ends, with (epoch, sequence) of the actor that began it.
        """
        taken_over = transition.source is Source.TAKEOVER
        episode = self._open.get(robot)
        if episode is None or episode.number != transition.episode:
            # If there was one, its end never came.
            actor = (transition.epoch, transition.policy_sequence)
            episode = _OpenEpisode(transition.episode, frozenset(), actor, taken_over)
        self.takeovers += taken_over and not episode.taken_over
        self.operator_steps += decision_steps * taken_over
        sources = episode.sources | {transition.source}
        basic_return = episode.basic_return + transition.reward
        if not (transition.terminated or transition.truncated):
            self._open[robot] = replace(
                episode, sources=sources, taken_over=taken_over, basic_return=basic_return
            )
            return None
        self._open.pop(robot, None)
        labelled = transition.success is not Success.UNLABELLED
        record = EpisodeRecord(
            control_steps,
            transition.success is Success.SUCCESS if labelled else None,
            Source.RESIDUAL in sources,
            Source.TAKEOVER in sources,
            robot,
            warmup,
            transition.truncated,
            episode.operator_began,
            self.operator_steps,
            basic_return,
            Source.RANDOM in sources,
        )
        self.history.append(record)
        if record.success is not None:
            self.count_label(record.success)
        return record, episode.actor

    def count_label(self, success: bool) -> None:
        """Take in a label, for `only_success_is_labelled`; `record` does for its own."""
        self._labels[success] += 1

    @property
    def labelled(self) -> bool:
        """Whether any episode was ever labelled."""
        return any(self._labels.values())

    @property
    def only_success_is_labelled(self) -> bool:
        """Whether successes are labelled and failures never were, as by a classifier of success."""
        return self._labels[True] > 0 and not self._labels[False]

    def rate(self, success: bool, helped: bool) -> None:
        """Let an outcome count for the success rate.

        Args:
            success: whether the policy succeeded on its own.
            helped: whether an operator took over.
        """
        self._recent.append((success, helped))

    def forget_outcomes(self) -> None:
        """Begin the success rate anew: another actor acts from now on."""
        self._recent.clear()

    @property
    def success_rate(self) -> float | None:
        """Success over the latest outcomes that count, None before the first."""
        if not self._recent:
            return None
        return sum(success for success, _ in self._recent) / len(self._recent)

    @property
    def unhelped_failure_rate(self) -> float:
        """Share of these outcomes that are failures in which nobody helped; 0 before the first."""
        failures = sum(not (success or helped) for success, helped in self._recent)
        return failures / max(1, len(self._recent))

    def state_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, for a checkpoint."""
        return {
            'recent': list(map(list, self._recent)),
            'episodes': {
                robot: [
                    episode.number,
                    sorted(episode.sources),
                    *episode.actor,
                    episode.operator_began,
                    episode.taken_over,
                    episode.basic_return,
                ]
                for robot, episode in self._open.items()
            },
            'labels': [self._labels[False], self._labels[True]],
            'takeovers': self.takeovers,
            'operator_steps': self.operator_steps,
            'history': [asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.history = [EpisodeRecord(**record) for record in state['history']]
        self._recent.extend((bool(success), bool(helped)) for success, helped in state['recent'])
        failures, successes = state['labels']
        self._labels = {False: int(failures), True: int(successes)}
        self._open = {
            robot: _OpenEpisode(number, frozenset(map(Source, sources)), (epoch, sequence), *rest)
            for robot, (number, sources, epoch, sequence, *rest) in state['episodes'].items()
        }
        self.takeovers, self.operator_steps = int(state['takeovers']), int(state['operator_steps'])
