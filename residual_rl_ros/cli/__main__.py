# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`residual-rl`, also as `python -m residual_rl_ros.cli`."""

from __future__ import annotations


def main() -> None:
    """Load the command line, which takes a second, and run it."""
    try:
        from residual_rl_ros.cli.main import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


if __name__ == '__main__':
    main()
