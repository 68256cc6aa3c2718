# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train the model of a planner: the dynamics of decisions, and a prior that stands for the base.

What comes out is a planner as a robot runs it (`residual_policy.mppi`), still without an
add-on: a weight message with layout, digest, and the error on decisions that were held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from residual_rl_ros.algorithms.residual_mppi import ModelNetworks, dynamics_loss, prior_loss
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.pretraining.dynamics_data import PIECE, Decisions
from residual_rl_ros.residual_policy.dynamics import ModelSizes
from residual_rl_ros.residual_policy.mppi import MppiArchitecture, MppiPlanner
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.schema import parameter
from residual_rl_ros.transitions.layout import TransitionLayout


@dataclass(frozen=True)
class DynamicsRecipe:
    """The numbers of the training."""

    updates: int = parameter(10_000, 'gradient steps', 1)
    batch_size: int = parameter(128, 'sequences per step', 1, 10**5)
    steps: int = parameter(
        3, 'decisions of a sequence: the model goes on from its own predictions', 1, PIECE
    )
    learning_rate: float = parameter(
        1e-3, 'Adam step size at the start; decays to zero along a cosine', maximum=1.0, above=0.0
    )
    hidden: tuple[int, ...] = parameter(
        (256, 256), 'widths of the hidden layers of the dynamics', 1, 4096
    )
    prior_hidden: tuple[int, ...] = parameter(
        (128, 128), 'widths of the hidden layers of the distilled prior', 1, 4096
    )
    prior_width: float = parameter(
        0.0,
        'standard deviation of a Gaussian around the action of a base that tells no density, in '
        'half ranges of the trained actions; 0: none, and plans are greedy',
        0.0,
        10.0,
    )

    def sizes(self, layout: TransitionLayout) -> ModelSizes:
        """Return the sizes of the model for the decisions of a layout."""
        stated = Prior.GAUSSIAN if self.prior_width > 0.0 else Prior.NONE
        density = stated if layout.prior is Prior.NONE else layout.prior
        return ModelSizes(self.hidden, self.prior_hidden, density)


@dataclass(frozen=True)
class HeldOutError:
    """How well a model predicts one number of the observation over a decision."""

    name: str
    error: float
    """Root mean square, in the unit of the observation."""
    unexplained: float
    """The same as a share of how much it changes; 1: no better than the mean change."""


def train_model(
    data: Decisions, recipe: DynamicsRecipe, seed: int, progress: Callable[[int], None]
) -> tuple[MppiPlanner, list[HeldOutError]]:
    """Return a planner without an add-on, and how well its model predicts what was held out.

    Nothing is chosen by the held-out decisions: they only tell the error of the last networks.

    Args:
        data: the decisions.
        recipe: numbers.
        seed: seeds initialisation and batches.
        progress: called with the number of updates done, now and then.

    Raises:
        ConfigError: the networks have diverged.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = ModelNetworks(recipe.sizes(data.layout), data.layout)
    trained = np.flatnonzero(~data.held_out)
    networks.fit(
        torch.from_numpy(data.observation[trained]),
        torch.from_numpy(data.next_observation[trained]),
    )
    optimizer = torch.optim.Adam(networks.parameters(), lr=recipe.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.updates)
    for update in range(recipe.updates):
        batch = data.sequences(rng.choice(trained, recipe.batch_size), recipe.steps)
        loss = dynamics_loss(networks, batch) + prior_loss(networks, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if update % 100 == 99 or update == recipe.updates - 1:
            progress(update + 1)
    if not torch.isfinite(loss):
        raise ConfigError(f'the model has diverged; lower learning_rate ({recipe.learning_rate})')
    planner = MppiPlanner(MppiArchitecture(data.layout, networks.sizes), networks.tensors())
    errors = held_out_errors(planner, data)
    return planner.customised(held_out=tuple(each.unexplained for each in errors)), errors


def held_out_errors(planner: MppiPlanner, data: Decisions) -> list[HeldOutError]:
    """Return the errors of a model over one decision, by name of the observation."""
    rows = np.flatnonzero(data.held_out)
    before, after = data.observation[rows], data.next_observation[rows]
    error = planner.model.step(before, data.action[rows]) - after
    change = (after - before).astype(np.float64)
    spread = np.maximum(change.std(axis=0), np.finfo(np.float32).tiny)
    size = np.sqrt(np.square(error, dtype=np.float64).mean(axis=0))
    return [
        HeldOutError(name, float(each), float(min(each / of, 1e6)))
        for name, each, of in zip(data.layout.observation_names, size, spread, strict=True)
    ]
