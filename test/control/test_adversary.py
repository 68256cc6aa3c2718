# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to whatever robot: no command is one that was promised never to be sent.

`RESIDUAL_RL_ADVERSARY=seed:days` runs other days than the usual ones; a failure names its seed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adversary import APART, Day

TWO_LINKS = """<robot name="planar">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="tip"/>
  <joint name="a" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
    <limit lower="-9" upper="9" effort="1" velocity="1"/></joint>
  <joint name="b" type="revolute"><parent link="upper"/><child link="lower"/>
    <origin xyz="1 0 0"/><axis xyz="0 0 1"/>
    <limit lower="-9" upper="9" effort="1" velocity="1"/></joint>
  <joint name="end" type="fixed"><parent link="lower"/><child link="tip"/>
    <origin xyz="1 0 0"/></joint>
</robot>"""
STEPS = 1000
FIRST, DAYS = map(int, os.environ.get('RESIDUAL_RL_ADVERSARY', '0:12').split(':'))


@pytest.mark.parametrize('seed', range(FIRST, FIRST + DAYS))
def test_no_command_breaks_a_promise(seed: int, tmp_path: Path) -> None:
    (tmp_path / 'arm.urdf').write_text(TWO_LINKS)
    live(Day(seed, tmp_path), seed)


@pytest.mark.parametrize('seed', range(FIRST, FIRST + max(DAYS // 4, 1)))
def test_no_link_comes_too_near_another_one(seed: int, tmp_path: Path) -> None:
    pytest.importorskip('pinocchio', reason='needs pinocchio: residual_rl_ros[urdf]')
    live(Day(seed, tmp_path, APART), seed)


def live(day: Day, seed: int) -> None:
    """Let everything happen."""
    try:
        day.run(STEPS)
    except BaseException:
        print(f'replay with RESIDUAL_RL_ADVERSARY={seed}:1')
        raise
    finally:
        day.close()
