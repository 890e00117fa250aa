"""SRAVEN problems drawn: symbols as dials, since all arithmetic is modulo the number of values."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from hyla_repro.plots import _PALETTE, _axes, _styled
from hyla_repro.tasks.sraven import RULES, SRaven, SRavenBatch


def _dial(ax: Axes, place: int, value: int, n_values: int, color: object, letter: str) -> None:
    """A circle whose hand points clockwise by value / n_values of a turn, 0 at the top; the value below it."""
    angle = math.tau * value / n_values
    ax.add_patch(Circle((place, 0.0), 0.4, facecolor="white", edgecolor=color, lw=2))
    ax.plot([place, place + 0.38 * math.sin(angle)], [0.0, 0.38 * math.cos(angle)], color=color, lw=2)
    ax.text(place, -0.72, str(value), ha="center", va="center", fontsize=8)
    ax.text(place, 0.72, letter, ha="center", va="center", fontsize=8, color=color, weight="bold")


@_styled
def sraven_problem(task: SRaven, batch: SRavenBatch, index: int = 0, solution: bool = True) -> Figure:
    """Draw one problem of a batch.

    Args:
        solution: also draw the answer, in a heavy frame, and tell features apart by colour and letter, with the
            rule of each below.

    Raises: ValueError for an index outside the batch.
    """
    if not 0 <= index < len(batch.targets):
        raise ValueError(f"index={index} is out of range: the batch holds problems 0 to {len(batch.targets) - 1}")
    size, k = task.grid_size, task.n_features
    grid, orders = task.panels(batch)[index].tolist(), batch.permutations[index].tolist()
    figure, axes = _axes(size, size, size * (0.55 * k + 0.3), size * 1.05 + 0.5)
    for row, column in ((r, c) for r in range(size) for c in range(size)):
        ax, last = axes[row, column], row == column == size - 1
        ax.set(xlim=(-0.6, k - 0.4), ylim=(-1.05, 1.05), aspect="equal", xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(visible=True, color="black" if last and solution else "0.8", lw=2 if last and solution else 1)
        for place, (value, feature) in enumerate(zip(grid[row][column], orders[column], strict=True)):
            if last and not solution:
                ax.text(place, 0.0, "?", ha="center", va="center", fontsize=14, color="0.4")
                continue
            color, letter = (_PALETTE[feature], "ABCDEFGH"[feature]) if solution else ("0.25", "")
            _dial(ax, place, value, task.n_values, color, letter)
    if solution:
        names = list(RULES)
        rules = [
            f"{letter} {names[rule]}" for letter, rule in zip("ABCDEFGH", batch.rules[index].tolist(), strict=False)
        ]
        figure.supxlabel("   ".join(rules), fontsize=9)
    return figure
