# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
r"""Prior, greedy MPPI and residual MPPI on the same seeds: basic, add-on and total return.

Greedy is omega' = 0. Needed: a base policy, best one that tells its density, and a model of it by
`residual-rl train-dynamics --env ENV --base BASE --out MODEL`. Choose the numbers of a plan on
other seeds than those that are reported.

    python benchmarks/customisation_mppi.py --env ant --base ant.onnx --model ant.safetensors \
        --add-on ant_sideways --prior-weight 0.01 --temperature 0.005 --noise 0.07 --horizon 5
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from residual_rl_ros.config.run import RunConfig
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.evaluation.paired import difference, evaluate, score
from residual_rl_ros.residual_policy.mppi import MppiConfig, MppiPlanner
from residual_rl_ros.residual_policy.weights import WeightsHeader, decode_weights, encode_weights
from residual_rl_ros.schema import from_mapping
from residual_rl_ros.tasks.hosting import finetune_for_environment

TIMED_PLANS = 50


def planners(model: Path, config: RunConfig, numbers: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and planner of each method; the prior has none."""
    _, planner = decode_weights(model.read_bytes())
    if not isinstance(planner, MppiPlanner):
        raise ConfigError(f'{model} is of kind {planner.kind}, expected mppi (train-dynamics)')
    made = planner.customised(
        add_on=config.add_ons, config=from_mapping(MppiConfig, numbers, 'numbers of a plan')
    )
    yield 'prior', None
    yield 'greedy', made.customised(config=replace(made.architecture.config, prior_weight=0.0))
    if made.architecture.config.prior_weight > 0.0:
        yield 'residual', made


def plan_ms(planner: MppiPlanner) -> float:
    """Return the median duration of a plan on this machine, in this thread [ms]."""
    layout, rng = planner.architecture.layout, np.random.default_rng(0)
    observation = planner.tensors['normalizer.mean']
    durations = []
    for _ in range(TIMED_PLANS):
        started = time.perf_counter()
        planner.decide(observation, np.zeros(layout.decision_size), rng)
        durations.append(time.perf_counter() - started)
    return 1e3 * float(np.median(durations))


def main(
    env: Annotated[str, typer.Option(help='Task of this package or gymnasium id.')],
    base: Annotated[Path, typer.Option(help='ONNX base policy: the prior.')],
    model: Annotated[Path, typer.Option(help='File of train-dynamics.')],
    add_on: Annotated[list[str], typer.Option(help='Add-on reward; give it again for more.')],
    prior_weight: Annotated[float, typer.Option(help="Omega' of residual MPPI; 0 leaves it out.")],
    temperature: Annotated[float, typer.Option(help='Lambda.')] = 0.01,
    noise: Annotated[float, typer.Option(help='Standard deviation, in half ranges.')] = 0.1,
    horizon: Annotated[int, typer.Option(help='T, decisions.')] = 8,
    samples: Annotated[int, typer.Option(help='K.')] = 256,
    discount: Annotated[float, typer.Option(help='Gamma.')] = 0.9,
    episodes: Annotated[int, typer.Option(min=1)] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help='Environment seed.')] = 90_000,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    out: Annotated[Path | None, typer.Option(help='Also write JSON.')] = None,
) -> None:
    """Print a table with 95 % intervals, and the paired differences from the prior."""
    numbers = {
        'samples': samples,
        'horizon': horizon,
        'discount': discount,
        'prior_weight': prior_weight,
        'temperature': temperature,
        'noise': noise,
    }
    results: dict[str, Any] = {'environment': env, 'numbers': numbers, 'methods': {}}
    seeds = range(first_seed, first_seed + episodes)
    with TemporaryDirectory() as scratch:
        config = finetune_for_environment(env, base, 2.0, Path(scratch)).with_add_ons(add_on)
        _, trained = decode_weights(model.read_bytes())
        config = config.resolve().trained_as(trained.architecture.layout).config
        prior: list[Episode] = []
        print('| method | basic return | add-on return | total return | plan [ms] |')
        print('|---|---|---|---|---|')
        for name, planner in planners(model, config, numbers):
            message = None if planner is None else encode_weights(planner, WeightsHeader(1, 0))
            played = list(evaluate(config, seeds, message, workers))
            prior = prior or played
            came_to, took = score(played), plan_ms(planner) if planner else 0.0
            assert came_to.added is not None
            means = (came_to.returns, came_to.added.add_on, came_to.added.total)
            print(f'| {name} | {" | ".join(map(str, means))} | {took:.1f} |', flush=True)
            results['methods'][name] = {
                **came_to.summary(),
                **(difference(prior, played).summary() if planner else {}),
                'plan_ms': took,
            }
    if out is not None:
        out.write_text(json.dumps(results, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    typer.run(main)
