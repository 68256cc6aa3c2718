# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The guard: a sequential test of the residual against its base, by success or by returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

NOTHING, SUCCESS, RETURN = 'nothing', 'success', 'return'
"""What a guard can watch."""
MIN_BASE_EPISODES = 20
"""Base-only episodes before anything is concluded."""
BASE_WINDOW = 100
"""Base-only episodes that the sum compares with; older ones may have met another world."""
BASE_MEMORY = 300
"""Base-only episodes that are remembered, for how improbable the residual's outcomes are."""

DOUBT = 3.35
"""The sum at which a trial begins [nat]."""
TRIAL_SHARE, RELAXED_SHARE = 0.9, 0.8
"""Share of base-only episodes in a trial, while the evidence is against the residual and while it
is for it. A base-only episode costs time and no safety, so a trial is decided by few residual
episodes and many of the base."""
TRIAL_RESIDUALS = 50
"""Residual episodes after which a trial that has decided nothing is over."""
ACQUITTAL = -3.0
"""Evidence at which a trial ends in favour of the residual [nat]."""
IMPROBABLE = 8.7
"""How improbable the residual's outcomes must be by what the base did before, one in 6,000 [nat];
else an alarm needs `UNSUPPORTED` more evidence."""
UNSUPPORTED = 2.0
"""See `IMPROBABLE` [nat]."""
FIRST_GUESS = 6.0
"""Episodes that the first guess of the residual's success, a third of the base's, is worth."""
BUDGET_EPISODES = 10_000
"""Episodes for which the budget of false alarms is saved up at most."""
SPENT_SHARE = 0.5
"""Share of the budget that a trial takes."""
SWITCHED_OFF = 0.001
"""A run of base-only episodes that is less probable than this was no chance: somebody has switched
the residual off, and its arms are not drawn."""

GRADED = (0.2, 0.8)
"""Quantiles of the base's returns between which a return is graded: as wide as a normal
distribution needs to tell a loss early, and so narrow that rare returns far out do not matter."""


@dataclass(frozen=True)
class GuardConfig:
    """Numbers of the guard."""

    drop: float
    """Loss of success that raises doubt quickly; a loss below half of it is found late or never."""
    false_alarm_episodes: float
    """Least mean number of episodes between false alarms, in any world."""
    share: float = 0.1
    """Share of episodes without residual while there is no doubt."""


@dataclass(frozen=True)
class Alarm:
    """Why the guard gave an alarm."""

    base_success: float
    """Success of the base-only episodes compared with."""
    episodes: int
    """Residual episodes since the sum last was zero."""
    successes: float
    """Successful ones of these."""
    returns: tuple[float, float] | None = None
    """Mean return of these and of the base-only episodes, if returns were compared; successes are
    then grades."""

    def __str__(self) -> str:
        if self.returns is not None:
            grade = self.successes / self.episodes
            return (
                f'base + residual had a mean return of {self.returns[0]:.4g} (grade {grade:.2f}) '
                f'in the last {self.episodes} episodes, the base alone {self.returns[1]:.4g} '
                f'({self.base_success:.2f}) in its own'
            )
        return (
            f'base + residual succeeded in {self.successes} of the last {self.episodes} episodes, '
            f'the base alone in {self.base_success:.0%} of its own'
        )


@dataclass
class _Trial:
    """A doubt that is being settled."""

    chance: float
    """Probability of a false alarm that it may have."""
    evidence: float = 0.0
    """Logarithm of the product of the e-values [nat]."""
    residuals: int = 0
    """Residual episodes in it."""


