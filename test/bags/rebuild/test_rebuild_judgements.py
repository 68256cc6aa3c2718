# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An episode of a raw bag ends where somebody said so, or where the commands pause."""

from __future__ import annotations

from pathlib import Path

import pytest
from raw_bag_builders import PERIOD, Live, rebuild, record_commands

from residual_rl_ros.bags.rebuild.real_time import Mark, read_marks
from residual_rl_ros.control.feedback import MARK_FAILURE, MARK_SUCCESS, StepFeedback
from residual_rl_ros.errors import BagError
from residual_rl_ros.transitions.transition import Success, Transition


def test_a_pause_ends_an_episode_as_it_is_told(tmp_path: Path) -> None:
    record_commands(tmp_path / 'bag', [*range(10), *range(60, 70)])
    for success, ending in ((True, (True, False)), (False, (False, True))):
        made, _, _ = rebuild(tmp_path / 'bag', end_is_success=success)
        last = [t for t in made if t.terminated or t.truncated]
        assert [(t.terminated, t.truncated) for t in last] == [ending] * 2
        assert [t.episode for t in last] == [0, 1]
        wanted = Success.SUCCESS if success else Success.UNLABELLED
        assert {t.success for t in last} == {wanted}


def test_a_mark_judges_what_the_recording_does_not(tmp_path: Path) -> None:
    record_commands(tmp_path / 'bag', list(range(30)))
    mark = Mark(100.0 + 15.2 * PERIOD, MARK_FAILURE)
    made, _, _ = rebuild(tmp_path / 'bag', marks=(mark,))
    (failed,) = [t for t in made if t.success is Success.FAILURE]
    assert failed.terminated
    assert failed.step == 14
    assert [t.episode for t in made][-1] == 1


def judged(made: list[Transition]) -> list[tuple[float, bool, bool, Success]]:
    last = [t for t in made if t.terminated or t.truncated]
    return [(t.reward, t.terminated, t.truncated, t.success) for t in last]


SUCCEEDED = (1.0, True, False, Success.SUCCESS)
FAILED = (0.0, True, False, Success.FAILURE)
UNJUDGED = (0.0, False, True, Success.UNLABELLED)


@pytest.mark.parametrize('end_is_success', [True, False])
@pytest.mark.parametrize('periods_later', [0.5, 10.0])
@pytest.mark.parametrize(
    ('feedback', 'expected'), [(MARK_SUCCESS, SUCCEEDED), (MARK_FAILURE, FAILED)]
)
def test_a_mark_after_the_motion_is_the_only_end(
    end_is_success: bool,
    periods_later: float,
    feedback: StepFeedback,
    expected: tuple[float, bool, bool, Success],
    tmp_path: Path,
) -> None:
    record_commands(tmp_path / 'bag', [*range(10), *range(60, 70)])
    marks = tuple(Mark(100.0 + PERIOD * (tick + periods_later), feedback) for tick in (9, 69))
    made, _, problems = rebuild(tmp_path / 'bag', marks=marks, end_is_success=end_is_success)
    assert judged(made) == [expected] * 2
    assert problems == []


@pytest.mark.parametrize('tick', [9, 30])
def test_feedback_after_the_motion_is_the_only_end(tick: int, tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for step in range(10):
        live.step(step)
    live.record_feedback(tick, 0.0, 1.0, 0.0, 0.0)
    for step in range(60, 70):
        live.step(step)
    live.recorder.close()
    made, _, problems = rebuild(tmp_path / 'bag', end_is_success=True)
    assert judged(made) == [FAILED, SUCCEEDED]
    assert problems == []


def test_a_judgement_that_no_episode_is_open_for_is_named(tmp_path: Path) -> None:
    live = Live.start(tmp_path / 'bag')
    for step in range(10):
        live.step(step)
    live.record_feedback(20, 0.0, 1.0, 0.0, 0.0)
    live.record_feedback(25, 1.0, 1.0, 0.0, 1.0)
    live.step(60)
    live.recorder.close()
    marks = tuple(Mark(stamp, MARK_SUCCESS) for stamp in (99.0, 101.4, 103.1, 103.2))
    made, _, problems = rebuild(tmp_path / 'bag', marks=marks)
    assert judged(made) == [FAILED, SUCCEEDED]
    assert len(problems) == 4
    assert [p for p in problems if 'mark at 99.000 s is not used' in p]
    assert [p for p in problems if 'mark at 101.400 s is not used' in p]
    assert [p for p in problems if 'mark at 103.200 s is not used' in p]
    (feedback,) = [p for p in problems if '/cell/step_feedback' in p]
    assert 'bag.mcap: /cell/step_feedback: message' in feedback


@pytest.mark.parametrize(
    'text', ['- {stamp: now, outcome: success}', '- {stamp: 1}', '7', '{}', '', ': :']
)
def test_marks_that_cannot_be_read_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / 'marks.yaml').write_text(text)
    with pytest.raises(BagError, match='marks'):
        read_marks(tmp_path / 'marks.yaml')
