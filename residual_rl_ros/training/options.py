# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the command line chooses of a run in one process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.demonstrations.source import Recordings
from residual_rl_ros.evaluation.paired import CURVE_SEED, EVALUATION_SEED


@dataclass(frozen=True)
class TrainOptions:
    """What the command line chooses."""

    config: RunConfig
    seed: int
    """Learner seed; the evaluation seeds are the same for all."""
    output_dir: Path
    start: Path | None = None
    """Begin with the learner of this run or checkpoint, such as `bag train` leaves."""
    resume: bool = False
    """Continue the run in `output_dir` from its latest checkpoint."""
    demonstrations: int = 0
    """Expert episodes for a preset that samples demonstrations; the task must have an expert."""
    recordings: Recordings = field(default_factory=Recordings)
    """Recorded demonstrations for such a preset."""
    checkpoint_steps: int = 8000
    """Control steps between two checkpoints."""
    curve_steps: int = 0
    """Control steps between two evaluations during training; 0 does none."""
    curve_seeds: int = 50
    """Episodes of each."""
    paired_seeds: int = 100
    """Episodes of base and of base + residual at the end; 0 does none."""
    first_scene: int | None = None
    """First environment seed of evaluations of this run's own: first those during training, then
    those at the end; None takes the same for all."""
    protocol: str = ''
    """SHA-256 of the benchmark's protocol that the run is of, if it is of one."""

    def evaluation_identity(self) -> dict[str, Any]:
        """Return what makes the evaluations of two runs the same; scenes alone in a grid."""
        identity: dict[str, Any] = {'add_ons': self.config.add_ons.to_list()}
        if self.protocol:
            identity['protocol'] = self.protocol
        if self.first_scene is None:  # The curve is to be looked at, and can change on the way.
            return identity
        names = ('first_scene', 'curve_steps', 'curve_seeds')
        return {**identity, **{name: getattr(self, name) for name in names}}

    @property
    def curve_scenes(self) -> range:
        """Environment seeds of the evaluations during training."""
        first = CURVE_SEED if self.first_scene is None else self.first_scene
        return range(first, first + self.curve_seeds)

    @property
    def final_scenes(self) -> range:
        """Environment seeds of the evaluation at the end."""
        own = self.first_scene is not None
        first = self.curve_scenes.stop if own else EVALUATION_SEED
        return range(first, first + self.paired_seeds)
