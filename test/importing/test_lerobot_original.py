# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own policies, built and run by LeRobot, against what is imported of them.

It wants other versions of packages than we do, so that it is in a folder of its own; see
`lerobot_original.SITE`. Without that the test is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lerobot_original
import numpy as np
import pytest
from safetensors.torch import load_file

from residual_rl_ros.importing.checkpoint import import_checkpoint
from residual_rl_ros.importing.export import reference
from residual_rl_ros.importing.mapping import ImportOptions, PolicyMap

pytestmark = pytest.mark.skipif(
    lerobot_original.SITE not in os.environ,
    reason=f'{lerobot_original.SITE} names no folder with LeRobot',
)
OLD, NEW = lerobot_original.cases_of(processors=False), lerobot_original.cases_of(processors=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all checkpoints that this LeRobot writes."""
    out = tmp_path_factory.mktemp('lerobot')
    command = [sys.executable, lerobot_original.__file__, str(out)]
    subprocess.run(command, check=True, timeout=300)
    return out


@pytest.mark.timeout(600)
@pytest.mark.parametrize('case', NEW)
def test_an_import_acts_as_lerobot_does(case: str, folder: Path) -> None:
    if not (folder / case).exists():
        assert case not in OLD
        pytest.skip('this LeRobot is older than what the case needs')
    options = ImportOptions(map=PolicyMap(rate_hz=30.0), range_std=3.0)
    policy = import_checkpoint(folder / case, options)
    given = load_file(folder / case / 'reference.safetensors')
    found = reference(policy, [given[each.name] for each in policy.inputs])[0]
    meta = policy.metadata
    half = (np.array(meta.action_max) - np.array(meta.action_min)) / 2
    error = np.abs((found - given['action']).numpy()) / half
    print(f'{case}: {error.max():.1e} half ranges')
    assert error.max() <= 1e-5
