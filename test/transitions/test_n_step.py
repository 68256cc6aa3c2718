# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""n-step returns against a brute-force reading of the stream, with every kind of break in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from transition_builders import make_layout, make_transition

from residual_rl_ros.transitions.replay_buffer import ReplayBuffer

LAYOUT = make_layout()
K = LAYOUT.decision_steps


class Event(NamedTuple):
    """What happens at one decision."""

    reward: float
    ending: str
    """`terminated`, `truncated` or nothing."""
    lost: bool
    """Whether the message never arrived."""
    robot: str


events = st.builds(
    Event,
    st.sampled_from([0.0, 1.0, -2.0, 0.5]),
    st.sampled_from(['', '', '', 'terminated', 'truncated']),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(['left', 'left', 'right']),
)


@given(
    st.lists(events, min_size=1, max_size=40).filter(
        lambda stream: not all(e.lost for e in stream)
    ),
    st.integers(1, 50),
    st.integers(1, 6),
    st.sampled_from([1.0, 0.9]),
)
def test_every_sample_is_the_brute_force_n_step_return(
    stream: list[Event], capacity: int, n_step: int, gamma: float
) -> None:
    buffer = ReplayBuffer(LAYOUT, capacity)
    clock = {'left': (0, 0), 'right': (7, 0)}
    kept: list[tuple[int, Event]] = []
    newest: dict[str, int] = {}
    following: dict[int, int] = {}
    for number, event in enumerate(stream):
        episode, step = clock[event.robot]
        if event.robot in newest:
            following[newest[event.robot]] = number
        newest[event.robot] = number
        if not event.lost:
            buffer.add(
                make_transition(
                    LAYOUT,
                    episode=episode,
                    step=step,
                    reward=event.reward,
                    terminated=event.ending == 'terminated',
                    truncated=event.ending == 'truncated',
                    observation=np.full(LAYOUT.observation_size, float(number)),
                    next_observation=np.full(LAYOUT.observation_size, number + 0.5),
                ),
                event.robot,
            )
            kept.append((number, event))
        clock[event.robot] = (episode + 1, 0) if event.ending else (episode, step + K)
    kept = kept[-capacity:]

    batch = buffer.sample(200, np.random.default_rng(0), gamma, n_step)
    present = dict(kept)
    for row in range(200):
        number = int(batch.observation[row, 0])
        reward = weight = 0.0
        last = number
        for steps in range(1, n_step + 1):
            event = present[last]
            reward += gamma ** (steps - 1) * event.reward
            weight += gamma ** (steps - 1)
            if steps == n_step or event.ending or following.get(last) not in present:
                break
            last = following[last]
        bootstrap = 0.0 if present[last].ending == 'terminated' else gamma**steps
        np.testing.assert_allclose(batch.reward[row], reward, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(batch.reward_weight[row], weight, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(batch.bootstrap[row], bootstrap, rtol=1e-6, atol=1e-6)
        assert float(batch.next_observation[row, 0]) == last + 0.5


def test_a_restored_buffer_samples_the_same_returns() -> None:
    original = ReplayBuffer(LAYOUT, 16)
    for number in range(12):
        step, robot = K * (number // 2), ('left', 'right')[number % 2]
        original.add(make_transition(LAYOUT, step=step, reward=float(number)), robot)
    restored = ReplayBuffer(LAYOUT, 16)
    restored.restore(original.export())
    for buffer in (original, restored):
        for number, robot in ((12, 'left'), (13, 'right')):
            buffer.add(make_transition(LAYOUT, step=K * 6, reward=float(number)), robot)
    samples = [b.sample(50, np.random.default_rng(1), 0.9, 3) for b in (original, restored)]
    np.testing.assert_array_equal(samples[0].reward, samples[1].reward)
    np.testing.assert_array_equal(samples[0].bootstrap, samples[1].bootstrap)
    assert samples[0].reward.max() > 13.0  # The newest continue what was stored before.
