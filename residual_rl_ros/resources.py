# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped files, wherever the package is installed; and files written whole or not at all."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from residual_rl_ros.errors import OutputError, ResourceError

PACKAGE = 'residual_rl_ros'
PREFIX_DEPTH = 4
"""Folders between a module of an installed package and the prefix, at most."""


@contextmanager
def current_folder() -> Iterator[None]:
    """Let modules of the current folder be imported, as `python -m` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _share_directories() -> Iterator[Path]:
    """Yield the candidate share folders, that of the running code first.

    1. The source tree: a checkout, an editable install, `colcon build --symlink-install`.
    2. The prefix that this module lies below, whatever it is: a virtual environment, `pip install`
       with `--user`, `--prefix` or `--target`, Debian's `/usr/local`, colcon's `install/`.
    3. Every prefix in `AMENT_PREFIX_PATH`.
    4. The data schemes of the interpreter and of the user.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / 'package.xml').is_file():
        yield package.parent
    # PREFIX/lib/python3.x/site-packages/residual_rl_ros, or TARGET/residual_rl_ros.
    prefixes = list(package.parents[:PREFIX_DEPTH])
    prefixes += _ament_prefixes()
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme('user'))
    prefixes += [Path(sysconfig.get_path('data', scheme)) for scheme in schemes]
    for prefix in dict.fromkeys(prefixes):
        yield prefix / 'share' / PACKAGE


def _ament_prefixes() -> list[Path]:
    """Return where ROS packages are installed."""
    ament = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [Path(prefix) for prefix in ament if prefix]


def package_file(uri: str, near: Path | None = None) -> Path | None:
    """Return the file that `package://<package>/<path>` names, None if it is not there.

    Args:
        uri: the name.
        near: also looked for in the folders above this one: sources that nobody has installed.
    """
    package = Path(uri.removeprefix('package://'))
    folders = [prefix / 'share' for prefix in _ament_prefixes()]
    if near is not None:
        folders += near.resolve().parents[:PREFIX_DEPTH]
    return next((f / package for f in folders if (f / package).is_file()), None)


def resource_path(*parts: str) -> Path:
    """Return the path of a shipped file or folder, for example `('sim', 'peg_insert.xml')`.

    Raises:
        ResourceError: no installation holds it; the message lists where it was looked for.
    """
    tried = [share.joinpath(*parts) for share in _share_directories()]
    for path in tried:
        if path.exists():
            return path
    places = ', '.join(str(path) for path in tried)
    raise ResourceError(
        f'shipped file {"/".join(parts)!r} not found (looked at {places}); install the package '
        'with pip, or build it with colcon and source the workspace'
    )


def find_file(what: str, folder: tuple[str, ...], name_or_path: str, suffix: str) -> Path:
    """Return the path of a file that is given by path, or by the name of a shipped one.

    Args:
        what: what the file is, for the error.
        folder: shipped folder, for example `('config', 'robots')`.
        name_or_path: path that ends in the suffix, or name of a shipped file without it.
        suffix: `.yaml` (a path may end in `.yml`) or `.onnx`.

    Raises:
        ResourceError: no shipped file has the name; the message lists those there are.
    """
    path = Path(name_or_path)
    if path.suffix in (suffix, '.yml' if suffix == '.yaml' else suffix):
        return path
    try:
        return resource_path(*folder, f'{name_or_path}{suffix}')
    except (ResourceError, OSError) as error:  # A name can be too long for a file.
        shipped = sorted(file.stem for file in resource_path(*folder).glob(f'*{suffix}'))
        raise ResourceError(
            f'unknown {what} {name_or_path!r}; shipped: {", ".join(shipped)}; or give the path of '
            f'a {suffix} file'
        ) from error


def find_base_policy(name: str) -> Path:
    """Return the path of a base policy: the path of an ONNX file, or a shipped model's name.

    Raises:
        ResourceError: neither; the message lists the shipped ones.
    """
    return find_file('base policy', ('models',), name, '.onnx')


def demonstrations_of(model: Path) -> Path:
    """Return where the demonstrations of a base policy are, if it came with them."""
    return model.with_suffix('.demonstrations.safetensors')


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder if there is none.

    Raises:
        OutputError: it cannot be written; what was there before is still.
    """
    fresh = path.with_name(path.name + '.new')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(
            f'{str(path)!r} cannot be written: {str(path.parent)!r} is no folder'
        ) from error
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise OutputError(f'{str(path)!r} cannot be written: {error.strerror}') from error


def make_folder(path: Path) -> None:
    """Make a folder, with those that it is in, if there is none.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'folder {str(path)!r} cannot be made: {error.strerror}') from error


def load_entry_point(entry: metadata.EntryPoint) -> Any:
    """Return what another package declares.

    Raises:
        ResourceError: it cannot be loaded, whatever that raises.
    """
    try:
        return entry.load()
    except Exception as error:
        where = f'{entry.value} of the package {entry.dist and entry.dist.name}'
        raise ResourceError(f'{where} cannot be loaded: {type(error).__name__}: {error}') from error
