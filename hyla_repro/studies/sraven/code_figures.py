"""Figures of SRAVEN's latent codes: in the plane, alike by rule, and read by a probe."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.sraven.pairs import PAIR
from hyla_repro.studies.style import (
    COLORS,
    MARKERS,
    ON_AREA,
    PALETTE,
    WIDE,
    axes_grid,
    axes_mosaic,
    begins_row,
    from_zero,
    legend_outside,
    methods_legend,
    narrow,
    styled,
)  # fmt: skip
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

_STREAM_TITLES = {"unpermuted": "features in place, rules in order",
                  "aligned": "features in any order, alike in columns"}  # fmt: skip
_RULE_NAMES = [name.replace("_", " ") for name in SRAVEN_RULES]


@styled
def fig5a(planes: pd.DataFrame, neighbours: pd.DataFrame) -> Figure:
    """Draw the last layer's codes in the plane, marked by rule, and how often neighbours share the rule, by layer.

    Args:
        planes: rows of `codes.code_plane_table` of models of one depth.
        neighbours: what `codes.neighbours_table` returns of the same models.
    """
    methods, last = _methods(planes), planes[planes["layer"] == planes["layer"].max()]
    columns = "012"[: len(methods)]
    figure, axes = axes_mosaic(
        [[[list(columns)]], [[list("AB")]]], 6.4, "\n".join(f"{columns}AB"), 2.9 * len(methods) + 6
    )
    for column, method in zip(columns, methods, strict=True):
        _by_rule(axes[column], last[last["variant"] == method], size=14)
        axes[column].set(title=f"{NAMES[method]}, last layer", xticks=[], yticks=[])
    legend_outside(figure, axes["0"].get_legend_handles_labels(), markerscale=1.5)
    for letter, stream in zip("AB", ("aligned", "unpermuted"), strict=True):
        _neighbours(axes[letter], neighbours.loc[stream], methods)
        axes[letter].set(title=_STREAM_TITLES[stream], ylabel="same-rule neighbours (%)")
    from_zero(np.array([[axes["A"], axes["B"]]]))
    legend_outside(figure, axes["B"].get_legend_handles_labels(), place="lower center")
    return figure


def _methods(table: pd.DataFrame) -> list[str]:
    return [method for method in METHODS if method in set(table["variant"])]


def _by_rule(ax: Axes, plane: pd.DataFrame, size: int) -> None:
    for name, label, color, marker in zip(SRAVEN_RULES, _RULE_NAMES, PALETTE, "osD^vPX*", strict=False):
        shown = plane[plane["rule"] == name]
        if len(shown):
            ax.scatter(shown["x"], shown["y"], s=size, color=color, marker=marker, lw=0, label=label)


def _neighbours(ax: Axes, table: pd.DataFrame, methods: Sequence[str]) -> None:
    """Draw shares by layer: after training and, dashed, before it; dash-dotted what places tell, dotted by chance."""
    for method in methods:
        own, look = table.loc[NAMES[method]], {"color": COLORS[method], "marker": MARKERS[method], "ms": 5}
        ax.plot(own.index, own["after training"], label=NAMES[method], **look)
        ax.plot(own.index, own["before training"], ls="--", alpha=0.6, mfc="none", **look)
    ax.plot([], [], color="0.4", ls="--", label="before training")
    ax.plot(own.index, own["place alone"], color="0.4", ls="-.", label="place alone")
    ax.plot(own.index, own["chance"], color="0.4", ls=":", label="chance")
    ax.set(xlabel="layer")
    ax.set_xticks(own.index)


@styled
def layers(planes: pd.DataFrame) -> Figure:
    """Draw codes in the plane: a row per method, a column per layer marked by rule, and the last layer by symbol.

    Args:
        planes: rows of `codes.code_plane_table` of models of one depth.
    """
    methods, numbers = _methods(planes), sorted(planes["layer"].unique())
    titles = [*(f"layer {layer}" for layer in numbers), f"layer {numbers[-1]}\nby symbol"]
    size = (len(methods), len(titles))
    figure, axes = axes_grid(*size, 2.2 * len(titles), 1.8 * len(methods) + 0.8, across=len(methods))
    for row, method in enumerate(methods):
        own = planes[planes["variant"] == method]
        for ax, layer in zip(axes[row], numbers, strict=False):
            _by_rule(ax, own[own["layer"] == layer], size=4)
        last = own[own["layer"] == numbers[-1]]
        points = axes[row, -1].scatter(last["x"], last["y"], s=4, c=last["symbol"], cmap="viridis")
    # Rows are columns on a phone.
    name_rows, name_columns = (Axes.set_title, Axes.set_ylabel) if narrow() else (Axes.set_ylabel, Axes.set_title)
    for ax, method in zip(axes[:, 0], methods, strict=True):
        name_rows(ax, NAMES[method].replace(" ", "\n") if narrow() else NAMES[method])
    for ax, title in zip(axes[0], titles, strict=True):
        name_columns(ax, title)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    bar = {"location": "bottom"} if narrow() else {"shrink": 0.6}
    figure.colorbar(points, ax=list(axes[:, -1]), label="symbol of the answer", **bar)
    legend_outside(figure, axes[0, len(numbers) - 1].get_legend_handles_labels(), place="lower center", markerscale=2.5)
    return figure


@styled
def fig5e(similarities: Mapping[str, pd.DataFrame], without: str = "constant") -> Figure:
    """Draw how similar the rules' mean codes are: of all rules (top) and without one (bottom), each on its own scale.

    Frames mark addition and difference, whose lead over the other pairs the claim is on.

    Args:
        similarities: per method, cosine similarity of every two rules.
    """
    methods = [method for method in METHODS if method in similarities]
    figure, axes = axes_grid(2, len(methods), WIDE, 7.0)
    for column, method in enumerate(methods):
        matrix = similarities[method]
        _similarity(axes[0, column], matrix, NAMES[method])
        _similarity(axes[1, column], matrix.drop(index=without, columns=without), f"without {without}")
    return figure


def _similarity(ax: Axes, matrix: pd.DataFrame, title: str) -> None:
    image = ax.imshow(matrix, cmap="viridis", vmax=1)
    names = [name.replace("_", " ") for name in matrix.index]
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names if begins_row(ax) else [""] * len(names))
    first, second = (list(matrix.index).index(rule) for rule in PAIR)
    for row, column in ((first, second), (second, first)):
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=PALETTE[3], lw=2.5, zorder=3))
    pairs = matrix.to_numpy()[np.triu_indices(len(matrix), 1)]
    framed = matrix.loc[PAIR]
    others = (np.nansum(pairs) - framed) / (np.count_nonzero(~np.isnan(pairs)) - 1)
    ax.set_title(f"{title}\nframed {framed:.3f}, others {others:.3f}")
    ax.figure.colorbar(image, ax=ax, shrink=0.6, pad=0.02)


@styled
def single_codes(raw: pd.DataFrame) -> Figure:
    """Draw the codes of single answers, sorted by rule.

    Args:
        raw: rows of `codes.code_plane_table` with codes, of the last layer of one model per method.
    """
    methods = _methods(raw)
    figure, axes = axes_grid(1, len(methods), WIDE, 3.6)
    for ax, method in zip(axes[0], methods, strict=True):
        part = raw[raw["variant"] == method]
        part = part.iloc[np.argsort(part["rule"].map(SRAVEN_RULES.index).to_numpy(), kind="stable")]
        codes = part.filter(like="head_").dropna(axis=1).to_numpy()
        scale = np.quantile(np.abs(codes), 0.99)
        image = ax.imshow(codes / scale, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        counts = part["rule"].value_counts().reindex(SRAVEN_RULES).fillna(0).to_numpy()
        ends = counts.cumsum()
        for end in ends[:-1]:
            ax.axhline(end - 0.5, color=ON_AREA["black"], lw=0.6)
        shown = counts > 0
        names = [name for name, present in zip(_RULE_NAMES, shown, strict=True) if present]
        ax.set_yticks((ends - counts / 2)[shown], names if begins_row(ax) else [""] * len(names))
        ax.set_xticks(range(codes.shape[1]), range(1, codes.shape[1] + 1))
        ax.set(xlabel="head", title=NAMES[method])
    figure.colorbar(image, ax=list(axes[0]), label="code / 99 % quantile", shrink=0.7)
    return figure


@styled
def fig5f(probes: pd.DataFrame) -> Figure:
    """Draw how well the rule is decoded by layer: a panel per stream, dashed before training, dotted by chance.

    Args:
        probes: rows of `codes.rule_decoding_table` of models of one depth, with variant and seed.
    """
    figure, axes = axes_grid(1, len(_STREAM_TITLES), 4.5 * len(_STREAM_TITLES), 3.8, sharey=True)
    for ax, (stream, title) in zip(axes[0], _STREAM_TITLES.items(), strict=True):
        part = probes[probes["stream"] == stream]
        for method, (model, style) in ((m, s) for m in METHODS for s in (("untrained", "--"), ("trained", "-"))):
            rows = part[(part["variant"] == method) & (part["model"] == model)]
            means = 100 * rows.groupby("layer")["accuracy"].agg(["mean", "sem"]).fillna({"sem": 0})
            ax.errorbar(means.index, means["mean"], means["sem"], ls=style, marker=MARKERS[method], ms=5, capsize=3,
                        color=COLORS[method], alpha=1.0 if model == "trained" else 0.6,
                        label=NAMES[method] if model == "trained" else None)  # fmt: skip
        ax.axhline(100 * part["chance"].mean(), color="0.4", ls=":", label="best constant answer")
        ax.plot([], [], color="0.4", ls="--", label="before training")
        ax.set(xlabel="layer", title=title, ylabel="rule decoded on held-out tasks (%)")
        ax.set_xticks(sorted(part["layer"].unique()))
    from_zero(axes)
    methods_legend(figure, axes)
    return figure
