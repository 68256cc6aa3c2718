# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo: evaluate the base policy, fine-tune over ROS 2, evaluate again."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from residual_rl_ros.config.run import ResolvedRun, RunConfig
from residual_rl_ros.errors import ConfigError, ResidualRLError
from residual_rl_ros.evaluation.episode import Episode
from residual_rl_ros.evaluation.figures import FRAME_STEPS, draw_learning_curve, draw_repair
from residual_rl_ros.evaluation.paired import (
    EVALUATION_SEED,
    difference,
    evaluate,
    film,
    score,
    silence_stderr,
)
from residual_rl_ros.evaluation.progress import progress, say
from residual_rl_ros.evaluation.sequential import SuccessTest
from residual_rl_ros.residual_policy.actor_file import read_actor
from residual_rl_ros.ros.bringup.domains import claim_domain
from residual_rl_ros.ros.bringup.monitor import Monitor
from residual_rl_ros.ros.bringup.processes import Bringup, ros_environment
from residual_rl_ros.ros.bringup.simulation import finetune_topology
from residual_rl_ros.ros.bringup.status import readable
from residual_rl_ros.ros.common.node_host import domain_number
from residual_rl_ros.ros.common.node_parameters import SIMULATION
from residual_rl_ros.tasks.hosting import host
from residual_rl_ros.tasks.success_probe import settled
from residual_rl_ros.training.in_process import refuse_silence
from residual_rl_ros.training.provenance import git_commit, versions
from residual_rl_ros.training.run_folder import (
    SUMMARY,
    describe_learning,
    prepare_output,
    read_history,
    write_json,
)

QUICK = {'warmup_transitions': 100, 'publish_interval': 25, 'batch_size': 64, 'utd': 1.0}
QUICK_STEPS = 1000
QUICK_SEEDS = 10
PAIRED_SEEDS = 100
LEARNER, SIMULATOR = f'{SIMULATION}/learner_node', f'{SIMULATION}/mujoco_sim_node'


@dataclass(frozen=True)
class DemoOptions:
    """What the command line chooses."""

    config: RunConfig
    seed: int
    """Learner seed; the evaluation seeds are the same for all."""
    output_dir: Path
    paired_seeds: int = PAIRED_SEEDS
    domain: int | None = None
    """ROS domain of the run; None takes a free one, not that of `ROS_DOMAIN_ID`."""
    quick: bool = False
    """It learns nothing, and there is nothing to say of how it ended."""


