"""Figures 1 and A1."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

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


# What the code makes of the heads' matrices, and where the boxes of it stand, for attention and for HYLA.
_LAYERS = {
    "attention: the code writes one linear layer": [(5.0, "$\\sum_h a_h W_h^{out} W_h^{value}$", 4.2)],
    "HYLA: the code writes two, with a ReLU between": [
        (3.4, "$\\sum_h a_h W_h^{value}$", 2.5), (7.0, "$\\sum_h a_h W_h^{out}$", 2.5),
    ],
}  # fmt: skip


@styled
def schematic() -> Figure:
    """Draw how the latent code of a query and a key mixes the heads' matrices into the layers that the key passes."""
    figure, axes = axes_grid(2, 1, 7.0, 4.4)
    code = np.array([0.9, 0.2, 0.6, 0.35])
    for ax, (title, layers) in zip(axes[:, 0], _LAYERS.items(), strict=True):
        ax.set(xlim=(0, 10), ylim=(0, 4), title=title)
        ax.axis("off")
        for head, weight in enumerate(code):
            ax.add_patch(Rectangle((4.1 + 0.45 * head, 3.0), 0.45, 0.45, fc=PALETTE[2], alpha=float(weight), lw=0))
            ax.add_patch(Rectangle((4.1 + 0.45 * head, 3.0), 0.45, 0.45, fill=False, ec="0.3", lw=0.8))
        ax.text(3.95, 3.22, "latent code $a_{q,k}$", ha="right", va="center")
        ax.text(6.05, 3.22, "one number per head", ha="left", va="center", color="0.4")
        stops = [(0.6, "$x_k$"), *((place, words) for place, words, _ in layers), (9.5, "$y_q$")]
        reach = {0.6: 0.35, 9.5: 0.35} | {place: width / 2 for place, _, width in layers}
        for (here, words), (there, _) in zip(stops, [*stops[1:], (None, "")], strict=True):
            ax.text(here, 1.2, words, ha="center", va="center", fontsize=12)
            if there is not None:
                arrow = {"arrowstyle": "->", "color": "0.3"}
                ax.annotate("", (there - reach[there], 1.2), (here + reach[here], 1.2), arrowprops=arrow)
        for place, _, width in layers:
            box = FancyBboxPatch((place - width / 2, 0.75), width, 0.9, boxstyle="round,pad=0.02", fill=False, ec="0.3")
            ax.add_patch(box)
            ax.annotate("", (place, 1.7), (5.0, 2.95), arrowprops={"arrowstyle": "->", "color": PALETTE[2], "lw": 1.5})
        if len(layers) > 1:
            ax.text(5.2, 0.75, "ReLU", ha="center", va="center", fontsize=9)
        ax.text(9.5, 0.45, "$+$ other keys", ha="center", va="center", fontsize=9, color="0.4")
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
