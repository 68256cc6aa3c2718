# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The same command must find its files in a source tree, a colcon workspace and a pip install."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from residual_rl_ros import resources
from residual_rl_ros.errors import ResourceError
from residual_rl_ros.resources import resource_path

PLACE = Path('lib', 'python3.12', 'site-packages')


def make_share(prefix: Path) -> Path:
    """Lay out an installation below a prefix and return its share folder."""
    share = prefix / 'share' / 'residual_rl_ros'
    (share / 'config').mkdir(parents=True)
    (share / 'config' / 'here.yaml').touch()
    return share


def import_from(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the package was imported from a site-packages folder."""
    module = packages / 'residual_rl_ros' / 'resources.py'
    monkeypatch.setattr(resources, '__file__', str(module))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the package lies in an interpreter without a source tree around it."""
    import_from(tmp_path / 'interpreter' / PLACE, monkeypatch)
    monkeypatch.setattr(
        sysconfig,
        'get_path',
        lambda name, scheme: str(tmp_path / ('user' if 'user' in scheme else 'data')),
    )
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    return tmp_path


def test_the_source_tree_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = make_share(tmp_path)
    (share / 'package.xml').touch()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    found = resource_path('package.xml')
    assert found == Path(__file__).resolve().parents[1] / 'package.xml'


@pytest.mark.parametrize(
    ('prefix', 'packages'),
    [
        ('venv', PLACE),
        ('home/.local', PLACE),
        ('usr/local', Path('lib', 'python3.12', 'dist-packages')),
        ('usr', Path('lib', 'python3', 'dist-packages')),
        ('workspace/install/residual_rl_ros', PLACE),
        ('target', Path()),
    ],
    ids=['venv', 'user', 'prefix', 'debian', 'colcon', 'target'],
)
def test_code_finds_the_files_that_were_installed_with_it(
    installed: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, packages: Path
) -> None:
    for other in ('data', 'user', 'overlay'):
        make_share(installed / other)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(installed / 'overlay'))
    import_from(installed / prefix / packages, monkeypatch)
    share = make_share(installed / prefix)
    assert resource_path('config', 'here.yaml') == share / 'config' / 'here.yaml'


def test_an_ament_prefix_is_searched(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = make_share(installed / 'workspace')
    places = [str(installed / 'empty'), '', str(installed / 'workspace')]
    monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(places))
    assert resource_path('config', 'here.yaml') == share / 'config' / 'here.yaml'


@pytest.mark.parametrize('scheme', ['data', 'user'])
def test_the_data_schemes_are_searched(installed: Path, scheme: str) -> None:
    share = make_share(installed / scheme)
    assert resource_path('config') == share / 'config'


def test_an_overlay_comes_before_its_underlay_and_the_data_schemes(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ('data', 'user', 'underlay'):
        make_share(installed / other)
    share = make_share(installed / 'overlay')
    monkeypatch.setenv(
        'AMENT_PREFIX_PATH',
        os.pathsep.join([str(installed / 'overlay'), str(installed / 'underlay')]),
    )
    assert resource_path('config', 'here.yaml') == share / 'config' / 'here.yaml'


def test_the_error_lists_every_place_that_was_searched_and_the_remedy(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(installed / 'workspace'))
    with pytest.raises(ResourceError, match=r"shipped file 'models/none.onnx' not found") as error:
        resource_path('models', 'none.onnx')
    for prefix in ('interpreter', 'workspace', 'data', 'user'):
        place = installed / prefix / 'share' / 'residual_rl_ros' / 'models' / 'none.onnx'
        assert str(place) in str(error.value)
    assert 'install the package with pip, or build it with colcon' in str(error.value)