def quick(config: RunConfig) -> RunConfig:
    """Return a run of about a minute that exercises everything and learns nothing."""
    overrides = {**config.overrides, **QUICK}
    return replace(config, overrides=overrides, control_steps=QUICK_STEPS)


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run the demo and return the summary, which is also in `summary.json`.

    Args:
        options: what to run.
        console: where progress goes.

    Raises:
        ResidualRLError: bad input, or a process failed.
        KeyboardInterrupt: after Ctrl-C, when every process has ended and the summary is written.
    """
    started = time.monotonic()
    config, out = options.config, options.output_dir
    if options.domain is not None:
        domain_number('--domain', str(options.domain))
    config = settled(config, partial(say, console))
    options = replace(options, config=config)
    run = config.resolve()
    config.learner_config()
    if config.operator:
        raise ConfigError(
            f'operator is {config.operator!r}, and none is simulated over ROS; leave it out of the '
            'configuration, or use residual-rl train'
        )
    env = host(config, run.robot)
    refuse_silence(run, env)
    env.close()
    run.evaluation_controller(None).close()
    prepare_output(out)
    with claim_domain(options.domain) as domain_id:
        console.print(f'namespace /{SIMULATION} of ROS domain {domain_id}, on this machine only')
        page = f'ROS_DOMAIN_ID={domain_id} residual-rl dashboard --namespace {SIMULATION}'
        console.print(f'a page in the browser: {page}', soft_wrap=True)
        return _run(options, run, domain_id, started, console)


def _run(
    options: DemoOptions,
    run: ResolvedRun,
    domain_id: int,
    started: float,
    console: Console,
) -> dict[str, Any]:
    """Evaluate, fine-tune and evaluate again in a ROS domain held for this run."""
    config, out = options.config, options.output_dir
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + options.paired_seeds)
    base = _evaluate('base', options, None, console)
    base_score = score(base)
    say(console, f'base policy: {base_score} on {len(seeds)} seeds')
    summary: dict[str, Any] = {
        'task': config.task,
        'seed': options.seed,
        'preset': config.preset,
        'base': base_score.summary(),
        'final': None,
        'interrupted': True,
        'versions': versions(),
        'git_commit': git_commit(),
    }
    try:
        finetuned, ended = _finetune(options, run, domain_id, console)
        summary |= finetuned
        message = read_actor(out)
        final = _evaluate('base + residual', options, message, console)
        final_score = score(final)
        summary |= {'final': final_score.summary(), 'interrupted': False}
        summary |= difference(base, final).summary()
        say(console, f'base + residual: {final_score} on the same seeds')
        if not options.quick:
            say(console, ended)
        _draw_repair(options, run.robot.control_rate_hz, (base, final), message, console)
    finally:
        summary |= describe_learning(out, run.robot.control_rate_hz)
        summary['wall_s'] = round(time.monotonic() - started, 1)
        write_json(out / SUMMARY, summary)
        if summary['episodes']:
            draw_learning_curve(
                out / 'learning_curve.png',
                f'{config.task}, preset {config.preset}, seed {options.seed}',
                read_history(out),
                run.robot.control_rate_hz,
                base_score.main,
                None if summary['final'] is None else final_score.main,
            )
    return summary


def _evaluate(
    name: str, options: DemoOptions, message: bytes | None, console: Console
) -> list[Episode]:
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + options.paired_seeds)
    episodes: list[Episode] = []
    with progress(console, f'evaluating {name}', len(seeds)) as report:
        for episode in evaluate(options.config, seeds, message):
            episodes.append(episode)
            report(len(episodes))
    return episodes


def _finetune(
    options: DemoOptions, run: ResolvedRun, domain_id: int, console: Console
) -> tuple[dict[str, Any], str]:
    """Run the three processes until there is evidence of success, or the budget is spent.

    Returns:
        What the summary says of it, and why it ended, in words.
    """
    config, out = options.config, options.output_dir
    nodes = finetune_topology(
        config,
        run.robot_file,
        run.policy.path,
        out,
        options.seed,
        config.control_steps,
        namespace=SIMULATION,
    )
    started = time.monotonic()
    evidence = SuccessTest()
    warmup_rate: float | None = None  # A quick warm-up may be over before it was seen.
    with (
        Monitor(domain_id) as monitor,
        Bringup(nodes, out / 'logs', ros_environment(domain_id)) as bringup,
        Live(console=console, refresh_per_second=2) as live,
    ):
        while not bringup.ended(SIMULATOR):
            bringup.check()
            for node, reason in monitor.errors().items():
                raise ResidualRLError(f'{node} reports an error: {reason}; see {out / "logs"}')
            follow_learner(evidence, monitor.values(LEARNER))
            live.update(_table(monitor, config, time.monotonic() - started, evidence))
            if evidence.decided:
                break
            if monitor.values(LEARNER).get('phase') == 'warmup':
                rate = monitor.number(SIMULATOR, 'mean_steps_per_s')
                warmup_rate = rate or warmup_rate
            time.sleep(0.5)
        bringup.check()
        live.update(_table(monitor, config, time.monotonic() - started, evidence))
        wall = time.monotonic() - started
        rate = monitor.number(SIMULATOR, 'mean_steps_per_s')
        steps = monitor.number(SIMULATOR, 'control_steps')
    if not console.is_terminal:
        console.line()  # `Live` ends the line of a table on a terminal only.
    found = {
        'ended_by': 'evidence' if evidence.decided else 'budget',
        'evidence': {
            'level': evidence.level,
            'error': evidence.error,
            'episodes': evidence.episodes,
            'odds': evidence.wealth,
        },
        'round_trips_per_s': {
            'warmup': None if warmup_rate is None else round(warmup_rate, 1),
            'whole_run': round(rate, 1),
        },
        'finetune_wall_s': round(wall, 1),
    }
    return found, ending(evidence, steps, config.control_steps)


def follow_learner(evidence: SuccessTest, values: Mapping[str, str]) -> None:
    """Take in the training episodes that the learner's newest status reports."""
    latest = [outcome == '1' for outcome in values.get('residual_outcomes', '')]
    evidence.follow(int(values.get('residual_episodes', 0)), latest)


