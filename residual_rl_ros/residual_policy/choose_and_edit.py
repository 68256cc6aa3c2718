# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose and edit: critics choose among the base's proposals, each as it is and with a residual.

The candidates of a decision are N proposals times 1 + E edits, of which the first is none. The
first candidate is the base action, exactly. After EXPO (Dong et al., arXiv 2507.07986), with the
proposals drawn where the robot decides, so that no learner ever calls the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.numerics import Array, Float32
from residual_rl_ros.residual_policy.candidate_selection import (
    BestOfNArchitecture,
    ResidualCritics,
)
from residual_rl_ros.residual_policy.exploration import FULL_SAMPLE, ExplorationSample
from residual_rl_ros.residual_policy.numpy_actor import GaussianActor
from residual_rl_ros.residual_policy.robot_policy import (
    Choice,
    Chooser,
    RobotPolicy,
    register_policy,
)


@dataclass(frozen=True)
class ChooseAndEditArchitecture(BestOfNArchitecture):
    """Sizes of an actor and of the critics that choose; `candidates` is E, the edits a proposal."""

    judges: int
    """Critics, drawn at random for a decision, the least of which picks a candidate."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: one is out of range; weight messages come from outside.
        """
        super().__post_init__()
        if type(self.judges) is not int or not 0 < self.judges <= self.critic.heads:
            raise ValueError(f'judges is {self.judges!r}, expected 1 to {self.critic.heads}')

    def to_mapping(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**super().to_mapping(), 'judges': self.judges}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ChooseAndEditArchitecture:
        """Return what `to_mapping` gave, JSON between; see `Architecture.from_mapping`."""
        plain = BestOfNArchitecture.from_mapping(values)
        return cls(plain.actor, plain.critic, plain.candidates, values['judges'])


def pick(advantages: Float32, judges: npt.NDArray[np.int64] | slice) -> int:
    """Return the candidate with the largest advantage by the least convinced judge, or 0.

    It is 0, the base action, unless the mean of the advantage over all critics exceeds its standard
    deviation over them.

    Args:
        advantages: A_i(c) = Q_i(s, c) - Q_i(s, base), shape (heads, candidates).
        judges: heads that pick.
    """
    least = np.fmax(advantages[judges].min(0), 0.0)  # What is no number is no advantage.
    best = int(least.argmax())
    margin, spread = advantages[:, best].mean(), advantages[:, best].std()
    return best if margin > spread else 0


@register_policy('choose_and_edit', ChooseAndEditArchitecture)
class ChooseAndEditActor(Chooser, RobotPolicy):
    """An actor that edits the proposals of the base, with the critics that choose.

    Args:
        architecture: sizes.
        tensors: float32 arrays by their names, those of the critics after `CRITIC`.
    """

    architecture: ChooseAndEditArchitecture

    def __init__(
        self, architecture: ChooseAndEditArchitecture, tensors: Mapping[str, Float32]
    ) -> None:
        super().__init__(architecture, tensors)
        self._actor = GaussianActor(architecture.actor, tensors)
        self._critics = ResidualCritics(architecture.actor, architecture.critic, tensors)

    def choose(
        self,
        observation: npt.ArrayLike,
        proposals: Array,
        rng: np.random.Generator | None,
        sample: ExplorationSample = FULL_SAMPLE,
    ) -> Choice:
        """Return the choice of a decision; (0, 0) is the base action.

        See `Chooser.choose` for the arguments. The residual is NaN if float32 has overflowed.
        Without `rng` a proposal has one edit, tanh(mean), and all critics are judges. With
        `full_bound_cost` edits are the smaller the nearer the base action is to success; the choice
        is whole, since each proposal is what the base would do.
        """
        candidates, known = self._candidates(observation, proposals, rng, sample)
        heads, judges = self.architecture.critic.heads, self.architecture.judges
        drawn = slice(None) if rng is None else rng.permutation(heads)[:judges]
        advantages = self._advantages(known, sample.bound_scale * candidates)
        best = pick(advantages, drawn)
        if best == 0 and np.isnan(advantages).any():
            return Choice(0, np.full(self.architecture.actor.decision_size, np.nan))
        edits = candidates.shape[1]
        residual = candidates.reshape(-1, candidates.shape[-1])[best]
        return Choice(best // edits, self._actor.hold(residual))

    def uniform(self, half_width: float, rng: np.random.Generator) -> Array:
        """Return one uniform residual in [-half_width, half_width], shape (k * m,)."""
        return self._actor.uniform(half_width, rng)

    def advantages(self, observation: npt.ArrayLike, proposals: Array, edits: Array) -> Float32:
        """Return A_i of every candidate, shape (heads, N * edits).

        Args:
            observation: shape (n,).
            proposals: shape (N, k * m); the first is the base action.
            edits: shape (N, edits, outputs); the first of the first proposal is zero.
        """
        known = [self._actor.normalize(observation, each).copy() for each in proposals]
        return self._advantages(np.array(known), edits)

    def _candidates(
        self,
        observation: npt.ArrayLike,
        proposals: Array,
        rng: np.random.Generator | None,
        sample: ExplorationSample,
    ) -> tuple[Array, Float32]:
        """Return edits, (N, 1 + E, outputs), and proposals as networks see them, (N, n + km)."""
        known, edits = [], []
        for each in proposals:
            seen = self._actor.normalize(observation, each)
            known.append(seen.copy())
            count = self.architecture.candidates
            edits.append(self._actor.draw(seen, rng, sample.noise_scale, count))
        drawn, rows = np.array(edits), np.array(known)
        if sample.full_bound_cost > 0.0:
            nothing = np.zeros((1, drawn.shape[-1]))
            q = self._critics.of_residuals(rows[0], nothing) + self._critics.bias[:, None]
            drawn *= sample.share_at(-float(q.mean()))
        return np.concatenate([np.zeros_like(drawn[:, :1]), drawn], axis=1), rows

    def _advantages(self, known: Float32, edits: Array) -> Float32:
        count = edits.shape[1]
        flat = edits.reshape(-1, edits.shape[-1])
        q = self._critics.of_residuals(known.repeat(count, axis=0), flat)
        advantages: Float32 = q - q[:, :1]
        return advantages
