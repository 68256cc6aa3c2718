# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Import the scripts of `benchmarks/`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'benchmarks'


def load_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a script as a module that its own processes can import too."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)
