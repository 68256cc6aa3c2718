# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The protocol of a benchmark: a file that says what runs, on what, and how it is judged.

A protocol is frozen: its SHA-256 is part of every run, and results of another one are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from residual_rl_ros.config.run import RunConfig, load_run
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.schema import from_mapping, map_parameter, parameter, read_yaml

Kind = TypeVar('Kind')
RESIDUAL, RETRAIN = 'residual', 'retrain'
"""Kinds of methods: a learner of a preset, and the base trained again on its successes."""
OPERATOR = 'simulated'
"""Who helps a method with an operator."""
MAX_SEEDS = 1000
FIRST_SCENE, SCENES_PER_SEED, SCENES_END = 200_000, 1000, 1_000_000
"""Environment seeds of evaluations: beyond those that all runs share, and before those of
demonstrations (1,000,000) and of training (10,000,000)."""


@dataclass(frozen=True)
class BenchmarkTask:
    """A task of a protocol."""

    run: str = parameter(
        MISSING, 'file of a run, relative to the protocol, or name of a shipped one', filled=True
    )
    development: bool = parameter(False, 'whether methods were tuned on it')
    recipe: str = parameter(
        '', "file of its base policy's recipe, as `run`; default: the one that the model names"
    )

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        return Path(self.run).stem

    def config(self, folder: Path) -> RunConfig:
        """Return its run.

        Args:
            folder: where the protocol is.
        """
        return load_run(_beside(folder, self.run))

    def recipe_path(self, folder: Path) -> str:
        """Return name or path of its base policy's recipe; see `config`."""
        return _beside(folder, self.recipe)


def _beside(folder: Path, name: str) -> str:
    """Return the path of a file that lies relative to a folder; names of shipped ones stay."""
    return str(folder / name) if Path(name).suffix in ('.yaml', '.yml') else name


