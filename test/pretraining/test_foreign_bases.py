# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks of others in `benchmarks/`: untuned, complete, and described by their cards."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from residual_rl_ros.config.run import load_run
from residual_rl_ros.pretraining.experts import has_expert
from residual_rl_ros.pretraining.train_base import BaseRecipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / 'benchmarks'
TASKS = sorted((BENCHMARKS / 'tasks').glob('*.yaml'))
MODELS = sorted((BENCHMARKS / 'base_policies').glob('*.onnx'))
RECIPES = sorted((BENCHMARKS / 'base_policies').glob('*.yaml'))
by_name = {'ids': lambda path: path.stem}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their paths are those from the root of the tree."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', TASKS, **by_name)
def test_a_task_has_the_lambda_and_the_decision_rate_of_all_and_no_overrides(path: Path) -> None:
    run = load_run(str(path))
    resolved = run.resolve()
    assert run.residual_scale == (0.3,)
    assert run.decision_steps == max(1, round(resolved.robot.control_rate_hz / 20.0))
    assert resolved.policy.metadata.exec_steps % run.decision_steps == 0
    assert run.overrides == {}
    assert run.success.endswith(':stop')
    assert has_expert(run.task)
    assert load_recipe(str(Path(run.base_policy).with_suffix('.yaml'))).environment == run.task


def test_recipes_differ_in_task_rate_and_amount_of_training_alone() -> None:
    differing = {'task', 'environment', 'kind', 'demonstrations', 'gradient_steps'}
    differing |= {'horizon', 'exec_steps'}  # In control steps, of which one arm has fewer.
    recipes = [load_recipe(str(path)) for path in RECIPES]
    assert {recipe.environment for recipe in recipes} == {load_run(str(p)).task for p in TASKS}
    for field in BaseRecipe.__dataclass_fields__:
        values = {str(getattr(recipe, field)) for recipe in recipes}
        assert len(values) == 1 or field in differing, f'{field}: {values}'


@pytest.mark.parametrize('path', MODELS, **by_name)
def test_a_card_is_of_its_model_and_of_its_demonstrations(path: Path) -> None:
    card = path.with_suffix('.md').read_text(encoding='utf-8')
    success = re.search(r'\| success \| (\d+)%', card)
    assert success
    assert 40 <= int(success[1]) <= 65
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert path.with_suffix('.demonstrations.safetensors').is_file()


def test_the_models_are_small_together() -> None:
    assert sum(path.stat().st_size for path in MODELS) < 15e6
