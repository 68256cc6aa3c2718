# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The same command must find its files in a source tree, a colcon workspace and a pip install."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from residual_rl_ros import resources
from residual_rl_ros.errors import ResourceError
from residual_rl_ros.resources import resource_path


def make_share(prefix: Path) -> Path:
    """Lay out an installation below a prefix and return its share folder."""
    share = prefix / 'share' / 'residual_rl_ros'
    (share / 'config').mkdir(parents=True)
    (share / 'config' / 'here.yaml').touch()
    return share


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the package lies in a site-packages folder without a source tree around it."""
    module = tmp_path / 'site-packages' / 'residual_rl_ros' / 'resources.py'
    monkeypatch.setattr(resources, '__file__', str(module))
    monkeypatch.setattr(sys, 'prefix', str(tmp_path / 'interpreter'))
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    return tmp_path


def test_the_source_tree_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = make_share(tmp_path)
    (share / 'package.xml').touch()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    found = resource_path('package.xml')
    assert found == Path(__file__).resolve().parents[1] / 'package.xml'


def test_an_ament_prefix_is_searched(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = make_share(installed / 'workspace')
    places = [str(installed / 'empty'), '', str(installed / 'workspace')]
    monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(places))
    assert resource_path('config', 'here.yaml') == share / 'config' / 'here.yaml'


def test_the_data_scheme_of_the_interpreter_is_searched(installed: Path) -> None:
    share = make_share(installed / 'interpreter')
    assert resource_path('config') == share / 'config'


def test_an_overlay_comes_before_its_underlay_and_the_interpreter(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_share(installed / 'interpreter')
    make_share(installed / 'underlay')
    share = make_share(installed / 'overlay')
    monkeypatch.setenv(
        'AMENT_PREFIX_PATH',
        os.pathsep.join([str(installed / 'overlay'), str(installed / 'underlay')]),
    )
    assert resource_path('config', 'here.yaml') == share / 'config' / 'here.yaml'


def test_the_error_lists_every_place_that_was_searched(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(installed / 'workspace'))
    with pytest.raises(ResourceError, match=r"shipped file 'models/none.onnx' not found") as error:
        resource_path('models', 'none.onnx')
    for prefix in ('workspace', 'interpreter'):
        place = installed / prefix / 'share' / 'residual_rl_ros' / 'models' / 'none.onnx'
        assert str(place) in str(error.value)
