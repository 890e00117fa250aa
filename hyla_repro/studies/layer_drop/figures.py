"""Accuracy against dropped modules, what each module does to the stream, and what dropping it alone costs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.layer_drop.analysis import KINDS, TASKS, last_steps, matched, retained, single_losses
from hyla_repro.studies.style import (
    PALETTE,
    axes_grid,
    begins_row,
    ends_column,
    legend_outside,
    methods_legend,
    percent_axis,
    styled,
)

_TARGETS = {"attn": "attention", "mlp": "MLPs", "block": "blocks", "joint": "attention and MLPs by one scale"}
# No colours of methods, which have panels of their own.
_COLORS = dict(zip(_TARGETS, (PALETTE[3], PALETTE[9], PALETTE[7], "0.15"), strict=True))
_MARKERS = {"attn": "v", "mlp": "X", "block": "P", "joint": "."}


def _nothing_yet() -> Figure:
    figure, axes = axes_grid(1, 1, 7.0, 1.2)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, "no models yet: hyla-repro run drop, then hyla-repro collect", ha="center", va="center")
    return figure


@styled
def drop(curves: pd.DataFrame, deepest: bool = True) -> Figure:
    """Draw accuracy against the number of dropped modules, a row per kind of model and a column per method.

    Args:
        curves: rows of `curve_table` as `analysis.rows` returns them.
        deepest: draw each task's deepest models, else its others.
    """
    if len(curves):
        curves = curves[(curves["n_layers"] == curves.groupby("task")["n_layers"].transform("max")) == deepest]
    if curves.empty:
        return _nothing_yet()
    ended = last_steps(curves)
    models = sorted({(task, layers) for task, layers in zip(ended["task"], ended["n_layers"], strict=True)})[::-1]
    figure, axes = axes_grid(len(models), len(METHODS), 11.0, 0.8 + 2.6 * len(models))
    for row, (task, layers) in zip(axes, models, strict=True):
        part = ended[(ended["task"] == task) & (ended["n_layers"] == layers)]
        for ax, method in zip(row, METHODS, strict=True):
            _curves(ax, part[part["variant"] == method])
            ax.set_title(f"{NAMES[method]}\n{TASKS[task]}, {layers} layers")
            ax.set_xticks(range(layers + 1))
        top = max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(0, top)
        row[0].set_ylabel("accuracy (%)")
    for ax in axes[-1]:
        ax.set_xlabel("modules dropped")
    legend_outside(figure, axes[0, 0].get_legend_handles_labels())
    return figure


def _curves(ax: Axes, part: pd.DataFrame) -> None:
    for target, label in _TARGETS.items():
        own = part[(part["target"] == target) & (part["order"] == "score")]
        for split, line in (("test", "-"), ("heldout", "--")):
            means = 100 * own.groupby("n")[split].mean()
            ax.plot(means.index, means, line, color=_COLORS[target], lw=1.5, marker=_MARKERS[target], ms=5,
                    label=label if line == "-" else None)  # fmt: skip
    drawn = part[(part["target"] == "joint") & part["order"].str.startswith("random")]
    band = 100 * drawn.groupby(["n", "order"])["test"].mean().unstack()
    if len(band):
        ax.fill_between(band.index, band.min(axis=1), band.max(axis=1), color="0.85", lw=0, label="random orders")
    best = 100 * part[part["order"] == "oracle"].groupby("n")["test"].mean()
    ax.plot(best.index, best, ":", color="0.2", label="best subset")
    ax.set_xlim(0, part["n_layers"].max() if len(part) else 1)
    ax.grid(axis="y", color="0.9")


@styled
def heat(scores: pd.DataFrame, task: str = "sraven") -> Figure:
    """Draw S of every module of a task's deepest models: a row per kind of module, a column per method.

    Each panel has a column per layer and a row per stage of training, the first on top.

    Args:
        scores: rows of `score_table` as `analysis.rows` returns them.
        task: "sraven", or "language" for models of characters.
    """
    own = scores[scores["task"] == task] if len(scores) else scores
    if own.empty:
        return _nothing_yet()
    own = own[own["n_layers"] == own["n_layers"].max()]
    steps = sorted(own["step"].unique())
    figure, axes = axes_grid(len(KINDS), len(METHODS), 10.0, len(KINDS) * (0.9 + 0.17 * len(steps)))
    # A module that was dropped by training itself has S = 0, which has no logarithm.
    seen = own["score"].clip(lower=1e-4)
    norm = LogNorm(seen.min(), max(seen.max(), 2e-4))
    for (kind, label), row in zip(KINDS.items(), axes, strict=True):
        for ax, method in zip(row, METHODS, strict=True):
            part = own[(own["kind"] == kind) & (own["variant"] == method)]
            table = part.pivot_table("score", index="step", columns="layer").reindex(steps)
            image = ax.imshow(np.clip(table.to_numpy(), 1e-4, None), norm=norm, cmap="viridis", aspect="auto")
            ax.set(xticks=[], yticks=[], title=NAMES[method])
            if begins_row(ax):
                ax.set_yticks(range(len(steps)), [str(step) for step in steps])
            if ends_column(ax):
                ax.set_xticks(range(table.shape[1]), [str(layer + 1) for layer in table.columns])
        row[0].set_ylabel(f"{label}: step")
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    figure.colorbar(image, ax=list(axes.flat), label="S", shrink=0.8)
    return figure


@styled
def single(scores: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw S of every module against what dropping it alone adds to the loss, a panel per method."""
    if scores.empty or curves.empty:
        return _nothing_yet()
    table = single_losses(scores, curves)
    table = table[table["task"] == "sraven"]
    figure, axes = axes_grid(1, len(METHODS), 10.5, 3.4, sharex=True, sharey=True)
    for ax, method in zip(axes[0], METHODS, strict=True):
        for kind in KINDS:
            part = table[(table["variant"] == method) & (table["kind"] == kind)]
            ax.plot(part["score"].clip(lower=1e-4), part["harm"], _MARKERS[kind], ms=5, alpha=0.6, color=_COLORS[kind],
                    label=KINDS[kind])  # fmt: skip
        ax.set(xscale="log", xlabel="S", title=NAMES[method])
        ax.axhline(0, color="0.6", lw=0.8)
    axes[0, 0].set_ylabel("rise in loss when dropped (nats)")
    methods_legend(figure, axes)
    return figure


