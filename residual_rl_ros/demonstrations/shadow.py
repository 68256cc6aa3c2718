# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen base policy in the shadow of a demonstration: what it would have said at each step.

The controller of the robot does the accounting, with its chunk queue, history and decisions. The
demonstrated actions take over at every step, as an operator's would, so that base action and
executed action are both known.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from residual_rl_ros.base_policy.distribution import BasePolicy
from residual_rl_ros.base_policy.splicing import ONE_BY_ONE, Splicing
from residual_rl_ros.config.success import ONCE, RETURN, STOP, TERMINATED, SuccessCriterion
from residual_rl_ros.control.composition import ResidualBound
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.control.feedback import StepFeedback
from residual_rl_ros.control.safety import SafetyFilter
from residual_rl_ros.demonstrations.frames import DemonstratedEpisode
from residual_rl_ros.errors import DemonstrationError
from residual_rl_ros.numerics import Array, Mask, is_one_hot
from residual_rl_ros.residual_policy.mailbox import ActorMailbox
from residual_rl_ros.robot.action_spec import ActionSpec
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Success, Transition

GOING_ON = StepFeedback(0.0, False, False, Success.UNLABELLED)
SOLVED = StepFeedback(1.0, True, False, Success.SUCCESS)
"""What a robot is told when an episode succeeds."""


class Shadow:
    """Makes transitions of demonstrations.

    Args:
        policy: frozen base policy.
        layout: of the learner; it must be that of the base policy.
        splicing: of chunks, as the robot's controller has it.
        seed: with the episode number, seeds the base policy's noise.

    Raises:
        DemonstrationError: the base policy has another layout.
    """

    def __init__(
        self,
        policy: BasePolicy,
        layout: TransitionLayout,
        splicing: Splicing = ONE_BY_ONE,
        seed: int = 0,
    ) -> None:
        meta = policy.metadata
        for name in ('observation_names', 'action_names', 'action_min', 'action_max'):
            if getattr(meta, name) != getattr(layout, name):
                raise DemonstrationError(
                    f'the base policy of the demonstrations has {name} '
                    f'{list(getattr(meta, name))}, that of the robot '
                    f'{list(getattr(layout, name))}; give the one that the robot runs'
                )
        action = ActionSpec.recorded(layout.action_names, layout.discrete)
        self._rate_hz = meta.rate_hz
        self._controller = ResidualController(
            layout=layout,
            queue=splicing.queue(policy, layout.decision_steps, layout.proposals),
            bound=ResidualBound(np.array(layout.residual_bound)),
            safety=SafetyFilter(action),
            mailbox=ActorMailbox(layout, scheduled=False),
            seed=seed,
            explore=False,
        )

    def transitions(
        self, episode: DemonstratedEpisode, feedback: list[StepFeedback]
    ) -> Iterator[Transition]:
        """Yield the decisions of a demonstration, from source takeover.

        Args:
            episode: the demonstration.
            feedback: what follows each of its steps; where it is shorter, the rest is left out.
        """
        controller, observations = self._controller, episode.observations
        if controller.layout.discrete and not is_one_hot(episode.actions):
            raise DemonstrationError(
                f'{episode.place}: its actions are not one-hot, expected 1 for the chosen one of '
                f'{", ".join(controller.layout.action_names)} and 0 for the others'
            )
        controller.begin_episode(episode.index, observations[0], stamp=0.0)
        for step, told in enumerate(feedback):
            controller.command(takeover=episode.actions[step])
            # After a termination there is no next decision, whatever is observed.
            after = observations[min(step + 1, len(observations) - 1)]
            made = controller.step(after, (step + 1) / self._rate_hz, told)
            if made is not None:
                yield made

    def close(self) -> None:
        """End the worker of the base policy."""
        self._controller.close()


def told_feedback(
    episode: DemonstratedEpisode, criterion: SuccessCriterion | None
) -> tuple[list[StepFeedback], bool | None]:
    """Return what the robot would be told after each step of a demonstration, and its outcome.

    Args:
        episode: the demonstration.
        criterion: how the task tells success; None is a robot, to which success is a reward of 1
            that ends the episode.

    Returns:
        The feedback, and whether the demonstration succeeded; None if it does not say, and it is
        taken as a success.

    Raises:
        DemonstrationError: the rewards are the task's own, and there are none.
    """
    rewards = episode.rewards
    zero_or_one = rewards is None or bool(np.isin(rewards, (0.0, 1.0)).all())
    solved = episode.solved if episode.solved is not None else rewards if zero_or_one else None
    outcome = None if solved is None else bool(np.any(solved))
    if criterion is None or criterion.when == STOP or (zero_or_one and _ends(criterion)):
        return _sparse(episode, solved, outcome), outcome
    if rewards is None:
        raise DemonstrationError(
            f'{episode.place} has no rewards, and those of the task are its own (success: '
            f'{criterion}); record them, or make success the reward with --success KEY:stop'
        )
    returns = criterion.source == RETURN
    label = Success.UNLABELLED if returns else Success(int(outcome is not False))
    ends = criterion.source == TERMINATED and label is Success.SUCCESS
    return _own(episode, rewards, label, ends), True if returns else outcome


def _ends(criterion: SuccessCriterion) -> bool:
    """Return whether a success, where it is the only reward, ends an episode."""
    return criterion.source != RETURN and criterion.when != ONCE


def _sparse(
    episode: DemonstratedEpisode, solved: Array | Mask | None, outcome: bool | None
) -> list[StepFeedback]:
    """Return a reward of 1 at the first step that solves the task, which ends the episode."""
    count = len(episode.actions)
    if outcome is False:
        return [GOING_ON] * count
    last = count - 1
    # Where every step says it, it is a label of the whole.
    if solved is not None and not np.all(solved):
        last = int(np.argmax(solved != 0.0))
    return [*[GOING_ON] * last, SOLVED]


def _own(
    episode: DemonstratedEpisode, rewards: Array, label: Success, ends: bool
) -> list[StepFeedback]:
    """Return the task's own rewards, up to the last step whose next observation is known.

    The reward of a step without one counts with the step before it.
    """
    values = rewards.tolist()
    if not ends and len(episode.observations) == len(values):
        values = [*values[:-2], sum(values[-2:])] if len(values) > 1 else []
    told = [StepFeedback(value, False, False, Success.UNLABELLED) for value in values]
    if told:
        told[-1] = StepFeedback(values[-1], ends, not ends, label)
    return told
