# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One fine-tuning run: what its YAML says, and what that resolves to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residual_rl_ros.base_policy.ensemble_queue import (
    ENSEMBLE,
    ENSEMBLE_STEPS,
    MAX_COEFFICIENT,
)
from residual_rl_ros.base_policy.onnx_policy import OnnxBasePolicy
from residual_rl_ros.base_policy.prefetch import AUTO as AUTO_PREFETCH
from residual_rl_ros.base_policy.prefetch import DESCRIPTION as PREFETCH
from residual_rl_ros.base_policy.prefetch import WORDS as PREFETCH_WORDS
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.config import DEFAULT_PRESET, find_preset
from residual_rl_ros.config.operator import DESCRIPTION as OPERATOR
from residual_rl_ros.config.operator import OperatorConfig
from residual_rl_ros.config.success import AUTO, DESCRIPTION, SuccessCriterion
from residual_rl_ros.control.composition import residual_scale
from residual_rl_ros.control.config import (
    CUSTOMISABLE,
    PRIOR_WIDTH,
    PROPOSALS,
    ControllerConfig,
)
from residual_rl_ros.control.controller import ResidualController
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.resources import find_file
from residual_rl_ros.rewards.composition import DESCRIPTION as ADD_ON
from residual_rl_ros.rewards.composition import AddOns, BoundAddOns
from residual_rl_ros.robot.description import RobotConfig, load_robot
from residual_rl_ros.schema import from_mapping, map_parameter, parameter, read_yaml
from residual_rl_ros.transitions.layout import MAX_PROPOSALS, TransitionLayout

if TYPE_CHECKING:
    from residual_rl_ros.config.preset import LearnerConfig

CUSTOMISATION = ('proposals', 'customisable', 'prior_width')
"""Keys of a run that say what its transitions tell beside the action."""
OWN_CHANGES = ('residual_scale', 'decision_steps', 'operator', *CUSTOMISATION)
"""Keys of a run that `RunConfig.changed` takes beside those of its preset."""


@dataclass(frozen=True)
class RunConfig:
    """The content of `config/finetune/<task>.yaml`."""

    task: str = parameter(MISSING, 'simulated task or gymnasium id')
    robot: str = parameter(MISSING, 'name of a shipped robot, or path of a robot YAML')
    base_policy: str = parameter(MISSING, 'name of a shipped base policy, or path of an ONNX file')
    residual_scale: tuple[float, ...] = parameter(
        MISSING, 'lambda: one value, or one per action dimension', 0.0
    )
    control_steps: int = parameter(MISSING, 'budget of control steps, warm-up included', 1)
    decision_steps: int = parameter(1, 'control steps per residual decision (k)', 1)
    prefetch_steps: int = parameter(0, PREFETCH, AUTO_PREFETCH, words=PREFETCH_WORDS)
    temporal_ensemble: float = parameter(0.0, ENSEMBLE, -MAX_COEFFICIENT, MAX_COEFFICIENT)
    ensemble_steps: int = parameter(0, ENSEMBLE_STEPS, 0)
    proposals: int = parameter(1, PROPOSALS, 1, MAX_PROPOSALS)
    customisable: bool = parameter(False, CUSTOMISABLE)
    prior_width: tuple[float, ...] = parameter((), PRIOR_WIDTH, 0.0)
    preset: str = parameter(DEFAULT_PRESET, 'learner preset')
    success: str = parameter(AUTO, DESCRIPTION, filled=True)
    operator: str = parameter('', OPERATOR)
    add_on: tuple[dict[str, Any], ...] = parameter((), ADD_ON)
    overrides: dict[str, Any] = map_parameter('numbers that replace those of the preset, by key')

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with `success`, `operator` and `add_on`."""
        for parse in (
            lambda: SuccessCriterion.parse(self.success),
            lambda: OperatorConfig.parse(self.operator),
            lambda: AddOns.of(self.add_on),
        ):
            try:
                parse()
            except ConfigError as error:
                yield str(error)

    def resolve(self) -> ResolvedRun:
        """Load the base policy and the robot and check them against each other.

        Raises:
            ResidualRLError: one of them, or the preset, is missing or wrong, or they do not fit.
        """
        robot, path = load_robot(self.robot)
        policy = OnnxBasePolicy.find(self.base_policy, robot)
        run = ResolvedRun(self, policy, robot, path)
        _ = run.add_on  # A name that the robot has not is said before anything moves.
        return run

    def controller_config(self, seed: int, explore: bool, scheduled: bool) -> ControllerConfig:
        """Return the controller's configuration in lockstep; see `ResolvedRun.controller`."""
        return ControllerConfig(
            decision_steps=self.decision_steps,
            residual_scale=self.residual_scale,
            splicing=self.splicing,
            seed=seed,
            explore=explore,
            scheduled_actor=scheduled,
            **self.customisation,
        )

    @property
    def splicing(self) -> Splicing:
        """How it goes from one chunk of the base policy to the next."""
        return Splicing.of(self)

    @property
    def customisation(self) -> dict[str, Any]:
        """The keys `CUSTOMISATION` and their values."""
        return {name: getattr(self, name) for name in CUSTOMISATION}

    def changed(self, changes: Mapping[str, Any]) -> RunConfig:
        """Return it with changed numbers: of the preset, or how the residual acts.

        Args:
            changes: names and values as in YAML.

        Raises:
            ConfigError: one of `OWN_CHANGES` is wrong.
        """
        own = {key: changes[key] for key in OWN_CHANGES if key in changes}
        others = {key: value for key, value in changes.items() if key not in own}
        values = {**asdict(self), **own, 'overrides': {**self.overrides, **others}}
        return run_config(values, 'changed numbers')

    def with_success(self, success: str | None) -> RunConfig:
        """Return it with another way of telling success; None changes nothing.

        Raises:
            ConfigError: there is no such way.
        """
        if success is None:
            return self
        return replace(self, success=str(SuccessCriterion.parse(success)))

    @property
    def add_ons(self) -> AddOns:
        """The add-on rewards; none where nothing is added to the task."""
        return AddOns.of(self.add_on)

    @property
    def add_on_text(self) -> str:
        """The add-on rewards as YAML, as nodes take them; empty without one."""
        return self.add_ons.to_yaml()

    def with_add_ons(self, options: Sequence[str] | None) -> RunConfig:
        """Return it with the add-ons of `--add-on` options; none changes nothing.

        Raises:
            ConfigError: an option is none, or names no add-on.
        """
        if not options:
            return self
        return replace(self, add_on=tuple(AddOns.from_options(options).to_list()))

    def with_preset(self, preset: str) -> RunConfig:
        """Return it with a preset; its own overrides are tuned for its own one alone.

        Raises:
            ResourceError: there is no such preset.
        """
        find_preset(preset)
        return self if preset == self.preset else replace(self, preset=preset, overrides={})

    def learner_config(self) -> LearnerConfig:
        """Return the preset with this run's overrides.

        Its add-ons are those of the rule too, if that learns any and the overrides name no others.
        """
        # Presets know the update rules, hence torch, whose import takes seconds: who only plays
        # episodes does without.
        from residual_rl_ros.config.preset import load_preset

        preset = load_preset(self.preset, self.overrides)
        if not self.add_ons or not preset.learns_add_on or 'add_on' in self.overrides:
            return preset
        return load_preset(self.preset, {**self.overrides, 'add_on': self.add_on})


