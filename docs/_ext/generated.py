# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx extension: write the reference pages that repeat what the code says.

Before a build it writes `docs/reference/generated/` (keys of presets, runs and robots, command
line, metrics, diagnostics) and `docs/api/` (one page a room), neither of which is committed. A
metric without a meaning in `meanings.py`, or a meaning without a metric, fails the build.

`python docs/_ext/generated.py` writes the one generated page that is committed,
`docs/reference/parameters.md`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
PACKAGE = 'residual_rl_ros'
ROS_PACKAGES = (
    *('builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs', 'launch', 'launch_ros'),
    *('lifecycle_msgs', 'nav_msgs', 'rcl_interfaces', 'rclpy', 'rosgraph_msgs', 'sensor_msgs'),
    *('std_msgs', 'std_srvs', 'trajectory_msgs'),
)
"""Always mocked, so that the site is the same with and without ROS."""
NODES = {
    'policy_node': 'PolicyParameters',
    'learner_node': 'LearnerParameters',
    'reward_node': 'RewardParameters',
    'recorder_node': 'RecorderParameters',
    'mujoco_sim_node': 'SimParameters',
}
UNDOCUMENTED_ROOMS = ('cli',)
"""The command line has a page of its own."""


class DriftError(Exception):
    """Code and documentation disagree."""


# --- what the code says


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


# --- pages


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'


def _cell(text: str) -> str:
    """Escape what Markdown would take for markup, outside code."""
    pieces = text.replace('|', r'\|').split('`')
    pieces[::2] = [piece.replace('<', r'\<') for piece in pieces[::2]]
    return '`'.join(pieces)


