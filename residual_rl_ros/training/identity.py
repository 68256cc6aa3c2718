# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which experiment a run is: what a checkpoint must agree on with the run that goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.config.operator import OperatorConfig
from residual_rl_ros.config.run import ResolvedRun, RunConfig, run_config
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.files.json_text import parse_json, plain
from residual_rl_ros.learner.checkpoint import RUN, load_run_state
from residual_rl_ros.learner.folder import IDENTITY
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, readable_checkpoint
from residual_rl_ros.training.options import TrainOptions

NOT_SAID = 'not recorded'
"""In errors: the value of a key that an identity has not."""
CONFIGURATION = 'configuration'
"""In the run state of a checkpoint: the run's configuration, its paths absolute."""


def run_identity(run: ResolvedRun, options: TrainOptions) -> dict[str, Any]:
    """Return what makes two runs the same experiment, as JSON values."""
    config, operator = run.config, OperatorConfig.parse(run.config.operator)
    identity = {
        'task': config.task,
        'seed': options.seed,
        'control_steps': config.control_steps,
        'paired_seeds': options.paired_seeds,
        'base_policy_sha256': run.policy.sha256,
        'robot_sha256': file_sha256(run.robot_file),
        'decision_steps': config.decision_steps,
        'residual_scale': config.residual_scale,
        'prefetch_steps': config.prefetch_steps,
        'temporal_ensemble': config.temporal_ensemble,
        'ensemble_steps': config.ensemble_steps,
        **config.customisation,
        'success': config.success,
        'operator': None if operator is None else asdict(operator),
        **options.evaluation_identity(),
        **run.learner.to_mapping(),
    }
    if run.robot.urdf is not None:
        identity['urdf_sha256'] = sha256(run.robot.urdf.text.encode()).hexdigest()
    if run.learner.rule.samples_demonstrations:
        recorded = options.recordings
        identity['demonstrations'] = [options.demonstrations, *map(str, recorded.paths)]
        identity['observation_map'] = dict(recorded.observation_map)
    as_json: dict[str, Any] = plain(identity)
    return as_json


@dataclass(frozen=True)
class StoredRun:
    """What a checkpoint says of its run."""

    identity: Mapping[str, Any] = field(default_factory=dict)
    """See `run_identity`; of a learner node its own; empty if it says nothing."""
    configuration: RunConfig | None = None
    """Of a run in one process; None of others, and of those before it was stored."""


def configuration_json(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as JSON values, from which it can be read in any folder."""

    def absolute(name_or_path: str) -> str:
        path = Path(name_or_path)
        return str(path.absolute()) if path.suffix else name_or_path

    values = {
        **asdict(config),
        'robot': absolute(config.robot),
        'base_policy': absolute(config.base_policy),
    }
    as_json: dict[str, Any] = plain(values)
    return as_json


def stored_run(path: Path) -> StoredRun:
    """Return what a run's folder, a checkpoint, or the checkpoint beside an actor says of its run.

    Raises:
        ResidualRLError: it cannot be read.
    """
    folder = path.parent if path.is_file() else path
    places = (readable_checkpoint(folder / CHECKPOINTS / 'latest'), readable_checkpoint(folder))
    place = next((each for each in places if (each / RUN).is_file()), None)
    if place is None:
        return StoredRun()
    state = load_run_state(place)
    found = {
        key: parse_json(state[key].tobytes().decode(errors='replace'), f'{key} of {str(place)!r}')
        for key in (IDENTITY, CONFIGURATION)
        if key in state
    }
    identity, configuration = found.get(IDENTITY), found.get(CONFIGURATION)
    return StoredRun(
        identity if isinstance(identity, dict) else {},
        run_config(configuration, str(place)) if CONFIGURATION in found else None,
    )


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two identities differ, those that only one of them has too."""
    keys = {**wanted, **found}  # In the order of an identity.
    return [key for key in keys if found.get(key, NOT_SAID) != wanted.get(key, NOT_SAID)]


def check_identity(
    checkpoint: Path, stored: npt.NDArray[np.uint8] | None, wanted: Mapping[str, Any]
) -> None:
    """Refuse to continue a checkpoint of another run, or of a longer one.

    Args:
        checkpoint: where it is.
        stored: its `IDENTITY`; None if it has none.
        wanted: `run_identity` of the run that is to go on.

    Raises:
        ResidualRLError: it is of another, or does not say of which.
    """
    if stored is None:
        raise ResidualRLError(f'{str(checkpoint)!r} does not say which run it is of; start anew')
    text = stored.tobytes().decode(errors='replace')
    found = parse_json(text, f'run of {str(checkpoint)!r}')
    for key in differing(found, wanted):
        if key in ('paired_seeds', 'control_steps'):
            continue
        raise ResidualRLError(
            f'{str(checkpoint)!r} is of another run: {key} is {found.get(key, NOT_SAID)} there and '
            f'{wanted.get(key, NOT_SAID)} here; resume with what it was started with'
        )
    if found['control_steps'] > wanted['control_steps']:
        raise ResidualRLError(
            f'{str(checkpoint)!r} is of a run of {found["control_steps"]} control steps, which can '
            f'go on for longer but not end at {wanted["control_steps"]}'
        )
