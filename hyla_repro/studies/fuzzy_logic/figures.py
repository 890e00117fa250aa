"""Figure 2, and A2 and A3."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    ON_AREA,
    PALETTE,
    axes_grid,
    legend_outside,
    lines,
    methods_legend,
    narrow,
    percent_axis,
    styled,
)

_CUTS = (
    ("n_examples", "heldout_fraction", 0.7, "examples in context, N (70 % held out)"),
    ("heldout_fraction", "n_examples", 32, "fraction of combinations held out (N = 32)"),
)


def _two_cuts(row: np.ndarray, runs: pd.DataFrame, split: str, label: str) -> None:
    for ax, (axis, fixed, value, title) in zip(row, _CUTS, strict=True):
        lines(ax, runs[np.isclose(runs[fixed], value)], axis, split, scale="from_zero")
        percent_axis(ax, label, _floor(runs, split))
        ax.set_xlabel(title)


def _floor(runs: pd.DataFrame, split: str) -> float:
    """Return 0, or a multiple of 20 below the lowest value where R2 is negative."""
    return min(0.0, 20 * np.floor(5 * runs[split].min()))


@styled
def fig2a(functions: dict[str, np.ndarray], split: np.ndarray) -> Figure:
    """Draw fuzzy functions over two of their variables, and which pairs of terms are trained on.

    Args:
        functions: title to values (x2, x1) in [0, 1] on a regular grid.
        split: (term, term): 0 no function, 1 train, 2 held out, 3 unknown terms.
    """
    figure, axes = axes_grid(1, len(functions) + 1, 3.1 * (len(functions) + 1), 3.2)
    for ax, (title, values) in zip(axes[0], functions.items(), strict=False):
        image = ax.imshow(values, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1, cmap="viridis")
        ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$")
    figure.colorbar(image, ax=list(axes[0, :-1]), label="f(x)", shrink=0.8)
    ax, colors = axes[0, -1], ["none", PALETTE[0], PALETTE[1], ON_AREA["grey"]]
    ax.imshow(split, cmap=plt.matplotlib.colors.ListedColormap(colors), vmin=0, vmax=3, origin="lower")
    for color, label in zip(colors[1:], ("train", "held out", "unknown terms"), strict=True):
        ax.plot([], [], "s", color=color, label=label)
    ticks = range(0, len(split), 3)
    ax.set(xlabel="first term", ylabel="second term", title="pairs of terms", xticks=ticks, yticks=ticks)
    legend_outside(figure, ax.get_legend_handles_labels(), place="lower right")
    return figure


@styled
def fig2c(runs: pd.DataFrame) -> Figure:
    """Draw held-out R2 against the number of examples and the fraction held out.

    Args:
        runs: those of the best setting of each point.
    """
    figure, axes = axes_grid(1, 2, 9.0, 3.6, sharey=True)
    _two_cuts(axes[0], runs, "heldout", "R² on held-out combinations (%)")
    methods_legend(figure, axes)
    return figure


@styled
def fig2c_steps(curves: pd.DataFrame) -> Figure:
    """Draw R2 on held-out (solid) and on training functions (dashed) through training, a panel per seed.

    Args:
        curves: rows of `Store.curves` of one grid point.
    """
    seeds = sorted(curves["seed"].unique())
    figure, axes = axes_grid(1, len(seeds), max(6.4, 4.0 * len(seeds)), 3.6, sharey=True)
    for ax, seed in zip(axes[0], seeds, strict=True):
        for method in METHODS:
            curve = curves[(curves["variant"] == method) & (curves["seed"] == seed)].sort_values("step")
            steps = curve["step"] / 1000
            ax.plot(steps, 100 * curve["heldout"], color=COLORS[method], marker=MARKERS[method], ms=3.5, lw=1.3,
                    label=NAMES[method])  # fmt: skip
            ax.plot(steps, 100 * curve["test"], color=COLORS[method], ls="--", lw=1)
        percent_axis(ax, "R² (%)" if ax is axes[0, 0] else "", _floor(curves, "heldout"))
        ax.set(title=f"seed {seed}", xlabel="training steps (thousands)")
    methods_legend(figure, axes)
    return figure


@styled
def figa3(runs: pd.DataFrame) -> Figure:
    """Draw R2 on training functions (top) and on functions of unknown terms (bottom).

    Args:
        runs: those of the best setting of each point.
    """
    figure, axes = axes_grid(2, 2, 9.0, 6.4, sharey="row")
    _two_cuts(axes[0], runs, "test", "R² on training functions (%)")
    _two_cuts(axes[1], runs, "unknown_terms", "R² on unknown terms (%)")
    methods_legend(figure, axes)
    return figure


@styled
def fig2b(decoding: pd.DataFrame) -> Figure:
    """Draw how well terms are decoded: F1 and AUC by layer, hollow before training, and AUC by the term's value.

    Args:
        decoding: rows of `codes.decoding_table` with variant and seed.
    """
    layers = sorted(decoding["layer"].unique())
    figure, axes = axes_grid(1, 3, 12.0, 4.2)
    by_layer, ranked, by_value = axes[0]
    trained, untrained = (decoding[decoding["model"] == model] for model in ("trained", "untrained"))
    for shift, method in zip((-0.27, 0.0, 0.27), METHODS, strict=True):
        places = np.arange(len(layers)) + shift
        look = {"color": COLORS[method], "marker": MARKERS[method], "ls": "", "ms": 5}
        ours, control = (_by_seed(part, method).unstack("seed").reindex(layers) for part in (trained, untrained))
        by_layer.bar(places, ours["f1"].mean(axis=1), 0.25, color=COLORS[method], alpha=0.35)
        by_layer.hlines(ours["train_f1"].mean(axis=1), places - 0.125, places + 0.125, color=COLORS[method], lw=2)
        for ax, score in ((by_layer, "f1"), (ranked, "auc")):
            # Seeds stand beside each other, each hollow mark joined with the filled one of the same seed.
            for beside, seed in zip(np.linspace(-0.07, 0.07, ours[score].shape[1]), ours[score], strict=True):
                for place, before, after in zip(places + beside, control[score][seed], ours[score][seed], strict=True):
                    ax.plot([place - 0.02, place + 0.02], [before, after], color=COLORS[method], lw=0.8)
                    ax.plot(place - 0.02, before, mfc="white", **look)
                    ax.plot(place + 0.02, after, **look)
        last = trained[(trained["variant"] == method) & (trained["layer"] == layers[-1])]
        by_value.plot(last["term_value"] + 0.06 * shift, last["auc"], alpha=0.6, **look)
        by_value.plot([], [], label=NAMES[method], **look)
    by_layer.set(ylabel="F1 on held-out functions")
    by_layer.axhline(decoding["chance"].mean(), color="0.4", ls=":")
    ranked.set(ylabel="AUC on held-out functions")
    by_value.set(xlabel="value of the term at the query", ylabel="AUC, last layer")
    for ax in (by_layer, ranked):
        ax.set(xlabel="layer", xlim=(-0.5, len(layers) - 0.5))
        ax.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    for ax in (ranked, by_value):
        ax.axhline(0.5, color="0.4", ls=":")
    legend_outside(figure, by_value.get_legend_handles_labels())
    marks: dict[str, dict[str, Any]] = {
        "after training": {"marker": "o", "ls": ""}, "before training": {"marker": "o", "mfc": "white", "ls": ""},
        "mean": {"lw": 8, "alpha": 0.35}, "mean on training functions": {"lw": 2}, "chance": {"ls": ":"},
    }  # fmt: skip
    shown = [Line2D([], [], color="0.4", **look) for look in marks.values()]
    legend_outside(figure, (shown, list(marks)), place="lower center")
    return figure


def _by_seed(decoding: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return a method's scores by layer and seed, as means over terms."""
    of_method = decoding[decoding["variant"] == method]
    return of_method.groupby(["layer", "seed"])[["f1", "train_f1", "auc"]].mean()


