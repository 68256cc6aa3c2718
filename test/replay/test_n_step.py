# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""n-step returns against a brute-force reading of the stream, with every kind of break in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from builders import make_layout, make_transition
from hypothesis import given
from hypothesis import strategies as st

from residual_rl_ros.replay.buffer import ReplayBuffer

LAYOUT = make_layout()
K = LAYOUT.decision_steps


class Event(NamedTuple):
    """What happens at one decision."""

    reward: float
    ending: str
    """`terminated`, `truncated` or nothing."""
    lost: bool
    """Whether the message never arrived."""


events = st.builds(
    Event,
    st.sampled_from([0.0, 1.0, -2.0, 0.5]),
    st.sampled_from(['', '', '', 'terminated', 'truncated']),
    st.sampled_from([False, False, False, True]),
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
    episode = step = 0
    kept: list[tuple[int, Event]] = []
    for number, event in enumerate(stream):
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
                )
            )
            kept.append((number, event))
        step += K
        if event.ending:
            episode, step = episode + 1, 0
    kept = kept[-capacity:]

    batch = buffer.sample(200, np.random.default_rng(0), gamma, n_step)
    present = dict(kept)
    for row in range(200):
        number = int(batch.observation[row, 0])
        reward = weight = 0.0
        for j in range(n_step):
            event = present[number + j]
            reward += gamma**j * event.reward
            weight += gamma**j
            last, steps = number + j, j + 1
            if event.ending or number + j + 1 not in present:
                break
        bootstrap = 0.0 if present[last].ending == 'terminated' else gamma**steps
        np.testing.assert_allclose(batch.reward[row], reward, rtol=1e-6)
        np.testing.assert_allclose(batch.reward_weight[row], weight, rtol=1e-6)
        np.testing.assert_allclose(batch.bootstrap[row], bootstrap, rtol=1e-6)
        assert float(batch.next_observation[row, 0]) == last + 0.5


def test_a_restored_buffer_samples_the_same_returns() -> None:
    original = ReplayBuffer(LAYOUT, 8)
    for number in range(6):
        original.add(make_transition(LAYOUT, episode=0, step=K * number, reward=float(number)))
    restored = ReplayBuffer(LAYOUT, 8)
    restored.restore(original.export())
    for buffer in (original, restored):
        buffer.add(make_transition(LAYOUT, episode=0, step=K * 6, reward=6.0))
    samples = [b.sample(50, np.random.default_rng(1), 0.9, 3) for b in (original, restored)]
    np.testing.assert_array_equal(samples[0].reward, samples[1].reward)
    np.testing.assert_array_equal(samples[0].bootstrap, samples[1].bootstrap)
