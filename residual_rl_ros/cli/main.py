# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: `residual-rl …`; the other modules hold the commands."""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from residual_rl_ros import __version__
from residual_rl_ros.cli import (
    bag_learning,
    bags,
    base_policies,
    comparing,
    learning,
    planning,
    robots,
)
from residual_rl_ros.cli.options import INTERRUPTED
from residual_rl_ros.errors import ResidualRLError
from residual_rl_ros.ros.common.process import stop_signals

BAD_INPUT = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode='markdown',  # Rich's own markup would swallow units such as [s].
    help='Residual reinforcement learning on top of a frozen robot policy, over ROS 2.',
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f'residual-rl {__version__}')
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            '--version', callback=_print_version, is_eager=True, help='Print the version and exit.'
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for command in (
    learning.demo,
    learning.train,
    learning.evaluate,
    comparing.compare,
    comparing.benchmark,
    base_policies.check_base,
    base_policies.import_base,
    base_policies.train_base,
    base_policies.train_prior,
    base_policies.train_encoder,
    planning.train_dynamics,
    planning.planner,
    base_policies.export,
    robots.check_robot,
    robots.describe_robot,
    robots.security_policy,
    robots.layouts,
    robots.up,
    robots.operator,
    robots.dashboard,
    robots.customise,
):
    app.command()(command)
bench = typer.Typer(no_args_is_help=True, help='Measure speed.')
bench.command('learner')(learning.bench_learner)
bench.command('control')(robots.bench_control)
bench.command('bag')(bags.bench)
app.add_typer(bench, name='bench')
bag = typer.Typer(no_args_is_help=True, help='Record, read, learn from and replay rosbag2 files.')
bag.command()(bags.info)
bag.command()(bags.record)
bag.command()(bag_learning.train)
bag.command()(bag_learning.rebuild)
bag.command()(bags.play)
bag.command()(bags.export)
bag.command('import')(bags.import_dataset)
app.add_typer(bag, name='bag')


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    for sign in stop_signals():
        if sign is not signal.SIGINT:
            signal.signal(sign, _interrupt)
    try:
        app()
    except ResidualRLError as error:
        print('error:', ' '.join(str(error).split()), file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        if error.filename is not None:
            print(f'error: {str(error.filename)[:200]!r}: {error.strerror}', file=sys.stderr)
            raise SystemExit(BAD_INPUT) from None
        if error.errno != errno.EIO:
            print(f'error: the output cannot be written: {error.strerror}', file=sys.stderr)
            raise SystemExit(BAD_INPUT) from None
        # The terminal has closed. Python would complain at its end, when it empties its buffers.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        raise SystemExit(INTERRUPTED) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do for SIGTERM and SIGHUP what is done for Ctrl-C."""
    if number == signal.SIGHUP:
        # A terminal that closes says so, and then its shell does.
        signal.signal(number, signal.SIG_IGN)
    on_interrupt = signal.getsignal(signal.SIGINT)
    (on_interrupt if callable(on_interrupt) else signal.default_int_handler)(signal.SIGINT, frame)


if __name__ == '__main__':
    main()
