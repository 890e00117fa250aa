"""Figure 6, and what the codes tell of characters."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.results.methods import NAMES
from hyla_repro.studies.language.analysis import TEXTS
from hyla_repro.studies.language.codes import LETTERS, similarity
from hyla_repro.studies.language.runs import METHODS
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    WIDE,
    axes_grid,
    begins_row,
    ends_column,
    legend_outside,
    narrow,
    styled,
)

_BITS = (2, 2.25, 2.5, 3, 3.5, 4, 5, 6)


@styled
def fig6(curves: pd.DataFrame, runs: pd.DataFrame, line: Mapping[str, float]) -> Figure:
    """Draw loss on validation against steps and against time, and the last loss on other texts.

    Args:
        curves: rows of `Store.curves` of these runs, in bits per character.
        runs: those of the best rate of each method, in bits per character.
        line: what a 5-gram model has, by split.
    """
    figure, axes = axes_grid(1, 3, 12.0, 3.8)
    minutes = runs.set_index("id")["minutes"] / runs.set_index("id")["steps"]
    for method in METHODS:
        own = curves[curves["variant"] == method]
        for ax, x in zip(axes[0], (own["step"], own["step"] * own["id"].map(minutes)), strict=False):
            for _, curve in own.assign(x=x).groupby("seed"):
                ax.plot(curve["x"], curve["validation"], color=COLORS[method], lw=0.8, alpha=0.6)
            means = own.assign(x=x).groupby("step")[["x", "validation"]].mean()
            ax.plot(means["x"], means["validation"], color=COLORS[method], lw=1.5, label=NAMES[method],
                    marker=MARKERS[method], ms=4, markevery=4)  # fmt: skip
    for ax, label in zip(axes[0], ("training steps", "minutes of one core"), strict=False):
        ax.axhline(line["validation"], color="0.4", ls=":")
        ax.set(xlabel=label, yscale="log")
        shown = ax.get_ylim()
        ax.set_yticks(_BITS, [f"{bits:g}" for bits in _BITS])
        ax.minorticks_off()
        ax.set_ylim(shown)
    axes[0, 0].set_ylabel("bits per character, validation plays")
    ends = axes[0, 2]
    splits = [split for split in TEXTS if split in line]
    for place, split in enumerate(splits):
        for shift, method in zip((-0.24, -0.08, 0.08, 0.24), METHODS, strict=True):
            values = runs.loc[runs["variant"] == method, split]
            ends.errorbar(place + shift, values.mean(), values.sem() if len(values) > 1 else 0, capsize=3,
                          color=COLORS[method], marker=MARKERS[method])  # fmt: skip
            ends.plot(np.full(len(values), place + shift), values, MARKERS[method], ms=3, alpha=0.35,
                      color=COLORS[method])  # fmt: skip
        ends.hlines(line[split], place - 0.4, place + 0.4, color="0.4", ls=":", label=None if place else "5-gram model")
    ends.set_xticks(range(len(splits)), [TEXTS[split].replace(" ", "\n") for split in splits])
    ends.set(ylabel="bits per character, last step", xlim=(-0.6, len(splits) - 0.4))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more, titles = ends.get_legend_handles_labels()
    legend_outside(figure, (handles + more, labels + titles))
    return figure


@styled
def letters(table: pd.DataFrame) -> Figure:
    """Draw how alike the mean codes of classes of characters are in the last layer, trained and untrained.

    Args:
        table: rows of `letter_code_table` with variant, one run per method.
    """
    last = table[table["layer"] == table["layer"].max()]
    methods = [method for method in METHODS if method in set(last["variant"])]
    figure, axes = axes_grid(2, len(methods), WIDE, 5.6, across=2)
    for column, method in enumerate(methods):
        for row, model in enumerate(("trained", "untrained")):
            ax = axes[row, column]
            part = last[(last["variant"] == method) & (last["model"] == model)]
            image = ax.imshow(similarity(part), vmin=-1, vmax=1, cmap="RdBu_r")
            ax.set_xticks(range(len(LETTERS)), LETTERS if ends_column(ax) else [], rotation=90)
            ax.set_yticks(range(len(LETTERS)), LETTERS if begins_row(ax) else [])
            ax.set_title(f"{NAMES[method]}\n{model}, told {part['told'].mean():.0%}")
    bar = {"location": "bottom"} if narrow() else {"shrink": 0.7}
    figure.colorbar(image, ax=list(axes.flat), label="cosine similarity of mean codes", **bar)
    return figure
