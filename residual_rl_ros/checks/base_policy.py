# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inspect a base policy: contract, speed and problems."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residual_rl_ros.base_policy.chunk_queue import made_up_window
from residual_rl_ros.base_policy.inputs import ImageInput, Input
from residual_rl_ros.base_policy.metadata import UNUSED_RANGE
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.base_policy.prefetch import QUANTILE, Prefetch
from residual_rl_ros.errors import BasePolicyError, ResidualRLError
from residual_rl_ros.findings import InspectionReport
from residual_rl_ros.numerics import Float32
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.robot.inference import ON_CPU
from residual_rl_ros.robot.onnx_session import InferenceWorker
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.transitions.layout import MAX_PRIOR

TIMED_CALLS = 50
REPEATED_CALLS = 10
SANE_LOG_STD = 20.0
"""Usual limits of a network's log standard deviation, -20 to 2, with room above."""
TRIAL = 'trial'
"""Name of the thread of the first inference."""
LONGEST_S = 60.0
"""Longest inference that is waited for [s]."""
LOADING_S = 60.0
"""Longest loading [s]."""
FAR_RANGES = 20.0
"""Actions that are always so many half ranges from the middle of the trained ones are in another
unit."""
SAME_ACTION = 1e-3
"""Mean and action of a deterministic policy may differ by so many half ranges: by rounding."""


def try_base_policy(
    path: Path, robot: str | None = None, longest_s: float = LONGEST_S
) -> InspectionReport:
    """Inspect a model in a process of its own: what is in it may end a process, or run for ever.

    Args:
        path: ONNX file.
        robot: shipped robot or YAML to check it against.
        longest_s: longest inference that is waited for [s].

    Raises:
        ResidualRLError: the robot description itself is missing or wrong.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_report, args=(sender, path, robot, longest_s))
    process.start()
    sender.close()
    report = InspectionReport(str(path))
    try:
        if receiver.poll(LOADING_S + longest_s):
            found: InspectionReport | ResidualRLError = receiver.recv()
            if isinstance(found, ResidualRLError):
                raise found
            return found
        problem = f'it is not loaded, or does not run, within {LOADING_S + longest_s:g} s'
    except EOFError:
        process.join()
        problem = (
            f'it ended the process that tried it (exit code {process.exitcode}): does it divide '
            'whole numbers by zero, or need more memory than there is?'
        )
    finally:
        process.kill()
        process.join()
    report.problems.append(f'{path.name}: {problem}')
    return report


def _send_report(sender: Connection, path: Path, robot: str | None, longest_s: float) -> None:
    """Send what a check found, or why the robot cannot be used."""
    try:
        sender.send(check_base_policy(path, robot, longest_s))
    except ResidualRLError as error:
        sender.send(error)


def check_base_policy(
    path: Path,
    robot: str | None = None,
    longest_s: float = LONGEST_S,
    clock: Callable[[], float] = time.perf_counter,
) -> InspectionReport:
    """Inspect a model, run it on random observations and time it.

    Args:
        path: ONNX file.
        robot: shipped robot or YAML to check it against.
        longest_s: longest inference that is waited for [s].
        clock: source of seconds.

    Raises:
        ResidualRLError: the robot description itself is missing or wrong.
    """
    report = InspectionReport(str(path))
    try:
        config = None if robot is None else load_robot(robot)[0]
        policy = OnnxBasePolicy(path, inference=ON_CPU if config is None else config.base_policy)
        _describe(policy, report)
        _try_once(policy, longest_s)
        _run(policy, report, clock)
        if config is not None:
            policy.bind(config)
            report.facts['robot'] = f'fits {config.name}'
    except BasePolicyError as error:
        report.problems.append(str(error))
    return report


def _describe(policy: OnnxBasePolicy, report: InspectionReport) -> None:
    meta = policy.metadata
    report.remarks += policy.remarks
    way = 'stochastic' if policy.stochastic else 'deterministic'
    if policy.random_operators:
        way = f'draws random numbers in its graph ({", ".join(policy.random_operators)})'
    ranges = zip(meta.action_names, meta.action_min, meta.action_max, strict=True)
    report.facts |= {
        'kind': f'{meta.kind}, {way}',
        'task': meta.task or '(not stated)',
        'files': ', '.join(policy.files),
        'size': f'{policy.size / 1e6:.2f} MB, sha256 {policy.sha256}',
        'training data': f'sha256 {meta.dataset_sha256 or "(not stated)"}',
        'runs on': ', '.join(policy.providers),
        'rate': f'{meta.rate_hz:g} Hz, {meta.action_mode} actions',
        'chunk': f'{meta.horizon} actions from {meta.n_obs_steps} observation(s), executes '
        f'[{meta.exec_start}, {meta.exec_start + meta.exec_steps})',
        f'{len(meta.observation_names)} observations': ', '.join(meta.observation_names),
        **({'further inputs': '\n'.join(map(_input, meta.inputs))} if meta.inputs else {}),
        'prior': meta.prior.value + _temperature(meta.temperature),
        f'{len(meta.action_names)} actions': '\n'.join(
            f'{name} in [{low:.4g}, {high:.4g}]' for name, low, high in ranges
        ),
    }
    span = np.array(meta.action_max) - np.array(meta.action_min)
    unused = [meta.action_names[i] for i in np.flatnonzero(span < UNUSED_RANGE)]
    if unused:
        report.remarks.append(f'the base never moves {", ".join(unused)}: no residual there')


def _temperature(value: float | None) -> str:
    """Return what the temperature of a prior says of omega'."""
    if value is None:
        return ''
    return f", trained at temperature {value:.3g}: at that omega' (prior_weight) its reward counts"