def ending(evidence: SuccessTest, steps: float, budget: int) -> str:
    """Return why fine-tuning ended, in words."""
    level = f'{evidence.level:.0%}'
    if evidence.decided:
        return (
            f'ended after {steps:.0f} of at most {budget} control steps: the training episodes are '
            f'evidence that success is above {level} (odds {evidence}; a mistake in at most '
            f'{evidence.error:.0%} of such runs)'
        )
    return (
        f'ended with its budget of {budget} control steps: training episodes are no evidence that '
        f'success is above {level} (odds {evidence}, enough is {1.0 / evidence.error:.0f} to 1)'
    )


def _table(monitor: Monitor, config: RunConfig, elapsed: float, evidence: SuccessTest) -> Table:
    learner = monitor.values(LEARNER)
    steps = monitor.number(SIMULATOR, 'control_steps')
    title = f'fine-tuning {config.task} with {config.preset}'
    table = Table(title=title, min_width=60, show_header=False)
    table.add_column('')
    table.add_column('', justify='right', min_width=24)
    for name, value in (
        ('phase', learner.get('phase', 'starting')),
        ('control steps', f'{steps:.0f} of {config.control_steps}'),
        ('episodes', learner.get('episodes', '0')),
        (
            'success, last 50 episodes',
            readable('success_recent', learner.get('success_recent', '-1.0')),
        ),
        (f'evidence of more than {evidence.level:.0%}', str(evidence)),
        ('control steps/s', f'{monitor.number(SIMULATOR, "steps_per_s"):.0f}'),
        ('transitions/s', f'{monitor.number(LEARNER, "transitions_per_s"):.0f}'),
        ('updates/s', f'{monitor.number(LEARNER, "updates_per_s"):.0f}'),
        ('weights sequence', learner.get('sequence', '-')),
        ('elapsed', f'{elapsed:.0f} s'),
    ):
        table.add_row(name, value)
    return table


def _draw_repair(
    options: DemoOptions,
    rate_hz: float,
    episodes: tuple[list[Episode], list[Episode]],
    message: bytes,
    console: Console,
) -> None:
    """Draw the first seed that the base policy fails and the residual repairs, if OpenGL works.

    Args:
        options: what was run.
        rate_hz: control rate [Hz].
        episodes: of the base policy and of base + residual, on the same seeds.
        message: weight message of the residual actor.
        console: where the reason is printed if nothing is drawn.
    """
    repaired = [
        (before, after)
        for before, after in zip(*episodes, strict=True)
        if after.success and before.success is False
    ]
    if not repaired:
        console.print('no paired failure -> success to draw')
        return
    pair = repaired[0]
    seed = pair[0].seed
    # A process of its own: a missing driver can end it, not the demo.
    context = multiprocessing.get_context('spawn')
    try:
        with ProcessPoolExecutor(1, context, silence_stderr) as pool:
            failure, success = (
                pool.submit(
                    film, options.config, seed, actor, max(2, episode.steps // FRAME_STEPS)
                ).result()
                for actor, episode in zip((None, message), pair, strict=True)
            )
    except Exception as error:  # noqa: BLE001 - Each OpenGL driver raises errors of its own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        console.print(
            f'[yellow]warning:[/] no OpenGL, nothing drawn: {escape(reason)}', soft_wrap=True
        )
        return
    title = f'{options.config.task}, seed {seed}'
    draw_repair(options.output_dir, title, failure, success, rate_hz)
