# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of on-policy rules: what robots did since the last phase, and by which actor.

A learner publishes an actor every `publish_interval` transitions, and robots go on with the one
before meanwhile. So a rollout holds decisions of more than one actor. Each row keeps the version of
its own, and the memory keeps these actors: the probability with which an action was drawn is always
known, and a row whose actor is not known is left out and counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residual_rl_ros.algorithms.rule import Arrays
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.transitions.batch import Batch
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.replay_buffer import NONE, ReplayBuffer
from residual_rl_ros.transitions.table import TransitionTable
from residual_rl_ros.transitions.transition import Source, Transition

Version = tuple[int, int]
"""(epoch, sequence) of an actor."""
Networks = dict[str, Tensor]
Rows = dict[str, Tensor]
"""Numbers of the rows of a rollout by their names, each of shape (rows, ...)."""
CAPACITY_ROLLOUTS = 4
"""Rollouts that are kept while updates are owed; then the oldest rows are overwritten."""
MAX_VERSIONS = 1024
"""Most versions whose actor is known; what robots use is among the newest."""
ROLLOUT, PHASE, ACTORS = 'rollout', 'phase', 'actors'


@dataclass(frozen=True)
class Rollout:
    """The decisions that actors drew, oldest first."""

    batch: Batch
    """The transitions, shape (rows, …)."""
    residual: Tensor
    """What the actor decided, in [-1, 1], shape (rows, k * m)."""
    following: npt.NDArray[np.int64]
    """Row that goes on where this one ends; `NONE` at the end of an episode, at a gap, and before a
    decision that no actor drew, shape (rows,)."""
    actor: npt.NDArray[np.int64]
    """Which of `actors` drew the action, shape (rows,)."""
    actors: list[Networks]
    """Networks of each, without repetition."""
    unknown: int
    """Rows that were left out, since their actor is not known."""
    others: int
    """Rows that were left out, since the base or an operator decided."""


