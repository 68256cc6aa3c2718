# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The page of every metric and every value of /diagnostics, which are read from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from key_tables import NODES, PACKAGE, DriftError, cell, table

ROOT = Path(__file__).resolve().parents[2]


def dictionary_keys(functions: Iterable[ast.AST]) -> list[str]:
    """Return the keys of the dictionaries that functions build, in order; `*` is what varies.

    Counted are literals, and assignments to `values[...]` or `metrics[...]`.
    """
    keys: list[str] = []
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Dict):
                keys += [_key(key) for key in node.keys if key is not None]
            elif isinstance(node, ast.DictComp) and isinstance(node.key, ast.JoinedStr):
                keys.append(_key(node.key))
            elif isinstance(node, ast.DictComp):
                keys += [_key(each) for each in _elements(node.generators[0].iter)]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                target = node.targets[0]
                if isinstance(target.value, ast.Name) and target.value.id in ('metrics', 'values'):
                    keys.append(_key(target.slice))
    return list(dict.fromkeys(key for key in keys if key))


def _key(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(_key(part) or '*' for part in node.values)
    return ''


def _elements(node: ast.AST) -> Sequence[ast.AST]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List)) else ()


def functions_of(path: Path) -> list[ast.FunctionDef]:
    """Return every function and method of a module."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def metric_keys() -> list[str]:
    """Return the names of the learner's metrics, without the prefix of TensorBoard."""
    package = ROOT / PACKAGE
    functions = [
        function
        for path in sorted((package / 'algorithms').rglob('*.py'))
        for function in functions_of(path)
        if ast.unparse(function.returns or ast.Constant('')).startswith('dict[str')
        and not function.name.startswith('_')
        and function.name not in ('export', 'state', 'state_dict')
    ]
    functions += [
        function
        for module, name in (('updates', 'measure'), ('learner', '_metrics'))
        for function in functions_of(package / 'learner' / f'{module}.py')
        if function.name == name
    ]
    return dictionary_keys(functions)


def diagnostics_keys(node: str) -> list[str]:
    """Return the keys of a node's status on /diagnostics that its own files name."""
    folder = ROOT / PACKAGE / 'ros' / 'nodes'
    functions = [each for each in functions_of(folder / f'{node}.py') if each.name == '_report']
    if node == 'learner_node':
        values = functions_of(folder / 'learner_values.py')
        functions += [each for each in values if each.name == 'of']
    if node == 'policy_node':
        functions += functions_of(folder / 'policy_values.py')
        loop = functions_of(ROOT / PACKAGE / 'control' / 'real_time_loop.py')
        functions += [each for each in loop if each.name == 'report']
    return dictionary_keys(functions)


def policy_loop_keys() -> dict[str, list[str]]:
    """Return the keys of policy_node that come from other modules, by where they are made."""
    loop = import_module(f'{PACKAGE}.control.policy_loop')
    real_time = import_module(f'{PACKAGE}.control.real_time_loop')
    latency = import_module(f'{PACKAGE}.latency').Latency()
    stages = (*real_time.STAGES, 'actor', 'inference', 'plan')
    return {
        'counts': list(loop.COUNTERS),
        'stages': list(stages),
        'statistics': [key.removeprefix('x_') for key in latency.report('x')],
    }


def metrics_page() -> str:
    """Return the page of every metric and every key of /diagnostics."""
    from meanings import DIAGNOSTICS, METRICS, RUN, STAGES, STATISTICS

    shared = policy_loop_keys()
    mailbox = import_module(f'{PACKAGE}.residual_policy.mailbox')
    parts = ['# Metrics and diagnostics\n\nListed from the code.\n', '## Metrics of the learner\n']
    parts.append(
        'In TensorBoard they are `learner/<name>` over control steps; on `/diagnostics` they are '
        'keys of `learner_node`.\n'
    )
    parts.append(_meanings(METRICS, metric_keys(), 'metrics'))
    path = ROOT / PACKAGE / 'learner' / 'metrics_log.py'
    written = dictionary_keys(each for each in functions_of(path) if each.name == 'write')
    parts.append('TensorBoard has these beside them:\n')
    parts.append(_meanings(RUN, [key for key in written if key.startswith('run/')], 'metrics_log'))
    for node in NODES:
        keys = diagnostics_keys(node)
        if node == 'policy_node':
            keys += shared['counts']
        parts.append(f'## Diagnostics of {node}\n')
        parts.append(_meanings(DIAGNOSTICS[node], keys, node))
        if node == 'policy_node':
            parts.append(
                'Reasons in `weights_refused_<reason>`: '
                + ', '.join(f'`{each}`' for each in mailbox.REFUSALS)
                + ' (see [topics](../topics.md#weights)).\n'
            )
            parts.append(
                'In real time the node adds durations, `<stage>_<statistic>` since the last '
                'message and `<stage>_overall_<statistic>` since the start:\n'
            )
            parts.append(_meanings(STAGES, shared['stages'], 'stages', 'stage'))
            parts.append(_meanings(STATISTICS, shared['statistics'], 'statistics', 'statistic'))
    return '\n'.join(parts)


def _meanings(
    meanings: Mapping[str, str], keys: Sequence[str], where: str, what: str = 'key'
) -> str:
    """Return a table of keys and meanings.

    Raises:
        DriftError: a key has no meaning, or a meaning no key.
    """
    if set(keys) != set(meanings):
        raise DriftError(
            f'{where}: keys without a meaning {sorted(set(keys) - set(meanings))}, meanings '
            f'without a key {sorted(set(meanings) - set(keys))}; put docs/_ext/meanings.py right'
        )
    return table([what, 'meaning'], [[f'`{_variable(key)}`', cell(meanings[key])] for key in keys])


def _variable(key: str) -> str:
    """Show what varies in a key by its name."""
    names = {'weights_refused_*': '<reason>', 'replay_*_share': '<source>', '*/*': '<robot>'}
    if key == '*/*':
        return '<robot>/<count>'
    return key.replace('*', names.get(key, '<…>'))
