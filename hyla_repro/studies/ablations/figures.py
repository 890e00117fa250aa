"""Table A1 as a figure, and held-out scores against what the codes tell."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.results.methods import ABLATIONS, METHODS, NAMES
from hyla_repro.studies.style import COLORS, MARKERS, PALETTE, axes_grid, methods_legend, styled


@styled
def tablea1(scores: dict[str, pd.DataFrame], published: pd.DataFrame) -> Figure:
    """Draw our held-out scores beside the published ones for every row, a panel per task; whiskers: standard errors.

    Args:
        scores: by task, what `summarize` made of its runs.
    """
    labels = {"fuzzy_logic": "fuzzy logic: R² on held-out combinations (%)",
              "sraven": "SRAVEN: accuracy on held-out tasks (%)"}  # fmt: skip
    rows = list(ABLATIONS)[::-1]
    figure, axes = axes_grid(1, len(scores), 2.4 + 4.0 * len(scores), 0.42 * len(rows) + 1, sharey=True)
    places = np.arange(len(rows))
    for ax, (task, table) in zip(axes[0], scores.items(), strict=True):
        ours = table.set_index("variant").reindex(rows)
        theirs = published[published["task"] == task].set_index("variant").reindex(rows)
        ax.errorbar(theirs["value"], places + 0.13, xerr=theirs["standard_error"], fmt="D", color="0.55", capsize=3,
                    label="paper")  # fmt: skip
        ax.errorbar(ours["heldout"], places - 0.13, xerr=ours["heldout_se"].fillna(0), fmt="o", color=PALETTE[2],
                    capsize=3, label="here")  # fmt: skip
        ax.set_yticks(places, [NAMES[row] for row in rows])
        ax.set_xlabel(labels[task])
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
def decodability(probes: pd.DataFrame) -> Figure:
    """Draw held-out scores against what a probe reads from the last layer, a panel per task, marks named by seed.

    Args:
        probes: what `analysis.probes_and_scores` returns.
    """
    panels = {
        "fuzzy_logic": ("AUC of terms", "R² on held-out functions (%)"),
        "sraven": ("accuracy of rules", "accuracy on held-out tasks (%)"),
    }
    figure, axes = axes_grid(1, len(panels), 9.0, 3.8)
    for ax, (task, (probe, score)) in zip(axes[0], panels.items(), strict=True):
        for method in METHODS:
            part = probes[(probes["task"] == task) & (probes["variant"] == method)]
            ax.plot(part["probe"], 100 * part["heldout"], MARKERS[method], ms=7, color=COLORS[method],
                    label=NAMES[method])  # fmt: skip
            for seed, *place in zip(part["seed"], part["probe"], 100 * part["heldout"], strict=True):
                ax.annotate(str(seed), place, (6, 4), textcoords="offset points", color="0.3")
        ax.set(xlabel=f"{probe}, decoded from held-out codes", ylabel=score)
        ax.margins(0.1)
        ax.grid(color="0.9")
        ax.set_axisbelow(True)
    methods_legend(figure, axes)
    return figure