def _type_name(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return re.sub(r'\b(?:typing|collections\.abc|\w+(?:\.\w+)+)\.', '', text)


def presets_page() -> str:
    """Return the page of every preset key, by section."""
    module = import_module(f'{PACKAGE}.config.preset')
    rules = import_module(f'{PACKAGE}.algorithms.rule').RULES
    sections: dict[str, dict[str, PresetKey]] = {}
    for rule, (_, config) in sorted(rules.items()):
        hints = {**typing.get_type_hints(module.LoopConfig), **typing.get_type_hints(config)}
        for section, items in module.sections(config).items():
            keys = sections.setdefault(section, {})
            for name, item in items.items():
                keys.setdefault(name, PresetKey(item, hints[name])).rules.append(rule)
    parts = [PRESETS_HEAD.format(', '.join(f'`{rule}`' for rule in sorted(rules)))]
    for section, keys in sections.items():
        rows = [
            [
                f'`{name}`',
                f'`{_cell(_type_name(key.hint))}`',
                _default(key.item),
                _range(key.item),
                '' if len(key.rules) == len(rules) else ', '.join(f'`{r}`' for r in key.rules),
                _cell(_description(name, key.item)),
            ]
            for name, key in keys.items()
        ]
        header = ['key', 'type', 'default', 'range', 'only with', 'meaning']
        parts.append(f'## {section}\n\n{table(header, rows)}')
    parts.append(_shipped_presets(module))
    return '\n'.join(parts)


PRESETS_HEAD = """\
# Preset keys

Made from the dataclasses that check a preset. `--set key=value` of the command line replaces one.
Beside the sections, `algorithm` names the update rule ({}; default `sac`), and `extends` another
preset to start from.
"""


@dataclasses.dataclass
class PresetKey:
    """A key of a preset."""

    item: dataclasses.Field[Any]
    hint: Any
    """Its type."""
    rules: list[str] = dataclasses.field(default_factory=list)
    """Update rules that have it."""


def _description(name: str, item: dataclasses.Field[Any]) -> str:
    text: str = item.metadata.get('description', '')
    if not text:
        raise DriftError(f'{name} is not described')
    return text


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is not dataclasses.MISSING:
        return f'`{item.default!r}`' if item.default != '' else ''
    if item.default_factory is not dataclasses.MISSING:
        return f'`{item.default_factory()!r}`'
    return 'required'


def _range(item: dataclasses.Field[Any]) -> str:
    """Return what a value is checked against, as far as the field's metadata say it."""
    if item.metadata.get('choices'):
        return ', '.join(f'`{each}`' for each in item.metadata['choices'] if each)
    low, high = item.metadata.get('bounds', (None, None))
    above = item.metadata.get('above')
    if above is not None:
        return f'> {above:g}' if high is None else f'> {above:g} to {high:g}'
    if low is None:
        return '' if high is None else f'<= {high:g}'
    return f'>= {low:g}' if high is None else f'{low:g} to {high:g}'


def _shipped_presets(module: Any) -> str:
    """Return the numbers of every shipped preset, side by side."""
    names = module.preset_names()
    values = [_flat(module.load_preset(name).to_mapping()) for name in names]
    keys = dict.fromkeys(key for each in values for key in each)
    rows = [
        [f'`{key}`', *(f'`{each[key]}`' if key in each else '' for each in values)] for key in keys
    ]
    text = (
        '## Shipped presets\n\nAn empty cell is a key that the rule of the preset does not have.\n'
    )
    return f'{text}\n{table(["key", *(f"`{name}`" for name in names)], rows)}'


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def files_page() -> str:
    """Return the page of every key of the YAML files of runs and robots."""
    run = import_module(f'{PACKAGE}.config.run').RunConfig
    operator = import_module(f'{PACKAGE}.config.operator').OperatorConfig
    robot = import_module(f'{PACKAGE}.robot.keys')
    inference = import_module(f'{PACKAGE}.robot.inference')
    sections: list[tuple[str, type, Mapping[str, type]]] = [
        ('Run: `config/finetune/*.yaml`', run, {}),
        ('Run: `operator: simulated:key=value`', operator, {}),
        ('Robot: `robot`', robot.RobotKeys, {}),
        (
            'Robot: `robot.command`, or each of its `channels`',
            robot.CommandKeys,
            robot.COMMAND_KEYS,
        ),
        ('Robot: `robot.action`', robot.ActionKeys, {}),
        ('Robot: `robot.action` with `kind: discrete`', robot.DiscreteActionKeys, {}),
        ('Robot: `robot.robot_description`, optional', robot.UrdfKeys, {}),
        ('Robot: `robot.action.workspace`, optional, with one box', robot.WorkspaceKeys, {}),
        ('Robot: `robot.action.workspace` with `boxes`', robot.KinematicsKeys, {}),
        ('Robot: `robot.action.workspace.boxes.<name>`', robot.BoxKeys, {}),
        ('Robot: `robot.action.self_collision`, optional', robot.SelfCollisionKeys, {}),
        ('Robot: `robot.observation.<channel>`', robot.ChannelKeys, robot.CHANNEL_KEYS),
        ('Robot: `robot.base_policy`, optional', inference.InferenceConfig, {}),
    ]
    parts = [FILES_HEAD]
    for title, kind, variants in sections:
        rows = _key_rows(kind)
        for variant in dict.fromkeys(each for each in variants.values() if each is not kind):
            types = [
                name.split('/')[-1] for name, each in variants.items() if issubclass(each, variant)
            ]
            own = set(variant.__annotations__)
            rows += [
                [*row[:-1], f'{row[-1]} ({", ".join(types)})']
                for row in _key_rows(variant)
                if row[0].strip('`') in own
            ]
        header = ['key', 'type', 'default', 'range', 'meaning']
        parts.append(f'## {title}\n\n{table(header, rows)}')
    return '\n'.join(parts)


FILES_HEAD = """\
# Runs and robots in YAML

Made from the dataclasses that check these files. An error names every wrong key of a file at once.
A robot file is a ROS parameter file: its keys stand below `/**: ros__parameters:`.
`robot.observation.channels` lists the channels in the order of the observation.
"""


def _key_rows(kind: type) -> list[list[str]]:
    """Return a row for each key that a dataclass checks."""
    hints = typing.get_type_hints(kind)
    return [
        [
            f'`{item.name}`',
            f'`{_cell(_type_name(hints[item.name]))}`',
            _default(item),
            _range(item),
            _cell(_description(item.name, item)),
        ]
        for item in dataclasses.fields(kind)
    ]


def add_ons_page() -> str:
    """Return the page of every add-on reward: what it is worth, and its keys."""
    import_module(f'{PACKAGE}.rewards')
    add_ons = import_module(f'{PACKAGE}.rewards.add_on').ADD_ONS
    parts = [ADD_ONS_HEAD]
    for name, kind in sorted(add_ons.items()):
        header = ['key', 'type', 'default', 'range', 'meaning']
        worth = inspect.cleandoc(kind.__doc__)
        parts.append(f'## {name}\n\n{worth}\n\n{table(header, _key_rows(kind))}')
    return '\n'.join(parts)


ADD_ONS_HEAD = """\
# Keys of add-on rewards

Made from the classes that check them. Beside its keys each has a `name` and a `weight` (1). See
[add-on rewards](../add_ons.md).
"""


def parameters_page() -> str:
    """Return the page of every ROS parameter."""
    module = import_module(f'{PACKAGE}.ros.common.node_parameters')
    parts = [PARAMETERS_HEAD]
    for node, name in NODES.items():
        kind = getattr(module, name)
        hints = typing.get_type_hints(kind)
        rows = []
        for item in dataclasses.fields(kind):
            default = _ros_default(item.default)
            rows.append(
                [
                    f'`{item.name}`',
                    _ros_type(hints[item.name]),
                    f'`{default}`',
                    _range(item),
                    'yes' if item.metadata['live'] else '',
                    item.metadata['description'],
                ]
            )
        header = ['parameter', 'type', 'default', 'range', 'while running', 'meaning']
        parts.append(f'## {node}\n\n{table(header, rows)}')
    return '\n'.join(parts)


PARAMETERS_HEAD = """\
<!-- Made by `python docs/_ext/generated.py`; change node_parameters.py instead. -->

# Parameters

Values come from `-p name:=value` or from a parameter file (`--params-file`; a robot YAML may hold
them too). The launch files and `residual-rl up` have arguments for those that differ from run to
run. A node refuses a value of the wrong type or outside its range, and names the value and what it
expected. It logs a parameter that it does not know. "While running" marks what `ros2 param set` may
change on a moving robot. Everything else is read when the node is configured.

`robot.*` is the robot description: see [your robot](../how-to/your_robot.md). `overrides.*` of
learner_node replaces [keys of the preset](generated/presets.md).
"""


def _ros_default(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return repr(list(value))
    return value if isinstance(value, str) and value else repr(value)


def _ros_type(hint: Any) -> str:
    names = {str: 'string', int: 'int', float: 'double', bool: 'bool'}
    inner = typing.get_args(hint)
    return f'{names[inner[0]]}[]' if inner else names[hint]


def cli_page() -> str:
    """Return the page of every command and option."""
    import typer

    root = typer.main.get_command(import_module(f'{PACKAGE}.cli.main').app)
    parts = ['# Command line\n\nMade from the commands themselves.\n']

    def visit(command: Any, path: str) -> None:
        if hasattr(command, 'commands'):  # typer may bring a click of its own.
            if path != 'residual-rl':
                parts.append(f'## {path}\n\n{command.help or ""}\n')
            for name, each in command.commands.items():
                visit(each, f'{path} {name}')
            return
        help_text = inspect.cleandoc(command.help or '').replace('<', r'\<')
        parts.append(f'## {path}\n\n{help_text}\n')
        rows = [_option_row(item) for item in command.params if not _hidden(item)]
        if rows:
            parts.append(table(['argument or option', 'default', 'meaning'], rows))

    visit(root, 'residual-rl')
    return '\n'.join(parts)


def _hidden(item: Any) -> bool:
    return item.name == 'help' or getattr(item, 'hidden', False)


def _option_row(item: Any) -> list[str]:
    flags = [f'`{each}`' for each in (*item.opts, *item.secondary_opts) if each.startswith('-')]
    name = ', '.join(flags) or f'`{item.name.upper()}`'
    default = '' if item.default is None or callable(item.default) else f'`{item.default}`'
    if item.required:
        default = 'required'
    return [name, default, _cell(getattr(item, 'help', None) or '')]


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
    return table([what, 'meaning'], [[f'`{_variable(key)}`', _cell(meanings[key])] for key in keys])


def _variable(key: str) -> str:
    """Show what varies in a key by its name."""
    names = {'weights_refused_*': '<reason>', 'replay_*_share': '<source>', '*/*': '<robot>'}
    if key == '*/*':
        return '<robot>/<count>'
    return key.replace('*', names.get(key, '<…>'))


def api_pages() -> dict[str, str]:
    """Return a page for each room, by its name, and an index."""
    package = import_module(PACKAGE)
    rooms: dict[str, list[str]] = {'root': []}
    for module in pkgutil.walk_packages(package.__path__, f'{PACKAGE}.'):
        room = module.name.split('.')[1]
        if room in UNDOCUMENTED_ROOMS:
            continue
        top = module.name.count('.') == 1
        rooms.setdefault('root' if top and not module.ispkg else room, []).append(module.name)
    pages = {}
    for room, modules in rooms.items():
        title = 'Root modules' if room == 'root' else room
        parts = [f'# {title}\n']
        for name in modules:
            if name != f'{PACKAGE}.{room}':
                parts.append(f'## {name.removeprefix(f"{PACKAGE}.")}\n')
            options = '' if name == f'{PACKAGE}.{room}' else '   :members:\n   :undoc-members:\n'
            parts.append(f'```{{eval-rst}}\n.. automodule:: {name}\n{options}```\n')
        pages[room] = '\n'.join(parts)
    listed = '\n'.join(sorted(rooms))
    pages['index'] = (
        '# API\n\nMade from the docstrings, one page a room; '
        '[architecture](../architecture.md) says what is where.\n\n'
        f'```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n'
    )
    return pages


# --- Sphinx


def write(path: Path, text: str) -> None:
    """Write a page if it has changed, so that Sphinx rebuilds no more than it must."""
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')


def write_pages(app: Any) -> None:
    """Write every page that is not committed."""
    from sphinx.ext.autodoc.mock import mock

    folder = DOCS / 'reference' / 'generated'
    with mock(app.config.autodoc_mock_imports):
        try:
            write(folder / 'presets.md', presets_page())
            write(folder / 'files.md', files_page())
            write(folder / 'add_ons.md', add_ons_page())
            write(folder / 'cli.md', cli_page())
            write(folder / 'metrics.md', metrics_page())
        finally:
            # Made with mocks: autodoc imports them anew with its own.
            for name in [each for each in sys.modules if each.startswith(f'{PACKAGE}.ros')]:
                del sys.modules[name]
    for name, text in api_pages().items():
        write(DOCS / 'api' / f'{name}.md', text)


SPAN = re.compile(r'``.*?``|`[^`]*`')
SPECIAL = re.compile(r'(?<!\\)([*|])|(?<=\w)_(?!\w)')


def escape_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Mark code with two backticks, as reStructuredText does, and escape the rest of its markup."""
    del app, what, name, obj, options
    text = '\n'.join(lines)
    pieces, last = [], 0
    for span in SPAN.finditer(text):
        code = span.group() if span.group().startswith('``') else f'`{span.group()}`'
        pieces += [SPECIAL.sub(r'\\\g<0>', text[last : span.start()]), code]
        last = span.end()
    pieces.append(SPECIAL.sub(r'\\\g<0>', text[last:]))
    lines[:] = ''.join(pieces).split('\n')


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect('builder-inited', write_pages)
    app.connect('autodoc-process-docstring', escape_docstring, priority=400)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}


def main() -> None:
    """Write the committed page."""
    from sphinx.ext.autodoc.mock import mock

    sys.path.insert(0, str(ROOT))
    with mock(list(ROS_PACKAGES)):
        write(DOCS / 'reference' / 'parameters.md', parameters_page())


if __name__ == '__main__':
    main()
