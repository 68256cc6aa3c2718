# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask a running robot for something beside its task: `residual-rl customise`.

Policy node and learner node have the same two live parameters. Both are set, or none: if the second
refuses, the first takes back what it had.
"""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidServiceNameException
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rich.console import Console

from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.rewards.composition import AddOns
from residual_rl_ros.ros.common.node_host import NodeHost
from residual_rl_ros.ros.tools.operator import watched_nodes

DISCOVERY_LIMIT_S = 5.0
"""How long a node is waited for [s]."""
ANSWER_LIMIT_S = 10.0
"""How long its answer is waited for [s]."""
ADD_ON, WEIGHT = 'add_on', 'add_on_weight'


class CustomisedNode:
    """The parameters of one running node.

    Args:
        tool: the node that asks.
        name: of the node that is asked, with its namespace.

    Raises:
        ResidualRLError: it is not there.
    """

    def __init__(self, tool: NodeHost, name: str) -> None:
        self._tool, self.name = tool, name
        try:
            self._client = AsyncParameterClient(tool.node, f'/{name}')
        except InvalidServiceNameException as error:
            raise ResidualRLError(f'{name!r} is no name of a node; correct --robot') from error
        if not self._client.wait_for_services(DISCOVERY_LIMIT_S):
            raise ResidualRLError(
                f'/{name} is not there (waited {DISCOVERY_LIMIT_S:g} s in ROS domain '
                f'{tool.node.context.get_domain_id()}); is it running, and is --robot right?'
            )

    def read(self) -> tuple[str, float]:
        """Return its add-ons as YAML, and their weight.

        Raises:
            ResidualRLError: it does not answer, or has no such parameters.
        """
        values = self._answer(self._client.get_parameters([ADD_ON, WEIGHT])).values
        found = [parameter_value_to_python(value) for value in values]
        if len(found) != 2 or not isinstance(found[0], str) or not isinstance(found[1], float):
            raise ResidualRLError(f'/{self.name} has no parameters {ADD_ON} and {WEIGHT}')
        return found[0], found[1]

    def write(self, text: str, weight: float) -> None:
        """Set both.

        Raises:
            ResidualRLError: it does not answer, or refuses.
        """
        values = [Parameter(ADD_ON, value=text), Parameter(WEIGHT, value=weight)]
        answer = self._answer(self._client.set_parameters_atomically(values))
        result: SetParametersResult = answer.result
        if not result.successful:
            raise ResidualRLError(f'/{self.name} refuses: {result.reason}')

    def _answer(self, future: Any) -> Any:
        self._tool.executor.spin_until_future_complete(future, timeout_sec=ANSWER_LIMIT_S)
        if not future.done():
            raise ResidualRLError(f'/{self.name} has not answered within {ANSWER_LIMIT_S:g} s')
        return future.result()


def customise(
    namespace: str,
    fleet: bool,
    policy_only: bool,
    add_ons: AddOns | None,
    weight: float | None,
    console: Console,
) -> None:
    """Set what is given on policy node and learner node, and print what they have then.

    Args:
        namespace: of the robot.
        fleet: its learner is shared, and in no namespace.
        policy_only: there is no learner.
        add_ons: None leaves them.
        weight: None leaves it; a new add-on that was off is on again with weight 1.
        console: where it is printed.

    Raises:
        ResidualRLError: a node is not there, does not answer or refuses; then none has changed.
    """
    policy, learner = watched_nodes(namespace, fleet)
    with NodeHost('customise') as tool:
        names = [policy] if policy_only else [policy, learner]
        nodes = [CustomisedNode(tool, name) for name in names]
        before = [node.read() for node in nodes]
        text, factor = before[0]
        if add_ons is not None:
            text = add_ons.to_yaml()
            factor = factor or 1.0
        factor = factor if weight is None else weight
        if add_ons is not None or weight is not None:
            for done, node in enumerate(nodes):
                try:
                    node.write(text, factor)
                except ResidualRLError:
                    for other, values in zip(nodes[:done], before, strict=False):
                        other.write(*values)
                    raise
        console.print(_words(text, factor), markup=False, soft_wrap=True)


def _words(text: str, weight: float) -> str:
    """Return what a robot is asked for."""
    parts = AddOns.from_message(text).to_list()
    asked = '; '.join(', '.join(f'{k} {v}' for k, v in part.items()) for part in parts)
    if not weight:
        return f'the base policy alone (off: {asked or "no add-on"})'
    return f'weight {weight:g}: {asked}' if asked else f'no add-on, weight {weight:g}'
