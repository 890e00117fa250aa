"""The pictures of the chapter on the primal-dual framework."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.results.methods import NAMES
from hyla_repro.studies.primal_dual.analysis import HeadRegression
from hyla_repro.studies.primal_dual.runs import ROWS, SERIES_METHODS
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    PALETTE,
    axes_grid,
    family,
    grid_behind,
    methods_legend,
    score_rows,
    styled,
)

_MARKS = {"softmax": "s", "softmax_bn": "P"}


@styled
def regression(found: dict[str, HeadRegression]) -> Figure:
    """Draw what the regressions predict against attention with their dual variables."""
    figure, axes = axes_grid(1, len(found), 2.7 * len(found), 2.9, across=2)
    for ax, (name, head) in zip(axes[0], found.items(), strict=True):
        reach = 1.1 * np.abs(head.attention).max()
        ax.plot([-reach, reach], [-reach, reach], color="0.8", lw=1)
        ax.plot(head.attention.ravel(), head.predictions.ravel(), "o", ms=3, color=PALETTE[0])
        ax.set(xlabel="attention", title=name)
    axes[0, 0].set_ylabel("support-vector regression")
    return figure


@styled
def series(accuracy: pd.DataFrame) -> Figure:
    """Draw the accuracy on test series of every seed, joined by seed, with means and standard errors.

    Args:
        accuracy: in percent, by seed (rows) and method (columns).
    """
    methods = [method for method in SERIES_METHODS if method in accuracy]
    figure, axes = axes_grid(1, 1, 6.4, 3.4)
    ax, places = axes[0, 0], np.arange(len(methods))
    for _, seed in accuracy[methods].iterrows():
        ax.plot(places, seed, "o-", ms=3, lw=0.8, color="0.75")
    table = accuracy[methods].agg(["mean", "sem"]).T
    ax.errorbar(places, table["mean"], table["sem"].fillna(0), fmt="none", capsize=4, color="0.2")
    for place, method in zip(places, methods, strict=True):
        color, marker = COLORS[family(method)], MARKERS[family(method)]
        ax.plot(place, table.loc[method, "mean"], marker, ms=7, color=color)
    ax.set_xticks(
        places, [NAMES[method].replace(" attention", "\nattention").replace(" + ", "\n+ ") for method in methods]
    )
    ax.set(ylabel="accuracy on test series (%)", xlim=(-0.4, len(methods) - 0.6))
    grid_behind(ax)
    return figure


@styled
def heads(table: pd.DataFrame) -> Figure:
    """Draw the distance between heads by layer, raw and at length 1, trained (solid) and before training (hollow).

    Args:
        table: rows of `codes.distance_table`, with variant.
    """
    figure, axes = axes_grid(1, 2, 8.4, 3.3)
    labels = {"distance": "distance of outputs", "unit_distance": "distance at length 1"}
    for ax, (column, label) in zip(axes[0], labels.items(), strict=True):
        for shift, (method, color) in zip((-0.08, 0.08), (("softmax", PALETTE[0]), ("softmax_bn", PALETTE[9])),
                                          strict=True):  # fmt: skip
            for model, fill in (("trained", color), ("untrained", "none")):
                part = table[(table["variant"] == method) & (table["model"] == model)]
                means = part.groupby("layer")[column].agg(["mean", "sem"]).fillna(0)
                ax.errorbar(means.index + shift, means["mean"], means["sem"], fmt=_MARKS[method], color=color, mfc=fill,
                            capsize=3, label=f"{NAMES[method]}, {model}")  # fmt: skip
        ax.set(xlabel="layer", ylabel=label)
        ax.set_xticks(sorted(table["layer"].unique()))
        ax.margins(x=0.3)
        grid_behind(ax)
    # Orthogonal vectors of length 1 are this far apart.
    axes[0, 1].axhline(2**0.5, color="0.4", ls=":", lw=1)
    methods_legend(figure, axes)
    return figure


@styled
def cost(counted: pd.DataFrame, measured: pd.DataFrame) -> Figure:
    """Draw products and time of scaled heads over those of softmax attention against the number of tokens.

    Args:
        counted: what `analysis.counted` returns.
        measured: rows of benchmarks/scaled_head.py, or none.
    """
    figure, axes = axes_grid(1, 1, 6.0, 3.6)
    ax, looks = axes[0, 0], ((PALETTE[5], "o", "-"), (PALETTE[9], "X", "--"))
    for (color, marker, line), (name, ratios) in zip(looks, counted.items(), strict=False):
        ax.plot(ratios.index, ratios, line, color=color, label=f"windows {name}: products")
        part = measured[measured["scales"] == name] if len(measured) else measured
        if len(part):
            ax.plot(part["tokens"], part["ratio"], marker, color=color, label=f"windows {name}: time")
    ax.axhline(1.0, color="0.4", ls=":", lw=1)
    ax.set(xscale="log", xlabel="tokens", ylabel="over softmax attention", ylim=(0, None))
    ax.set_xticks(ticks := list(counted.index), [str(tick) for tick in ticks])
    ax.minorticks_off()
    methods_legend(figure, axes)
    return figure


def tasks(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Draw scores on both tasks, as `score_rows` does, of this chapter's rows."""
    return score_rows(tables, ROWS)
