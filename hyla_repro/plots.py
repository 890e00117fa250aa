"""One function per figure, one style: colours per method, safe for colour-blind readers, told apart by markers too."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyla_repro import paths
from hyla_repro.presets import ABLATIONS, METHODS
from hyla_repro.summary import NAMES

_Arguments = ParamSpec("_Arguments")
_PALETTE = sns.color_palette("colorblind")
COLORS = {"softmax": _PALETTE[0], "linear": _PALETTE[1], "hyla": _PALETTE[2]}
MARKERS = {"softmax": "s", "linear": "^", "hyla": "o"}
# The preset whose pictures are compared with the committed ones in figures/; others are drawn into a sub-folder.
SHOWN_PRESET = "laptop"
_STYLE = {
    "figure.facecolor": "white", "figure.dpi": 110, "font.size": 10, "axes.titlesize": 10, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def _styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draw in the one style of all figures."""

    @wraps(draw)
    def styled(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> Figure:
        with plt.rc_context(_STYLE):
            figure = draw(*arguments, **options)
            interactive = plt.isinteractive()
        # The first figure loads the backend, and a notebook shows no second one if what that set is undone.
        plt.matplotlib.interactive(interactive)
        return figure

    return styled


def _axes(rows: int, columns: int, width: float, height: float, **options: object) -> tuple[Figure, np.ndarray]:
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)


def save_figure(figure: Figure, name: str, preset: str = SHOWN_PRESET) -> Path:
    """Write book/_build/figures/NAME.png (below PRESET/ for other presets), the same bytes from the same data."""
    folder = paths.DRAWN if preset == SHOWN_PRESET else paths.DRAWN / preset
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
    return path


def _percent_axis(ax: Axes, label: str, low: float = 0.0) -> None:
    ax.set(ylabel=label, ylim=(low, 102))
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


def _lines(ax: Axes, scores: pd.DataFrame, runs: pd.DataFrame, axis: str, split: str) -> None:
    """Draw mean and standard error per method, and every seed as a faint dot."""
    for shift, method in zip((-0.01, 0.0, 0.01), METHODS, strict=True):
        part = scores[scores["variant"] == method].sort_values(axis)
        if part.empty:
            continue
        places = part[axis] * (1 + shift)
        ax.errorbar(places, part[split], part[split + "_se"].fillna(0), color=COLORS[method], label=NAMES[method],
                    marker=MARKERS[method], capsize=3, lw=1.5)  # fmt: skip
        seeds = runs[runs["variant"] == method]
        ax.plot(seeds[axis] * (1 + shift), 100 * seeds[split], MARKERS[method], ms=3, alpha=0.35, color=COLORS[method])
    ax.set_xticks(ticks := sorted(scores[axis].unique()))
    # Room to both sides, so that a single value does not blow the shifts between methods up to the axis.
    ax.set_xlim(0.8 * ticks[0], 1.15 * ticks[-1])


_CUTS = (
    ("n_examples", "heldout_fraction", 0.7, "examples in context, N (70 % held out)"),
    ("heldout_fraction", "n_examples", 32, "fraction of combinations held out (N = 32)"),
)


def _two_cuts(row: np.ndarray, scores: pd.DataFrame, runs: pd.DataFrame, split: str, label: str, low: float) -> None:
    for ax, (axis, fixed, value, title) in zip(row, _CUTS, strict=True):
        at = [table[np.isclose(table[fixed], value)] for table in (scores, runs)]
        _lines(ax, at[0], at[1], axis, split)
        _percent_axis(ax, label, low)
        ax.set_xlabel(title)


@_styled
def fig1(code: np.ndarray, generated: np.ndarray, direct: np.ndarray, by_pairs: np.ndarray) -> Figure:
    """Draw the latent codes of one query, the matrices they generate, and both ways to compute the output.

    Args:
        code: (h, k), of one query.
        generated: (k, out, in), the matrices W_{q,k} of that query.
        direct, by_pairs: outputs of multi-head attention, and of the sum over pairs of generated networks.
    """
    figure, axes = _axes(1, 5, 11.0, 2.7, width_ratios=[1.6, 1, 1, 1, 1.6])
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
    last.plot(direct.ravel(), by_pairs.ravel(), "o", ms=3, color=_PALETTE[0])
    last.set(xlabel="multi-head attention", ylabel="sum of generated layers", title="the same outputs")
    return figure


