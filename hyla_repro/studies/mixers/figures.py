"""Drawing how models of others stand beside ours."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.studies.style import PALETTE, axes_grid, grid_behind, styled

_TITLES = {"fuzzy_logic": ("fuzzy logic", "R² (%)"), "sraven": ("SRAVEN", "accuracy (%)")}


@styled
def standing(tables: Mapping[str, pd.DataFrame], guests: Collection[str]) -> Figure:
    """Draw the means on held-out tasks with their 95 % intervals, and those on training tasks (hollow), best on top.

    Args:
        tables: by task, what `rows.ranked` gives.
        guests: the models that are not ours, in another colour and with another mark.
    """
    tallest = max(len(table) for table in tables.values())
    figure, axes = axes_grid(1, len(tables), 5.2 * len(tables), 0.3 * tallest + 1.2)
    for ax, (task, table) in zip(axes[0], tables.items(), strict=True):
        places = np.arange(len(table))
        looks = [(PALETTE[3], "D") if model in guests else ("0.25", "o") for model in table["model"]]
        around = np.nan_to_num(np.array([table["heldout"] - table["low"], table["high"] - table["heldout"]]))
        for place, (color, marker), (_, row), reach in zip(places, looks, table.iterrows(), around.T, strict=True):
            ax.errorbar(row["heldout"], place, xerr=reach[:, None], fmt=marker, color=color, capsize=3)
            ax.plot(row["test"], place, marker, color=color, mfc="none")
        ax.set_yticks(places, table["model"])
        title, score = _TITLES[task]
        ax.set(title=title, xlabel=score, ylim=(max(len(table), 1) - 0.5, -0.5))
        grid_behind(ax, "x")
    return figure
