# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy of a robot: what each node must do, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from residual_rl_ros.bags.topics import raw_topics, transition_topics
from residual_rl_ros.robot import RobotConfig

LIFECYCLE = (
    *('change_state', 'get_state', 'get_available_states'),
    *('get_available_transitions', 'get_transition_graph'),
)
PARAMETERS = (
    *('describe_parameters', 'get_parameter_types', 'get_parameters', 'list_parameters'),
    *('set_parameters', 'set_parameters_atomically', 'get_type_description'),
)


@dataclass(frozen=True)
class Access:
    """What a node does on the middleware; relative names follow its namespace, `~` is the node."""

    node: str
    publishes: tuple[str, ...]
    subscribes: tuple[str, ...]
    serves: tuple[str, ...]
    lifecycle: bool = True
    """Whether it is a lifecycle node."""
    namespace: str = ''

    def resolved(self) -> Access:
        """Return it with full names and with what every ROS node does."""
        inherent = tuple(f'~/{name}' for name in PARAMETERS + self.lifecycle * LIFECYCLE)
        events = ('~/transition_event',) if self.lifecycle else ()
        return Access(
            self.node,
            self._full((*self.publishes, *events, '/rosout', '/parameter_events', '/diagnostics')),
            self._full(self.subscribes),
            self._full((*self.serves, *inherent)),
            self.lifecycle,
            self.namespace,
        )

    def _full(self, names: Sequence[str]) -> tuple[str, ...]:
        root = f'/{self.namespace.strip("/")}'.rstrip('/')
        full = (
            name.replace('~', f'{root}/{self.node}', 1)
            if name.startswith('~')
            else name
            if name.startswith('/')
            else f'{root}/{name}'
            for name in names
        )
        return tuple(sorted(set(full)))


def required_access(robot: RobotConfig, namespace: str = '') -> tuple[Access, ...]:
    """Return what the nodes of a robot must do: policy, learner, reward, recorder and simulator.

    Args:
        robot: the robot, whose topics the policy reads and writes.
        namespace: ROS namespace of all of them.
    """
    channels = tuple(channel.topic for channel in robot.channels)
    policy = Access(
        'policy_node',
        (robot.command.topic, '~/transitions', '~/transition_layout'),
        (
            *channels,
            *('step_feedback', 'learner_node/actor', 'takeover/command', 'takeover/active'),
        ),
        (
            *('~/set_residual', '~/hold', '~/start_episode'),
            *('~/mark_success', '~/mark_failure', '~/end_episode'),
        ),
        namespace=namespace,
    )
    learner = Access(
        'learner_node',
        ('~/actor',),
        ('policy_node/transitions', 'policy_node/transition_layout'),
        ('~/pause', '~/save', '~/rollback'),
        namespace=namespace,
    )
    reward = Access('reward_node', ('step_feedback',), channels, (), namespace=namespace)
    recorder = Access(
        'recorder_node',
        (),
        tuple(topic.name for topic in (*transition_topics(), *raw_topics(robot))),
        (),
        lifecycle=False,
        namespace=namespace,
    )
    simulator = Access(
        'mujoco_sim_node',
        (*channels, 'step_feedback', '/clock'),
        (robot.command.topic,),
        (),
        lifecycle=False,
        namespace=namespace,
    )
    return policy, learner, reward, recorder, simulator


def policy_xml(accesses: Sequence[Access]) -> str:
    """Return the text of an SROS 2 policy file with one enclave for each node."""
    root = ET.Element('policy', version='0.2.0')
    enclaves = ET.SubElement(root, 'enclaves')
    for access in (item.resolved() for item in accesses):
        namespace = f'/{access.namespace.strip("/")}'
        enclave = ET.SubElement(enclaves, 'enclave', path=f'{namespace.rstrip("/")}/{access.node}')
        profiles = ET.SubElement(enclave, 'profiles')
        profile = ET.SubElement(profiles, 'profile', ns=namespace, node=access.node)
        for kind, verb, names in (
            ('topic', 'publish', access.publishes),
            ('topic', 'subscribe', access.subscribes),
            ('service', 'reply', access.serves),
        ):
            group = ET.SubElement(profile, f'{kind}s', {verb: 'ALLOW'})
            for name in names:
                ET.SubElement(group, kind).text = name
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding='unicode') + '\n'
