# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pages of every key that a user may set: presets, files, add-ons, parameters, command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from residual_rl_ros.config import DEFAULT_PRESET
from residual_rl_ros.resources import resource_path
from residual_rl_ros.schema import Key

PACKAGE = 'residual_rl_ros'
NODES = {
    'policy_node': 'PolicyParameters',
    'learner_node': 'LearnerParameters',
    'reward_node': 'RewardParameters',
    'takeover_node': 'TakeoverParameters',
    'recorder_node': 'RecorderParameters',
    'mujoco_sim_node': 'SimParameters',
}


class DriftError(Exception):
    """Code and documentation disagree."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'


def cell(text: str) -> str:
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
                f'`{cell(_type_name(key.hint))}`',
                _default(key.item),
                _range(key.item),
                '' if len(key.rules) == len(rules) else ', '.join(f'`{r}`' for r in key.rules),
                cell(_description(name, key.item)),
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
    text = Key.of(item).description
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
    key = Key.of(item)
    if key.choices:
        return ', '.join(f'`{each}`' for each in key.choices if each)
    low, high, above = key.minimum, key.maximum, key.above
    if above is not None:
        return f'> {above:g}' if high is None else f'> {above:g} to {high:g}'
    if low is None:
        return '' if high is None else f'<= {high:g}'
    return f'>= {low:g}' if high is None else f'{low:g} to {high:g}'


def _shipped_presets(module: Any) -> str:
    """Return what every shipped preset is for, and its numbers that are no defaults."""
    summaries, parts = [], []
    for name in module.preset_names():
        text = resource_path('config', 'presets', f'{name}.yaml').read_text(encoding='utf-8')
        comment = ' '.join(re.findall(r'^# (.*)', _head(text), re.M))
        comment = re.sub(r'What is not here is a default[^.;]*[.;] ?', '', comment)
        first = comment.partition('. ')[0].removesuffix('.')
        shown = ' (the default)' if name == DEFAULT_PRESET else ''
        summaries.append([f'[`{name}`](#{name}){shown}', cell(first)])
        preset = module.load_preset(name)
        items = [*dataclasses.fields(module.LoopConfig), *dataclasses.fields(preset.rule)]
        defaults = {item.name: _default(item) for item in items}
        rows = [
            [f'`{key}`', f'`{value!r}`', defaults[key]]
            for key, value in preset.to_mapping().items()
            if key != 'algorithm' and f'`{value!r}`' != defaults[key]
        ]
        rows.insert(0, ['`algorithm`', f'`{preset.algorithm}`', ''])
        parts.append(f'### {name}\n\n{cell(comment)}\n\n{table(["key", "value", "default"], rows)}')
    summary = table(['preset', 'what it is'], summaries)
    return '\n'.join(
        ('## Shipped presets\n', summary, 'Keys that are not listed have their defaults.\n', *parts)
    )


def _head(text: str) -> str:
    """Return the comment that a file begins with."""
    return text[: re.search(r'^[^#]', text, re.M).start()]  # type: ignore[union-attr]


def files_page() -> str:
    """Return the page of every key of the YAML files of runs, robots and takeovers."""
    run = import_module(f'{PACKAGE}.config.run').RunConfig
    operator = import_module(f'{PACKAGE}.config.operator').OperatorConfig
    robot = import_module(f'{PACKAGE}.robot.keys')
    body = import_module(f'{PACKAGE}.robot.body_section')
    urdf = import_module(f'{PACKAGE}.robot.urdf')
    inference = import_module(f'{PACKAGE}.robot.inference')
    preparation = import_module(f'{PACKAGE}.robot.preparation_spec')
    takeover = import_module(f'{PACKAGE}.control.takeover_controls')
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
        ('Robot: `robot.robot_description`, optional', urdf.UrdfKeys, {}),
        ('Robot: `robot.action.workspace`, optional, with one box', body.WorkspaceKeys, {}),
        ('Robot: `robot.action.workspace` with `boxes`', body.KinematicsKeys, {}),
        ('Robot: `robot.action.workspace.boxes.<name>`', body.BoxKeys, {}),
        ('Robot: `robot.action.self_collision`, optional', body.SelfCollisionKeys, {}),
        ('Robot: `robot.observation.<channel>`', robot.ChannelKeys, robot.CHANNEL_KEYS),
        ('Robot: `robot.home`, optional', preparation.HomeKeys, {}),
        ('Robot: `robot.reset`, optional', preparation.ResetSpec, {}),
        ('Robot: `robot.base_policy`, optional', inference.InferenceConfig, {}),
        ('Takeover: `config/takeover/*.yaml`', takeover.TakeoverKeys, {}),
        ('Takeover: each entry of `axes`', takeover.AxisKeys, {}),
        ('Takeover: `buttons`, each a control', takeover.ButtonKeys, {}),
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
# Runs, robots and takeovers in YAML

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
            f'`{cell(_type_name(hints[item.name]))}`',
            _default(item),
            _range(item),
            cell(_description(item.name, item)),
        ]
        for item in dataclasses.fields(kind)
        if not dataclasses.is_dataclass(hints[item.name])  # It has a section of its own.
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
    """Return the page of every ROS parameter, a definition each."""
    module = import_module(f'{PACKAGE}.ros.common.node_parameters')
    parts = [PARAMETERS_HEAD]
    for node, name in NODES.items():
        kind = getattr(module, name)
        hints = typing.get_type_hints(kind)
        parts.append(f'## {node}\n')
        parts += [_parameter(item, hints[item.name]) for item in dataclasses.fields(kind)]
    return '\n'.join(parts)


def _parameter(item: dataclasses.Field[Any], hint: Any) -> str:
    facts = [_ros_type(hint), f'default `{_ros_default(item.default)}`', _range(item)]
    if Key.of(item).live:
        facts.append('while running')
    about = f'`{item.name}`: ' + ', '.join(fact for fact in facts if fact)
    meaning = textwrap.wrap(
        Key.of(item).description, 98, break_long_words=False, break_on_hyphens=False
    )
    return f'{about}\n: ' + '\n  '.join(meaning) + '\n'


PARAMETERS_HEAD = """\
<!-- Made by `python docs/_ext/generated.py`; change node_parameters.py instead. -->

# Parameters

Values come from `-p name:=value` or from a parameter file (`--params-file`; a robot YAML may hold
them too). The launch files and `residual-rl up` have arguments for those that differ from run to
run. A node refuses a value of the wrong type or outside its range, and names the value and what it
expected. It logs a parameter that it does not know. What says "while running" may be changed on a
moving robot, by `ros2 param set`. Everything else is read when the node is configured.

`robot.*` is the robot description: see [the robot file](../how-to/robot_file.md). `overrides.*` of
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
    return [name, default, cell(getattr(item, 'help', None) or '')]
