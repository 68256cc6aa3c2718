# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The arguments of the files in `launch/`: what they mean, and what is wrong with them.

Nothing here needs `launch`: a mistake is found, and tested, without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from residual_rl_ros.base_policy.prefetch import WORD, parse_prefetch
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config import DEFAULT_PRESET, ROBOT_SCALE
from residual_rl_ros.errors import ConfigError, FormatError
from residual_rl_ros.files.yaml_text import parse_yaml, read_yaml
from residual_rl_ros.resources import find_base_policy
from residual_rl_ros.robot.description import load_robot
from residual_rl_ros.ros.bringup.node_spec import NodeSpec
from residual_rl_ros.ros.bringup.topology import RobotRun

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
OWN_CLOCK = 'mujoco_sim_node'
"""The simulator publishes the clock that the others read with `use_sim_time`."""


def truth(text: str) -> bool:
    """Return whether a text says yes.

    Raises:
        ValueError: it says neither yes nor no; the message is what was expected.
    """
    if text.lower() not in TRUTHS:
        raise ValueError('true or false')
    return TRUTHS[text.lower()]


def count(text: str) -> int:
    """Return a whole number that is not negative.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError('a whole number from 0 on')
    return int(text)


def positive(text: str) -> int:
    """Return a whole number above zero.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    found = count(text) if text.isdecimal() else 0
    if not found:
        raise ValueError('a whole number from 1 on')
    return found


def path(text: str) -> Path:
    """Return a path; a shell expands no `~` after `:=`."""
    return Path(text).expanduser()


def numbers(text: str) -> tuple[float, ...]:
    """Return a number, or a list of numbers.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    try:
        return tuple(map(float, text.strip().removeprefix('[').removesuffix(']').split(',')))
    except ValueError:
        raise ValueError(
            'a number such as 0.05, or a list of one for each action such as [0.05, 0.1]'
        ) from None


def number(text: str) -> float:
    """Return a number.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError('a number') from None


def prefetch(text: str) -> int:
    """Return a number of control steps, or what stands for `auto`.

    Raises:
        ValueError: it is neither.
    """
    try:
        return parse_prefetch(text)
    except ConfigError:
        raise ValueError(f'{WORD}, or a whole number from 0 on') from None


def names(text: str) -> tuple[str, ...]:
    """Return a list of names.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    found = _yaml(text)
    if not isinstance(found, list) or not found:
        raise ValueError('a list such as [left, right]')
    return tuple(map(str, found))


def mapping(text: str) -> dict[str, Any]:
    """Return a map of names to values.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    found = _yaml(text)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError('a map such as {batch_size: 256, gamma: 0.99}')
    return found