@dataclass(frozen=True)
class Method:
    """A method of a protocol."""

    name: str = parameter(MISSING, 'its name in tables', filled=True)
    tuning: str = parameter(MISSING, 'in words: how much it was tuned, and on what', filled=True)
    kind: str = parameter(RESIDUAL, 'what it is', choices=(RESIDUAL, RETRAIN))
    preset: str = parameter('', 'learner preset, of a residual')
    seeds: str = parameter('0-4', 'learner seeds: 0,1,2 or 0-4', filled=True)
    demonstrations: bool = parameter(False, "whether it has the base's demonstrations")
    operator: bool = parameter(False, 'whether a simulated operator helps')
    changed: dict[str, Any] = map_parameter('numbers that differ from the preset, by key')
    without: tuple[str, ...] = parameter((), 'shared numbers that it has not')

    @property
    def folder(self) -> str:
        """Its name as a folder."""
        return folder_name(self.name)

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        if (self.kind == RESIDUAL) != bool(self.preset):
            yield f'preset is {self.preset!r}, expected one for a {RESIDUAL} and none otherwise'
        try:
            parse_seeds(self.seeds)
        except ConfigError as error:
            yield str(error)

    def configured(self, config: RunConfig, shared: Mapping[str, Any]) -> RunConfig:
        """Return the run of a task with this method's numbers.

        Args:
            config: run of the task.
            shared: numbers of all methods.
        """
        if self.kind == RETRAIN:
            return config
        common = {key: value for key, value in shared.items() if key not in self.without}
        # Numbers that a run adds to a preset are tuned for it.
        plain = replace(config, preset=self.preset, overrides={})
        helped = {'operator': OPERATOR} if self.operator else {}
        return plain.changed({**common, **self.changed, **helped})


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How results are judged."""

    level: float = parameter(0.9, 'success that the mean curve has to reach', 0.0, 1.0)
    gain: float = parameter(0.3, 'or so much more than the base', 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Numbers(Judgement):
    """The numbers of a protocol."""

    control_steps: int = parameter(MISSING, 'control steps of each run', 1)
    curve_steps: int = parameter(MISSING, 'control steps between two evaluations', 1)
    curve_scenes: int = parameter(MISSING, 'scenes of each evaluation', 1)
    final_scenes: int = parameter(MISSING, 'scenes of the evaluation at the end', 1)
    first_scene: int = parameter(
        FIRST_SCENE, 'environment seed of the first scene of learner seed 0', 0
    )
    scenes_per_seed: int = parameter(
        SCENES_PER_SEED, 'environment seeds from one learner seed to the next', 1
    )
    shared: dict[str, Any] = map_parameter('numbers that all methods share')

    def problems(self) -> Iterator[str]:
        """Yield what does not fit together."""
        wanted = self.curve_scenes + self.final_scenes
        if wanted > self.scenes_per_seed:
            yield f'scenes_per_seed is {self.scenes_per_seed}, expected at least {wanted}'

    def seed_problems(self, seeds: Iterable[int]) -> Iterator[str]:
        """Yield why the scenes of learner seeds are none of their own."""
        last = max(seeds)
        if self.scene(last + 1) > SCENES_END:
            yield (
                f'first_scene: the scenes of learner seed {last} reach {self.scene(last + 1)}, '
                f'expected at most {SCENES_END}, where demonstrations begin'
            )

    def scene(self, seed: int) -> int:
        """Return the first environment seed of the evaluations of a learner seed."""
        return self.first_scene + self.scenes_per_seed * seed


@dataclass(frozen=True)
class Protocol:
    """A protocol."""

    numbers: Numbers
    tasks: tuple[BenchmarkTask, ...]
    methods: tuple[Method, ...]
    folder: Path
    """Where the file is."""
    sha256: str
    """Of the file, in hexadecimal."""


def read_protocol(path: Path) -> Protocol:
    """Read a protocol.

    Raises:
        ConfigError: names every unknown, missing or wrong key.
    """
    values = read_yaml(path, 'protocol')
    if not isinstance(values, Mapping):
        raise ConfigError(str(path), ['the content is no map'])
    problems: list[str] = []
    own = {key: value for key, value in values.items() if key not in ('tasks', 'methods')}
    numbers = _made(Numbers, [own], str(path), '', problems)
    tasks = _made(BenchmarkTask, values.get('tasks'), str(path), 'tasks', problems)
    methods = _made(Method, values.get('methods'), str(path), 'methods', problems)
    for what, names in (
        ('tasks', [task.name for task in tasks]),
        ('methods', [method.folder for method in methods]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        problems += [f'{what}: the name {name!r} occurs twice' for name in twice]
    if numbers and methods and not problems:
        problems += numbers[0].seed_problems(
            seed for method in methods for seed in parse_seeds(method.seeds)
        )
    if problems:
        raise ConfigError(str(path), problems)
    return Protocol(numbers[0], tuple(tasks), tuple(methods), path.parent, file_sha256(path))


def _made(
    kind: type[Kind], values: Any, source: str, place: str, problems: list[str]
) -> list[Kind]:
    """Return a dataclass for each map of a list; add to `problems` what is wrong."""
    if not isinstance(values, list) or not values:
        known = ', '.join(item.name for item in fields(kind))  # type: ignore[arg-type]
        problems.append(f'{place} is {values!r}, expected a list of maps of {known}')
        return []
    made = []
    for number, each in enumerate(values):
        try:
            made.append(from_mapping(kind, each, source))
        except ConfigError as error:
            where = f'{place}[{number}].' if place else ''
            problems += [f'{where}{problem}' for problem in error.problems]
    return made


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of `0,1,5-7`.

    Raises:
        ConfigError: it names none, too many, or one twice.
    """
    seeds: list[int] = []
    try:
        for part in text.split(','):
            first, _, last = part.partition('-')
            low, high = int(first), int(last or first)
            if high - low >= MAX_SEEDS:
                raise ValueError
            seeds += range(low, high + 1)
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) != len(seeds) or len(seeds) > MAX_SEEDS:
        raise ConfigError(
            f'seeds is {text!r}, expected different ones such as 0,1,2 or 0-4, at most {MAX_SEEDS}'
        )
    return seeds


def folder_name(name: str) -> str:
    """Return a name as that of a folder."""
    return name.replace(':', '__').replace('/', '_').replace(' ', '_')
