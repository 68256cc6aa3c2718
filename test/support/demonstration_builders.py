# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small recordings of demonstrations, and the learner and robot that read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from base_policy_builders import LinearPolicy
from learner_builders import small_config
from robot_builders import make_action_spec, make_metadata
from transition_builders import make_layout

from residual_rl_ros.base_policy.metadata import BasePolicyMetadata
from residual_rl_ros.config.success import SuccessCriterion
from residual_rl_ros.demonstrations.frames import DemonstratedEpisode
from residual_rl_ros.demonstrations.source import Demonstrated, Recordings, add_demonstrations
from residual_rl_ros.learner.learner import Learner
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

META = make_metadata()
LAYOUT = make_layout()
"""k = 2."""
MAP = {'arm.position.a': 'arm[0]', 'arm.position.b': 'arm[1]', 'tool.z': 'tool'}
STEPS = (5, 4, 6)


class Robot:
    """What `Demonstrated` needs of a robot description."""

    action = make_action_spec()


def episodes(steps: Sequence[int] = STEPS, **changes: Any) -> list[DemonstratedEpisode]:
    """Return demonstrations of n = 3 and m = 2, in float32, with what follows the last action."""
    rng = np.random.default_rng(5)
    return [
        DemonstratedEpisode(
            **{
                'place': f'demo_{index}',
                'index': index,
                'observations': _float32(rng.uniform(-1.0, 1.0, (count + 1, 3))),
                'actions': _float32(rng.uniform(-0.5, 0.5, (count, 2))),
                'rewards': np.eye(count)[-1],
                **changes,
            }
        )
        for index, count in enumerate(steps)
    ]


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def write_robomimic(
    path: Path,
    spoil: Callable[[Any], None] = lambda file: None,
    demonstrations: Sequence[DemonstratedEpisode] | None = None,
    rate_hz: float | None = META.rate_hz,
) -> Path:
    """Write demonstrations as robomimic does, with an image among the observations.

    Args:
        path: file.
        spoil: changes the file before it is closed.
        demonstrations: what to write; default: `episodes()`.
        rate_hz: control rate that `env_args` names; None writes none.
    """
    import h5py

    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        if rate_hz is not None:
            data.attrs['env_args'] = json.dumps({'env_kwargs': {'control_freq': rate_hz}})
        for index, episode in enumerate(episodes() if demonstrations is None else demonstrations):
            group, count = data.create_group(f'demo_{index}'), len(episode.actions)
            group['actions'] = episode.actions
            for part, rows in (('obs', slice(0, count)), ('next_obs', slice(1, count + 1))):
                seen = episode.observations[rows].astype(np.float32)
                group[f'{part}/arm'], group[f'{part}/tool'] = seen[:, :2], seen[:, 2:]
                group[f'{part}/camera'] = np.zeros((count, 2, 2, 3), dtype=np.uint8)
            if episode.rewards is not None:
                group['rewards'] = episode.rewards
            group['dones'] = np.zeros(count, dtype=np.int64)
        spoil(file)
    return path


def read_all(
    *paths: Path,
    observation_map: dict[str, str] | None = None,
    layout: TransitionLayout = LAYOUT,
    metadata: BasePolicyMetadata | None = META,
    success: str = '',
) -> tuple[list[Transition], list[str], Learner]:
    """Add demonstrations to a new learner; return what it was given, what was said, and it."""
    learner = Learner(small_config('resfit', demonstration_share=0.5), layout, 0)
    given: list[Transition] = []
    add = learner.add_demonstration

    def keep(transition: Transition, robot: str = '') -> None:
        given.append(transition)
        add(transition, robot)

    learner.add_demonstration = keep  # type: ignore[method-assign]
    policy: Any = None
    if metadata is not None:
        policy = LinearPolicy(metadata)
        policy.sha256 = 'of the base'
    robot: Any = Robot()
    criterion = SuccessCriterion.parse(success) if success else None
    said: list[str] = []
    recordings = Recordings(paths, {} if observation_map is None else observation_map)
    add_demonstrations(learner, recordings, Demonstrated(policy, robot, criterion), said.append)
    return given, said, learner
