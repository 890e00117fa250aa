"""Table A1 as a figure, and held-out scores against what the codes tell."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    WIDE,
    axes_grid,
    family,
    grid_behind,
    legend_outside,
    methods_legend,
    styled,
)

# The rows of Table A1 by what they change.
GROUPS = {
    "methods": METHODS,
    "normaliser": ("linear_rms_head", "hyla_no_rms_head", "hyla_softmax"),
    "value network": ("linear_rms_head_relu_values", "hyla_no_relu", "hyla_no_relu_no_rms_head", "hyla_deep"),
    "mixture of experts": tuple(f"{method}_moe" for method in METHODS),
}


@styled
def tablea1(scores: dict[str, pd.DataFrame], published: pd.DataFrame) -> Figure:
    """Draw our held-out scores and the published ones for every row, in groups; whiskers: standard errors.

    On fuzzy logic both share an axis. On SRAVEN ours are of a smaller task, and have an axis of their own.

    Args:
        scores: by task, what `summarize` made of its runs.
    """
    names = {"fuzzy_logic": ("fuzzy logic", "held-out R² (%)"), "sraven": ("SRAVEN", "held-out accuracy (%)")}
    panels = [(task, sides) for task in scores
              for sides in ((("paper", "here"),) if task == "fuzzy_logic" else (("paper",), ("here",)))]  # fmt: skip
    rows = [row for group, members in GROUPS.items() for row in (group, *members)][::-1]
    figure, axes = axes_grid(1, len(panels), WIDE, 0.31 * len(rows) + 1, sharey=True)
    for ax, (task, sides) in zip(axes[0], panels, strict=True):
        theirs = published[published["task"] == task].set_index("variant").reindex(rows)
        ours = scores[task].set_index("variant").reindex(rows)
        for side in sides:
            shift = 0.15 * (len(sides) - 1) * (1 if side == "paper" else -1)
            for place, row in enumerate(rows):
                _score(ax, place + shift, theirs.loc[row], ours.loc[row], side)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.set_yticks(range(len(rows)), [NAMES.get(row, row) for row in rows])
        for label, row in zip(ax.get_yticklabels(), rows, strict=False):
            label.set_fontweight("bold" if row in GROUPS else "normal")
        title, score = names[task]
        ax.set(xlabel=score, title=title if len(sides) > 1 else f"{title}, {sides[0]}")
        ax.tick_params(axis="y", length=0)
        grid_behind(ax, "x")
    marks = [
        Line2D([], [], color="0.4", marker="D", mfc="white", ls=""),
        Line2D([], [], color="0.2", marker="o", ls=""),
    ]
    legend_outside(figure, (marks, ["paper", "here"]))
    return figure


def _score(ax: Axes, place: float, theirs: pd.Series, ours: pd.Series, side: str) -> None:
    look: dict[str, Any] = {"capsize": 3, "ls": ""}
    if side == "paper":
        ax.errorbar(theirs["value"], place, xerr=np.nan_to_num(theirs["standard_error"]), color="0.4", marker="D",
                    mfc="white", **look)  # fmt: skip
    elif ours.name in NAMES:
        method = family(str(ours.name))
        ax.errorbar(ours["heldout"], place, xerr=np.nan_to_num(ours["heldout_se"]), color=COLORS[method],
                    marker=MARKERS[method], **look)  # fmt: skip


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
        grid_behind(ax, "both")
    methods_legend(figure, axes)
    return figure
