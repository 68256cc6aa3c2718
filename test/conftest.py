# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures; pytest also puts this folder on the path, for `builders` and `strategies`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from builders import make_layout
from hypothesis import settings

from residual_rl_ros.transitions.transition import TransitionLayout

# Wall-clock deadlines fail on a busy machine and say nothing about the code.
settings.register_profile('default', deadline=None, max_examples=50)
settings.register_profile('thorough', deadline=None, max_examples=1000)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'default'))

# The networks of the tests are tiny: threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def layout() -> TransitionLayout:
    """Return a layout with n = 3, m = 2 and k = 2."""
    return make_layout()


@pytest.fixture(autouse=True, scope='session')
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield
