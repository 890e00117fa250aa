"""Which paths a network uses, against its width; and heads with their scores."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hyla_repro.results.methods import NAMES
from hyla_repro.studies.attention_paths import analysis
from hyla_repro.studies.attention_paths.chains import AUTHORS, FOUR, NINE
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    ON_AREA,
    PALETTE,
    WIDE,
    axes_grid,
    axes_mosaic,
    begins_row,
    family,
    legend_outside,
    narrow,
    styled,
)  # fmt: skip

_LINES = {"all": "-", "good": ":", "good and denoising": "--"}
_SHOWN_WIDTHS = (10, 100, 1000)


@styled
def paths(points: pd.DataFrame) -> Figure:
    """Draw accuracy against width, order parameters at three widths, and the kernel's overlap with the task.

    Args:
        points: rows of `runs.POINTS`.
    """
    table = analysis.of_net(points, FOUR)
    authors = table[table["draw"] == AUTHORS]
    figure, axes = axes_mosaic("AAAOOO\n001122", 7.6, "A\n0\n1\n2\nO", 18.0)
    _accuracies(axes["A"], authors)
    last = axes["O"]
    for ax, width in zip((axes[letter] for letter in "012"), _SHOWN_WIDTHS, strict=True):
        _order_parameter(ax, analysis.order_parameter(authors, "theory", width))
        ax.set_title(f"order parameter, N={width}")
    overlaps = analysis.overlaps(points)
    for shift, (name, color) in zip((-0.2, 0.2), (("infinite", "0.6"), ("N=10", PALETTE[2])), strict=True):
        last.bar(overlaps.index + shift, overlaps[name], 0.4, color=color, label=name)
    last.set(xlabel="eigenvector of the kernel", ylabel="overlap with the labels", xlim=(0.3, 15.7),
             xticks=range(1, 16, 2))  # fmt: skip
    last.legend()
    return figure


def _accuracies(ax: Axes, authors: pd.DataFrame) -> None:
    accuracy = authors[authors["quantity"] == "accuracy"]
    for name, style in _LINES.items():
        (value,) = accuracy.loc[(accuracy["method"] == "infinite") & (accuracy["first"] == name), "value"]
        ax.axhline(value, color="0.4", ls=style, lw=1, label=f"infinite width, {name}")
    for method, marker, label in (("theory", "x", "theory"), ("chain", "o", "exact posterior")):
        part = accuracy[accuracy["method"] == method]
        ax.plot(
            part["width"], part["value"], marker, color=PALETTE[2 if method == "theory" else 1], label=label, mfc="none"
        )
    # Room for the legend below the lines.
    low, high = ax.get_ylim()
    ax.set(xscale="log", xlabel="width N", ylabel="accuracy (%)", ylim=(low - 0.85 * (high - low), high))
    ax.legend(loc="lower left")


_FALLS = (0, 0.1, 0.3, 1, 3, 10)


def _order_parameter(ax: Axes, matrix: pd.DataFrame) -> None:
    limit = np.abs(matrix.to_numpy()).max()
    ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(matrix.to_numpy()):
        color = ON_AREA["white" if abs(value) > 0.7 * limit else "black"]
        text = "0" if abs(value) < 0.05 else f"{value:.1f}".replace("-", "−")
        ax.text(column, row, text, ha="center", va="center", color=color)
    places = range(len(matrix))
    ax.set_xticks(places, matrix.columns, rotation=90)
    ax.set_yticks(places, matrix.index if begins_row(ax) else [""] * len(matrix))


@styled
def heads(points: pd.DataFrame, trained: pd.DataFrame) -> Figure:
    """Draw what heads cost against their scores: in networks of the theory, and in trained models.

    Args:
        points: rows of `runs.POINTS`.
        trained: rows of `runs.HEADS` with the method as variant.
    """
    methods = [method for method in NAMES if method in set(trained["variant"])]
    columns = 1 if narrow() else 2
    rows = -(-(1 + len(methods)) // columns)
    figure, axes = axes_grid(rows, columns, WIDE, 3.2 * rows)
    first, *others = axes.flat
    made = analysis.silenced(analysis.of_net(points, NINE))
    for random, label in ((False, "useful"), (True, "random")):
        part = made[made["random"] == random]
        first.plot(part["score"], part["drop"], "x" if random else "o", color=PALETTE[1 if random else 2], label=label)
    first.set(title="3 × 3 heads, hidden Markov chains", xlabel="score", ylabel="fall of accuracy (points)")
    first.legend()
    one = trained[trained["surrogate"] == "one layer"]
    for ax, method in zip(others, methods, strict=False):
        marker, color = MARKERS[family(method)], COLORS[family(method)]
        for layer, part in one[one["variant"] == method].groupby("layer"):
            ax.plot(part["score"], part["drop"], marker, color=color, alpha=0.4 * layer)
        ax.set(title=NAMES[method], xlabel="score in the surrogate", ylabel="fall of held-out R²")
        # Linear up to 0.1, where most are.
        ax.set_yscale("symlog", linthresh=0.1)
        shown = ax.get_ylim()
        ax.set_yticks(_FALLS, [f"{fall:g}" for fall in _FALLS])
        ax.set_ylim(shown)
    layers = sorted(one["layer"].unique())
    marks = [Line2D([], [], marker="o", ls="", color="0.2", alpha=0.4 * layer) for layer in layers]
    legend_outside(figure, (marks, [f"trained models, layer {layer}" for layer in layers]))
    return figure