@_styled
def figa1(by_heads: pd.DataFrame, by_scale: pd.DataFrame) -> Figure:
    """Draw the variance of the generated output layer at initialisation, against heads and against score scale.

    Args:
        by_heads, by_scale: columns normalizer, n_heads or score_scale, and median, low, high over pairs.
    """
    figure, axes = _axes(1, 2, 9.0, 3.4, sharey=True)
    looks = {"rms_head": ("o", _PALETTE[2]), "none": ("^", _PALETTE[1]), "softmax": ("s", _PALETTE[0])}
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


@_styled
def fig2a(functions: dict[str, np.ndarray], split: np.ndarray) -> Figure:
    """Draw fuzzy functions over two of their variables, and which pairs of terms are trained on.

    Args:
        functions: title to values (x2, x1) in [0, 1] on a regular grid.
        split: (term, term): 0 no function, 1 train, 2 held out, 3 unknown terms.
    """
    figure, axes = _axes(1, len(functions) + 1, 3.1 * (len(functions) + 1), 3.3)
    for ax, (title, values) in zip(axes[0], functions.items(), strict=False):
        image = ax.imshow(values, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1, cmap="viridis")
        ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$")
    figure.colorbar(image, ax=list(axes[0, :-1]), label="f(x)", shrink=0.8)
    ax, colors = axes[0, -1], ["white", _PALETTE[0], _PALETTE[1], "0.75"]
    ax.imshow(split, cmap=plt.matplotlib.colors.ListedColormap(colors), vmin=0, vmax=3, origin="lower")
    for color, label in zip(colors[1:], ("train", "held out", "unknown terms"), strict=True):
        ax.plot([], [], "s", color=color, label=label)
    ticks = range(0, len(split), 3)
    ax.set(xlabel="first term", ylabel="second term", title="functions: pairs of terms", xticks=ticks, yticks=ticks)
    ax.legend(loc="lower right", fontsize=8)
    return figure


@_styled
def fig2c(scores: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Draw held-out R2 against the number of examples and the fraction held out."""
    figure, axes = _axes(1, 2, 9.0, 3.6, sharey=True)
    _two_cuts(axes[0], scores, runs, "heldout", "R² on held-out combinations (%)", _floor(runs, "heldout"))
    _methods_legend(figure, axes)
    return figure


@_styled
def figa3(scores: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Draw R2 on training functions (top) and on functions of unknown terms (bottom)."""
    figure, axes = _axes(2, 2, 9.0, 6.4, sharey="row")
    _two_cuts(axes[0], scores, runs, "test", "R² on training functions (%)", _floor(runs, "test"))
    _two_cuts(axes[1], scores, runs, "unknown_terms", "R² on unknown terms (%)", _floor(runs, "unknown_terms"))
    _methods_legend(figure, axes)
    return figure


def _methods_legend(figure: Figure, axes: np.ndarray) -> None:
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS))


def _floor(runs: pd.DataFrame, split: str) -> float:
    """Return 0, or a multiple of 20 below the lowest value where R2 is negative."""
    return min(0.0, 20 * np.floor(5 * runs[split].min()))


