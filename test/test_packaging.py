# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A wheel works wherever pip puts it, with no source tree near and nothing from the network."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from email import message_from_string
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import residual_rl_ros
from residual_rl_ros.resources import resource_path

SOURCE = resource_path('package.xml').parent
LOCKS = SOURCE / 'requirements'

PYTHON = f'python{sys.version_info.major}.{sys.version_info.minor}'
SHARED = ('launch', 'config', 'models', 'sim')


def run(*command: str | Path, **environment: str) -> str:
    """Return what a command prints, run outside the source tree and without its variables."""
    left_out = ('PYTHONPATH', 'AMENT_PREFIX_PATH', 'PYTHONUSERBASE', 'VIRTUAL_ENV')
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    result = subprocess.run(
        [str(part) for part in command],
        cwd='/',
        env={**kept, 'PIP_NO_INDEX': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1', **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy of the source tree, offline."""
    folder = tmp_path_factory.mktemp('wheel')
    skipped = shutil.ignore_patterns('.*', 'runs', '__pycache__', '*.egg-info', 'build', 'test')
    shutil.copytree(SOURCE, folder / 'source', ignore=skipped)
    pip = (sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation')
    run(*pip, '--wheel-dir', folder, folder / 'source')
    (built,) = folder.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def metadata(wheel: Path) -> Message:
    """Return what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        return message_from_string(archive.read(name).decode())


@pytest.fixture(scope='module')
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh environment with the dependencies of this one, without this package."""
    prefix = tmp_path_factory.mktemp('bare') / 'venv'
    # The pip of this environment installs into it, which spares a second one.
    venv.create(prefix, symlinks=True, with_pip=False)
    packages = prefix / 'lib' / PYTHON / 'site-packages'
    libraries = packages.parent / 'libraries'
    libraries.mkdir()
    for path in Path(sysconfig.get_path('purelib')).iterdir():
        if 'residual' not in path.name and path.suffix != '.pth':
            (libraries / path.name).symlink_to(path)
    (packages / 'libraries.pth').write_text(f'{libraries}\n')
    return prefix


def pip_install(
    pip: Sequence[str | Path], wheel: Path, *where: str | Path, **environment: str
) -> None:
    """Install the wheel alone, whether or not the interpreter has it elsewhere."""
    options = ('--quiet', '--no-deps', '--ignore-installed', '--no-compile')
    run(*pip, 'install', *options, *where, wheel, **environment)


def found_by(python: Path, **environment: str) -> Path:
    """Return the folder of the shipped models that an interpreter finds."""
    code = 'from residual_rl_ros.resources import resource_path; print(resource_path("models"))'
    return Path(run(python, '-c', code, **environment).strip())


def test_a_wheel_in_a_bare_environment_checks_a_shipped_base_policy(
    wheel: Path, bare: Path
) -> None:
    pip_install((bare / 'bin' / 'python', '-m', 'pip'), wheel)
    command = bare / 'bin' / 'residual-rl'
    assert run(command, '--version') == f'residual-rl {residual_rl_ros.__version__}\n'
    report = run(command, 'check-base', 'peg_insert', COLUMNS='300')
    assert str(bare / 'share' / 'residual_rl_ros' / 'models' / 'peg_insert.onnx') in report
    assert report.rstrip().endswith('usable')


@pytest.mark.parametrize('option', ['--prefix', '--target'])
def test_a_wheel_below_any_folder_finds_its_files(
    wheel: Path, bare: Path, tmp_path: Path, option: str
) -> None:
    python = bare / 'bin' / 'python'
    pip_install((python, '-m', 'pip'), wheel, option, tmp_path)
    packages = tmp_path if option == '--target' else tmp_path / 'lib' / PYTHON / 'site-packages'
    models = tmp_path / 'share' / 'residual_rl_ros' / 'models'
    assert found_by(python, PYTHONPATH=str(packages)) == models


def test_a_wheel_in_the_users_folder_finds_its_files(wheel: Path, tmp_path: Path) -> None:
    # Environments have no user folder: this takes the interpreter that this one was made from.
    python = Path(sys.base_prefix) / 'bin' / PYTHON
    user = {'PYTHONUSERBASE': str(tmp_path), 'PIP_BREAK_SYSTEM_PACKAGES': '1'}
    pip_install((sys.executable, '-m', 'pip', '--python', python), wheel, '--user', **user)
    packages = tmp_path / 'lib' / PYTHON / 'site-packages'
    (packages / 'libraries.pth').write_text(f'{sysconfig.get_path("purelib")}\n')
    assert found_by(python, **user) == tmp_path / 'share' / 'residual_rl_ros' / 'models'


def test_the_wheel_holds_every_shared_file_and_no_test(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    root = f'residual_rl_ros-{residual_rl_ros.__version__}.data/data/share/residual_rl_ros'
    shared = {
        path.relative_to(SOURCE).as_posix()
        for folder in SHARED
        for path in (SOURCE / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    inside = {name.removeprefix(f'{root}/') for name in names if name.startswith(f'{root}/')}
    assert inside == {*shared, 'package.xml'}
    modules = {name for name in names if name.endswith('.py') and '.data/' not in name}
    sources = SOURCE.glob('residual_rl_ros/**/*.py')
    assert modules == {path.relative_to(SOURCE).as_posix() for path in sources}
    assert 'residual_rl_ros/py.typed' in names


def test_the_metadata_are_complete_and_agree(metadata: Message) -> None:
    package = ET.parse(SOURCE / 'package.xml').getroot()
    assert metadata['Version'] == package.findtext('version') == residual_rl_ros.__version__
    assert 'Apache-2.0' in (metadata['License'] or metadata['License-Expression'])
    assert metadata['Author'] == 'The residual_rl_ros authors'
    assert metadata['Description-Content-Type'] == 'text/markdown'
    assert str(metadata.get_payload()).strip() == (SOURCE / 'README.md').read_text().strip()
    assert metadata.get_all('Project-URL')
    classifiers = metadata.get_all('Classifier') or []
    versions = [name.rsplit(' ', 1)[1] for name in classifiers if ':: 3.' in name]
    assert versions == ['3.11', '3.12', '3.13']
    assert metadata['Requires-Python'] == f'>={versions[0]}'


def normalized(name: str) -> str:
    """Return a distribution's name as indexes spell it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def required(metadata: Message, *extras: str) -> set[str]:
    """Return the distributions that the core or an extra asks for."""
    found = set()
    for line in metadata.get_all('Requires-Dist') or []:
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if (extra is None) or (extra[1] in extras):
            found.add(normalized(re.split(r'[^\w.-]', line)[0]))
    return found


@functools.cache
def imported(folder: Path) -> frozenset[str]:
    """Return the top-level modules that the sources of a folder import."""
    names = set()
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split('.')[0])
    return frozenset(names - set(sys.stdlib_module_names))


def test_every_import_is_declared(metadata: Message) -> None:
    extras = (
        'bench',
        'customisation',
        'dashboard',
        'lerobot',
        'ray',
        'robomimic',
        'ros',
        'smoothing',
        'urdf',
    )
    declared = required(metadata, *extras)
    # The libraries that `bench learner` measures against need not be installed here.
    distributions = {
        **packages_distributions(),
        'sbx': ['sbx-rl'],
        'stable_baselines3': ['stable-baselines3'],
        'pinocchio': ['pin'],  # In a folder of its own, which a .pth file names.
    }
    # Launch comes only with a ROS installation, compression with Python 3.14, and Meta-World
    # without what it asks for; no extra can say that.
    undeclared = {'residual_rl_ros', 'launch', 'launch_ros', 'compression', 'metaworld'}
    for module in imported(SOURCE / 'residual_rl_ros') - undeclared:
        names = distributions.get(module, [module])
        known = {normalized(name) for name in names}
        known |= {f'ros-{name}' for name in known}
        assert known & declared, f'{module} is imported, and setup.py does not declare it'


def test_the_ros_packages_are_declared_for_rosdep_too() -> None:
    package = ET.parse(SOURCE / 'package.xml').getroot()
    declared = {element.text for element in package.iter('exec_depend')}
    wanted = {
        name
        for name in imported(SOURCE / 'residual_rl_ros') | imported(SOURCE / 'launch')
        if name.endswith(('_msgs', '_srvs', '_interfaces')) or name in ('rclpy', 'launch_ros')
    }
    assert wanted <= declared


def locked(name: str) -> dict[str, str]:
    """Return the versions of a lock, by distribution."""
    lines = (LOCKS / f'{name}.txt').read_text().splitlines()
    pins = [line.split('==') for line in lines if not line.startswith('#')]
    return {normalized(distribution): version for distribution, version in pins}


def test_the_locks_hold_what_is_declared_each_thing_once(metadata: Message) -> None:
    core, dev, optional, bench = map(locked, ('core', 'dev', 'optional', 'bench'))
    for one, other in ((core, dev), (core, optional), (core, bench), (dev, optional)):
        assert not set(one) & set(other)
    assert required(metadata, 'ros') <= set(core)
    assert required(metadata, 'dev') <= {*core, *dev}
    assert required(metadata, 'optional') <= {*core, *dev, *optional}
    assert required(metadata, 'bench') <= {*core, *dev, *optional, *bench}
    assert required(metadata) <= set(locked('ubuntu-24.04'))
    assert not any(name.startswith('ros-') for name in locked('ubuntu-24.04'))


def test_only_the_locks_of_development_hold_its_tools() -> None:
    tools = {'gymnasium-robotics', 'mypy', 'pandas', 'pyarrow', 'pytest', 'ray', 'ruff'}
    assert not tools & set(locked('core'))
