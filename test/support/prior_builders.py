# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX base policies that tell the density of their actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from robot_builders import ACTIONS, make_metadata

from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.robot.prior import Prior


def prior_metadata(prior: Prior, names: tuple[str, ...] = ACTIONS) -> BasePolicyMetadata:
    """Return the contract of a policy with such a density."""
    m, discrete = len(names), prior is Prior.CATEGORICAL
    low, high = (0.0, 1.0) if discrete else (-1.0, 1.0)
    return make_metadata(
        prior=prior, action_names=names, action_min=(low,) * m, action_max=(high,) * m
    )


NAMES = ('left', 'stay', 'right')
METADATA = prior_metadata(Prior.CATEGORICAL, NAMES)


class Chooser:
    """Chooses one action after another, and says that it nearly chose the next one."""

    stochastic = False

    def __init__(self, metadata: BasePolicyMetadata = METADATA) -> None:
        self.metadata = metadata

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.metadata.horizon, 3

    def plan(
        self, window: np.ndarray, noises: np.ndarray | None = None, context: Any = None
    ) -> np.ndarray:
        del window, noises
        chosen = np.eye(3, dtype=np.float32)[np.arange(self.metadata.horizon) % 3]
        logits = 2.0 * chosen + np.roll(chosen, 1, axis=1)
        return np.concatenate([chosen, logits], axis=1) if self.metadata.prior.size(3) else chosen


def write_prior_policy(
    path: Path,
    prior: Prior,
    metadata: BasePolicyMetadata | None = None,
    *,
    stochastic: bool = True,
    log_std: float = -1.0,
    offset: float = 0.0,
    without: str = '',
    least: bool = False,
    batch: int | str = 'batch',
) -> np.ndarray:
    """Write a policy whose mean or logits are observation @ weights; return the weights.

    Gaussian actions are mean + std x noise; categorical ones are the largest logit + noise.

    Args:
        path: ONNX file.
        prior: kind of density.
        metadata: the contract; default `prior_metadata(prior)`.
        stochastic: with a noise input.
        log_std: the same for all.
        offset: added to the action, which then is not what the density says.
        without: an output that is left out.
        least: choose the smallest logit instead.
        batch: declared size of the batch.
    """
    meta = prior_metadata(prior) if metadata is None else metadata
    horizon, m = meta.horizon, len(meta.action_names)
    rows = meta.n_obs_steps * len(meta.observation_names)
    weights = np.random.default_rng(1).standard_normal((rows, horizon * m)).astype(np.float32)
    told = 'logits' if prior is Prior.CATEGORICAL else 'mean'
    constants = {
        'weights': weights,
        'flat': np.array([-1, rows], dtype=np.int64),
        'chunk': np.array([-1, horizon, m], dtype=np.int64),
        'spread': np.full((1, 1, 1), log_std, dtype=np.float32),
        'offset': np.full((1, 1, 1), offset, dtype=np.float32),
        'zero': np.zeros((1, 1, 1), dtype=np.float32),
        'count': np.array(m, dtype=np.int64),
        'off_on': np.array([0.0, 1.0], dtype=np.float32),
    }
    nodes = [
        helper.make_node('Reshape', ['observation', 'flat'], ['row']),
        helper.make_node('MatMul', ['row', 'weights'], ['product']),
        helper.make_node('Reshape', ['product', 'chunk'], [told]),
        helper.make_node('Mul', [told, 'zero'], ['zeros']),
        helper.make_node('Add', ['zeros', 'spread'], ['log_std']),
        helper.make_node('Exp', ['log_std'], ['std']),
    ]
    noise = 'noise' if stochastic else 'zeros'
    if prior is Prior.CATEGORICAL:
        nodes += [
            helper.make_node('Add', [told, noise], ['drawn']),
            helper.make_node(
                'ArgMin' if least else 'ArgMax', ['drawn'], ['index'], axis=2, keepdims=0
            ),
            helper.make_node('OneHot', ['index', 'count', 'off_on'], ['chosen'], axis=-1),
        ]
    else:
        last = 'z' if prior is Prior.SQUASHED_GAUSSIAN else 'chosen'
        nodes += [
            helper.make_node('Mul', ['std', noise], ['wide']),
            helper.make_node('Add', [told, 'wide'], [last]),
        ]
        if last == 'z':  # The trained range is -1 to 1.
            nodes.append(helper.make_node('Tanh', ['z'], ['chosen']))
    nodes.append(helper.make_node('Add', ['chosen', 'offset'], ['action']))

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, *shape))

    inputs = [value('observation', meta.n_obs_steps, len(meta.observation_names))]
    if stochastic:
        inputs.append(value('noise', horizon, m))
    outputs = ['action', told, *(['log_std'] if told == 'mean' else [])]
    graph = helper.make_graph(
        nodes,
        'density',
        inputs,
        [value(name, horizon, m) for name in outputs if name != without],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: meta.to_json()})
    onnx.save(model, str(path))
    return weights
