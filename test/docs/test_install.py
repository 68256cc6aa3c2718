# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The install page agrees with package.xml, setup.py and the files that it names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'how-to' / 'install.md').read_text(encoding='utf-8')


def test_rosdep_skips_every_key_that_pip_installs() -> None:
    (listed,) = re.findall(r'--skip-keys "([^"]+)"', PAGE)
    skipped = set(listed.replace('\\\n', ' ').split())
    package = ET.parse(ROOT / 'package.xml').getroot()
    needed = {element.text for element in package.iter('exec_depend')}
    assert skipped <= needed
    assert {key for key in needed if key and key.endswith('-pip')} <= skipped


def test_the_files_that_it_names_exist() -> None:
    named = set(re.findall(r'(?:requirements|docker)/[\w.-]+', PAGE))
    assert len(named) >= 4
    assert not [name for name in named if not (ROOT / name).exists()]


def test_its_extras_are_those_of_the_package() -> None:
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    extras = re.findall(r'^\| `(\w+)` \|', PAGE, re.MULTILINE)
    optional = ['dashboard', 'lerobot', 'robomimic', 'ray', 'smoothing', 'customisation', 'urdf']
    assert extras == ['ros', *optional, 'bench']
    for extra in extras:
        assert f"'{extra}': [" in setup