def _input(each: Input) -> str:
    """Return what an input beside observation and noise is, in words."""
    if isinstance(each, ImageInput):
        told = f', {len(each.features)} features' if each.features else ''
        return f'{each.name}: images of {each.height} x {each.width}{told}'
    return f'{each.name}: {each.kind} of shape {list(each.shape)}'


def _try_once(policy: OnnxBasePolicy, longest_s: float) -> None:
    """Run one inference, for so long as a user waits; what hangs keeps nobody from leaving.

    Raises:
        BasePolicyError: inference failed, or took longer.
    """
    worker = InferenceWorker(TRIAL)
    noise = np.zeros((1, *policy.noise_shape), dtype=np.float32) if policy.stochastic else None
    window = made_up_window(policy.metadata, np.random.default_rng(0))
    try:
        worker.submit(policy.plan, window, noise).result(longest_s)
    except FutureTimeoutError as error:
        raise BasePolicyError(
            f'{policy.path.name}: an inference takes longer than {longest_s:g} s; does the graph '
            'have a loop without an end?'
        ) from error
    finally:
        worker.close()


def _run(policy: OnnxBasePolicy, report: InspectionReport, clock: Callable[[], float]) -> None:
    meta = policy.metadata
    rng = np.random.default_rng(0)
    times = []
    inputs: list[tuple[Float32, Float32 | None]] = []
    chunks = []
    for _ in range(TIMED_CALLS):
        window = made_up_window(meta, rng)
        noise = rng.standard_normal(policy.noise_shape, dtype=np.float32)
        inputs.append((window, noise if policy.stochastic else None))
        start = clock()
        rows = policy.plan(window, noise[None] if policy.stochastic else None)
        times.append(1e3 * (clock() - start))
        chunks.append(rows[:, : len(meta.action_names)])
        _check_density(policy, rows, report)
    _remark_far_actions(policy, np.concatenate(chunks), report)
    again = [policy.infer(*each) for each in inputs[:REPEATED_CALLS]]
    if not policy.random_operators and not np.array_equal(chunks[:REPEATED_CALLS], again):
        report.facts['kind'] = f'{meta.kind}, not reproducible'
        report.remarks.append(
            'the same observation gave different actions: no run with this model can be repeated'
        )
    median, slow = statistics.median(times), float(np.quantile(times, QUANTILE))
    report.facts['inference'] = (
        f'median {median:.2f} ms, {QUANTILE:.0%} within {slow:.2f} ms, worst {max(times):.2f} ms'
    )
    period = 1e3 / meta.rate_hz
    if slow > period:
        problem = Prefetch(1e-3 * slow, 1.0 / meta.rate_hz, 1, meta.exec_steps).problem
        report.remarks.append(
            problem
            or f'inferences take up to {slow:.1f} ms of a {period:.1f} ms control period: set '
            'prefetch_steps, or leave it at auto'
        )


