"""Table A1 as a figure."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.results.methods import ABLATIONS, NAMES
from hyla_repro.studies.style import PALETTE, axes_grid, styled


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
