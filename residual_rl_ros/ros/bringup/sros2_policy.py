# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy of a robot: what each node and each tool must do, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace

from residual_rl_ros.bags.recorder import customisation_topic, raw_topics, transition_topics
from residual_rl_ros.control.feedback import STEP_FEEDBACK
from residual_rl_ros.control.takeover_controls import BUTTON_SERVICES, TakeoverConfig
from residual_rl_ros.robot.consistency import TAKEOVER_ACTIVE
from residual_rl_ros.robot.description import RobotConfig
from residual_rl_ros.robot.names import full_name
from residual_rl_ros.robot.urdf import NAME, TOPIC

LIFECYCLE = (
    'change_state',
    'get_state',
    'get_available_states',
    'get_available_transitions',
    'get_transition_graph',
)
PARAMETERS = (
    'describe_parameters',
    'get_parameter_types',
    'get_parameters',
    'list_parameters',
    'set_parameters',
    'set_parameters_atomically',
)
DIAGNOSTICS = '/diagnostics'


OWN_TOPICS = (
    'transitions',
    'transition_layout',
    'customisation',
    'base_action',
    'residual_action',
    'executed_action',
    'decision',
)
"""What a policy node publishes beside commands; of an arm with a workspace also `MARKERS`."""
MARKERS = 'markers'
POLICY_SERVICES = (
    'set_residual',
    'hold',
    'start_episode',
    'mark_success',
    'mark_failure',
    'end_episode',
    'go_home',
)
LEARNER_SERVICES = ('pause', 'save', 'rollback')


@dataclass(frozen=True)
class Access:
    """What a node does on the middleware; relative names follow its namespace, `~` is the node."""

    node: str
    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """ROS actions of which it is a client."""
    lifecycle: bool = True
    """Whether it is a lifecycle node."""
    namespace: str = ''

    def resolved(self) -> Access:
        """Return it with full names and with what every ROS node does."""
        inherent = (*PARAMETERS, 'get_type_description', *(self.lifecycle * LIFECYCLE))
        events = ('~/transition_event',) if self.lifecycle else ()
        return replace(
            self,
            publishes=self._full((*self.publishes, *events, '/rosout', '/parameter_events')),
            subscribes=self._full((*self.subscribes, '/clock')),
            serves=self._full((*self.serves, *(f'~/{name}' for name in inherent))),
            calls=self._full(self.calls),
            commands=self._full(self.commands),
        )

    def _full(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted({full_name(name, self.namespace, self.node) for name in names}))


def required_access(
    robot: RobotConfig, namespaces: Sequence[str] = ('',), takeover: TakeoverConfig | None = None
) -> tuple[Access, ...]:
    """Return what the nodes of a robot or a fleet must do, and the tools of who looks after it.

    Args:
        robot: the robot, whose topics the policies read and write.
        namespaces: ROS namespace of each robot; the learner of several is in none.
        takeover: what an operator's controls mean, if he takes over by `takeover_node`.
    """
    home = namespaces[0] if len(namespaces) == 1 else ''
    learner = Access(
        'learner_node',
        ('~/actor', DIAGNOSTICS),
        _transitions(namespaces),
        tuple(f'~/{name}' for name in LEARNER_SERVICES),
        namespace=home,
    )
    actor = full_name('learner_node/actor', home)
    robots = (access for name in namespaces for access in _of_robot(robot, name, actor))
    hands = (_of_operator(robot, name, takeover) for name in namespaces if takeover is not None)
    return learner, *robots, *hands, *_of_tools(robot, namespaces, home)


def _transitions(namespaces: Sequence[str]) -> tuple[str, ...]:
    """Return where robots say what they have done."""
    return tuple(
        full_name(topic.name, namespace)
        for namespace in namespaces
        for topic in transition_topics()
    )


def _of_tools(robot: RobotConfig, namespaces: Sequence[str], home: str) -> tuple[Access, ...]:
    """Return what the nodes of `up`, operator console, dashboard and `customise` must do.

    Args:
        robot: the robot.
        namespaces: of each robot.
        home: namespace of the learner.
    """
    images = [channel.topic for channel in robot.channels if channel.is_image]
    learner = full_name('learner_node', home)
    customised = (*(full_name('policy_node', namespace) for namespace in namespaces), learner)
    consoles = (
        Access(
            'operator',
            calls=(
                *(f'policy_node/{name}' for name in (*POLICY_SERVICES, 'change_state')),
                *(f'{learner}/{name}' for name in LEARNER_SERVICES),
            ),
            lifecycle=False,
            namespace=namespace,
        )
        for namespace in namespaces
    )
    seen = (full_name(topic, namespace) for namespace in namespaces for topic in images)
    knobs = (f'{node}/{name}' for node in customised for name in PARAMETERS)
    return (
        Access('monitor', subscribes=(DIAGNOSTICS,), lifecycle=False),
        Access('telemetry', subscribes=(*_transitions(namespaces), *seen), lifecycle=False),
        Access('customise', calls=tuple(knobs), lifecycle=False),
        *consoles,
    )


def _of_operator(robot: RobotConfig, namespace: str, takeover: TakeoverConfig) -> Access:
    """Return what the takeover node of one robot must do."""
    measured = set(robot.action.measured_by)
    channels = [each for each in robot.channels if measured & set(each.observation_names)]
    services = {BUTTON_SERVICES[name] for name in takeover.keys.buttons.by_name()}
    return Access(
        'takeover_node',
        (robot.takeover.topic, TAKEOVER_ACTIVE, DIAGNOSTICS),
        (
            *(source.topic for channel in channels for source in channel.sources),
            *filter(None, (takeover.topic,)),
            'policy_node/executed_action',
        ),
        calls=tuple(f'policy_node/{name}' for name in sorted(services)),
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
        (*commands, *(f'~/{name}' for name in own), DIAGNOSTICS),
        (
            *channels,
            *(stop.topic for stop in robot.stop_inputs),
            *(STEP_FEEDBACK, actor, robot.takeover.topic, TAKEOVER_ACTIVE),
            *((NAME,) if robot.urdf and robot.urdf.source == TOPIC else ()),
        ),
        tuple(f'~/{name}' for name in POLICY_SERVICES),
        () if robot.reset is None else tuple(filter(None, (robot.reset.service,))),
        tuple(command.topic for command in robot.commands if command.is_action),
        namespace=namespace,
    )
    transitions = tuple(topic.name for topic in transition_topics())
    reward = Access(
        'reward_node',
        (STEP_FEEDBACK, '~/add_on', DIAGNOSTICS),
        (*channels, *transitions),
        namespace=namespace,
    )
    recorder = Access(
        'recorder_node',
        (DIAGNOSTICS,),
        (*transitions, *(each.name for each in (customisation_topic(), *raw_topics(robot)))),
        lifecycle=False,
        namespace=namespace,
    )
    simulator = Access(  # Whose topics are all in its namespace.
        'mujoco_sim_node',
        (*(topic.lstrip('/') for topic in channels), STEP_FEEDBACK, 'clock', DIAGNOSTICS),
        tuple(topic.lstrip('/') for topic in commands),
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
            ('action', 'call', access.commands),
        ):
            if not names:
                continue
            group = ET.SubElement(profile, f'{kind}s', {verb: 'ALLOW'})
            for name in names:
                ET.SubElement(group, kind).text = name
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding='unicode') + '\n'
