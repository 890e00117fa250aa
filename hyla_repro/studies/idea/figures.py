"""Figures 1 and A1."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from hyla_repro.studies.style import COLORS, MARKERS, PALETTE, axes_grid, axes_mosaic, methods_legend, narrow, styled

# What the code makes of the heads' matrices, and where the boxes of it stand, for attention and for HYLA.
_LAYERS = {
    "attention: the code writes one linear layer": [(5.0, "$\\sum_h a_h W_h^{out} W_h^{value}$", 4.6)],
    "HYLA: the code writes two, with a ReLU between": [
        (3.4, "$\\sum_h a_h W_h^{value}$", 2.6), (7.0, "$\\sum_h a_h W_h^{out}$", 2.6),
    ],
}  # fmt: skip


@styled
def fig1(code: np.ndarray, generated: np.ndarray, direct: np.ndarray, by_pairs: np.ndarray) -> Figure:
    """Draw how a code writes a network, the codes of one query and what they write, and both ways to the output.

    Args:
        code: (h, k), of one query, normalised by a softmax.
        generated: (k, out, in), the matrices W_{q,k} of that query.
        direct, by_pairs: outputs of multi-head attention, and of the sum over pairs of generated networks.
    """
    figure, axes = axes_mosaic(
        [[[list("SSSOO")]], [[list("CCC012")]]], 5.2, "SSS\nCCC\n012\nOOO", 9.0,
        height_ratios=[1.7, 1.8, 1.5, 3.0] if narrow() else [2.8, 2],
    )  # fmt: skip
    _write(axes["S"], next(iter(_LAYERS)), code[:, 0])
    image = axes["C"].imshow(code, cmap="Greens", vmin=0, aspect="auto")
    axes["C"].set(xlabel="key $k$", ylabel="head $h$", title="latent codes $a_{h,q,k}$ of one query")
    axes["C"].set_yticks(range(len(code)))
    figure.colorbar(image, ax=axes["C"], label="code")
    limit = np.abs(generated).max()
    for key in range(3):
        ax = axes[str(key)]
        image = ax.imshow(generated[key], cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(title=f"$W_{{q,{key}}}$", xticks=[], yticks=[], xlabel="input")
    axes["0"].set_ylabel("output")
    figure.colorbar(image, ax=[axes[str(key)] for key in range(3)], label="weight", shrink=0.7)
    reach = 1.1 * np.abs(direct).max()
    axes["O"].plot([-reach, reach], [-reach, reach], color="0.8", lw=1)
    axes["O"].plot(direct.ravel(), by_pairs.ravel(), "o", ms=3, color=PALETTE[0])
    axes["O"].set(xlabel="multi-head attention", ylabel="sum of generated layers", title="the same outputs")
    return figure


@styled
def schematic() -> Figure:
    """Draw how the latent code of a query and a key mixes the heads' matrices into the layers that the key passes."""
    figure, axes = axes_grid(2, 1, 7.0, 4.4)
    for ax, title in zip(axes[:, 0], _LAYERS, strict=True):
        _write(ax, title, np.array([0.9, 0.2, 0.6, 0.35]))
    return figure


def _write(ax: Axes, title: str, code: np.ndarray) -> None:
    """Draw a key, the layers that a code writes for it, and what comes out; a code's largest number is darkest."""
    layers = _LAYERS[title]
    ax.set(xlim=(0, 10), ylim=(0, 4), title=title)
    ax.axis("off")
    first = 5.0 - 0.225 * len(code)
    for head, weight in enumerate(np.abs(code) / np.abs(code).max()):
        corner = (first + 0.45 * head, 3.0)
        ax.add_patch(Rectangle(corner, 0.45, 0.45, fc=PALETTE[2], alpha=float(weight), lw=0))
        ax.add_patch(Rectangle(corner, 0.45, 0.45, fill=False, ec="0.3", lw=0.8))
    ax.text(first - 0.15, 3.22, "latent code $a_{q,k}$", ha="right", va="center")
    ax.text(10 - first + 0.15, 3.22, "one number per head", ha="left", va="center", color="0.4")
    stops = [(0.6, "$x_k$"), *((place, words) for place, words, _ in layers), (9.5, "$y_q$")]
    reach = {0.6: 0.35, 9.5: 0.35} | {place: width / 2 for place, _, width in layers}
    for (here, words), (there, _) in zip(stops, [*stops[1:], (None, "")], strict=True):
        ax.text(here, 1.2, words, ha="center", va="center", fontsize=11)
        if there is not None:
            arrow = {"arrowstyle": "->", "color": "0.3"}
            ax.annotate("", (there - reach[there], 1.2), (here + reach[here], 1.2), arrowprops=arrow)
    for place, _, width in layers:
        box = FancyBboxPatch((place - width / 2, 0.75), width, 0.9, boxstyle="round,pad=0.02", fill=False, ec="0.3")
        ax.add_patch(box)
        ax.annotate("", (place, 1.7), (5.0, 2.95), arrowprops={"arrowstyle": "->", "color": PALETTE[2], "lw": 1.5})
    if len(layers) > 1:
        ax.text(5.2, 0.5, "ReLU", ha="center", va="center")
    ax.text(10, 0.3, "$+$ other keys", ha="right", va="center", color="0.4")
    # What stands beyond the axes would squeeze them.
    for artist in ax.texts:
        artist.set_in_layout(False)


@styled
def figa1(by_heads: pd.DataFrame, by_scale: pd.DataFrame) -> Figure:
    """Draw the variance of the generated output layer at initialisation, against heads and against score scale.

    Args:
        by_heads, by_scale: columns normalizer, n_heads or score_scale, and median, low, high over pairs.
    """
    figure, axes = axes_grid(1, 2, 9.0, 3.4, sharey=True)
    looks = {"rms_head": ("RMSHead", "hyla"), "none": ("no normaliser", "linear"), "softmax": ("softmax", "softmax")}
    cuts = ((by_heads, "n_heads", "heads h"), (by_scale, "score_scale", "scale of the scores"))
    for ax, (table, axis, label) in zip(axes[0], cuts, strict=True):
        for normalizer, (name, method) in looks.items():
            part, color = table[table["normalizer"] == normalizer], COLORS[method]
            ax.plot(part[axis], part["median"], marker=MARKERS[method], color=color, label=name)
            ax.fill_between(part[axis], part["low"], part["high"], color=color, alpha=0.2, lw=0)
        ax.axhline(1.0, color="0.4", lw=1, ls=":")
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.set_xticks(ticks := sorted(table[axis].unique()), [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    axes[0, 0].set_ylabel("variance / ordinary initialisation")
    methods_legend(figure, axes)
    return figure
