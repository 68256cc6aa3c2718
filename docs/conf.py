# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration. `make docs` builds the site; a warning is an error."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / '_ext'), str(DOCS.parent)]

from generated import ROS_PACKAGES  # noqa: E402 - found by the path above.

from residual_rl_ros import __version__  # noqa: E402

project = 'residual_rl_ros'
author = 'The residual_rl_ros authors'
project_copyright = f'2026, {author}'
release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'generated',
]
exclude_patterns = ['_build', '_ext']
html_theme = 'furo'
html_title = f'residual_rl_ros {release}'
html_show_sourcelink = False
pygments_style = 'friendly'
pygments_dark_style = 'native'

myst_enable_extensions = ['colon_fence', 'deflist']
myst_heading_anchors = 4

default_role = 'code'
"""Docstrings mark code with single backticks."""
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = False

OPTIONAL = (
    'fastapi',
    'gymnasium_robotics',
    'nicegui',
    'pyarrow',
    'ray',
    'sbx',
    'stable_baselines3',
    'uvicorn',
)
"""Imports of the package's extras; the reference is the same without them."""
autodoc_mock_imports = [*ROS_PACKAGES, *(name for name in OPTIONAL if find_spec(name) is None)]
suppress_warnings = ['ref.python']
"""Fields of several classes have the same name; a short type may mean any of them."""