class RolloutMemory:
    """Takes in what robots do until a phase of updates takes it out.

    Args:
        layout: transition layout.
        length: transitions of a rollout.

    Raises:
        ConfigError: this computer has not enough memory; layouts come from outside.
    """

    demonstrations = 0

    def __init__(self, layout: TransitionLayout, length: int) -> None:
        capacity, km = CAPACITY_ROLLOUTS * length, layout.decision_size
        needed = capacity * (ReplayBuffer.row_bytes(layout) + 4 * km + 16)
        physical = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        if needed > physical:
            raise ConfigError(
                f'rollout_length is {length}: {CAPACITY_ROLLOUTS} rollouts would take '
                f'{needed / 1e9:.1f} GB of the {physical / 1e9:.1f} GB of this computer'
            )
        self.replay = ReplayBuffer(layout, capacity)
        """What robots did since the last phase."""
        self._residual = np.zeros((capacity, km), dtype=np.float32)
        self._version = np.zeros((capacity, 2), dtype=np.int64)
        self._actors: dict[Version, Networks] = {}
        self.phase: Rows = {}
        """What an unfinished phase of updates learns from, by name; empty between phases."""

    def __len__(self) -> int:
        """Return the number of transitions of the rollout in progress."""
        return len(self.replay)

    @property
    def nbytes(self) -> int:
        """Memory when it is full [byte]."""
        return self.replay.nbytes + self._residual.nbytes + self._version.nbytes

    @property
    def episode_decisions(self) -> float:
        """Mean number of decisions of a robot's episode; 0 before the first."""
        return self.replay.episode_decisions

    def add(self, transition: Transition, robot: str) -> None:
        """Store a transition."""
        self.replay.add(transition, robot)
        row = self.replay.newest
        self._residual[row] = transition.residual_action
        self._version[row] = transition.epoch, transition.policy_sequence

    def extend(self, table: TransitionTable, robot: str = '', demonstrations: bool = False) -> None:
        """Store many transitions of one robot, in order.

        Raises:
            ConfigError: they are demonstrations.
        """
        if demonstrations:
            raise _no_demonstrations()
        for transition in table:
            self.add(transition, robot)

    def add_demonstration(self, transition: Transition, robot: str = '') -> None:
        """Refuse a demonstration.

        Raises:
            ConfigError: always.
        """
        raise _no_demonstrations()

    def keep_newest(self, count: int) -> None:
        """Forget nothing: a warm-up is gone by now."""
        del count

    def composition(self) -> dict[Source, float]:
        """Return the share of each source in the rollout in progress."""
        return self.replay.composition()

    def observations(self) -> Tensor:
        """Return the stored observations, shape (size, n)."""
        return self.replay.observations()

    def published(self, version: Version, actor: Networks) -> None:
        """Remember the actor of a version."""
        newest = next(reversed(self._actors.values()), {})
        same = newest.keys() == actor.keys() and all(
            torch.equal(value, newest[name]) for name, value in actor.items()
        )
        self._actors[version] = (
            newest if same else {name: value.clone() for name, value in actor.items()}
        )
        for old in list(self._actors)[:-MAX_VERSIONS]:
            del self._actors[old]

    def clear(self) -> None:
        """Forget every transition."""
        self.replay.clear()

    def take(self, gamma: float = 1.0) -> Rollout:
        """Return the rollout in progress, and begin another.

        Args:
            gamma: discount per decision, for `Batch.bootstrap`.
        """
        size, capacity = len(self.replay), self.replay.capacity
        oldest = self.replay.newest + 1 if size == capacity else 0
        rows = (oldest + np.arange(size)) % capacity
        versions = [(int(epoch), int(sequence)) for epoch, sequence in self._version[rows]]
        own = self.replay.source[rows] == Source.RESIDUAL
        known = np.array([version in self._actors for version in versions], dtype=bool)
        kept = own & known
        place = np.full(capacity, NONE, dtype=np.int64)
        place[rows[kept]] = np.arange(kept.sum())
        following = self.replay.following[rows[kept]]
        networks = [self._actors[versions[at]] for at in np.flatnonzero(kept)]
        distinct = {id(each): each for each in networks}
        index = {key: at for at, key in enumerate(distinct)}
        rollout = Rollout(
            batch=self.replay.rows(rows[kept], gamma),
            residual=torch.from_numpy(self._residual[rows[kept]]),
            following=np.where(following == NONE, NONE, place[following]),
            actor=np.array([index[id(each)] for each in networks], dtype=np.int64),
            actors=list(distinct.values()),
            unknown=int((own & ~known).sum()),
            others=int((~own).sum()),
        )
        # A robot never goes back to an actor that is older than what it has used.
        first = min(versions, default=(0, -1))
        self._actors = {key: value for key, value in self._actors.items() if key >= first}
        self.clear()
        return rollout

    def export(self) -> dict[str, Arrays]:
        """Return the contents for a checkpoint."""
        size = len(self.replay)
        distinct = {id(actor): actor for actor in self._actors.values()}
        index = {key: at for at, key in enumerate(distinct)}
        actors: Arrays = {
            f'{at}.{name}': value.cpu().numpy()
            for at, actor in enumerate(distinct.values())
            for name, value in actor.items()
        }
        actors['versions'] = np.array(
            [(*version, index[id(actor)]) for version, actor in self._actors.items()], np.int64
        ).reshape(-1, 3)
        return {
            ROLLOUT: {
                **self.replay.export(),
                'residual': self._residual[:size],
                'version': self._version[:size],
            },
            PHASE: {name: value.cpu().numpy() for name, value in self.phase.items()},
            ACTORS: actors,
        }

    def restore(self, contents: Mapping[str, Arrays]) -> None:
        """Load what `export` returned.

        Raises:
            ResidualRLError: the rows are of another layout or exceed the capacity.
            KeyError: something is missing.
        """
        rollout, actors = contents[ROLLOUT], contents[ACTORS]
        self.replay.restore(rollout)
        size = len(self.replay)
        if rollout['residual'].shape != self._residual[:size].shape:
            raise ResidualRLError(
                f'stored residuals have shape {rollout["residual"].shape}, expected '
                f'{self._residual[:size].shape}'
            )
        self._residual[:size], self._version[:size] = rollout['residual'], rollout['version']
        self.phase = {
            name: torch.from_numpy(value.copy()) for name, value in contents[PHASE].items()
        }
        networks: dict[int, Networks] = {}
        for name, value in actors.items():
            if name != 'versions':
                at, _, key = name.partition('.')
                networks.setdefault(int(at), {})[key] = torch.from_numpy(value.copy())
        self._actors = {
            (epoch, sequence): networks[at] for epoch, sequence, at in actors['versions'].tolist()
        }


def _no_demonstrations() -> ConfigError:
    return ConfigError(
        'an on-policy rule learns from what its own actor does, not from demonstrations; choose '
        'another preset, or leave them out'
    )
