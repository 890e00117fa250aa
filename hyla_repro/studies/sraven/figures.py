"""SRAVEN's problems drawn, symbols as dials since all arithmetic is modulo the number of values, and its accuracies."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from hyla_repro.errors import whole_number
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    PALETTE,
    axes_grid,
    from_zero,
    lines,
    methods_legend,
    narrow,
    styled,
)  # fmt: skip
from hyla_repro.tasks.sraven import RULES, SRaven, SRavenBatch


def _dial(ax: Axes, place: int, value: int, n_values: int, color: object, letter: str) -> None:
    """A circle whose hand points clockwise by value / n_values of a turn, 0 at the top; the value below it."""
    angle = math.tau * value / n_values
    ax.add_patch(Circle((place, 0.0), 0.4, facecolor="white", edgecolor=color, lw=2))
    ax.plot([place, place + 0.38 * math.sin(angle)], [0.0, 0.38 * math.cos(angle)], color=color, lw=2)
    ax.text(place, -0.72, str(value), ha="center", va="center")
    ax.text(place, 0.72, letter, ha="center", va="center", color=color, weight="bold")


@styled
def sraven_problem(task: SRaven, batch: SRavenBatch, index: int = 0, solution: bool = True) -> Figure:
    """Draw one problem of a batch.

    Args:
        solution: also draw the answer, in a heavy frame, and tell features apart by colour and letter, with the
            rule of each below.

    Raises: ValueError for an index outside the batch.
    """
    index = whole_number("index", index, 0, "it is a problem of the batch", len(batch.targets) - 1)
    size, k = task.grid_size, task.n_features
    grid, orders = task.panels(batch)[index].tolist(), batch.permutations[index].tolist()
    figure, axes = axes_grid(size, size, size * (0.55 * k + 0.3), size * 1.05 + 0.5, across=None)
    for row, column in ((r, c) for r in range(size) for c in range(size)):
        ax, last = axes[row, column], row == column == size - 1
        ax.set(xlim=(-0.6, k - 0.4), ylim=(-1.05, 1.05), aspect="equal", xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(visible=True, color="black" if last and solution else "0.8", lw=2 if last and solution else 1)
        for place, (value, feature) in enumerate(zip(grid[row][column], orders[column], strict=True)):
            if last and not solution:
                ax.text(place, 0.0, "?", ha="center", va="center", fontsize=14, color="0.4")
                continue
            color, letter = (PALETTE[feature], "ABCDEFGH"[feature]) if solution else ("0.25", "")
            _dial(ax, place, value, task.n_values, color, letter)
    if solution:
        names = list(RULES)
        rules = [
            f"{letter} {names[rule]}" for letter, rule in zip("ABCDEFGH", batch.rules[index].tolist(), strict=False)
        ]
        rows = -(-len(rules) // 2) if narrow() else 1
        per_row = -(-len(rules) // rows)
        figure.supxlabel("\n".join("   ".join(rules[row * per_row :][:per_row]) for row in range(rows)), fontsize=10)
    return figure


@styled
def fig4(runs: pd.DataFrame, main: Mapping[str, Any], ceiling: float) -> Figure:
    """Draw held-out accuracy (top) and training loss (bottom) against data, for each width, and against depth.

    Args:
        runs: those of the best setting of each point.
        main: the main comparison's steps, d_model and n_layers.
        ceiling: the best possible accuracy on held-out tasks, in percent.
    """
    runs = runs.assign(problems=runs["steps"] * 128 / 1e6)
    shallow = runs[runs["n_layers"] == main["n_layers"]]
    cuts = [
        (part, "problems", f"width {width}", "training problems\n(millions, log scale)")
        for width, part in shallow.groupby("d_model")
    ]
    deep = runs[(runs["d_model"] == main["d_model"]) & (runs["steps"] == main["steps"])]
    title = f"width {main['d_model']:g}, {main['steps'] * 128 / 1e6:.3g} M problems"
    cuts.append((deep, "n_layers", title, "layers (log scale)"))
    figure, axes = axes_grid(2, len(cuts), 3.2 * len(cuts), 6.0, sharey="row")
    for column, (part, axis, title, label) in enumerate(cuts):
        for ax, score in zip(axes[:, column], ("heldout", "train_loss"), strict=True):
            lines(ax, part, axis, score, scale="log")
        axes[0, column].set(title=title)
        axes[0, column].axhline(ceiling, color="0.4", ls=":", lw=1, label=f"best possible: {ceiling:.1f} %")
        axes[1, column].set(xlabel=label)
    axes[0, 0].set(ylabel="held-out accuracy (%)", ylim=(0, 102))
    axes[1, 0].set(ylabel="training loss (nats per symbol)")
    methods_legend(figure, axes)
    return figure


@styled
def composition(curves: pd.DataFrame) -> Figure:
    """Draw accuracy on held-out against accuracy on training tasks through training: a panel per seed, a line per run.

    Args:
        curves: rows of `Store.curves` of runs with equal settings.
    """
    seeds, top = sorted(curves["seed"].unique()), 100 * curves[["test", "heldout"]].max(axis=None)
    figure, axes = axes_grid(1, len(seeds), 3.2 * len(seeds), 3.6, sharex=True, sharey=True)
    for ax, seed in zip(axes[0], seeds, strict=True):
        for method in METHODS:
            curve = curves[(curves["variant"] == method) & (curves["seed"] == seed)].sort_values("step")
            ax.plot(100 * curve["test"], 100 * curve["heldout"], color=COLORS[method], lw=1.2, marker=MARKERS[method],
                    ms=3.5, label=NAMES[method])  # fmt: skip
        ax.plot([0, top], [0, top], color="0.5", ls=":", lw=1)
        ax.set(title=f"seed {seed}", xlabel="accuracy on training tasks (%)", aspect="equal")
    axes[0, 0].set_ylabel("accuracy on held-out tasks (%)")
    methods_legend(figure, axes)
    return figure


@styled
def figa5(runs: pd.DataFrame) -> Figure:
    """Draw accuracy on held-out and on training tasks against the fraction of tasks held out."""
    figure, axes = axes_grid(1, 2, 8.0, 3.6, sharey=True)
    for ax, score, kind in zip(axes[0], ("heldout", "test"), ("held-out", "training"), strict=True):
        lines(ax, runs, "heldout_fraction", score)
        ax.set(xlabel="fraction of tasks held out", ylabel=f"accuracy on {kind} tasks (%)")
    from_zero(axes)
    methods_legend(figure, axes)
    return figure


@styled
def fig5c(heads: pd.DataFrame, features: pd.DataFrame) -> Figure:
    """Draw held-out accuracy against the number of heads (left) and of features (right)."""
    figure, axes = axes_grid(1, 2, 8.0, 3.6, sharey=True)
    lines(axes[0, 0], heads, "n_heads", scale="log")
    lines(axes[0, 1], features, "n_features")
    for ax, label in zip(axes[0], ("heads (widths of all together fixed)", "features K"), strict=True):
        ax.set(xlabel=label, ylabel="accuracy on held-out tasks (%)")
    from_zero(axes)
    methods_legend(figure, axes)
    return figure
