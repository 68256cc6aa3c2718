# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Classes of ROS messages and actions by their names; a package that is missing is named."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any

from residual_rl_ros.errors import ConfigError

TYPE_NAME = re.compile(r'([a-z][a-z0-9_]*)/(msg|srv|action)/([A-Z][A-Za-z0-9]*)')


@cache
def message_class(name: str) -> Any:
    """Return the class of a ROS type.

    Args:
        name: such as `sensor_msgs/msg/JointState` or `control_msgs/action/GripperCommand`.

    Raises:
        ConfigError: it is no such name, its package is not installed, or has no such type.
    """
    parts = TYPE_NAME.fullmatch(name)
    if parts is None:
        raise ConfigError(f'{name!r} is no ROS type, expected such as sensor_msgs/msg/JointState')
    package, kind, type_name = parts.groups()
    try:
        return getattr(import_module(f'{package}.{kind}'), type_name)
    except ImportError as error:
        raise ConfigError(
            f'{name} needs the package {package}, which is not installed ({error}); install '
            f'ros-$ROS_DISTRO-{package.replace("_", "-")} and source ROS 2'
        ) from error
    except AttributeError as error:
        raise ConfigError(f'the installed package {package} has no {kind} {type_name}') from error
