#!/usr/bin/env bash
# Run a command with the distribution and the workspace sourced.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
source /ws/install/setup.bash
exec "$@"
