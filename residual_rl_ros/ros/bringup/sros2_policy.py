# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy of a robot: what each node must do, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from residual_rl_ros.bags.recorder import customisation_topic, raw_topics, transition_topics
from residual_rl_ros.control.takeover_controls import BUTTON_SERVICES, TakeoverConfig
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.urdf import NAME, TOPIC

LIFECYCLE = (
    *('change_state', 'get_state', 'get_available_states'),
    *('get_available_transitions', 'get_transition_graph'),
)
PARAMETERS = (
    *('describe_parameters', 'get_parameter_types', 'get_parameters', 'list_parameters'),
    *('set_parameters', 'set_parameters_atomically', 'get_type_description'),
)


OWN_TOPICS = (
    *('transitions', 'transition_layout', 'customisation'),
    *('base_action', 'residual_action', 'executed_action', 'decision'),
)
"""What a policy node publishes beside commands; of an arm with a workspace also `MARKERS`."""
MARKERS = 'markers'


@dataclass(frozen=True)
class Access:
    """What a node does on the middleware; relative names follow its namespace, `~` is the node."""

    node: str
    publishes: tuple[str, ...]
    subscribes: tuple[str, ...]
    serves: tuple[str, ...]
    calls: tuple[str, ...] = ()
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
            self._full((*self.subscribes, '/clock')),
            self._full((*self.serves, *inherent)),
            self._full(self.calls),
            self.lifecycle,
            self.namespace,
        )

    def _full(self, names: Sequence[str]) -> tuple[str, ...]:
        root = f'/{self.namespace.strip("/")}'.rstrip('/')

        def resolve(name: str) -> str:
            if name.startswith('~'):
                return f'{root}/{self.node}{name[1:]}'
            return name if name.startswith('/') else f'{root}/{name}'

        return tuple(sorted(set(map(resolve, names))))


def required_access(
    robot: RobotConfig, namespaces: Sequence[str] = ('',), takeover: TakeoverConfig | None = None
) -> tuple[Access, ...]:
    """Return what the nodes of a robot or a fleet must do.

    Args:
        robot: the robot, whose topics the policies read and write.
        namespaces: ROS namespace of each robot; the learner of several is in none.
        takeover: what an operator's controls mean, if he takes over by `takeover_node`.
    """
    alone = len(namespaces) == 1
    learner = Access(
        'learner_node',
        ('~/actor',),
        tuple(
            topic if alone else f'/{namespace.strip("/")}/{topic}'
            for namespace in namespaces
            for topic in ('policy_node/transitions', 'policy_node/transition_layout')
        ),
        ('~/pause', '~/save', '~/rollback'),
        namespace=namespaces[0] if alone else '',
    )
    actor = 'learner_node/actor' if alone else '/learner_node/actor'
    robots = (access for name in namespaces for access in _of_robot(robot, name, actor))
    hands = (_of_operator(robot, name, takeover) for name in namespaces if takeover is not None)
    return learner, *robots, *hands


def _of_operator(robot: RobotConfig, namespace: str, takeover: TakeoverConfig) -> Access:
    """Return what the takeover node of one robot must do."""
    measured = set(robot.action.measured_by)
    channels = [each for each in robot.channels if measured & set(each.observation_names)]
    services = {BUTTON_SERVICES[name] for name in takeover.keys.buttons.by_name()}
    return Access(
        'takeover_node',
        (robot.takeover.topic, 'takeover/active'),
        (
            *(source.topic for channel in channels for source in channel.sources),
            *filter(None, (takeover.topic,)),
            'policy_node/executed_action',
        ),
        (),
        tuple(f'policy_node/{name}' for name in sorted(services)),
        namespace=namespace,
    )


def _of_robot(robot: RobotConfig, namespace: str, actor: str) -> tuple[Access, ...]:
    """Return what policy, reward, recorder and simulator of one robot must do."""
    sources = (source.topic for channel in robot.channels for source in channel.sources)
    channels = tuple(dict.fromkeys(sources))
    commands = tuple(command.topic for command in robot.commands if not command.is_action)
    own = (*OWN_TOPICS, MARKERS) if robot.action.workspace else OWN_TOPICS
    policy = Access(
        'policy_node',
        (*commands, *(f'~/{name}' for name in own)),
        (
            *channels,
            *(stop.topic for stop in robot.stop_inputs),
            *('step_feedback', actor, robot.takeover.topic, 'takeover/active'),
            *((NAME,) if robot.urdf and robot.urdf.source == TOPIC else ()),
        ),
        (
            *('~/set_residual', '~/hold', '~/start_episode'),
            *('~/mark_success', '~/mark_failure', '~/end_episode', '~/go_home'),
        ),
        () if robot.reset is None else tuple(filter(None, (robot.reset.service,))),
        namespace=namespace,
    )
    transitions = tuple(topic.name for topic in transition_topics())
    reward = Access(
        'reward_node',
        ('step_feedback', '~/add_on'),
        (*channels, *transitions),
        (),
        namespace=namespace,
    )
    recorder = Access(
        'recorder_node',
        (),
        (*transitions, *(each.name for each in (customisation_topic(), *raw_topics(robot)))),
        (),
        lifecycle=False,
        namespace=namespace,
    )
    simulator = Access(  # Whose topics are all in its namespace.
        'mujoco_sim_node',
        (*(topic.lstrip('/') for topic in channels), 'step_feedback', 'clock'),
        tuple(topic.lstrip('/') for topic in commands),
        (),
        lifecycle=False,
        namespace=namespace,
    )
    return policy, reward, recorder, simulator


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
            ('service', 'request', access.calls),
        ):
            if not names:
                continue
            group = ET.SubElement(profile, f'{kind}s', {verb: 'ALLOW'})
            for name in names:
                ET.SubElement(group, kind).text = name
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding='unicode') + '\n'