def _remark_far_actions(policy: OnnxBasePolicy, chunks: Float32, report: InspectionReport) -> None:
    """Add a remark if actions are nowhere near the range that the metadata say.

    Args:
        policy: the policy.
        chunks: on observations that mean nothing, shape (..., m).
        report: gets the remark.
    """
    meta = policy.metadata
    low, high = np.array(meta.action_min), np.array(meta.action_max)
    half = np.maximum(0.5 * (high - low), UNUSED_RANGE)
    away = (np.abs(chunks - 0.5 * (low + high)) / half).reshape(-1, len(low)).min(0)
    far = int(away.argmax())
    if away[far] > FAR_RANGES:
        report.remarks.append(
            f'action {meta.action_names[far]!r} was {away[far]:.3g} half ranges from the middle of '
            f'{low[far]:g} to {high[far]:g} or further, whatever was observed: are action_min and '
            'action_max in the units of the actions?'
        )


def _check_density(policy: OnnxBasePolicy, rows: Float32, report: InspectionReport) -> None:
    """Add what of a chunk's density cannot be right: once each, with the name of the action.

    Args:
        policy: the policy.
        rows: see `BasePolicy.plan`, of one noise.
        report: gets the problems.
    """
    meta, m = policy.metadata, len(policy.metadata.action_names)
    if meta.prior is Prior.NONE:
        return
    actions, first, second = (rows[:, m * index : m * (index + 1)] for index in range(3))
    for told in (first, second)[: meta.prior.size(1)]:
        far = np.abs(told) > MAX_PRIOR
        _name_first(report, policy, far, f'has a density beyond {MAX_PRIOR:g}, which no bag holds')
    by_chance = policy.stochastic or bool(policy.random_operators)
    if meta.prior is Prior.CATEGORICAL:
        differs = (first.argmax(1) != actions.argmax(1))[:, None] & (actions > 0.0)
        if not by_chance:
            _name_first(report, policy, differs, 'is not that of the largest of the logits')
        return
    _name_first(
        report,
        policy,
        np.abs(second) > SANE_LOG_STD,
        f'has a log_std beyond {SANE_LOG_STD:g} of either sign, which no density needs: log_std is '
        'the natural logarithm of a standard deviation',
    )
    if by_chance:
        return
    low, high = np.array(meta.action_min), np.array(meta.action_max)
    half = np.maximum((high - low) / 2.0, 0.0)
    squashed = meta.prior is Prior.SQUASHED_GAUSSIAN
    mode = (low + high) / 2.0 + half * np.tanh(first) if squashed else first
    apart = np.abs(mode - actions) > SAME_ACTION * np.maximum(half, UNUSED_RANGE)
    _name_first(report, policy, apart, f'is not what the mean of its prior {meta.prior} says')


def _name_first(
    report: InspectionReport, policy: OnnxBasePolicy, wrong: npt.NDArray[np.bool_], what: str
) -> None:
    """Add a problem of the first wrong action, shape (horizon, m), unless it is known already."""
    for step, index in np.argwhere(wrong)[:1].tolist():
        if not any(what in problem for problem in report.problems):
            name = policy.metadata.action_names[index]
            report.problems.append(f'action {name!r} at chunk step {step} {what}')
