"""The pictures of the chapter on Aaren."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.results.methods import NAMES
from hyla_repro.studies.aaren.runs import ROWS
from hyla_repro.studies.style import COLORS, MARKERS, axes_grid, grid_behind, score_rows, styled

_LOOKS = {"Aaren": "aaren", "softmax with a cache": "softmax"}


@styled
def streaming(table: pd.DataFrame) -> Figure:
    """Draw seconds and bytes of streaming against the number of tokens.

    Args:
        table: rows of benchmarks/streaming.py.
    """
    figure, axes = axes_grid(1, 2, 9.0, 3.4)
    for ax, column, label in zip(axes[0], ("seconds", "bytes"), ("seconds for all tokens", "bytes remembered"),
                                 strict=True):  # fmt: skip
        for attention, part in table.groupby("attention", sort=False):
            method = _LOOKS[str(attention)]
            ax.plot(part["tokens"], part[column], marker=MARKERS[method], color=COLORS[method], label=attention)
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        grid_behind(ax, "both")
    axes[0, 0].legend()
    return figure


@styled
def codes(matrices: pd.DataFrame, residuals: pd.DataFrame) -> Figure:
    """Draw log codes of one series, and what of them is no sum of a term of the key and one of the query.

    Args:
        matrices: rows of `codes.matrix_table` of one seed, with variant.
        residuals: rows of `codes.code_table`, with variant.
    """
    figure, axes = axes_grid(1, 2, 8.4, 3.8)
    for ax, method in zip(axes[0], ("softmax_causal", "aaren"), strict=True):
        part = matrices[matrices["variant"] == method].pivot(index="query", columns="key", values="log_code")
        image = ax.imshow(part.to_numpy(), cmap="viridis", vmin=np.nanquantile(part, 0.02), vmax=0)
        own = residuals[(residuals["variant"] == method) & (residuals["model"] == "trained")]
        ax.set(xlabel="key", ylabel="query", title=f"{NAMES[method]}\nresidual {own['residual'].mean():.2f} nats")
        figure.colorbar(image, ax=ax, label="log code (nats)", shrink=0.8)
    return figure


def tasks(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Draw scores on both tasks, as `score_rows` does, of this chapter's rows."""
    return score_rows(tables, ROWS)
