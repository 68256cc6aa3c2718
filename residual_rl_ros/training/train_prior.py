# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a base policy that tells how likely its actions are, by maximum-entropy learning.

It is a run like any other: a base that does nothing, and a preset of a customisation rule that
forgets it (omega' = 0) and learns from the basic reward. What was learned is exported to ONNX with
the outputs `logits`, or `mean` and `log_std`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from torch import Tensor, nn

from residual_rl_ros.algorithms.customisation import CustomisationConfig, OffPolicyCustomisation
from residual_rl_ros.algorithms.on_policy import OnPolicyCustomisation
from residual_rl_ros.algorithms.prior import Density
from residual_rl_ros.algorithms.rule import BASIC, RuleConfig
from residual_rl_ros.base_policy.metadata import METADATA_KEY, BasePolicyMetadata
from residual_rl_ros.config.preset import load_preset
from residual_rl_ros.errors import ConfigError
from residual_rl_ros.evaluation.paired import Score, evaluate, score
from residual_rl_ros.files.digest import file_sha256
from residual_rl_ros.files.json_text import plain
from residual_rl_ros.learner.checkpoint import load_checkpoint
from residual_rl_ros.residual_policy.actor_file import CHECKPOINTS, read_actor
from residual_rl_ros.residual_policy.perceptron import HELD_NOISE, CategoricalPolicy, PriorGaussian
from residual_rl_ros.residual_policy.robot_policy import RobotPolicy
from residual_rl_ros.residual_policy.torch_perceptron import Perceptron, PriorGaussianNetwork
from residual_rl_ros.residual_policy.weights import decode_weights
from residual_rl_ros.resources import make_folder
from residual_rl_ros.robot.prior import Prior
from residual_rl_ros.tasks.checked import Env
from residual_rl_ros.tasks.hosting import (
    control_rate_hz,
    describe_robot,
    environment_names,
    finetune_for_environment,
    make_environment,
)
from residual_rl_ros.training.options import TrainOptions
from residual_rl_ros.training.train import run_training

OPSET = 17
CARD_SEED = 20_000
"""First held-out seed of the card's returns."""


@dataclass(frozen=True)
class PriorOptions:
    """What the command line chooses."""

    environment: str
    preset: str
    steps: int
    """Control steps of training."""
    seed: int
    out: Path
    """ONNX file; the card is beside it."""
    folder: Path
    """Of the run."""
    overrides: Mapping[str, Any]
    """Numbers that replace those of the preset."""
    add_on: tuple[str, ...] = ()
    """Add-ons whose return the card is to tell; nothing is learned from them."""
    episodes: int = 100
    """Held-out episodes for the card."""
    resume: bool = False
    """Continue the run in `folder`."""


def train_prior(options: PriorOptions, console: Console) -> Path:
    """Train, export and write the card; return its path.

    Raises:
        ResidualRLError: bad input, or the environment failed.
        KeyboardInterrupt: after Ctrl-C; what is done by then is saved in `folder`.
    """
    rule = load_preset(options.preset, options.overrides).rule
    _check_rule(options.preset, rule)
    if options.out.suffix != '.onnx':
        raise ConfigError(f'--out is {str(options.out)!r}, expected a file that ends in .onnx')
    folder = options.folder
    for needed in (folder, options.out.parent):
        make_folder(needed)
    name = options.environment
    env = make_environment(name)
    metadata = contract(name, env, options.preset)
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    write_nothing(folder / 'nothing.onnx', metadata, discrete)
    # Around the middle of the range, a residual of one half range reaches all of it.
    config = finetune_for_environment(name, folder / 'nothing.onnx', 1.0, folder)
    config = replace(
        config,
        preset=options.preset,
        overrides=dict(options.overrides),
        control_steps=options.steps,
    ).with_add_ons(options.add_on)
    run = TrainOptions(
        config,
        options.seed,
        folder / 'run',
        resume=options.resume,
        checkpoint_steps=max(8000, options.steps // 10),
        paired_seeds=0,
    )
    run_training(run, console)
    _, policy = decode_weights(read_actor(run.output_dir))
    learned = load_checkpoint(run.output_dir / CHECKPOINTS / 'latest').rule
    assert isinstance(learned, (OffPolicyCustomisation, OnPolicyCustomisation))
    temperature = float(f'{learned.temperature:.3g}')
    export(policy, replace(metadata, temperature=temperature), options.out)
    played = finetune_for_environment(name, options.out, 0.0, folder).with_add_ons(options.add_on)
    seeds = range(CARD_SEED, CARD_SEED + options.episodes)
    found = score(list(evaluate(played, seeds, workers=1)))
    return write_card(options, rule, found, temperature)


def _check_rule(preset: str, rule: RuleConfig) -> None:
    """Refuse a preset that trains no prior.

    Raises:
        ConfigError: it learns from more than the basic reward, or from a base.
    """
    if not isinstance(rule, CustomisationConfig):
        raise ConfigError(
            f'preset {preset!r} trains no policy that tells how likely its actions are; '
            'use soft_q for discrete actions, sac_prior for continuous ones'
        )
    for key, value, wanted in (
        ('reward', rule.reward, BASIC),
        ('prior_weight', rule.prior_weight, 0.0),
    ):
        if value != wanted:
            raise ConfigError(f'{key} is {value!r}, expected {wanted!r} for a prior')


def contract(name: str, env: Env, preset: str) -> BasePolicyMetadata:
    """Return the contract of a base policy of an environment that tells no density yet.

    Args:
        name: of the environment.
        env: the environment.
        preset: for its `kind`.
    """
    observation_names, action_names = environment_names(env)
    action = describe_robot(name, env)['action']
    m = len(action_names)
    return BasePolicyMetadata(
        observation_names=observation_names,
        action_names=action_names,
        action_min=tuple(action.get('lower', [0.0] * m)),
        action_max=tuple(action.get('upper', [1.0] * m)),
        rate_hz=control_rate_hz(env),
        n_obs_steps=1,
        horizon=1,
        exec_start=0,
        exec_steps=1,
        kind=preset,
        task=name,
    )


def write_nothing(path: Path, metadata: BasePolicyMetadata, discrete: bool) -> None:
    """Write a base policy that always does the same, which the rule does not look at.

    Args:
        path: ONNX file.
        metadata: its contract.
        discrete: it takes the first action, and else the middle of the range.
    """
    low, high = np.array(metadata.action_min), np.array(metadata.action_max)
    n, m = len(metadata.observation_names), len(low)
    constant = np.eye(m)[0] if discrete else 0.5 * (low + high)
    constants = {'zero': np.zeros((n, m)), 'constant': constant}
    graph = helper.make_graph(
        [
            helper.make_node('MatMul', ['observation', 'zero'], ['product']),
            helper.make_node('Add', ['product', 'constant'], ['action']),
        ],
        'nothing',
        [helper.make_tensor_value_info('observation', TensorProto.FLOAT, (1, 1, n))],
        [helper.make_tensor_value_info('action', TensorProto.FLOAT, (1, 1, m))],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.save(model, str(path))


class _CategoricalPrior(nn.Module):
    """Soft values as logits; the action is the likeliest one.

    Args:
        policy: what was learned.
    """

    def __init__(self, policy: CategoricalPolicy) -> None:
        super().__init__()
        sizes = policy.architecture
        m = sizes.layout.action_size
        self.values = Perceptron(sizes.layout.observation_size, sizes.hidden_sizes, m)
        _load(self.values, policy.tensors)
        self.temperature = sizes.temperature

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return action and logits, each (1, 1, m), of an observation (1, 1, n)."""
        logits = self.values(observation) / self.temperature
        action = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
        return action.to(logits), logits


class _GaussianPrior(nn.Module):
    """Mean and log standard deviation before tanh; the action is that of the mean.

    Args:
        policy: what was learned.
    """

    def __init__(self, policy: PriorGaussian) -> None:
        super().__init__()
        self.network = PriorGaussianNetwork(policy.architecture)
        tensors = {name: each for name, each in policy.tensors.items() if name != HELD_NOISE}
        _load(self.network, tensors)
        self.density = Density(policy.architecture.layout, policy.architecture.kind)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return action, mean and log std, each (1, 1, m), of an observation (1, 1, n)."""
        block = self.network.block(observation, observation[..., :0])
        mean, log_std = self.density.moments(block)
        return self.density.to_action(mean), mean, log_std


def _load(network: nn.Module, tensors: Mapping[str, Any]) -> None:
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})


def export(policy: RobotPolicy, metadata: BasePolicyMetadata, path: Path) -> None:
    """Write a learned policy as a base policy that tells its density.

    Args:
        policy: learned without a base.
        metadata: its contract, without the kind of the density.
        path: ONNX file.

    Raises:
        ConfigError: it has no density.
    """
    network: nn.Module
    if isinstance(policy, CategoricalPolicy):
        network, prior, density = _CategoricalPrior(policy), Prior.CATEGORICAL, ['logits']
    elif isinstance(policy, PriorGaussian):
        network = _GaussianPrior(policy)
        prior, density = policy.architecture.kind, ['mean', 'log_std']
    else:
        raise ConfigError(f'a robot policy of kind {policy.kind!r} tells no density')
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 1, len(metadata.observation_names)),),
        str(path),
        input_names=['observation'],
        output_names=['action', *density],
        opset_version=OPSET,
        dynamo=False,
        dynamic_axes={name: {0: 'batch'} for name in ('observation', 'action', *density)},
    )
    model = onnx.load(str(path))
    helper.set_model_props(model, {METADATA_KEY: replace(metadata, prior=prior).to_json()})
    onnx.save(model, str(path))


