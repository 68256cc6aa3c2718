# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The documents: links lead somewhere, lines are short, generated pages agree with the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from residual_rl_ros.config.preset import load_preset, preset_names
from residual_rl_ros.rewards.add_on import ADD_ONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = sorted(
    page
    for page in (*ROOT.glob('*.md'), *DOCS.rglob('*.md'))
    if not {'_build', 'api', 'generated'} & set(page.relative_to(ROOT).parts)
)
OPEN_PAGES = [page for page in PAGES if page.parent.name != 'lab' and page.name != 'parameters.md']
"""Without those that are closed, or made from the code."""
LINK = re.compile(r'\]\(([^)#\s]+)(?:#[^)]*)?\)')
MADE_BY_SPHINX = re.compile(r'generated/(?:add_ons|cli|files|metrics|presets)\.md$')


@pytest.fixture(scope='module')
def generated() -> Iterator[ModuleType]:
    """Return the extension that makes the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / '_ext'))
        import generated

        yield generated
        for name in ('generated', 'key_tables', 'meanings', 'metrics_page'):
            sys.modules.pop(name, None)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding='utf-8')):
        if '://' in target or MADE_BY_SPHINX.search(target):
            continue
        assert (page.parent / target).exists(), f'{target} of {page.name}'


@pytest.mark.parametrize('page', OPEN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_have_at_most_100_columns(page: Path) -> None:
    long = [line for line in page.read_text(encoding='utf-8').splitlines() if len(line) > 100]
    assert not long


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_begins_a_comment(page: Path) -> None:
    """A percent sign that begins a line takes it out of the built page."""
    assert '\n%' not in page.read_text(encoding='utf-8')


def test_the_tests_of_the_fault_table_exist() -> None:
    text = (DOCS / 'reliability.md').read_text(encoding='utf-8')
    named = re.findall(r'`([\w/]+/test_\w+\.py)`', text)
    assert len(named) > 50
    assert not [name for name in named if not (ROOT / 'test' / name).is_file()]


def test_every_metric_and_every_key_of_the_diagnostics_has_a_meaning(
    generated: ModuleType,
) -> None:
    text = generated.metrics_page()
    for key in ('q_base', 'replay_<source>_share', 'weights_refused_<reason>', 'updates_per_s'):
        assert f'| `{key}` |' in text


def test_every_key_of_a_preset_is_described(generated: ModuleType) -> None:
    described, _, shipped = generated.presets_page().partition('## Shipped presets')
    keys = {key for name in preset_names() for key in load_preset(name).to_mapping()}
    for key in keys - {'algorithm'}:
        assert f'| `{key}` |' in described, key
    for name in preset_names():
        assert f'### {name}\n' in shipped
    assert '| `critic_heads` | `10` | `2` |' in shipped.partition('### resfit\n')[2]


def test_every_key_of_runs_and_robots_is_described(generated: ModuleType) -> None:
    text = generated.files_page()
    for key in ('residual_scale', 'control_rate_hz', 'max_velocity', 'frame_id', 'encoder_sha256'):
        assert f'| `{key}` |' in text


def test_every_key_of_an_add_on_is_described(generated: ModuleType) -> None:
    text = generated.add_ons_page()
    for name, kind in ADD_ONS.items():
        section = text.partition(f'## {name}\n')[2].partition('\n## ')[0]
        assert all(f'| `{item.name}` |' in section for item in fields(kind)), name


def test_every_command_is_in_the_reference(generated: ModuleType) -> None:
    text = generated.cli_page()
    assert '## residual-rl bag rebuild' in text
    assert '`--decision-steps`' in text


def test_the_page_of_parameters_is_what_the_code_says(generated: ModuleType) -> None:
    pytest.importorskip('rclpy')
    committed = (DOCS / 'reference' / 'parameters.md').read_text(encoding='utf-8')
    assert committed == generated.parameters_page()
