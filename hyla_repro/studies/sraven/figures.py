"""SRAVEN's figures, and its problems drawn: symbols as dials, since all arithmetic is modulo the number of values."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from hyla_repro.errors import whole_number
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.style import COLORS, MARKERS, PALETTE, axes_grid, lines, methods_legend, percent_axis, styled
from hyla_repro.tasks.sraven import RULES, SRaven, SRavenBatch
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

_RULE_NAMES = [name.replace("_", " ") for name in SRAVEN_RULES]


def _dial(ax: Axes, place: int, value: int, n_values: int, color: object, letter: str) -> None:
    """A circle whose hand points clockwise by value / n_values of a turn, 0 at the top; the value below it."""
    angle = math.tau * value / n_values
    ax.add_patch(Circle((place, 0.0), 0.4, facecolor="white", edgecolor=color, lw=2))
    ax.plot([place, place + 0.38 * math.sin(angle)], [0.0, 0.38 * math.cos(angle)], color=color, lw=2)
    ax.text(place, -0.72, str(value), ha="center", va="center", fontsize=8)
    ax.text(place, 0.72, letter, ha="center", va="center", fontsize=8, color=color, weight="bold")


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
    figure, axes = axes_grid(size, size, size * (0.55 * k + 0.3), size * 1.05 + 0.5)
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
        figure.supxlabel("   ".join(rules), fontsize=9)
    return figure


@styled
def fig4(runs: pd.DataFrame, main: Mapping[str, float]) -> Figure:
    """Draw held-out accuracy (top) and training loss (bottom) against data, for each width, and against depth.

    Args:
        runs: those of the best setting of each point.
        main: the main comparison's steps, d_model and n_layers.
    """
    runs = runs.assign(problems=runs["steps"] * 128 / 1e6)
    shallow = runs[runs["n_layers"] == main["n_layers"]]
    cuts = [
        (part, "problems", f"width {width}", "training problems (millions)")
        for width, part in shallow.groupby("d_model")
    ]
    deep = runs[(runs["d_model"] == main["d_model"]) & (runs["steps"] == main["steps"])]
    cuts.append((deep, "n_layers", f"width {main['d_model']:g}, {main['steps'] * 128 / 1e6:.3g} M problems", "layers"))
    figure, axes = axes_grid(2, len(cuts), 3.2 * len(cuts), 6.0, sharey="row")
    for column, (part, axis, title, label) in enumerate(cuts):
        for ax, score in zip(axes[:, column], ("heldout", "train_loss"), strict=True):
            lines(ax, part, axis, score, scale="log")
        axes[0, column].set(title=title)
        axes[1, column].set(xlabel=label)
    axes[0, 0].set(ylabel="accuracy on held-out tasks (%)", ylim=(0, None))
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
        percent_axis(ax, f"accuracy on {kind} tasks (%)")
        ax.set_xlabel("fraction of tasks held out")
    methods_legend(figure, axes)
    return figure


@styled
def fig5c(heads: pd.DataFrame, features: pd.DataFrame) -> Figure:
    """Draw held-out accuracy against the number of heads (left) and of features (right)."""
    figure, axes = axes_grid(1, 2, 8.0, 3.6, sharey=True)
    lines(axes[0, 0], heads, "n_heads", scale="log")
    lines(axes[0, 1], features, "n_features")
    for ax, label in zip(axes[0], ("heads (widths of all together fixed)", "features K"), strict=True):
        percent_axis(ax, "accuracy on held-out tasks (%)")
        ax.set_xlabel(label)
    methods_legend(figure, axes)
    return figure


@styled
def fig5a(planes: pd.DataFrame) -> Figure:
    """Draw codes in the plane: a row per method, a column per layer coloured by rule, and the last layer by symbol.

    Args:
        planes: rows of `codes.code_plane_table` of models of one depth.
    """
    methods = [method for method in METHODS if method in set(planes["variant"])]
    layers = sorted(planes["layer"].unique())
    figure, axes = axes_grid(len(methods), len(layers) + 1, 2.2 * (len(layers) + 1), 2.2 * len(methods) + 0.8)
    numbers = planes["rule"].map(SRAVEN_RULES.index)
    for row, method in enumerate(methods):
        of_method = planes["variant"] == method
        for column, layer in enumerate(layers):
            part, ax = of_method & (planes["layer"] == layer), axes[row, column]
            for rule in range(len(SRAVEN_RULES)):
                shown = planes[part & (numbers == rule)]
                ax.scatter(shown["x"], shown["y"], s=4, color=PALETTE[rule], label=_RULE_NAMES[rule])
            if row == 0:
                ax.set_title(f"layer {layer}")
        last, ax = planes[of_method & (planes["layer"] == layers[-1])], axes[row, -1]
        points = ax.scatter(last["x"], last["y"], s=4, c=last["symbol"], cmap="viridis")
        axes[row, 0].set_ylabel(NAMES[method])
    axes[0, -1].set_title(f"layer {layers[-1]}, by symbol")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    figure.colorbar(points, ax=list(axes[:, -1]), label="symbol of the answer", shrink=0.6)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, markerscale=2.5)
    return figure


@styled
def fig5e(similarities: Mapping[str, pd.DataFrame], raw: pd.DataFrame) -> Figure:
    """Draw how similar the rules' mean codes are (top), and the codes of single answers, rule by rule (bottom).

    Args:
        similarities: per method, cosine similarity of every two rules.
        raw: rows of `codes.code_plane_table` with codes, of the last layer of one model per method.
    """
    methods = [method for method in METHODS if method in similarities]
    figure, axes = axes_grid(2, len(methods), 3.4 * len(methods) + 1.4, 7.2, height_ratios=[1.15, 1])
    # Codes of one model mostly point one way, so the scale begins at the least similarity there is.
    low = min(np.nanmin(matrix) for matrix in similarities.values())
    for column, method in enumerate(methods):
        top, bottom = axes[:, column]
        image = top.imshow(similarities[method], cmap="viridis", vmin=low, vmax=1)
        ticks = range(len(SRAVEN_RULES))
        top.set_xticks(ticks, _RULE_NAMES, rotation=90)
        top.set_yticks(ticks, _RULE_NAMES if column == 0 else [""] * len(SRAVEN_RULES))
        top.set_title(NAMES[method])
        part = raw[raw["variant"] == method]
        part = part.iloc[np.argsort(part["rule"].map(SRAVEN_RULES.index).to_numpy(), kind="stable")]
        codes = part.filter(like="head_").dropna(axis=1).to_numpy()
        scale = np.quantile(np.abs(codes), 0.99)
        raw_image = bottom.imshow(codes / scale, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        counts = part["rule"].value_counts().reindex(SRAVEN_RULES).fillna(0).to_numpy()
        ends = counts.cumsum()
        for end in ends[:-1]:
            bottom.axhline(end - 0.5, color="black", lw=0.6)
        shown = counts > 0
        middles = (ends - counts / 2)[shown]
        names = [name for name, present in zip(_RULE_NAMES, shown, strict=True) if present]
        bottom.set_yticks(middles, names if column == 0 else [""] * len(names))
        bottom.set_xticks(range(codes.shape[1]), range(1, codes.shape[1] + 1))
        bottom.set_xlabel("head")
    figure.colorbar(image, ax=list(axes[0]), label="cosine similarity of mean codes", shrink=0.7)
    figure.colorbar(raw_image, ax=list(axes[1]), label="code / 99 % quantile", shrink=0.7)
    return figure


@styled
def fig5f(probes: pd.DataFrame) -> Figure:
    """Draw how well the rule is decoded by layer: a panel per stream, dashed before training, dotted by chance.

    Args:
        probes: rows of `codes.rule_decoding_table` of models of one depth, with variant and seed.
    """
    streams = {"unpermuted": "features in place, rules in order", "aligned": "features in any order, alike in columns"}
    figure, axes = axes_grid(1, len(streams), 4.5 * len(streams), 3.8, sharey=True)
    for ax, (stream, title) in zip(axes[0], streams.items(), strict=True):
        part = probes[probes["stream"] == stream]
        for method, (model, style) in ((m, s) for m in METHODS for s in (("untrained", "--"), ("trained", "-"))):
            rows = part[(part["variant"] == method) & (part["model"] == model)]
            means = 100 * rows.groupby("layer")["accuracy"].agg(["mean", "sem"]).fillna({"sem": 0})
            ax.errorbar(means.index, means["mean"], means["sem"], ls=style, marker=MARKERS[method], ms=5, capsize=3,
                        color=COLORS[method], alpha=1.0 if model == "trained" else 0.6,
                        label=NAMES[method] if model == "trained" else None)  # fmt: skip
        ax.axhline(100 * part["chance"].mean(), color="0.4", ls=":", label="best constant answer")
        ax.plot([], [], color="0.4", ls="--", label="before training")
        percent_axis(ax, "rule decoded on held-out tasks (%)")
        ax.set(xlabel="layer", title=title)
        ax.set_xticks(sorted(part["layer"].unique()))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=9)
    return figure