@styled
def kept(curves: pd.DataFrame) -> Figure:
    """Draw what is kept at equal accuracy without attention and without MLPs, a row per task, a column per method.

    Args:
        curves: rows of `curve_table` as `analysis.rows` returns them; those of models that kept weights are drawn.
    """
    at = matched(curves)
    if at.empty:
        return _nothing_yet()
    tasks = [task for task in TASKS if task in set(at["task"])]
    figure, axes = axes_grid(len(tasks), len(METHODS), 10.5, 0.6 + 2.6 * len(tasks))
    for row, task in zip(axes, tasks, strict=True):
        for ax, method in zip(row, METHODS, strict=True):
            own = at[(at["task"] == task) & (at["variant"] == method) & (at["order"] == "score")]
            for split, line in (("test", "-"), ("heldout", "--")):
                part = retained(own, split)
                for target in ("attn", "mlp"):
                    means = part[part["target"] == target].groupby("n")["kept"].mean()
                    ax.plot(means.index, means, line, color=_COLORS[target], marker=_MARKERS[target],
                            label=_TARGETS[target])  # fmt: skip
            percent_axis(ax, "kept (%)")
            # Without a module a network may do better than with all of them.
            ax.set(title=f"{NAMES[method]}\n{TASKS[task]}", ylim=(0, 110))
    for ax in axes[-1]:
        ax.set_xlabel("modules dropped")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_outside(figure, (handles[:2], labels[:2]))
    return figure