def parameter_file(text: str) -> Path:
    """Return a file of ROS parameters.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    file = path(text)
    expected = 'a YAML file of NODE: ros__parameters: ...'
    try:
        found = read_yaml(file)
    except (FormatError, OSError) as error:
        raise ValueError(f'{expected} ({error})') from error
    nodes = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(node, dict) and 'ros__parameters' in node for node in nodes):
        raise ValueError(expected)
    return file.resolve()


def log_level(text: str) -> str:
    """Return a log level of ROS 2.

    Raises:
        ValueError: the text is something else; the message is what was expected.
    """
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f'one of {", ".join(LOG_LEVELS)}')
    return text.lower()


def optional(parse: Callable[[str], Any], otherwise: Any = None) -> Callable[[str], Any]:
    """Return a parser for which an empty text is a value of its own."""
    return lambda text: parse(text) if text else otherwise


def _yaml(text: str) -> Any:
    try:
        return parse_yaml(text, 'argument')
    except FormatError:
        return None


@dataclass(frozen=True)
class Argument:
    """A launch argument."""

    name: str
    default: str
    description: str
    parse: Callable[[str], Any] = str
    """Returns its value, or raises a ValueError that says what was expected."""


def parsed(
    arguments: Sequence[Argument], texts: Mapping[str, str], tell: Callable[[str], object]
) -> dict[str, Any]:
    """Return the values of launch arguments.

    Args:
        arguments: which there are.
        texts: what was given for each.
        tell: called with a line for each one that is wrong, if there are several.

    Raises:
        ConfigError: one is wrong; of several, the last one.
    """
    values, problems = {}, []
    for argument in arguments:
        text = texts[argument.name]
        try:
            values[argument.name] = argument.parse(text)
        except ValueError as error:
            problems.append(f'{argument.name} is {text!r}, expected {error}')
    for problem in problems[:-1]:
        tell(problem)
    if problems:
        raise ConfigError(problems[-1])
    return values


SHARED_ARGUMENTS = (
    Argument('use_sim_time', 'false', 'true: the time of /clock', truth),
    Argument(
        'params_file',
        '',
        'YAML file of further ROS parameters; what has a launch argument stays as that says',
        optional(parameter_file),
    ),
    Argument('log_level', 'info', f'one of {", ".join(LOG_LEVELS)}', log_level),
    Argument(
        'overrides',
        '',
        'numbers that replace those of the preset, as {key: value, ...}',
        optional(mapping, {}),
    ),
    Argument(
        'autostart', 'true', 'false: leave configuring and activating to a lifecycle manager', truth
    ),
)
"""Arguments of every launch file."""
ROBOT_ARGUMENTS = (
    Argument('config', 'ur_forward_position', 'robot YAML, or the name of a shipped one'),
    Argument('model', '', 'ONNX base policy, or the name of a shipped one'),
    Argument(
        'checkpoint',
        'runs/robot',
        'folder of the learner; one that holds a checkpoint is resumed',
        path,
    ),
    Argument(
        'learner', 'true', 'false: run the residual of the checkpoint and learn nothing', truth
    ),
    Argument('preset', '', f'learner preset; empty is that of the checkpoint, or {DEFAULT_PRESET}'),
    Argument(
        'decision_steps',
        '',
        "control steps per residual decision; empty: the checkpoint's, or near 20 decisions/s",
        optional(positive),
    ),
    Argument(
        'residual_scale',
        '',
        'lambda: a number, or a list of one for each action; empty: that of the checkpoint, or '
        f'{ROBOT_SCALE:g}',
        optional(numbers),
    ),
    Argument(
        'prefetch_steps',
        WORD,
        'control steps before its first use at which a chunk is requested; auto measures inference',
        prefetch,
    ),
    Argument('chunk_blend_steps', '0', 'control steps over which a new chunk takes over', count),
    Argument('temporal_ensemble', '0.0', 'mean of all chunks; see the node parameter', number),
    Argument('ensemble_steps', '0', 'control steps between two chunks of that mean', count),
    Argument(
        'proposals', '1', "draws of the base policy's noise that a decision is given", positive
    ),
    Argument('customisable', 'false', 'transitions tell the add-on reward and its weight', truth),
    Argument(
        'prior_width',
        '0.0',
        'density of a base policy that tells none; see the node parameter',
        numbers,
    ),
    Argument('auto_start', 'false', 'start episodes without ~/start_episode', truth),
    Argument('seed', '0', 'seed of policy noise and learner', count),
    Argument('classifier', '', 'ONNX success classifier that judges the episodes', optional(path)),
    Argument('reward', '', 'instead: package.module:factory of a reward function'),
    Argument(
        'demonstrations',
        '',
        'list of bags, LeRobot datasets, robomimic files or files of train-base that a new learner '
        'begins with',
        optional(names, ()),
    ),
    Argument(
        'observation_map',
        '',
        'list of NAME=KEY[INDEX] where their names differ, or of YAML files',
        optional(names, ()),
    ),
    Argument(
        'takeover',
        '',
        "what an operator's pad does: a file of config/takeover, or the name of a shipped one",
    ),
    Argument(
        'record',
        '',
        'folder of a new bag of observations, commands and transitions',
        optional(path),
    ),
    *SHARED_ARGUMENTS,
)
"""Arguments of `robot.launch.py` and `fleet.launch.py`."""


def robot_run(value: Mapping[str, Any], namespaces: tuple[str, ...]) -> RobotRun:
    """Return the run that the values of `ROBOT_ARGUMENTS` describe."""
    _, robot_file = load_robot(value['config'])
    learning = value['learner']
    same = (
        'preset',
        'overrides',
        'decision_steps',
        'residual_scale',
        'proposals',
        'customisable',
        'prior_width',
        'seed',
        'auto_start',
        'classifier',
        'reward',
        'record',
        'takeover',
        'demonstrations',
        'observation_map',
    )
    return RobotRun(
        robot_file,
        find_base_policy(value['model']),
        value['checkpoint'] if learning else None,
        actor=None if learning else value['checkpoint'],
        namespaces=namespaces,
        splicing=Splicing(**{item.name: value[item.name] for item in fields(Splicing)}),
        **{name: value[name] for name in same},
    )


def configured(nodes: Sequence[NodeSpec], value: Mapping[str, Any]) -> tuple[NodeSpec, ...]:
    """Return nodes as `SHARED_ARGUMENTS` want them; `overrides` is the learner's own."""
    simulated = any(node.executable == OWN_CLOCK for node in nodes)
    return tuple(_configured(node, value, simulated) for node in nodes)


def _configured(node: NodeSpec, value: Mapping[str, Any], simulated: bool) -> NodeSpec:
    parameters = dict(node.parameters)
    files, remappings = node.parameter_files, dict(node.remappings)
    if value['use_sim_time'] and node.executable != OWN_CLOCK:
        parameters['use_sim_time'] = True
        if simulated:  # Its clock is in its namespace.
            remappings['/clock'] = 'clock'
    if node.lifecycle and not value['autostart']:
        parameters['autostart'] = False
    if value['params_file'] is not None:
        files = (*files, value['params_file'])
    return replace(
        node,
        parameter_files=files,
        parameters=parameters,
        remappings=remappings,
        log_level=value['log_level'],
    )


TRUTHS = {
    **dict.fromkeys(('true', '1', 'yes', 'on'), True),
    **dict.fromkeys(('false', '0', 'no', 'off'), False),
}