@_styled
def fig2b(decoding: pd.DataFrame) -> Figure:
    """Draw how well terms are decoded: F1 by layer and method, and AUC by the term's value at the query."""
    layers = sorted(decoding["layer"].unique())
    figure, axes = _axes(1, 2, 9.0, 3.6)
    ax, by_value = axes[0]
    for shift, method in zip((-0.25, 0.0, 0.25), METHODS, strict=True):
        seeds = decoding[decoding["variant"] == method].groupby(["layer", "seed"])[["f1", "train_f1"]].mean()
        places = np.arange(len(layers)) + shift
        means = seeds.groupby(level="layer").mean().reindex(layers)
        ax.bar(places, means["f1"], 0.23, color=COLORS[method], alpha=0.55, label=NAMES[method])
        ax.hlines(means["train_f1"], places - 0.115, places + 0.115, color=COLORS[method])
        for place, layer in zip(places, layers, strict=True):
            values = seeds["f1"].get(layer, pd.Series(dtype=float))
            ax.plot([place] * len(values), values, MARKERS[method], ms=4, color=COLORS[method])
        last = decoding[(decoding["variant"] == method) & (decoding["layer"] == layers[-1])]
        by_value.plot(last["term_value"], last["auc"], MARKERS[method], ms=5, alpha=0.6, color=COLORS[method])
    ax.hlines([], [], [], color="0.4", label="training functions")
    ax.axhline(decoding["chance"].mean(), color="0.4", ls=":", label="always yes")
    ax.set(ylabel="F1 on held-out functions", ylim=(0, 1.02), xlabel="layer")
    ax.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    by_value.axhline(0.5, color="0.4", ls=":")
    by_value.set(
        xlabel="value of the term at the query", ylabel="AUC, last layer, held-out functions", ylim=(0.4, 1.02)
    )
    figure.legend(loc="outside upper center", ncols=5, fontsize=9)
    return figure


@_styled
def fig2d(plane: pd.DataFrame, term: int) -> Figure:
    """Draw the codes in the plane, one column per method, coloured by target (top) and by one term (bottom)."""
    methods = [method for method in METHODS if method in set(plane["variant"])]
    figure, axes = _axes(2, len(methods), 3.0 * len(methods) + 1.0, 6.2)
    for column, method in enumerate(methods):
        part = plane[plane["variant"] == method]
        has_term = part["function"].map(lambda name: str(term) in name.split("+"))
        points = axes[0, column].scatter(part["x"], part["y"], c=part["target"], s=5, cmap="viridis", vmin=0, vmax=1)
        for shown, color, label in ((~has_term, "0.8", "without"), (has_term, _PALETTE[3], "with")):
            label = f"{label} term {term}"
            axes[1, column].scatter(part["x"][shown], part["y"][shown], s=5, color=color, label=label)
        axes[0, column].set(title=NAMES[method], xticks=[], yticks=[])
        axes[1, column].set(xlabel="t-SNE 1", xticks=[], yticks=[])
    for ax in axes[:, 0]:
        ax.set_ylabel("t-SNE 2")
    figure.colorbar(points, ax=list(axes[0]), label="target f(x)", shrink=0.8)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return figure


@_styled
def tablea1(scores: dict[str, pd.DataFrame], published: pd.DataFrame) -> Figure:
    """Draw our held-out scores beside the published ones for every row, a panel per task; whiskers: standard errors.

    Args:
        scores: by task, what `summarize` made of its runs.
    """
    labels = {"fuzzy_logic": "fuzzy logic: R² on held-out combinations (%)",
              "sraven": "SRAVEN: accuracy on held-out tasks (%)"}  # fmt: skip
    rows = list(ABLATIONS)[::-1]
    figure, axes = _axes(1, len(scores), 2.4 + 4.0 * len(scores), 0.42 * len(rows) + 1, sharey=True)
    places = np.arange(len(rows))
    for ax, (task, table) in zip(axes[0], scores.items(), strict=True):
        ours = table.set_index("variant").reindex(rows)
        theirs = published[published["task"] == task].set_index("variant").reindex(rows)
        ax.errorbar(theirs["value"], places + 0.13, xerr=theirs["standard_error"], fmt="D", color="0.55", capsize=3,
                    label="paper")  # fmt: skip
        ax.errorbar(ours["heldout"], places - 0.13, xerr=ours["heldout_se"].fillna(0), fmt="o", color=_PALETTE[2],
                    capsize=3, label="here")  # fmt: skip
        ax.set_yticks(places, [NAMES[row] for row in rows])
        ax.set_xlabel(labels[task])
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