@dataclass(frozen=True)
class ResolvedRun:
    """A run with all that its names stand for, loaded once and handed down."""

    config: RunConfig
    policy: OnnxBasePolicy
    """Frozen base policy."""
    robot: RobotConfig
    robot_file: Path

    @cached_property
    def learner(self) -> LearnerConfig:
        """Numbers of the learner."""
        return self.config.learner_config()

    @cached_property
    def add_on(self) -> BoundAddOns | None:
        """The add-on reward of its decisions; None without one."""
        if not self.config.add_ons:
            return None
        names = self.robot.observation_names, self.robot.action.names
        return self.config.add_ons.bind(*names, self.config.decision_steps)

    def controller(self, seed: int, explore: bool, scheduled: bool) -> ResidualController:
        """Return a controller in lockstep.

        Args:
            seed: seeds the base policy's and the exploration noise.
            explore: sample the residual.
            scheduled: use each actor from the decision that it names.
        """
        config = self.config.controller_config(seed, explore, scheduled)
        return config.build(self.policy, self.robot.action)

    def evaluation_controller(self, actor_message: bytes | None) -> ResidualController:
        """Return a controller that does not explore.

        Args:
            actor_message: weight message of the residual actor; None runs the base policy alone.
        """
        controller = self.controller(0, explore=False, scheduled=False)
        if self.config.customisable:
            controller.customisation.change(self.config.add_on_text, 1.0)
        if actor_message is not None:
            controller.mailbox.submit(actor_message)
        return controller

    def trained_as(self, layout: TransitionLayout) -> ResolvedRun:
        """Return it with the k, the lambda and the proposals of an actor's layout.

        Raises:
            ConfigError: the actor is for another task or base policy.
        """
        own, its = (
            (kind.observation_names, kind.action_names, kind.action_min, kind.action_max)
            for kind in (self.policy.metadata, layout)
        )
        if own != its:
            raise ConfigError(
                f'the actor is for actions {", ".join(layout.action_names)} and '
                f'{layout.observation_size} observations, task {self.config.task!r} has actions '
                f'{", ".join(self.policy.metadata.action_names)} and {len(own[0])} observations, '
                'or the ranges of their base policies differ; give the task of its training '
                '(--task)'
            )
        config = replace(
            self.config,
            decision_steps=layout.decision_steps,
            residual_scale=residual_scale(layout),
            proposals=layout.proposals,
            customisable=layout.customisable,
        )
        return replace(self, config=config)


def training_seed(seed: int) -> int:
    """Return the first environment seed of a run: far from every evaluation seed."""
    return 10_000_000 + 1_000_000 * seed


def run_config(values: Any, source: str) -> RunConfig:
    """Return the run that a map describes.

    Raises:
        ConfigError: names every unknown, missing or wrong key.
    """
    for key in ('residual_scale', 'prior_width'):
        if isinstance(values, Mapping) and isinstance(values.get(key), (int, float)):
            values = {**values, key: [values[key]]}
    if isinstance(values, Mapping) and values.get('overrides', {}) is None:
        values = {**values, 'overrides': {}}
    return from_mapping(RunConfig, values, source)


def load_run(name_or_path: str) -> RunConfig:
    """Read a fine-tuning run: a path, or the name of a shipped task.

    Raises:
        ConfigError: names every unknown, missing or wrong key.
        ResourceError: unknown task.
    """
    path = find_file('task', ('config', 'finetune'), name_or_path, '.yaml')
    return run_config(read_yaml(path, 'run'), str(path))
