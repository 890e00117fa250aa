"""One style of all figures: colours per method, safe for colour-blind readers, told apart by markers too."""

import math
from collections.abc import Callable, Mapping, Sequence
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
from hyla_repro.results.methods import METHODS, NAMES

_Arguments = ParamSpec("_Arguments")
PALETTE = sns.color_palette("colorblind")
COLORS = {"softmax": PALETTE[0], "linear": PALETTE[1], "hyla": PALETTE[2], "linear_rms_head": PALETTE[4]}
MARKERS = {"softmax": "s", "linear": "^", "hyla": "o", "linear_rms_head": "D"}
# The preset whose pictures are compared with the committed ones in figures/; others are drawn into a sub-folder.
SHOWN_PRESET = "laptop"
_STYLE = {
    "figure.facecolor": "white", "figure.dpi": 110, "font.size": 10, "axes.titlesize": 10, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draw in the one style of all figures."""

    @wraps(draw)
    def in_style(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> Figure:
        with plt.rc_context(_STYLE):
            figure = draw(*arguments, **options)
            interactive = plt.isinteractive()
        # The first figure loads the backend, and a notebook shows no second one if what that set is undone.
        plt.matplotlib.interactive(interactive)
        return figure

    return in_style


def axes_grid(rows: int, columns: int, width: float, height: float, **options: object) -> tuple[Figure, np.ndarray]:
    """Return a figure of this size in inches, and its axes as (row, column)."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)


def save_figure(figure: Figure, name: str, preset: str = SHOWN_PRESET) -> Path:
    """Write book/_build/figures/NAME.png and .svg (below PRESET/ for other presets), the same bytes from the same data.

    The pixels are compared with the committed picture; pages show the curves, on whatever ground they have.
    """
    folder = paths.DRAWN if preset == SHOWN_PRESET else paths.DRAWN / preset
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(path.with_suffix(".svg"), transparent=True, metadata={"Date": None, "Creator": None})
    return path


def percent_axis(ax: Axes, label: str, low: float = 0.0) -> None:
    """Let the vertical axis show percent, from `low` to a little above 100."""
    ax.set(ylabel=label, ylim=(low, 102))
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


def methods_legend(figure: Figure, axes: np.ndarray) -> None:
    """Put the methods above all axes."""
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS))


def lines(ax: Axes, runs: pd.DataFrame, axis: str, score: str = "heldout", scale: str = "linear") -> None:
    """Draw mean and standard error per method, and every seed as a faint mark.

    Args:
        runs: those of the best setting of each point.
        score: drawn in percent, but for the training loss.
        scale: of the horizontal axis: linear, log (base 2), or from_zero, which keeps its zero in proportion.
    """
    ticks = sorted(runs[axis].unique())
    places = {value: math.log2(value) if scale == "log" else value for value in ticks}
    first, last = places[ticks[0]], places[ticks[-1]]
    spread = (last - first) or 1.0
    for shift, method in zip((-0.01, 0.0, 0.01), METHODS, strict=True):
        part = runs[runs["variant"] == method]
        if part.empty:
            continue
        values = part[score] * (1 if score == "train_loss" else 100)
        x = part[axis].map(places)
        # Methods stand a little beside each other.
        x = x * (1 + shift) if scale == "from_zero" else x + shift * spread
        means = values.groupby(x).agg(["mean", "sem"]).fillna({"sem": 0})
        ax.errorbar(means.index, means["mean"], means["sem"], color=COLORS[method], label=NAMES[method],
                    marker=MARKERS[method], capsize=3, lw=1.5)  # fmt: skip
        ax.plot(x, values, MARKERS[method], ms=3, alpha=0.35, color=COLORS[method])
    ax.set_xticks(list(places.values()), [f"{value:.3g}" for value in ticks])
    # Room to both sides, so that a single value does not blow the shifts between methods up to the axis.
    beside = 0.15 * spread
    ax.set_xlim((0.8 * first, 1.15 * last) if scale == "from_zero" else (first - beside, last + beside))
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


@styled
def score_rows(tables: Mapping[str, Mapping[str, pd.DataFrame]], methods: Sequence[str]) -> Figure:
    """Draw scores on training tasks (hollow) and held-out tasks (solid) of methods from top to bottom, seeds faint.

    Args:
        tables: by title of a panel, `test` and `heldout`: scores in percent by seed (rows) and method (columns).
        methods: those without runs leave their row empty.
    """
    figure, axes = axes_grid(1, len(tables), 2.6 + 4.0 * len(tables), 0.42 * len(methods) + 1.2, sharey=True)
    rows, color = list(methods)[::-1], PALETTE[2]
    for ax, (title, splits) in zip(axes[0], tables.items(), strict=True):
        looks = (("test", 0.14, "none", "training tasks"), ("heldout", -0.14, color, "held-out tasks"))
        for split, shift, fill, label in looks:
            values = splits[split].reindex(columns=rows)
            places = np.arange(len(rows)) + shift
            for _, seed in values.iterrows():
                ax.plot(seed, places, "o", ms=3, alpha=0.35, color=color, mfc=fill)
            ax.errorbar(values.mean(), places, xerr=values.sem().fillna(0), fmt="o", color=color, mfc=fill, capsize=3,
                        label=label)  # fmt: skip
        ax.set_yticks(range(len(rows)), [NAMES[method] for method in rows])
        ax.set(xlabel=title, ylim=(-0.5, len(rows) - 0.5))
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