class Guard:
    """Tells from outcomes when the residual has become worse than its base.

    **Doubt.** Each residual episode adds log P(outcome | p0 - drop) / P(outcome | p0) to
    `statistic`, which starts again from zero whenever it falls below (Page's CUSUM, Biometrika
    1954). p0 is the success of the latest base-only episodes. These are old, and the world may have
    changed for both; so the sum gives no alarm. At `DOUBT` it opens a trial.

    **Trial.** The robot now draws most episodes base-only, with a share q that is known before the
    episode. Let b and r be the successes of base and residual that the guard bets on. An episode
    multiplies the evidence by

        e = P(outcome | its arm) / (q P(outcome | b) + (1 - q) P(outcome | r)).

    If base and residual are alike in this episode, whatever their success p is, the arm says
    nothing of the outcome, and the mean of e is

        sum over y of p(y) (q P(y | b) + (1 - q) P(y | r)) / (the same) = 1.

    If the residual is better, the mean is smaller, because r < b. So the product is a
    supermartingale in every world in which base and residual change together (light, wear, easy and
    hard starts), and it ever reaches 1 / a with a probability of at most a (Ville 1939). The
    e-values are those of Turner, Ly and Gruenwald for two streams (arXiv 2106.02693); b and r are
    taken from outcomes before the episode, which keeps the mean and makes them large.

    **Budget.** Every trial takes half of a budget as its a. The budget grows by
    1 / `false_alarm_episodes` an episode, up to `BUDGET_EPISODES` of these. By the union bound a
    sound residual has a false alarm within n episodes with a probability of at most
    (`BUDGET_EPISODES` + n) / `false_alarm_episodes`.

    **Past.** An alarm needs more evidence (`UNSUPPORTED`) while the residual's outcomes are not
    improbable by what the base did before: exp(-n KL(success || p0)), Chernoff's bound, above one
    in 6,000. That halves the false alarms where nothing changes.

    **Grades.** An outcome may also be a grade y from 0 to 1, which stands for a success with the
    probability y: P(y | p) = y p + (1 - y) (1 - p). It is linear in p, so the mean of e stays 1.

    Args:
        config: numbers.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.statistic = 0.0
        """The sum; at `DOUBT` a trial begins."""
        self._base: list[float] = []
        self._base_run = self._episodes = 0
        self._successes: float = 0
        self._budget = self._full_budget
        self._trial: _Trial | None = None

    @property
    def _full_budget(self) -> float:
        return min(0.5, BUDGET_EPISODES / self.config.false_alarm_episodes)

    @property
    def base_success(self) -> float | None:
        """Success of the latest base-only episodes, None while they are too few."""
        return self._success_of_base(BASE_WINDOW)

    @property
    def base_outcomes(self) -> list[float]:
        """Outcomes of the latest base-only episodes, however few."""
        return self._base[-BASE_WINDOW:]

    def _success_of_base(self, window: int) -> float | None:
        if len(self._base) < MIN_BASE_EPISODES:
            return None
        latest = self._base[-window:]
        return sum(latest) / len(latest)

    @property
    def in_trial(self) -> bool:
        """Whether a doubt is being settled."""
        return self._trial is not None

    @property
    def base_share(self) -> float:
        """Share of base-only episodes that the robot is to draw from now on."""
        if self._trial is None:
            return self.config.share
        share = TRIAL_SHARE if self._trial.evidence >= 0.0 else RELAXED_SHARE
        return max(self.config.share, share)

    def record_outcome(
        self, success: float, residual: bool, base_share: float | None = None
    ) -> Alarm | None:
        """Count an episode.

        Args:
            success: its outcome: whether it succeeded, or a grade from 0 to 1.
            residual: whether it ran with the residual.
            base_share: probability with which it was drawn to be base-only; 0 or 1 if it was not
                drawn. Default: `base_share` as it is now.

        Returns:
            An alarm if the residual has become worse than the base; the sum then starts again.
        """
        share = self.base_share if base_share is None else base_share
        growth = 1.0 / self.config.false_alarm_episodes
        self._budget = min(self._full_budget, self._budget + growth)
        if self._trial is not None:
            self._trial.residuals += residual
            if 0.0 < share < 1.0 and share**self._base_run >= SWITCHED_OFF:
                self._trial.evidence += self._log_e_value(success, residual, share)
        self._base_run = 0 if residual else self._base_run + 1
        if residual:
            self._add(success)
        else:
            self._base.append(success)
            del self._base[:-BASE_MEMORY]
        return self._verdict()

    def _log_e_value(self, success: float, residual: bool, share: float) -> float:
        """Return log e of an episode [nat]; b and r are taken from what came before it."""
        b = _inside(self.base_success or 0.0)
        # As the residual did since the doubt began, and a third of the base as a first guess.
        r = (self._successes + FIRST_GUESS * b / 3.0) / (self._episodes + FIRST_GUESS)
        r = max(min(r, b / 2.0), 0.005)
        arm, either = r if residual else b, share * b + (1.0 - share) * r
        return math.log(_likelihood(success, arm) / _likelihood(success, either))

    def _add(self, success: float) -> None:
        """Add a residual episode to the sum, and begin a trial if it raises doubt."""
        base = self.base_success
        if not base:
            return  # Nothing is known, or there is no success to lose.
        p0 = _inside(base)
        p1 = max(p0 - self.config.drop, p0 / 4.0, 0.01)
        self.statistic += math.log(_likelihood(success, p1) / _likelihood(success, p0))
        self._episodes += 1
        self._successes += success
        if self.statistic <= 0.0:
            self.reset()
        elif self._trial is None and self.statistic >= DOUBT:
            self._trial = _Trial(self._budget * SPENT_SHARE)
            self._budget -= self._trial.chance

    def _verdict(self) -> Alarm | None:
        """Return the alarm that a trial ends with; or end it in favour of the residual, or not."""
        trial = self._trial
        if trial is None:
            return None
        wanted = -math.log(trial.chance)
        if self._improbable() < IMPROBABLE:
            wanted += UNSUPPORTED
        if trial.evidence >= wanted:
            alarm = Alarm(self.base_success or 0.0, self._episodes, self._successes)
            self.reset()
            self._budget = self._full_budget  # The next one counts from here.
            return alarm
        if trial.evidence <= ACQUITTAL or trial.residuals >= TRIAL_RESIDUALS:
            self.reset()
        return None

    def _improbable(self) -> float:
        """Return -log of a bound on the chance of the residual's outcomes were it the base [nat].

        The base is what it was over all episodes that are remembered.
        """
        p0 = _inside(self._success_of_base(BASE_MEMORY) or 0.0)
        p = self._successes / self._episodes if self._episodes else 1.0
        if p >= p0:
            return 0.0
        divergence = (1.0 - p) * math.log((1.0 - p) / (1.0 - p0))
        if p > 0.0:
            divergence += p * math.log(p / p0)
        return self._episodes * divergence

    def reset(self) -> None:
        """Forget the residual's outcomes, for example after a rollback; the base's stay."""
        self.statistic = 0.0
        self._episodes = self._successes = 0
        self._trial = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values, for a checkpoint."""
        return {
            'base': list(self._base),
            'base_run': self._base_run,
            'statistic': self.statistic,
            'episodes': self._episodes,
            'successes': self._successes,
            'budget': self._budget,
            'trial': None if self._trial is None else asdict(self._trial),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._base = list(state['base'])
        self._base_run = int(state['base_run'])
        self.statistic = float(state['statistic'])
        self._episodes, self._successes = int(state['episodes']), state['successes']
        self._budget = float(state['budget'])
        self._trial = None if state['trial'] is None else _Trial(**state['trial'])


class ReturnGuard(Guard):
    """The guard of a task that tells returns alone: it grades each by those of the base.

    The grade is 0 up to the return that four of five of the latest base-only episodes reach, 1 from
    that on which one of five reaches, and linear between. These are taken from earlier episodes,
    so that e stays a fair bet; no unit matters, and nothing how far out a return is.

    Args:
        config: numbers; `drop` is one of the mean grade, which is about a half for the base.
    """

    def __init__(self, config: GuardConfig) -> None:
        super().__init__(config)
        self._base_returns: list[float] = []
        self._residual_returns: list[float] = []

    def grade(self, value: float) -> float | None:
        """Return how good a return is, from 0 to 1; None while the base is not known."""
        if len(self._base_returns) < MIN_BASE_EPISODES:
            return None
        known = sorted(self._base_returns)
        low, high = (known[round(share * (len(known) - 1))] for share in GRADED)
        if low == high:
            return float(value >= high)
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def record_return(
        self, value: float, residual: bool, base_share: float, taken_over: bool = False
    ) -> Alarm | None:
        """Count an episode.

        Args:
            value: its return.
            residual: whether it ran with the residual.
            base_share: as in `record_outcome`.
            taken_over: whether an operator helped: then the grade is 0, whatever the return is.

        Returns:
            An alarm if the residual has become worse than the base.
        """
        returns = self._residual_returns if residual else self._base_returns
        grade = self.grade(value)
        if not taken_over:
            returns.append(value)
            del returns[:-BASE_WINDOW]
        if grade is None:
            if len(self._base_returns) == MIN_BASE_EPISODES:
                for each in self._base_returns:
                    self.record_outcome(self.grade(each) or 0.0, residual=False, base_share=1.0)
            return None
        alarm = self.record_outcome(0.0 if taken_over else grade, residual, base_share)
        if alarm is None or not self._residual_returns:
            return alarm
        latest = self._residual_returns[-alarm.episodes :]
        means = float(np.mean(latest)), float(np.mean(self._base_returns))
        return replace(alarm, returns=means)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values, for a checkpoint."""
        known = {'base_returns': self._base_returns, 'residual_returns': self._residual_returns}
        return {**super().state_dict(), **{name: list(each) for name, each in known.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: as that of the other guard.
        """
        super().load_state_dict(state)
        self._base_returns = list(state['base_returns'])
        self._residual_returns = list(state['residual_returns'])


def _likelihood(success: float, rate: float) -> float:
    """Return P(outcome | success rate) of an outcome, or of a grade from 0 to 1."""
    return success * rate + (1.0 - success) * (1.0 - rate)


def _inside(success: float) -> float:
    """Return a success rate that rules nothing out."""
    return min(max(success, 0.02), 0.98)