@styled
def fig2d(plane: pd.DataFrame, term: int) -> Figure:
    """Draw the codes in the plane, one column per method, coloured by target (top) and by one term (bottom)."""
    methods = [method for method in METHODS if method in set(plane["variant"])]
    figure, axes = axes_grid(2, len(methods), 3.0 * len(methods) + 1.0, 6.2, across=2)
    for column, method in enumerate(methods):
        part = plane[plane["variant"] == method]
        has_term = part["function"].map(lambda name: str(term) in name.split("+"))
        points = axes[0, column].scatter(part["x"], part["y"], c=part["target"], s=5, cmap="viridis", vmin=0, vmax=1)
        for shown, color, label in ((~has_term, "0.8", "without"), (has_term, PALETTE[3], "with")):
            label = f"{label} term {term}"
            axes[1, column].scatter(part["x"][shown], part["y"][shown], s=5, color=color, label=label)
        axes[0, column].set(title=NAMES[method], xticks=[], yticks=[])
        axes[1, column].set(xlabel="t-SNE 1", xticks=[], yticks=[])
    for ax in axes[:, 0]:
        ax.set_ylabel("t-SNE 2")
    bar = {"location": "top", "shrink": 0.6} if narrow() else {"shrink": 0.8}
    figure.colorbar(points, ax=list(axes.flat if narrow() else axes[0]), label="target f(x)", **bar)
    legend_outside(figure, axes[1, 0].get_legend_handles_labels(), place="lower center", markerscale=2)
    return figure
