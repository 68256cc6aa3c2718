# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the folder of a LeRobot dataset says beside a checkpoint: names, rate and action range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residual_rl_ros.errors import FormatError, PolicyImportError
from residual_rl_ros.files.json_text import parse_json, read_json
from residual_rl_ros.files.limits import EPISODES, RESULT_BYTES, read_text
from residual_rl_ros.importing.lerobot.folder import ACTION, flat_names

Array = npt.NDArray[np.float64]
INFO = 'meta/info.json'
STATISTICS = 'meta/stats.json'
OF_EPISODES = 'meta/episodes_stats.jsonl'
"""Statistics of version 2.1, a line for each episode."""


@dataclass(frozen=True)
class DatasetFacts:
    """What is taken from a dataset."""

    rate_hz: float
    names: Mapping[str, tuple[str, ...]]
    """Names of the numbers of each feature that has some."""
    action_range: tuple[Array, Array] | None
    """Smallest and largest action, shape (m,); None if it does not say."""


NOTHING = DatasetFacts(0.0, {}, None)


def read_dataset(path: Path) -> DatasetFacts:
    """Read the folder `meta` of a dataset.

    Raises:
        PolicyImportError: it is missing or damaged.
    """
    try:
        info = read_json(path / INFO)
        rate = float(info['fps'])
        names = {
            str(key): flat_names(feature.get('names')) for key, feature in info['features'].items()
        }
        return DatasetFacts(rate, names, _action_range(path))
    except FormatError as error:
        raise PolicyImportError(
            f'{str(path)!r} is no LeRobot dataset with {INFO}: {error}; correct --dataset'
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PolicyImportError(
            f'{str(path)!r}: {INFO} or its statistics are not those of a LeRobot dataset: {error!r}'
        ) from error


def _action_range(path: Path) -> tuple[Array, Array] | None:
    """Return the range of all actions.

    Raises:
        FormatError, ValueError, KeyError, TypeError: the statistics are none.
    """
    if (path / STATISTICS).exists():
        every = [read_json(path / STATISTICS, RESULT_BYTES)]
    elif (path / OF_EPISODES).exists():
        lines = read_text(path / OF_EPISODES, RESULT_BYTES).splitlines()
        if len(lines) > EPISODES:
            raise ValueError(f'{OF_EPISODES} has {len(lines)} lines, expected at most {EPISODES}')
        every = [parse_json(line, OF_EPISODES)['stats'] for line in lines if line.strip()]
    else:
        return None
    if not every or any(ACTION not in each for each in every):
        return None
    low = np.min([_numbers(each[ACTION]['min']) for each in every], axis=0)
    high = np.max([_numbers(each[ACTION]['max']) for each in every], axis=0)
    return low, high


def _numbers(values: Any) -> Array:
    numbers = np.array(values, dtype=np.float64).ravel()
    if not np.isfinite(numbers).all():
        raise ValueError(f'{values} are not finite numbers')
    return numbers
