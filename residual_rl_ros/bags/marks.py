# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Judgements of recorded episodes, written down by hand afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from residual_rl_ros.bags.problems import BagError
from residual_rl_ros.residual.controller import StepFeedback
from residual_rl_ros.residual.policy_loop import END_EPISODE, MARK_FAILURE, MARK_SUCCESS

OUTCOMES = {'success': MARK_SUCCESS, 'failure': MARK_FAILURE, 'end': END_EPISODE}


@dataclass(frozen=True)
class Mark:
    """An operator's judgement, given by hand after the recording."""

    stamp: float
    """ROS time [s]."""
    feedback: StepFeedback


def read_marks(path: Path) -> tuple[Mark, ...]:
    """Read a YAML list of `{stamp: <ROS time in seconds>, outcome: success | failure | end}`.

    Raises:
        BagError: the file cannot be read or an entry is wrong.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding='utf-8'))
        return tuple(
            Mark(float(entry['stamp']), OUTCOMES[entry['outcome']]) for entry in entries or []
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BagError(f'cannot read marks {str(path)!r}: {error}') from error
    except (KeyError, TypeError, ValueError) as error:
        raise BagError(
            f'marks {str(path)!r}: {error!r}; expected a list of {{stamp: seconds, outcome: '
            f'{" | ".join(OUTCOMES)}}}'
        ) from error
