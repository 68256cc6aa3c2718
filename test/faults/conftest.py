# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real processes that are made to fail, each worker in a domain of its own."""

from ros_fixtures import call, domain_id, no_process_survives, worker_domain

__all__ = ['call', 'domain_id', 'no_process_survives', 'worker_domain']
