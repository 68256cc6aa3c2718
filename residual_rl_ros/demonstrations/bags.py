# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in ROS bags: transitions as they were recorded, or rebuilt from the topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from residual_rl_ros.bags.bag import Bag
from residual_rl_ros.bags.rebuild.messages import RawMessages, Role
from residual_rl_ros.bags.rebuild.rebuild import Rebuilder, RebuildOptions
from residual_rl_ros.bags.transitions.reader import TRANSITIONS, TransitionReader
from residual_rl_ros.base_policy.distribution import BasePolicy
from residual_rl_ros.base_policy.splicing import Splicing
from residual_rl_ros.control.config import ControllerConfig
from residual_rl_ros.errors import ConfigError, DemonstrationError, FormatError
from residual_rl_ros.files.yaml_text import parse_yaml
from residual_rl_ros.robot.description import RobotConfig, description_of
from residual_rl_ros.robot.stamps import stamp_of, to_nanoseconds
from residual_rl_ros.transitions.layout import TransitionLayout
from residual_rl_ros.transitions.transition import Transition

LOOKED_AT = 1000
"""Commands from which it is seen whether a recording is of lockstep."""
ROBOT, NAMESPACE, BASE_POLICY = 'robot', 'namespace', 'base_policy_sha256'
"""Keys of the recorder's description of a bag."""


def holds_transitions(bag: Bag) -> bool:
    """Return whether a bag holds a topic of transitions."""
    return any(
        f'/{topic.name}'.endswith(f'/{TRANSITIONS}')
        for file, _ in bag.segments()
        for topic in file.topics.values()
    )


def recorded_transitions(
    bag: Bag, layout: TransitionLayout, base_policy_sha256: str
) -> Iterator[tuple[str, Transition]]:
    """Yield the transitions of a bag, each with the namespace of its robot.

    Args:
        bag: the bag; findings are added to its problems.
        layout: of the learner.
        base_policy_sha256: of the base policy that the robot runs; empty where it is not known.

    Raises:
        ResidualRLError: it is of another layout or base policy.
    """
    others = bag.recorded_values(BASE_POLICY) - {base_policy_sha256}
    if base_policy_sha256 and others:
        raise DemonstrationError(
            f'{bag.path}: was recorded with base policy {", ".join(sorted(others))}, the robot '
            f'runs {base_policy_sha256}: its base actions are of no use; record observations and '
            'commands without transitions'
        )
    for block in TransitionReader(bag).blocks():
        check_layout(bag.path, block.table.layout, layout)
        for transition in block.table:
            yield block.robot, transition


def check_layout(path: Path, found: TransitionLayout, wanted: TransitionLayout) -> None:
    """Refuse transitions of another layout, by name.

    Raises:
        DemonstrationError: names what differs.
    """
    if found != wanted:
        different = wanted.differences(found)
        more = f'; and {len(different) - 5} more' if len(different) > 5 else ''
        raise DemonstrationError(
            f'{path}: its transitions have another layout: {"; ".join(different[:5])}{more}; use '
            'the same base policy, decision_steps and residual_scale, or record observations and '
            'commands'
        )


def rebuilt_transitions(
    bag: Bag,
    policy: BasePolicy,
    layout: TransitionLayout,
    robot: RobotConfig,
    splicing: Splicing,
) -> Iterator[Transition]:
    """Yield the transitions of recorded observations and commands.

    In real time a pause between commands that nobody has judged ends a success.

    Args:
        bag: raw bag; findings are added to its problems.
        policy: base policy; it fits the robot.
        layout: of the learner.
        robot: whose bag it is, see `robot_of`.
        splicing: of chunks, as the robot's controller has it.

    Raises:
        ResidualRLError: something was not recorded.
    """
    namespace = bag.custom_data.get(NAMESPACE, '')
    options = RebuildOptions(
        # Whatever differs from the base is the operator's: there is no residual to tell apart.
        ControllerConfig(
            layout.decision_steps,
            (0.0,),
            splicing.in_lockstep,
            scheduled_actor=False,
            proposals=layout.proposals,
            customisable=layout.customisable,
        ),
        _in_lockstep(bag.path, robot, namespace),
        namespace,
        end_is_success=True,
    )
    yield from Rebuilder(bag, robot, policy, options).transitions()


def _in_lockstep(path: Path, robot: RobotConfig, namespace: str) -> bool:
    """Return whether commands carry the stamps of observations, as beside a waiting simulator."""
    messages = RawMessages(Bag(path), robot, namespace, lambda count, total: None)
    observed: set[int] = set()
    commanded: set[int] = set()
    for received in messages.of(Role.CHANNEL, Role.COMMAND):
        stamp = stamp_of(received.message)
        if stamp is not None:
            seen = commanded if received.reading.role is Role.COMMAND else observed
            seen.add(to_nanoseconds(stamp))
        if len(commanded) == LOOKED_AT:
            break
    return 2 * len(commanded & observed) > len(commanded)


def robot_of(bag: Bag, robot: RobotConfig | None) -> RobotConfig:
    """Return the robot of a bag.

    Args:
        bag: raw bag.
        robot: what it is where the recorder noted none.

    Raises:
        DemonstrationError: nobody says, or the recorder noted something else.
    """
    text = bag.custom_data.get(ROBOT)
    if text is None and robot is not None:
        return robot
    if text is None:
        raise DemonstrationError(
            f'{bag.path}: does not say which robot it is of; give the robot file, or record with '
            'recorder_node, which notes it'
        )
    try:
        mapping = description_of(parse_yaml(text, 'the recorded robot'), 'the recorded robot')
        return RobotConfig.from_mapping(mapping, 'the recorded robot')
    except (FormatError, ConfigError) as error:
        raise DemonstrationError(f'{bag.path}: {error}') from error
