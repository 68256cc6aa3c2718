# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a policy node: the residual on or off, a hold, begin and end of episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from residual_rl_ros.residual.controller import StepFeedback
from residual_rl_ros.residual.lockstep_loop import LockstepLoop
from residual_rl_ros.residual.policy_loop import END_EPISODE, MARK_FAILURE, MARK_SUCCESS
from residual_rl_ros.residual.real_time_loop import RealTimeLoop


class PolicyServices:
    """Opens the services of a policy node.

    Args:
        node: the node.
        loop: what is asked.
        now: returns the ROS time [s].
    """

    def __init__(
        self, node: Node, loop: LockstepLoop | RealTimeLoop, now: Callable[[], float]
    ) -> None:
        self._loop = loop
        self._now = now
        node.create_service(SetBool, '~/set_residual', self._set_residual)
        node.create_service(SetBool, '~/hold', self._set_hold)
        node.create_service(Trigger, '~/start_episode', self._start_episode)
        for name, feedback in {
            'mark_success': MARK_SUCCESS,
            'mark_failure': MARK_FAILURE,
            'end_episode': END_EPISODE,
        }.items():
            node.create_service(Trigger, f'~/{name}', self._ending_service(feedback))

    def _set_residual(self, request: Any, response: Any) -> Any:
        self._loop.controller.residual_enabled = request.data
        response.success = True
        response.message = f'residual {"on" if request.data else "off"} from the next decision'
        return response

    def _set_hold(self, request: Any, response: Any) -> Any:
        if isinstance(self._loop, LockstepLoop):
            response.message = 'a lockstep simulator waits for commands; hold has no effect'
            return response
        self._loop.held = request.data
        response.success = True
        response.message = 'holding' if request.data else 'released'
        return response

    def _start_episode(self, request: Any, response: Any) -> Any:
        del request
        if isinstance(self._loop, LockstepLoop):
            response.message = 'in lockstep only the simulator starts episodes'
            return response
        response.success = self._loop.request_start()
        response.message = 'starting' if response.success else 'inactive or in an episode already'
        return response

    def _ending_service(self, feedback: StepFeedback) -> Callable[[Any, Any], Any]:
        def callback(request: Any, response: Any) -> Any:
            del request
            if isinstance(self._loop, LockstepLoop):
                response.message = 'in lockstep only the simulator ends episodes'
                return response
            response.success = self._loop.end_episode(feedback, self._now())
            response.message = 'ending the episode' if response.success else 'no episode to end'
            return response

        return callback
