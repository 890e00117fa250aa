"""Figures 1 and A1."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.studies.style import PALETTE, axes_grid, styled


@styled
def fig1(code: np.ndarray, generated: np.ndarray, direct: np.ndarray, by_pairs: np.ndarray) -> Figure:
    """Draw the latent codes of one query, the matrices they generate, and both ways to compute the output.

    Args:
        code: (h, k), of one query.
        generated: (k, out, in), the matrices W_{q,k} of that query.
        direct, by_pairs: outputs of multi-head attention, and of the sum over pairs of generated networks.
    """
    figure, axes = axes_grid(1, 5, 11.0, 2.7, width_ratios=[1.6, 1, 1, 1, 1.6])
    first, *matrices, last = axes[0]
    limit = np.abs(code).max()
    first.imshow(code, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    first.set(xlabel="key k", ylabel="head h", title="latent codes a[h, q, k] of one query")
    limit = np.abs(generated).max()
    for key, ax in enumerate(matrices):
        ax.imshow(generated[key], cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(title=f"generated $W_{{q,{key}}}$", xticks=[], yticks=[], xlabel="input")
    matrices[0].set_ylabel("output")
    reach = 1.1 * np.abs(direct).max()
    last.plot([-reach, reach], [-reach, reach], color="0.8", lw=1)
    last.plot(direct.ravel(), by_pairs.ravel(), "o", ms=3, color=PALETTE[0])
    last.set(xlabel="multi-head attention", ylabel="sum of generated layers", title="the same outputs")
    return figure


@styled
def figa1(by_heads: pd.DataFrame, by_scale: pd.DataFrame) -> Figure:
    """Draw the variance of the generated output layer at initialisation, against heads and against score scale.

    Args:
        by_heads, by_scale: columns normalizer, n_heads or score_scale, and median, low, high over pairs.
    """
    figure, axes = axes_grid(1, 2, 9.0, 3.4, sharey=True)
    looks = {"rms_head": ("o", PALETTE[2]), "none": ("^", PALETTE[1]), "softmax": ("s", PALETTE[0])}
    cuts = ((by_heads, "n_heads", "heads h"), (by_scale, "score_scale", "scale of the scores"))
    for ax, (table, axis, label) in zip(axes[0], cuts, strict=True):
        for normalizer, (marker, color) in looks.items():
            part = table[table["normalizer"] == normalizer]
            ax.plot(part[axis], part["median"], marker=marker, color=color, label=normalizer)
            ax.fill_between(part[axis], part["low"], part["high"], color=color, alpha=0.2, lw=0)
        ax.axhline(1.0, color="0.4", lw=1, ls=":")
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.set_xticks(ticks := sorted(table[axis].unique()), [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    axes[0, 0].set_ylabel("variance / ordinary initialisation")
    axes[0, 1].legend(title="normaliser")
    return figure
