"""One style of all figures: colours per method, safe for colour-blind readers, told apart by markers too."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial, wraps
from itertools import product
from pathlib import Path
from typing import Any, Literal, ParamSpec
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hyla_repro import paths
from hyla_repro.results.methods import METHODS, NAMES

_Arguments = ParamSpec("_Arguments")
PALETTE = sns.color_palette("colorblind")
COLORS = {"softmax": PALETTE[0], "linear": PALETTE[1], "hyla": PALETTE[2], "linear_rms_head": PALETTE[4],
          "aaren": PALETTE[3]}  # fmt: skip
# For what stands on an area of colour. A dark page turns greys around, and these are none, so they stay.
ON_AREA = {"black": "#000100", "grey": "#bfbfbe", "white": "#fffffe"}
MARKERS = {"softmax": "s", "linear": "^", "hyla": "o", "linear_rms_head": "D", "aaren": "v"}
# The preset whose pictures are compared with the committed ones in figures/; others are drawn into a sub-folder.
SHOWN_PRESET = "laptop"
# Inches. Text of 10 points is 11 pixels high or more where a book's page has 670 pixels for a picture, and a phone 340.
WIDE, NARROW = 8.4, 4.4
_METHOD_NAMES = set(NAMES.values())
_STYLE = {
    "figure.facecolor": "white", "figure.dpi": 110, "font.size": 10, "axes.titlesize": 10, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.07, "figure.constrained_layout.w_pad": 0.07,
}  # fmt: skip
# While a figure is drawn for a phone: the grids of its axes, by row and column of the wide figure.
_NARROW_GRIDS: ContextVar[list[np.ndarray] | None] = ContextVar("narrow_grids", default=None)
# How to draw a figure again for a phone, for as long as it lives.
_TWINS: WeakKeyDictionary[Figure, Callable[[], Figure]] = WeakKeyDictionary()


def styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draw in the one style of all figures.

    The same call draws the figure again for a phone when it is saved, with `narrow()` true.
    """

    @wraps(draw)
    def in_style(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> Figure:
        with plt.rc_context(_STYLE):
            figure = draw(*arguments, **options)
            interactive = plt.isinteractive()
        # The first figure loads the backend, and a notebook shows no second one if what that set is undone.
        plt.matplotlib.interactive(interactive)
        _TWINS[figure] = lambda: _drawn_narrow(partial(draw, *arguments, **options))
        return figure

    return in_style


def _drawn_narrow(draw: Callable[[], Figure]) -> Figure:
    grids: list[np.ndarray] = []
    token = _NARROW_GRIDS.set(grids)
    try:
        with plt.rc_context(_STYLE):
            figure = draw()
    finally:
        _NARROW_GRIDS.reset(token)
    # A notebook would show it beside the wide one.
    plt.close(figure)
    for grid in grids:
        _repeat_labels(grid)
    return figure


def narrow() -> bool:
    """Return whether a figure is being drawn for a phone."""
    return _NARROW_GRIDS.get() is not None


def narrow_twin(figure: Figure) -> Figure | None:
    """Return the same figure, drawn for a phone; None if no `styled` function has drawn it."""
    return _TWINS[figure]() if figure in _TWINS else None


def axes_grid(
    rows: int, columns: int, width: float, height: float, across: int | None = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure of this size in inches, at most WIDE, and its axes as (row, column).

    On a phone the same axes stand below each other, column after column.

    Args:
        across: so many stand side by side on a phone; None leaves the grid as it is.
        options: as `matplotlib.pyplot.subplots` takes them.
    """
    grids = _NARROW_GRIDS.get()
    if grids is None:
        return plt.subplots(rows, columns, figsize=(min(width, WIDE), height), squeeze=False, **options)
    if across is None:
        figure, axes = plt.subplots(rows, columns, figsize=(NARROW, height), squeeze=False, **options)
    else:
        figure, axes = _stacked(rows, columns, height, across, **options)
    grids.append(axes)
    return figure, axes


def _stacked(
    rows: int,
    columns: int,
    height: float,
    across: int,
    sharex: object = False,
    sharey: object = False,
    **ratios: object,
) -> tuple[Figure, np.ndarray]:
    """Return a narrow figure with the axes of a grid, without the ratios of its rows and columns."""
    below = -(-rows * columns // across)
    figure = plt.figure(figsize=(NARROW, below * height / rows))
    places = figure.add_gridspec(below, across)
    axes = np.empty((rows, columns), dtype=object)
    for index, (column, row) in enumerate(product(range(columns), range(rows))):
        shared = {"sharex": axes[0, 0] if sharex is True else None,
                  "sharey": axes[0, 0] if sharey is True else axes[row, 0] if sharey == "row" else None}  # fmt: skip
        axes[row, column] = figure.add_subplot(places[divmod(index, across)], **shared)
    return figure, axes


def axes_mosaic(
    layout: str | list[Any], height: float, narrow_layout: str | list[Any], narrow_height: float, **options: Any
) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure of this height in inches, and its axes by letter.

    Args:
        layout, narrow_layout: as `matplotlib.pyplot.subplot_mosaic` takes them, on a page and on a phone.
    """
    if narrow():
        return plt.subplot_mosaic(narrow_layout, figsize=(NARROW, narrow_height), **options)
    return plt.subplot_mosaic(layout, figsize=(WIDE, height), **options)


def begins_row(ax: Axes) -> bool:
    """Return whether axes stand on the left, where the labels of their row belong."""
    place = ax.get_subplotspec()
    return place is None or place.is_first_col()


def ends_column(ax: Axes) -> bool:
    """Return whether no axes stand below these."""
    place = ax.get_subplotspec()
    return place is None or place.is_last_row()


def _repeat_labels(grid: np.ndarray) -> None:
    """Label axes that begin a row on a phone as those that begin theirs in the wide figure."""
    for row in grid:
        for ax in row:
            if begins_row(ax) and not ax.get_ylabel():
                ax.set_ylabel(row[0].get_ylabel())


def save_figure(figure: Figure, name: str, preset: str = SHOWN_PRESET) -> Path:
    """Write book/_build/figures/NAME.png, .svg and -narrow.svg (below PRESET/ for other presets).

    The same data give the same bytes. The pixels are compared with the committed picture; pages show the curves, on
    whatever ground they have, and the narrow ones on a phone.
    """
    folder = paths.DRAWN if preset == SHOWN_PRESET else paths.DRAWN / preset
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
    # Laid out once: most of the time of a figure with many axes goes there, and its curves need no other places.
    figure.set_layout_engine("none")
    _save_curves(figure, path.with_suffix(".svg"))
    if (twin := narrow_twin(figure)) is not None:
        _save_curves(twin, path.with_name(f"{name}-narrow.svg"))
    return path


def _save_curves(figure: Figure, path: Path) -> None:
    with plt.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def family(method: str) -> str:
    """Return the method whose colour and marker a variant has: the longest beginning of its name that has some."""
    return max((name for name in COLORS if f"{method}_".startswith(f"{name}_")), key=len)


def grid_behind(ax: Axes, axis: Literal["x", "y", "both"] = "y") -> None:
    """Draw pale lines at the ticks of one axis or `both`, behind the data."""
    ax.grid(axis=axis, color="0.9")
    ax.set_axisbelow(True)


def from_zero(axes: np.ndarray) -> None:
    """Let the vertical axes, all alike, begin at zero and end where their data do."""
    top = max(ax.get_ylim()[1] for ax in axes.flat)
    for ax in axes.flat:
        ax.set_ylim(0, top)
        grid_behind(ax)


def percent_axis(ax: Axes, label: str, low: float = 0.0) -> None:
    """Let the vertical axis show percent, from `low` to a little above 100."""
    ax.set(ylabel=label, ylim=(low, 102))
    grid_behind(ax)


def legend_outside(
    figure: Figure, entries: tuple[Sequence[Any], Sequence[str]], place: str = "upper center", **options: Any
) -> None:
    """Put a legend beside all axes, in as few rows as the width of the figure takes.

    Args:
        entries: handles and labels.
    """
    handles, labels = entries
    for rows in range(1, len(labels) + 1):
        columns = math.ceil(len(labels) / rows)
        legend = figure.legend(handles, labels, loc=f"outside {place}", ncols=columns, **options)
        if columns == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width:
            return
        legend.remove()


def methods_legend(figure: Figure, axes: np.ndarray) -> None:
    """Put the methods, and what else the first axes name, above all axes."""
    handles, labels = axes[0, 0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: labels[index] not in _METHOD_NAMES)
    legend_outside(figure, ([handles[index] for index in order], [labels[index] for index in order]))


def lines(ax: Axes, runs: pd.DataFrame, axis: str, score: str = "heldout", scale: str = "linear") -> None:
    """Draw mean and standard error per method, and every seed as a faint mark.

    Args:
        runs: those of the best setting of each point.
        score: drawn in percent, but for the training loss.
        scale: of the horizontal axis: linear, log (base 2), or from_zero, which keeps its zero in proportion.
    """
    ticks = sorted(runs[axis].unique())
    places = {value: math.log2(value) if scale == "log" else value for value in ticks}
    first, last = places[ticks[0]], places[ticks[-1]]
    spread = (last - first) or 1.0
    for shift, method in zip((-0.01, 0.0, 0.01), METHODS, strict=True):
        part = runs[runs["variant"] == method]
        if part.empty:
            continue
        values = part[score] * (1 if score == "train_loss" else 100)
        x = part[axis].map(places)
        # Methods stand a little beside each other.
        x = x * (1 + shift) if scale == "from_zero" else x + shift * spread
        means = values.groupby(x).agg(["mean", "sem"]).fillna({"sem": 0})
        ax.errorbar(means.index, means["mean"], means["sem"], color=COLORS[method], label=NAMES[method],
                    marker=MARKERS[method], capsize=3, lw=1.5)  # fmt: skip
        ax.plot(x, values, MARKERS[method], ms=3, alpha=0.35, color=COLORS[method])
    ax.set_xticks(list(places.values()), [f"{value:.3g}" for value in ticks])
    # Room to both sides, so that a single value does not blow the shifts between methods up to the axis.
    beside = 0.15 * spread
    ax.set_xlim((0.8 * first, 1.15 * last) if scale == "from_zero" else (first - beside, last + beside))
    grid_behind(ax)


@styled
def score_rows(tables: Mapping[str, Mapping[str, pd.DataFrame]], methods: Sequence[str]) -> Figure:
    """Draw scores on training tasks (hollow) and held-out tasks (solid) of methods from top to bottom, seeds faint.

    Args:
        tables: by title of a panel, `test` and `heldout`: scores in percent by seed (rows) and method (columns).
        methods: those without runs leave their row empty.
    """
    figure, axes = axes_grid(1, len(tables), 2.6 + 4.0 * len(tables), 0.42 * len(methods) + 1.2, sharey=True)
    rows = list(methods)[::-1]
    looks = (("test", 0.14, False, "training tasks"), ("heldout", -0.14, True, "held-out tasks"))
    for ax, (title, splits) in zip(axes[0], tables.items(), strict=True):
        for (split, shift, filled, _), (place, method) in product(looks, enumerate(rows)):
            values = splits[split].reindex(columns=rows)[method]
            color, marker = COLORS[family(method)], MARKERS[family(method)]
            look = {"marker": marker, "color": color, "mfc": color if filled else "none", "ls": ""}
            ax.plot(values, np.full(len(values), place + shift), ms=3, alpha=0.35, **look)
            ax.errorbar(values.mean(), place + shift, xerr=np.nan_to_num(values.sem()), capsize=3, **look)
        ax.set_yticks(range(len(rows)), [NAMES[method] for method in rows])
        ax.set(xlabel=title, ylim=(-0.5, len(rows) - 0.5))
        grid_behind(ax, "x")
    marks = [
        Line2D([], [], marker="o", ls="", color="0.4", mfc="0.4" if filled else "none") for _, _, filled, _ in looks
    ]
    legend_outside(figure, (marks, [label for *_, label in looks]))
    return figure
