"""Drawing how models of others stand beside ours."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.studies.style import PALETTE, axes_grid, styled

_TITLES = {"fuzzy_logic": "fuzzy logic: R² in percent", "sraven": "SRAVEN: accuracy in percent"}


@styled
def standing(tables: Mapping[str, pd.DataFrame], guests: Collection[str]) -> Figure:
    """Draw the means on held-out tasks with their 95 % intervals, and those on training tasks (hollow), best on top.

    Args:
        tables: by task, what `rows.ranked` gives.
        guests: the models that are not ours, in another colour.
    """
    tallest = max(len(table) for table in tables.values())
    figure, axes = axes_grid(1, len(tables), 5.2 * len(tables), 0.3 * tallest + 1.2)
    for ax, (task, table) in zip(axes[0], tables.items(), strict=True):
        places = np.arange(len(table))
        colors = [PALETTE[3] if model in guests else PALETTE[0] for model in table["model"]]
        around = np.nan_to_num(np.array([table["heldout"] - table["low"], table["high"] - table["heldout"]]))
        for place, color, (_, row), reach in zip(places, colors, table.iterrows(), around.T, strict=True):
            ax.errorbar(row["heldout"], place, xerr=reach[:, None], fmt="o", color=color, capsize=3)
            ax.plot(row["test"], place, "o", color=color, mfc="none")
        ax.set_yticks(places, table["model"])
        ax.set(xlabel=_TITLES[task], ylim=(max(len(table), 1) - 0.5, -0.5))
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    return figure