def write_card(options: PriorOptions, rule: RuleConfig, found: Score, temperature: float) -> Path:
    """Write the model card beside the model; return its path."""
    out = options.out
    changes = ''.join(f' --set {key}={value}' for key, value in options.overrides.items())
    asked = ''.join(f' --add-on {text}' for text in options.add_on)
    rows = [('basic return', str(found.returns))]
    if found.added is not None:
        rows.append(('add-on and total', found.added.words(found.returns)))
    if found.success is not None:
        rows.append(('success', str(found.success)))
    digest = file_sha256(out)
    rows += [
        ('file', f'`{out.name}`, {out.stat().st_size / 1e6:.2f} MB, sha256 `{digest}`'),
        ('training', f'{options.steps} control steps, seed {options.seed}'),
        ('temperature at its end', f"{temperature:g}, and as much is omega' on its scale"),
        (
            'command',
            f'`residual-rl train-prior --env {options.environment} --preset {options.preset} '
            f'--steps {options.steps} --seed {options.seed}{changes}{asked} --out {out}`',
        ),
    ]
    table = '\n'.join(f'| {name} | {text} |' for name, text in rows)
    numbers = yaml.safe_dump(plain(asdict(rule)), sort_keys=False).rstrip()
    card = out.with_suffix('.md')
    card.write_text(
        f"""# Base policy `{out.stem}`

A prior: a policy of `{options.environment}` that tells how likely its actions are. It was trained
by maximum-entropy reinforcement learning on the basic reward alone, from nothing, and is what
policy customisation starts from. Its action is the likeliest one.

| | |
|---|---|
{table}

Returns are means with 95 % intervals over {found.returns.trials} held-out seeds, from {CARD_SEED}
on, without noise. The numbers of the rule:

```yaml
{numbers}
```
""",
        encoding='utf-8',
    )
    return card
