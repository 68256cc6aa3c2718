# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the two knobs of customisation do, on one decision with one action dimension.

`.venv/bin/python benchmarks/customisation_knobs.py docs/images/customisation_knobs.png` draws the
figure of docs/explanation/customisation.md. A decision that ends its episode has Q_R = r_R, so the
customised policy is known exactly: exp((r_R + omega' log pi) / alpha^), normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import typer
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

mpl.use('Agg')

Array = npt.NDArray[np.float64]
ACTIONS = np.linspace(-1.0, 1.0, 2001)
MODES = ((0.65, -0.35, 0.12), (0.35, 0.45, 0.12))
"""Weight, mean and standard deviation of what the base policy does."""
BOX = (-0.5, -0.1)
"""Actions that the add-on forbids."""
DEPTH = -3.0
"""Their reward."""
KNOBS = (
    ('alike: the base, but for the box', ((0.3, 0.3), (1.0, 1.0), (3.0, 3.0))),
    (r"less $\omega'$: the base is forgotten", ((0.1, 1.0), (0.3, 1.0), (1.0, 1.0))),
    (r'less $\hat\alpha$: the best of both alone', ((1.0, 1.0), (1.0, 0.3), (1.0, 0.1))),
)
"""(omega', alpha^) of the curves of each panel."""
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#999999'
SHADES = ('#56b4e9', '#0072b2', '#003a5d')


def prior() -> Array:
    """Return pi(a) on `ACTIONS`."""
    density = sum(
        weight / std * np.exp(-0.5 * ((ACTIONS - mean) / std) ** 2) for weight, mean, std in MODES
    )
    return normalised(np.log(density))


def add_on() -> Array:
    """Return r_R(a) on `ACTIONS`, with soft edges."""
    low, high = BOX
    inside = 1.0 / (1.0 + np.exp(-(ACTIONS - low) / 0.02)) / (1.0 + np.exp((ACTIONS - high) / 0.02))
    return DEPTH * inside


def normalised(exponent: Array) -> Array:
    """Return the density that is proportional to the exponential."""
    values = np.exp(exponent - exponent.max())
    return values / np.trapezoid(values, ACTIONS)


def customised(prior_weight: float, temperature: float) -> Array:
    """Return pi^(a) on `ACTIONS`."""
    return normalised((add_on() + prior_weight * np.log(prior())) / temperature)


def draw(axes: Axes, title: str) -> None:
    """Prepare a panel: prior, box, no frame."""
    axes.fill_between(ACTIONS, prior(), color=GREY, alpha=0.3, linewidth=0)
    axes.axvspan(*BOX, color=ORANGE, alpha=0.12, linewidth=0)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel('action a', fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_yticks([])
    axes.set_xlim(-1.0, 1.0)
    axes.spines[['top', 'right', 'left']].set_visible(False)


def main(figure: Annotated[Path, typer.Argument(help='PNG to write.')]) -> None:
    """Draw the figure."""
    drawn, panels = plt.subplots(1, 4, figsize=(11.0, 2.6), dpi=120, sharey=True)
    draw(panels[0], 'prior and add-on')
    panels[0].plot(ACTIONS, 1.0 + add_on() / 3.0, color=ORANGE, label=r'add-on $r_R(a)$')
    panels[0].plot(ACTIONS, prior(), color=GREY, label=r'prior $\pi(a|s)$')
    panels[0].legend(fontsize=7, frameon=False, loc='upper right')
    for axes, (title, pairs) in zip(panels[1:], KNOBS, strict=True):
        draw(axes, title)
        for (weight, temperature), colour in zip(pairs, SHADES, strict=True):
            label = rf"$\omega'$ {weight:g}, $\hat\alpha$ {temperature:g}"
            axes.plot(ACTIONS, customised(weight, temperature), color=colour, label=label)
        axes.legend(fontsize=7, frameon=False, loc='upper left')
    panels[0].set_ylim(0.0, 6.0)
    drawn.tight_layout()
    drawn.savefig(figure)


if __name__ == '__main__':
    typer.run(main)
