"""Recall against the number of pairs."""

import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.results.methods import NAMES
from hyla_repro.studies.recall.runs import METHODS
from hyla_repro.studies.style import COLORS, MARKERS, axes_grid, methods_legend, percent_axis, styled


@styled
def mqar(runs: pd.DataFrame) -> Figure:
    """Draw accuracy on fresh sequences against the number of pairs: means, standard errors and single seeds.

    Args:
        runs: one row per finished run, of each method's best learning rate at each number of pairs.
    """
    figure, axes = axes_grid(1, 1, 6.0, 3.8)
    ax = axes[0, 0]
    if runs.empty:
        ax.axis("off")
        ax.text(0.5, 0.5, "no runs yet: hyla-repro run mqar", ha="center", va="center")
        return figure
    pairs = sorted(runs["n_pairs"].unique())
    for shift, method in zip((0.97, 0.99, 1.01, 1.03), METHODS, strict=True):
        own = runs[runs["variant"] == method]
        if own.empty:
            continue
        values = 100 * own["test"]
        means = values.groupby(shift * own["n_pairs"]).agg(["mean", "sem"]).fillna({"sem": 0})
        ax.errorbar(means.index, means["mean"], means["sem"], color=COLORS[method], marker=MARKERS[method],
                    label=NAMES[method], capsize=3, lw=1.5)  # fmt: skip
        ax.plot(shift * own["n_pairs"], values, MARKERS[method], ms=3, alpha=0.35, color=COLORS[method])
    ax.plot(pairs, [100 / n for n in pairs], ":", color="0.4", label="one of the values shown")
    ax.set_xscale("log", base=2)
    ax.set_xticks(pairs, [str(n) for n in pairs])
    ax.minorticks_off()
    ax.set_xlabel("pairs of a key and a value")
    percent_axis(ax, "accuracy (%)")
    methods_legend(figure, axes)
    return figure
